"""Records that are damaged or belong to another program or backend: named, not read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from diptych.report.build import report_runs
from report_records import (
    figures,
    make_batches,
    make_ladder,
    make_profile,
    make_scores,
    make_sweep,
    said,
    undrawn,  # noqa: F401 - a fixture
    write,
)
from synthetic_runs import make_rows, make_run

DAMAGED: dict[str, tuple[dict[str, Any], str]] = {
    "training": ({"kind": "align-train"}, "overall"),
    "ladder": ({"kind": "align"}, "preset"),
    "sweep": ({"kind": "diptych sweep", "cells": [{"backend": "torch"}]}, "request"),
    "cell": (
        {"kind": "diptych sweep", "request": {"weights_sha256": "a"},
         "cells": [{"backend": "torch", "steps": 3, "network_calls": 3, "fid": "low",
                    "fid_protocol_id": "a"}]},
        "fid should be a number",
    ),
    "scores": ({"kind": "diptych scores", "scores": "no"}, "scores"),
    "nameless": ({"kind": "profile", "backend": "torch", "phases": [{"median_s": 1.0}]}, "name"),
    "text": (
        {"kind": "profile", "backend": "torch", "phases": [{"name": "x", "median_s": "1"}]},
        "median_s",
    ),
    "batches": ({"kind": "batch_times", "backend": "torch", "seconds": ["1"]}, "seconds.0"),
}  # fmt: skip


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_record_is_named_and_left_out(tmp_path: Path, name: str) -> None:
    """Each of these ended a report with a traceback, or in a sentence about None."""
    run = make_run(tmp_path / "run", "torch", make_rows(20))
    content, reason = DAMAGED[name]
    write(run / f"{name}.json", content)
    made = report_runs([run], tmp_path / "out")
    assert [each["file"] for each in made["records_damaged"]] == [f"../run/{name}.json"]
    assert reason in made["records_damaged"][0]["reason"]
    assert f"run/{name}.json" in said(made, "records.damaged")[0]["en"]
    assert "of None" not in " ".join(s["en"] for s in said(made, ""))


@pytest.mark.usefixtures("undrawn")
def test_a_torn_record_does_not_vanish(tmp_path: Path) -> None:
    """A score file that was cut short, and one that was changed by hand; others' files are not
    spoken of."""
    run = make_run(tmp_path / "run", "torch", make_rows(20))
    torn = make_scores(run / "torn.json", "torch", {"fid": [3.0]})
    torn.write_bytes(torn.read_bytes()[:-40])
    changed = make_scores(run / "changed.json", "torch", {"fid": [3.0]})
    changed.write_text(changed.read_text().replace('"num": 2000', '"num": 10'))
    (run / "broken.json").write_text('{"x": ')
    (run / "deep.json").write_text("[" * 100_000)
    write(run / "other.json", {"kind": "somebody else's", "scores": 5})
    made = report_runs([run], tmp_path / "out")
    reasons = {Path(each["file"]).name: each["reason"] for each in made["records_damaged"]}
    assert set(reasons) == {"torn.json", "changed.json"}
    assert "not complete JSON" in reasons["torn.json"] and "by hand" in reasons["changed.json"]
    assert said(made, "records.damaged")[0]["numbers"]["n"] == 2


@pytest.mark.usefixtures("undrawn")
def test_what_the_commands_write_is_not_damaged(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", "torch", make_rows(20))
    make_scores(run / "a.json", "torch", {"fid": [3.0]})
    make_sweep(run, ("torch",))
    make_ladder(run / "align.json")
    make_profile(run / "profile.json", "torch")
    make_batches(run / "batches.json", "torch")
    assert report_runs([run], tmp_path / "out")["records_damaged"] == []


@pytest.mark.usefixtures("undrawn")
def test_strange_starts_are_no_traceback(tmp_path: Path) -> None:
    for n, starts in enumerate((5, [5, {"step": "x"}, {}], None)):
        run = make_run(tmp_path / f"run{n}", "torch", make_rows(40), environment={"starts": starts})
        assert report_runs([run], tmp_path / f"out{n}")["runs"][0]["steps"] == 40


@pytest.mark.usefixtures("undrawn")
def test_a_panel_that_no_run_has_is_not_shown(tmp_path: Path) -> None:
    """A report of PyTorch's run alone showed Jittor's profile and batch times."""
    run = make_run(tmp_path / "runs" / "a", "torch", make_rows(20))
    for panel in ("torch", "jittor"):
        make_profile(tmp_path / "profile" / f"{panel}.json", panel)
        make_batches(tmp_path / "batches" / f"{panel}.json", panel)
    made = report_runs([run], tmp_path / "out", search=[tmp_path])
    assert made["records_left_out"] == 2
    drawn = figures(tmp_path / "out" / "index.html")
    assert {x for trace in drawn["split"]["traces"] for x in trace["x"]} == {"torch"}
    assert len(drawn["sampling-time"]["traces"]) == 1
    heads = [t["head"] for p in made["sections"] for t in p["tables"] if p["key"] != "records"]
    assert not any("jittor" in cell for head in heads for cell in head)
