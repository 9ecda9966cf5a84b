"""A run goes on as what it was, or is refused with nothing changed in its folder."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import resume_jobs
from conftest import Panel
from diptych.config.load import load_config
from diptych.errors import UserError
from diptych.files import read_json, write_json
from diptych.network.plan import make_plan
from diptych.runs import checkpoint
from diptych.weights.find import find_weights

LONGER = "train.steps=10"


@pytest.fixture(scope="module")
def torch(panels: dict[str, Panel]) -> Panel:
    if "torch" not in panels:
        pytest.skip("torch is not installed")
    return panels["torch"]


@pytest.fixture(scope="module")
def begun(torch: Panel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 8 steps with checkpoints at 6 and 8, to be copied."""
    run = tmp_path_factory.mktemp("begun") / "run"
    torch.call(resume_jobs.run, "torch", run)
    return run


@pytest.fixture
def run(begun: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(begun, tmp_path / "run"))


def bits(run: Path) -> dict[str, str]:
    """Every file's hash."""
    return {
        str(path.relative_to(run)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(run.rglob("*"))
        if path.is_file()
    }


def weights(run: Path) -> str:
    config = load_config(str(run / "config.yaml"))
    state = checkpoint.load_state(checkpoint.latest(run), make_plan(config), config)
    return checkpoint.weights_sha256(state.raw) + checkpoint.weights_sha256(state.adam_v)


def refused(torch: Panel, run: Path, *changes: str, match: str, **options: Any) -> None:
    """The resume is refused in one line, and every file is as it was."""
    before = bits(run)
    options = {"own": True, "resume": True, **options}
    with pytest.raises(UserError, match=match) as error:
        torch.call(resume_jobs.run, "torch", run, *changes, **options)
    assert "\n" not in str(error.value) and bits(run) == before


def edit(path: Path, **changes: Any) -> None:
    write_json(path, read_json(path) | changes)


def test_a_config_that_was_edited_is_refused_at_resume_and_load(torch: Panel, run: Path) -> None:
    path = run / "config.yaml"
    path.write_text(path.read_text().replace("beta1: 0.9", "beta1: 0.8"))
    refused(torch, run, match="another config than the run's config.yaml now holds")
    with pytest.raises(UserError, match="another config"):
        find_weights(str(run))


def test_fewer_steps_than_are_made_change_nothing(torch: Panel, run: Path) -> None:
    refused(torch, run, "train.steps=5", match="is at step 8 already")


@pytest.mark.parametrize("step", [5, -5, True])
def test_an_edited_step_is_not_believed(torch: Panel, run: Path, step: Any) -> None:
    shutil.rmtree(run / "checkpoints" / "step-00000006")
    edit(checkpoint.latest(run) / "manifest.json", step=step)
    refused(torch, run, match=f"says step {step}, its folder says 8")
    with pytest.raises(UserError, match=f"says step {step}"):
        find_weights(str(run))


@pytest.mark.parametrize("starts", [None, True, "x", {"a": 1}, [None], [1]])
def test_starts_of_another_kind_are_refused(torch: Panel, run: Path, starts: Any) -> None:
    edit(run / "environment.json", starts=starts)
    refused(torch, run, match=f"{run / 'environment.json'}: 'starts' is not a list of starts")


def test_a_run_goes_on_from_the_newest_whole_checkpoint(
    torch: Panel, run: Path, tmp_path: Path
) -> None:
    """And ends where an undisturbed one does; the damaged one no longer counts as the newest."""
    straight = tmp_path / "straight"
    torch.call(resume_jobs.run, "torch", straight, LONGER)
    damaged = checkpoint.latest(run) / "raw.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:-7] + b"damaged")
    said = torch.call(resume_jobs.run, "torch", run, LONGER, own=True, resume=True)
    assert any("is damaged" in line and "going on from step 6" in line for line in said)
    assert weights(run) == weights(straight)
    assert (run / "checkpoints" / "step-00000008.damaged").is_dir()
    assert [p.name for p in checkpoint.all_checkpoints(run)] == ["step-00000008", "step-00000010"]


def test_a_grid_that_a_kill_has_cost_is_made_at_resume(torch: Panel, run: Path) -> None:
    grid = run / "grids" / "step-00000008.png"
    before = grid.read_bytes()
    grid.unlink()
    torch.call(resume_jobs.run, "torch", run, LONGER, own=True, resume=True)
    assert grid.read_bytes() == before


def test_a_deterministic_run_is_resumed_as_one(torch: Panel, run: Path) -> None:
    path = run / "environment.json"
    found = read_json(path)
    found["starts"][-1]["deterministic"] = True
    edit(path, deterministic=True, starts=found["starts"])
    said = torch.call(resume_jobs.run, "torch", run, LONGER, own=True, resume=True)
    found = read_json(path)
    assert found["deterministic"] is True and found["starts"][-1]["deterministic"] is True
    assert not said


def test_another_number_of_threads_is_said_and_recorded(torch: Panel, run: Path) -> None:
    path = run / "environment.json"
    found = read_json(path)
    threads = found["starts"][-1]["threads"]
    assert threads == found["threads"]
    found["starts"][-1]["threads"] = threads + 7
    write_json(path, found)
    said = torch.call(resume_jobs.run, "torch", run, LONGER, own=True, resume=True)
    assert any(f"threads {threads + 7} before, now {threads}" in line for line in said)
    assert [start["threads"] for start in read_json(path)["starts"]] == [threads + 7, threads]
    assert torch.call(resume_jobs.run, "torch", run, "train.steps=12", own=True, resume=True) == []


@pytest.fixture
def of_pictures(torch: Panel, tmp_path: Path) -> Path:
    """A run of five pictures in a folder that was named from where the user was."""
    resume_jobs.pictures(tmp_path / "here" / "five")
    run = tmp_path / "run"
    torch.call(resume_jobs.run, "torch", run, "data.source=folder:five", cwd=tmp_path / "here")
    return run


def test_a_relative_folder_is_found_from_elsewhere(torch: Panel, of_pictures: Path) -> None:
    assert str(of_pictures.parent / "here" / "five") in (of_pictures / "config.yaml").read_text()
    torch.call(resume_jobs.run, "torch", of_pictures, LONGER, own=True, resume=True)
    assert checkpoint.latest(of_pictures).name == "step-00000010"


def test_the_same_pictures_may_lie_elsewhere(torch: Panel, of_pictures: Path) -> None:
    moved = of_pictures.parent / "there"
    (of_pictures.parent / "here" / "five").rename(moved)
    refused(torch, of_pictures, LONGER, match="five")
    said = torch.call(
        resume_jobs.run, "torch", of_pictures, LONGER, f"data.source=folder:{moved}",
        own=True, resume=True,
    )  # fmt: skip
    assert said == [] and str(moved) in (of_pictures / "config.yaml").read_text()
    assert find_weights(str(of_pictures)).config.data.source == f"folder:{moved}"


def test_other_pictures_are_refused_unless_allowed(torch: Panel, of_pictures: Path) -> None:
    shutil.rmtree(of_pictures.parent / "here" / "five")
    resume_jobs.pictures(of_pictures.parent / "here" / "five", count=6, seed=1)
    refused(torch, of_pictures, LONGER, match="the images are not those of the 8 steps before")
    said = torch.call(
        resume_jobs.run, "torch", of_pictures, LONGER,
        own=True, resume=True, allow_changed_data=True,
    )  # fmt: skip
    assert any("not those of the 8 steps before" in line for line in said)
    starts = read_json(of_pictures / "environment.json")["starts"]
    assert len({start["dataset_sha256"] for start in starts}) == 2
    torch.call(resume_jobs.run, "torch", of_pictures, "train.steps=12", own=True, resume=True)


def test_a_run_without_a_record_of_its_images_keeps_its_source(
    torch: Panel, of_pictures: Path
) -> None:
    path = of_pictures / "environment.json"
    found = json.loads(path.read_text())
    for start in found["starts"]:
        del start["dataset_sha256"]
    del found["dataset_sha256"]
    write_json(path, found)
    moved = resume_jobs.pictures(of_pictures.parent / "other", seed=3)
    refused(torch, of_pictures, LONGER, f"data.source=folder:{moved}", match="did not record which")


def test_a_start_that_is_refused_leaves_no_folder(torch: Panel, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="none"):
        torch.call(
            resume_jobs.run, "torch", tmp_path / "run", f"data.source=folder:{tmp_path / 'none'}"
        )
    assert not (tmp_path / "run").exists()
