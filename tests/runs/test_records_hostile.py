"""Records of samples, latents, sweeps, studies and checkpoints whose entries are of another kind.

Every entry in its turn takes values that it should not have: whoever reads the record goes on, or
says in one line which file and which entry it is. Nothing is written before.
"""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import output_jobs
import panel_jobs
from conftest import Panel
from diptych.errors import UserError
from diptych.evaluation.sets import Settings, sample_sets
from diptych.generate.parts import join, read_records, record
from diptych.ranks import Part
from diptych.report import commands
from diptych.runs import checkpoint
from diptych.runs.folder import check_same
from diptych.runs.records import CellFile, Curve, StageNote
from diptych.runs.samples import open_samples
from diptych.study.sweep.cells import is_there, read_cells
from diptych.training.callbacks.journal import read_rows
from diptych.weights.find import find_weights, zoo_folder
from synthetic_runs import make_samples

OLD = Path(__file__).parents[1] / "old_records" / "samples"
VALUES = (None, True, -1, 10**18, 1e300, "x", [], {}, [None], [[]], {"a": None})
GONE = object()


def places(tree: Any, depth: int, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    items = tree.items() if isinstance(tree, dict) else list(enumerate(tree))[:1]
    for key, value in items:
        yield (*path, key)
        if depth and isinstance(value, (dict, list)):
            yield from places(value, depth - 1, (*path, key))


def hostile(tree: dict[str, Any], depth: int = 1) -> Iterator[tuple[str, dict[str, Any]]]:
    """Copies of a record, each with one entry gone or of another kind."""
    for path in places(tree, depth):
        for value in (GONE, *VALUES):
            found = copy.deepcopy(tree)
            at: Any = found
            for key in path[:-1]:
                at = at[key]
            if value is GONE:
                del at[path[-1]]
            else:
                at[path[-1]] = value
            said = "gone" if value is GONE else json.dumps(value)
            yield f"{'.'.join(map(str, path))} = {said}", found


def read_all(
    file: Path, tree: dict[str, Any], *readers: Callable[[], Any], depth: int = 1
) -> dict[str, str]:
    """Refusals by the entry; any error other than one line fails."""
    refused = {}
    for name, content in hostile(tree, depth):
        file.write_text(json.dumps(content))
        for reader in readers:
            try:
                reader()
            except UserError as error:
                assert "\n" not in str(error)
                refused[name] = str(error)
            except Exception as error:
                raise AssertionError(f"{name}: {type(error).__name__}: {error}") from error
    file.write_text(json.dumps(tree))
    return refused


def test_manifests_of_samples(tmp_path: Path) -> None:
    out = Path(shutil.copytree(OLD / "sample", tmp_path / "out"))
    file = out / "manifest.json"
    tree = json.loads(file.read_text())
    refused = read_all(
        file, tree,
        lambda: check_same(out, tree, ("seed", "num", "batch")),
        lambda: sample_sets([str(out)], Settings(metrics=("is",), features="mnist")),
        lambda: join(out, tree, Part(0, 1)),
        depth=0,
    )  # fmt: skip
    for name in ("config = null", "seed = []", "batch = true", "seconds = \"x\"", "num = [null]",
                 "images_timed = null", "parts = \"x\""):  # fmt: skip
        if name.split(" ")[0] in tree:
            assert str(file) in refused[name] or str(out) in refused[name], name
    assert "config: input should be a valid dictionary" in refused["config = null"]


def test_shares_of_a_folder_and_curves(tmp_path: Path) -> None:
    share = record(tmp_path, Part(0, 2))
    refused = read_all(share, {"seconds": 1.5, "images": 3}, lambda: read_records(tmp_path))
    assert f"{share}: images: " in refused["images = null"]
    curve = {"curve": [{"steps": 2, "network_calls": 4, "mse": 0.5}]}
    refused = read_all(tmp_path / "c.json", curve, lambda: Curve.content(tmp_path / "c.json"))
    assert "curve.0.mse" not in refused and "curve: " in refused["curve = true"]


def test_cells_of_a_sweep(tmp_path: Path) -> None:
    out = Path(shutil.copytree(OLD / "sweep", tmp_path / "sweep"))
    file = sorted((out / "cells").glob("*.json"))[0]
    tree = json.loads(file.read_text())
    refused = read_all(file, tree, lambda: read_cells(out), lambda: is_there(file, tree["request"]))
    assert f"{file}: network_calls: " in refused["network_calls = null"]
    assert f"{file}: request: " in refused["request = true"]
    assert f"{file}: scores: " in refused["scores = gone"]
    for value in ("torchh", ""):
        file.write_text(json.dumps(tree | {"backend": value}))
        with pytest.raises(UserError, match="has an unknown backend"):
            read_cells(out)
    CellFile.of(tree, "")


def test_notes_of_a_study(tmp_path: Path) -> None:
    file = tmp_path / "note.json"
    tree = {"words": ["train"], "state": "done", "time": 1.0, "made_of": {"a": "b"}}
    refused = read_all(file, tree, lambda: StageNote.content(file))
    assert f"{file}: time: " in refused["time = []"]
    assert f"{file}: made_of: " in refused["made_of = [null]"]


def test_manifests_of_saved_weights(tmp_path: Path) -> None:
    saved = Path(shutil.copytree(zoo_folder() / "mnist-torch", tmp_path / "saved"))
    file = saved / "manifest.json"
    tree = json.loads(file.read_text())
    tree = {key: value for key, value in tree.items() if key != "scores"}
    few = {key: tree.pop(key) for key in list(tree) if key not in ("files", "sampler", "weights")}
    refused = read_all(file, {**tree, "backend": few.get("backend")},
                       lambda: find_weights(str(saved)))  # fmt: skip
    assert f"{file}: files: " in refused["files = true"]
    assert "the checkpoint is not whole: use another one" in refused["files = true"]
    with pytest.raises(checkpoint.Damaged):
        file.write_text("[]")
        checkpoint.read_manifest(saved)


def test_rows_of_a_journal(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    for row in ('{"step": 1e400, "loss": 1}', '{"step": NaN, "loss": 1}', '{"step": [], "loss": 1}',
                '{"step": 1, "loss": {}}', "[1]", "7"):  # fmt: skip
        file.write_text(f'{{"step": 1, "loss": 0.5}}\n{row}\n')
        with pytest.raises(UserError, match="line 2: not a row of a journal"):
            read_rows(file)


def resumed(folder: Path) -> dict[str, tuple[str, bool]]:
    """Refusals by the entry as the folder is resumed, and True if the folder has changed."""
    model = panel_jobs.make("torch", panel_jobs.small(*output_jobs.NETWORK))
    output_jobs.samples(model, folder)
    file = folder / "manifest.json"
    tree = json.loads(file.read_text())
    found: dict[str, tuple[str, bool]] = {}
    entries = ("config", "trajectory", "seconds", "images_timed", "batch")
    for name, content in hostile({key: tree[key] for key in entries}, depth=0):
        file.write_text(json.dumps({**tree, **content}))
        if name.endswith("= gone"):
            continue
        before = output_jobs.contents(folder)
        try:
            output_jobs.samples(model, folder)
        except UserError as error:
            found[name] = str(error), output_jobs.contents(folder) != before
    return found


@pytest.mark.torch
def test_a_folder_of_samples_with_a_hostile_manifest(
    panels: dict[str, Panel], tmp_path: Path
) -> None:
    found = panels["torch"].call(resumed, tmp_path / "out")
    assert len(found) > 35
    for name, (said, changed) in found.items():
        assert "\n" not in said and str(tmp_path / "out") in said and not changed, name
    for name in ("config = null", "trajectory = [null]", 'seconds = "x"', "images_timed = null"):
        assert f"manifest.json: {name.split(' ')[0]}: " in found[name][0]


def test_a_command_has_all_digits_of_a_number() -> None:
    card = {"solver": "ddim", "steps": 10, "eta": 0.1234567, "threshold": 0.9999999}
    words = commands.sample("run", "torch", card, "out").split()
    assert words[words.index("--eta") + 1] == "0.1234567"
    assert words[words.index("--threshold") + 1] == "0.9999999"
    assert "--eta 1 " in commands.sample("run", "torch", {"eta": 1.0}, "out")


def test_a_command_tells_how_a_multistep_solver_ended() -> None:
    for ended, word in ((True, "--euler-at-final"), (None, "--no-euler-at-final")):
        card = {"solver": "dpmpp", "steps": 10, "euler_at_final": ended}
        assert word in commands.sample("run", "torch", card, "out").split()
    assert "euler" not in commands.sample("run", "torch", card | {"solver": "ddim"}, "out")


def test_samples_are_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    """Names are longer from image 100,000 on; a superscript two is no number."""
    folder = make_samples(tmp_path / "s", "torch", count=3)
    before = open_samples(folder).images
    for k, name in enumerate(("0", "1", "02")):  # by its text "02" comes before "1"
        (folder / f"{k:05}.png").rename(folder / f"{name}.png")
    (folder / "1\u00b2.png").touch()
    assert (open_samples(folder).images == before).all()
