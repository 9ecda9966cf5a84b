"""Records as contracts: those of earlier versions are read, hostile ones end in one line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from diptych.cli import cli
from diptych.errors import UserError
from diptych.profiling.record import Profile
from diptych.profiling.table import render
from diptych.report.build import compare_runs, report_runs
from diptych.report.sources.schemas import known
from diptych.runs.records import Difference, StudyNotes
from report_records import (
    said,
    table,
    undrawn,  # noqa: F401 - a fixture
    whole_study,
    write,
)
from synthetic_runs import edited, make_rows, make_run, make_samples

OLD = Path(__file__).parents[1] / "old_records"  # written by version 0.1.0, schema 1
KINDS = {"align.json": "ladder", "free.json": "training", "sweep.json": "sweep",
         "scores.json": "scores", "batches.json": "batches", "profile-torch.json": "profile",
         "profile-jittor.json": "profile"}  # fmt: skip
FUSED = "inside the optimizer's one pass over the weights"


@pytest.mark.parametrize("name", KINDS)
def test_a_record_of_an_earlier_version_is_read(name: str) -> None:
    assert json.loads((OLD / name).read_text())["schema"] == 1
    found = known(OLD / name)
    assert found is not None and (found[0], found[2]) == (KINDS[name], "")


def test_other_records_of_an_earlier_version_are_read() -> None:
    assert Difference.read(OLD / "difference.json").values_differing == 0
    assert StudyNotes.read(OLD / "study.json").preset == "tiny"


def test_a_profile_of_an_earlier_version_says_in_fields_what_its_notes_said() -> None:
    """Fused operators and the number of loaded kernels were once English notes."""
    found = Profile.read(OLD / "profile-jittor.json")
    phases = {phase.name: phase for phase in found.phases}
    assert phases["ema"].fused and phases["ema"].note == ""
    assert phases["compile"].kernels == 42 and "kernels" not in phases["compile"].note
    other = Profile.read(OLD / "profile-torch.json")
    assert not any(phase.fused or phase.kernels for phase in other.phases)
    again = Profile.of(found.model_dump() | {"schema": 2}, "")
    assert again.phases == found.phases
    text = render(found.model_dump())
    assert FUSED in text and "; 42 kernels loaded" in text


@pytest.mark.usefixtures("undrawn")
def test_a_report_of_an_earlier_version_s_records(tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(OLD / "run", run)
    for name in KINDS:
        shutil.copy(OLD / name, run)
    samples = make_samples(run / "samples", "torch")
    shutil.copy(OLD / "samples-manifest.json", samples / "manifest.json")
    content = report_runs([run], tmp_path / "out")
    assert content["records_damaged"] == []
    phases = table(content, "Parts of a training step")
    assert FUSED in phases["moving average"]
    assert any("42 kernels" in cell for cell in phases["compile, once"])
    assert said(content, "align.ladder") and said(content, "align.training")
    keys = {section["key"] for section in content["sections"]}
    assert {"sampling", "scores", "sweep", "pictures"} <= keys


DEEP = "[" * 100_000
HUGE = "1" + "0" * 400
VALUES = {
    "nested 100,000 deep": DEEP,
    "400 digits": HUGE,
    "5,000 digits": HUGE * 13,
    "infinite": "Infinity",
    "text": '"many"',
    "a list": "[1, [2]]",
}
# A run's own files: each key of them holds each value.
OWN = {
    "environment.json": ("backend", "dataset_images", "dataset_sha256", "starts", "threads"),
    "metrics.jsonl": ("step", "epoch", "loss", "compute_s", "memory_mb", "synced", "ended"),
    "resources.jsonl": ("time", "cpu_percent", "rss_mb", "own_s", "gpu", "counters"),
    "events.jsonl": ("time", "seconds", "kind"),
}


def plant(path: Path, key: str, value: str, line: int) -> None:
    """The JSON text `value` in place of a key's value, in one line of a file."""
    lines = path.read_text().splitlines()
    row = json.loads(lines[line])
    lines[line] = json.dumps({**row, key: "@"}).replace('"@"', value, 1)
    path.write_text("\n".join(lines) + "\n")


