"""Inputs that the comparer refuses, each in one line that says what to do next."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from diptych.report import compare_runs
from diptych.report.numbers.pair import mismatches
from diptych.runs.reader import read_run
from synthetic_runs import (
    make_rows,
    make_run,
    make_samples,
    pair,
    refused,
    undrawn,  # noqa: F401 - a fixture
    words,
)

OWN = {"class": "Net", "shapes_sha256": "aa" * 32}


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"train": {"lr": 1.0e-3, "beta1": 0.5}}, r"train.lr is 0.0002 and 0.001, train.beta1"),
        ({"seed": 1}, "seed is 0 and 1"),
        ({"train": {"noise": "device"}}, "train.noise is device in b"),
        ({"environment": {"dataset_sha256": "77ab" * 16}}, "440fcabf73cc and 77ab77ab77ab"),
        ({"environment": {"network": OWN}}, "they are other networks: Diptych's U-Net and Net (aa"),
        ({"environment": {"dataset_sha256": None}}, "environment.json of b names no"),
    ],
)
def test_runs_that_drew_other_numbers_are_refused(
    tmp_path: Path, options: dict[str, Any], says: str
) -> None:
    runs = pair(tmp_path, **options)
    text = refused(tmp_path, *runs)
    assert says in text and text.endswith("distributions only: --unmatched")
    result = compare_runs(*runs, tmp_path / "out", matched=False)
    assert says in words(result, "unmatched")
    assert result["numbers"]["difference"] is None and "difference.png" not in result["figures"]
    page = (tmp_path / "out" / "index.html").read_text()
    assert "not compared step by step" in page and "Step by step" not in page


def test_runs_without_common_steps_or_of_other_epochs_are_refused(tmp_path: Path) -> None:
    late = [row | {"step": row["step"] + 60} for row in make_rows(60)]
    assert "no common steps (1 to 60 and 61 to 120)" in refused(
        tmp_path, *pair(tmp_path, None, late)
    )
    shorter = make_rows(60, per_epoch=50)
    runs = pair(tmp_path / "epochs", None, shorter)
    assert "step 51 is in epoch 0 and 1" in refused(tmp_path, *runs)


@pytest.mark.usefixtures("undrawn")
def test_durations_and_cadences_may_differ(tmp_path: Path) -> None:
    train = {
        "epochs": 3,
        "log_every": 5,
        "checkpoint_every": 7,
        "keep_checkpoints": 9,
        "grid_every": 4,
        "checkpoint_activations": True,
    }
    result = compare_runs(*pair(tmp_path, train=train), tmp_path / "out")
    assert {d["key"] for d in result["config_differences"]} == {f"train.{key}" for key in train}
    assert result["work_differences"] == ["train.checkpoint_activations"]  # a step takes longer


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("key", ["accumulate", "precision", "compile", "noise", "batch_size"])
def test_what_changes_the_work_of_a_step_is_named_with_its_time(tmp_path: Path, key: str) -> None:
    other = {"accumulate": 2, "precision": "bf16", "compile": True, "noise": "keyed",
             "batch_size": 32}  # fmt: skip
    runs = pair(tmp_path, train={key: other[key]})
    result = compare_runs(*runs, tmp_path / "out", matched=False)
    assert result["work_differences"] == [f"train.{key}"]


@pytest.mark.parametrize("name", ["config.yaml", "environment.json", "metrics.jsonl"])
def test_a_folder_that_is_no_run_is_refused(tmp_path: Path, name: str) -> None:
    a, b = pair(tmp_path)
    (b / name).unlink()
    assert f"not a run folder: {name} missing" in refused(tmp_path, a, b)
    assert "no such folder" in refused(tmp_path, a, tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda lines: [*lines[:6], lines[6][:20], *lines[7:]], "line 7 is not valid JSON"),
        (lambda lines: [*lines[:6], *lines[7:]], "line 7: step 7 missing"),
        (lambda lines: [*lines[:6], *lines[9:]], "line 7: steps 7 to 9 missing"),
        (lambda lines: [*lines[:7], *lines[6:]], "line 8: step 7 recorded twice"),
        (lambda lines: [lines[5], *lines[1:]], "line 2: step 2 follows step 6"),
        (lambda lines: [*lines[:6], "[]", *lines[7:]], "line 7: expected a JSON object"),
        (lambda lines: [lines[0].replace('"step": 1', '"step": "1"'), *lines[1:]], "'step' is '1'"),
        (
            lambda lines: [lines[0].replace('"data_s": 0.001', '"data_s": -1'), *lines[1:]],
            "'data_s' is -1",
        ),
        (lambda lines: [lines[0].replace("data_s", "data"), *lines[1:]], "'data_s' is None"),
        (lambda lines: [], "no step is recorded"),
        (lambda lines: ['{"step": 1, "epo'], "no step is recorded"),
    ],
)
def test_a_broken_record_is_refused_by_line(tmp_path: Path, change: Any, says: str) -> None:
    a, b = pair(tmp_path)
    path = b / "metrics.jsonl"
    path.write_text("\n".join(change(path.read_text().splitlines())) + "\n")
    assert says in refused(tmp_path, a, b)


def test_broken_json_and_config_are_refused(tmp_path: Path) -> None:
    a, b = pair(tmp_path)
    (b / "environment.json").write_text("{")
    assert "environment.json" in refused(tmp_path, a, b)
    (b / "environment.json").write_text("{}")
    assert "environment.json: backend: field required" in refused(tmp_path, a, b)
    (a / "config.yaml").write_text("train: {lrr: 1}")
    assert "train.lrr" in refused(tmp_path, a, b)


@pytest.mark.usefixtures("undrawn")
def test_differing_pixels_are_counted(tmp_path: Path) -> None:
    runs = pair(tmp_path)
    a = make_samples(tmp_path / "sa", "torch")
    b = make_samples(tmp_path / "sb", "jittor", flipped=313, levels=4)
    result = compare_runs(*runs, tmp_path / "out", samples=(a, b))
    pixels = result["numbers"]["samples"]["pixels"]
    assert (pixels["values"], pixels["values_differing"], pixels["max_levels"]) == (50176, 313, 4)
    assert "313 differ (0.62 %), by at most 4 of 255" in words(result, "samples")
    same = make_samples(tmp_path / "sc", "jittor")
    result = compare_runs(*runs, tmp_path / "out2", samples=(a, same))
    assert words(result, "samples") == (
        "All 50,176 uint8 values of the 64 images of torch and jittor are equal."
    )


@pytest.mark.usefixtures("undrawn")
def test_unlike_sample_folders_are_refused(tmp_path: Path) -> None:
    a, b = pair(tmp_path)
    first = make_samples(tmp_path / "sa", "torch")
    eta = make_samples(tmp_path / "sb", "jittor", card={"eta": 1.0, "seed": 4})
    assert "eta, seed differ" in refused(tmp_path, a, b, samples=(first, eta))
    assert "in the order of the runs" in refused(tmp_path, a, b, samples=(eta, first))
    result = compare_runs(a, b, tmp_path / "u", samples=(first, eta), matched=False)
    assert words(result, "samples").endswith("eta, seed differ.")
    (eta / "00003.png").unlink()
    assert "without a gap" in refused(tmp_path, a, b, samples=(first, eta))
    (first / "00004.png").write_bytes(b"no")
    assert "00004.png: not a readable PNG" in refused(tmp_path, a, b, samples=(first, eta))
    assert "not a sample folder" in refused(tmp_path, a, b, samples=(a, b))


@pytest.mark.parametrize(
    ("backend", "other", "apart"),
    [
        ("torch", OWN, False),
        ("torch", OWN | {"class": "Other"}, True),
        ("torch", OWN | {"shapes_sha256": "bb" * 32}, True),
        ("jittor", OWN | {"class": "Other"}, False),
        ("jittor", OWN | {"shapes_sha256": "bb" * 32}, True),
        ("jittor", None, True),
    ],
)
def test_networks_of_ones_own_are_told_apart(
    tmp_path: Path, backend: str, other: Any, apart: bool
) -> None:
    a = make_run(tmp_path / "a", "torch", make_rows(10), environment={"network": OWN})
    b = make_run(tmp_path / "b", backend, make_rows(10), environment={"network": other})
    found = [text.en for text in mismatches(read_run(a), read_run(b))]
    assert any("other networks" in text for text in found) == apart
    assert len(found) == apart


@pytest.mark.parametrize(
    "card", [{"start": {"kind": "latents"}}, {"level": 400}, {"euler_at_final": True}], ids=str
)
def test_samples_with_another_start_are_refused(tmp_path: Path, card: dict[str, Any]) -> None:
    first = make_samples(tmp_path / "sa", "torch")
    other = make_samples(tmp_path / "sb", "jittor", card=card)
    text = refused(tmp_path, *pair(tmp_path), samples=(first, other))
    assert f"{next(iter(card))} differ" in text