def outcome(*words: str) -> None:
    """A command that goes well, or is refused in one line with exit code 2."""
    try:
        CliRunner().invoke(cli, [*words], catch_exceptions=False, standalone_mode=False)
    except UserError as error:
        assert "\n" not in str(error) and error.exit_code == 2 and len(str(error)) < 2000


@pytest.fixture
def watched(tmp_path: Path) -> tuple[Path, Path]:
    """Two runs with all files that a run may have, with a slow step."""
    rows = [row | {"ended": 1e9 + row["step"]}
            for row in make_rows(20, change=edited("compute_s", {9: 5.0}))]  # fmt: skip
    starts = {"starts": [{"step": 0, "time": 1e9}, {"step": 15, "time": 1e9 + 15}]}
    runs = [make_run(tmp_path / panel, panel, rows, environment=starts)
            for panel in ("torch", "jittor")]  # fmt: skip
    for run in runs:
        path = run / "resources.jsonl"
        path.write_text("".join(json.dumps(
            {"time": 1e9 + s, "rss_mb": 600, "cpu_percent": 150, "others_percent": 20.0,
             "own_s": 1e-3, "probe_s": 3e-3, "counters": {"allocated_mb": 100.0},
             "gpu": {"memory_mb": 900.0}}) + "\n" for s in range(30)))  # fmt: skip
        events = [{"time": 1e9 + s, "kind": "checkpoint", "seconds": 0.5} for s in (3, 9, 12)]
        (run / "events.jsonl").write_text("".join(json.dumps(e) + "\n" for e in events))
    return runs[0], runs[1]


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize("name", OWN)
def test_a_hostile_value_in_a_run_is_no_traceback(
    tmp_path: Path, watched: tuple[Path, Path], name: str, value: str
) -> None:
    path = watched[1] / name
    whole = path.read_text()
    for n, key in enumerate(OWN[name]):
        path.write_text(json.dumps(json.loads(whole)) if name.endswith(".json") else whole)
        plant(path, key, VALUES[value], 0 if name.endswith(".json") else 1)
        outcome("profile", str(watched[1]), "--outliers")
        verb = "report" if name == "resources.jsonl" or n == 0 else "compare"
        outcome(verb, *map(str, watched), "--out", str(tmp_path / f"o{n}"))


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("value", VALUES)
def test_a_hostile_start_or_setting_is_no_traceback(
    tmp_path: Path, watched: tuple[Path, Path], value: str
) -> None:
    path = watched[1] / "environment.json"
    facts = json.loads(path.read_text())
    for n, key in enumerate(("step", "time")):
        start = json.dumps({"step": 3, "time": 5.0} | {key: "@"}).replace('"@"', VALUES[value])
        path.write_text(json.dumps(facts | {"starts": ["@"]}).replace('"@"', start))
        outcome("compare", *map(str, watched), "--out", str(tmp_path / f"c{n}"))
    path.write_text(json.dumps(facts))
    for n, key in enumerate(("train: {lr", "train: {epochs", "data: {image_size", "model: {ch")):
        (watched[1] / "config.yaml").write_text(f"{key}: {VALUES[value]}}}\n")
        outcome("report", *map(str, watched), "--out", str(tmp_path / f"r{n}"))
        outcome("compare", *map(str, watched), "--unmatched", "--out", str(tmp_path / f"u{n}"))


BESIDE = {
    "sweep/sweep.json": ("request", "cells", "steps", "network_calls", "mnist-frechet"),
    "align/align.json": ("rungs", "passed", "preset", "error", "margin", "mutations", "verdict"),
    "profile/torch.json": ("phases", "median_s", "share", "note", "memory", "ratio", "rss_mb"),
    "batches/torch.json": ("seconds", "batch", "steps", "solver"),
    "scores/torch-seed0-mnist.json": ("scores", "value", "repeats", "protocol", "num", "metric"),
    "runs/torch-seed0/samples/ddim-50/manifest.json": ("num", "batch", "seconds_per_image",
                                                       "steps", "eta", "weights_sha256", "solver"),
    "study.json": ("runs", "stages", "seeds", "preset", "quick", "seconds", "state", "name"),
    "difference.json": ("values", "mean_levels", "images"),
}  # fmt: skip


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("name", BESIDE)
def test_a_hostile_value_beside_the_runs_is_no_traceback(tmp_path: Path, name: str) -> None:
    """Such a record is left out and named, or refused; what is right about it is still shown."""
    folder = tmp_path / "study"
    runs = whole_study(folder, 30)
    notes = {"kind": "study", "preset": "tiny", "backends": ["torch"], "seeds": [0],
             "quick": False, "runs": {run.name: str(run.relative_to(folder)) for run in runs},
             "stages": [{"name": "a", "state": "done", "seconds": 3.0}]}  # fmt: skip
    write(folder / "study.json", notes)
    write(folder / "difference.json", {"kind": "difference", "images": 4, "images_equal": 4,
          "values": 9, "values_differing": 0, "max_levels": 0, "mean_levels": 0.0})  # fmt: skip
    path = folder / name
    whole = path.read_text()
    n = 0
    for key in BESIDE[name]:
        for value in VALUES.values():
            path.write_text(everywhere(whole, key, value))
            found = known(path)
            assert found is None or "\n" not in found[2]
            n += 1
            if n == 1 or found is None or not found[2]:  # what is left out is left out alike
                outcome("report", str(folder), "--out", str(tmp_path / f"out{n}"))
    if name.endswith("manifest.json"):
        folders = [run / "samples" / "ddim-50" for run in runs]
        for value in VALUES.values():
            path.write_text(everywhere(whole, "seconds_per_image", value))
            outcome("compare", *map(str, runs), "--out", str(tmp_path / f"c{len(value)}"),
                    "--samples", *map(str, folders))  # fmt: skip


def everywhere(text: str, key: str, value: str) -> str:
    """JSON text in which each value of a key is replaced."""

    def planted(found: Any) -> Any:
        if isinstance(found, dict):
            return {k: "@" if k == key else planted(v) for k, v in found.items()}
        return [planted(each) for each in found] if isinstance(found, list) else found

    changed = json.dumps(planted(json.loads(text)))
    assert '"@"' in changed, key
    return changed.replace('"@"', value)


@pytest.mark.usefixtures("undrawn")
def test_raw_html_of_a_name_is_text_in_markdown(tmp_path: Path) -> None:
    """Not every Markdown takes a backslash before a tag; the page shows the name as it is too."""
    name = "<img src=x onerror=alert(1)>&amp;"
    run = make_run(tmp_path / name, "torch", make_rows(30), environment={"cpu": "<b>x</b>"})
    report_runs([run], tmp_path / "out", markdown_too=True)
    for file in ("report.md", "report.zh.md"):
        text = (tmp_path / "out" / file).read_text("utf-8")
        outside = "".join(text.split("```")[::2])
        tags = {"<details>", "</details>", "<summary>", "</summary>"}
        for tag in tags:
            outside = outside.replace(tag, "")
        assert "<" not in outside and "&lt;img src=x onerror=alert(1)&gt;&amp;amp;" in outside


@pytest.mark.usefixtures("undrawn")
def test_a_static_page_has_no_script(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / panel, panel, make_rows(30)) for panel in ("torch", "jittor")]
    report_runs(runs, tmp_path / "out", static=True, language="zh")
    compare_runs(*runs, tmp_path / "compared", static=True)
    for folder in ("out", "compared"):
        page = (tmp_path / folder / "index.html").read_text("utf-8")
        assert "<script" not in page and "<button" not in page and len(page) < 300_000
        assert page.count("<picture>") >= 5 and 'data-theme="auto"' in page
