"""The report on profiles, memory and resources; and Chinese text without English remnants."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from diptych.pages.catalogue import catalogue
from diptych.profiling import outliers
from diptych.report.build import report_runs
from diptych.runs.watch.read import cost
from report_records import (
    figures,
    make_profile,
    said,
    table,
    undrawn,  # noqa: F401 - a fixture
    watch,
    whole_study,
)
from synthetic_runs import make_rows, make_run


@pytest.mark.usefixtures("undrawn")
def test_the_profile_is_told_whole(tmp_path: Path) -> None:
    """The whole step, the price of splitting, what was fused, compiling as what happens once."""
    run = make_run(tmp_path / "run", "torch", make_rows(20))
    make_profile(run / "profile.json", "torch")
    made = report_runs([run], tmp_path / "out")
    rows = {name: cells[0] for name, cells in table(made, "Parts of a training step").items()}
    assert rows["the same step whole"] == "300 ms"
    assert rows["sum of the parts without data"] == "321 ms"
    assert (
        rows["split / whole, median of neighbouring pairs"]
        == "1.070 (95 % interval 1.040 to 1.110)"
    )
    assert rows["compile, once"] == "24.0 s (37 kernels)"
    assert rows["moving average"] == "inside the optimizer's one pass over the weights"
    assert rows["memory of the process"] == "500 MiB, at the end 512 MiB"
    assert rows["held by the allocator"] == "45 MiB, at the end 46 MiB"
    assert "allocated" not in rows  # not recorded
    assert "taken off forward" in said(made, "cost.phase.to_device")[0]["en"]
    assert not said(made, "cost.phase.data")


@pytest.mark.usefixtures("undrawn")
def test_memory_of_framework_and_card_is_shown_where_recorded(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", "torch", make_rows(20))
    watch(run, 90)
    made = report_runs([run], tmp_path / "out")
    rows = {name: cells[0] for name, cells in table(made, "Memory in framework and card").items()}
    assert rows == {"allocated": "189 MiB", "held by the allocator": "256 MiB",
                    "live arrays": "730", "used on the card": "900 MiB",
                    "the card's memory": "8,000 MiB", "the card's use, median": "61 %"}  # fmt: skip
    drawn = figures(tmp_path / "out" / "index.html")["memory-held"]["traces"]
    assert [t["label"]["en"] for t in drawn] == ["run, held", "run, allocated", "run, card"]
    bare = make_run(tmp_path / "bare", "torch", make_rows(20))
    made = report_runs([bare], tmp_path / "again")
    assert "memory-held" not in figures(tmp_path / "again" / "index.html")


@pytest.mark.usefixtures("undrawn")
def test_watching_costs_what_its_thread_and_the_steps_readings_cost(tmp_path: Path) -> None:
    """The readings at every step, the larger part, were once left out."""
    run = make_run(tmp_path / "run", "torch", make_rows(20))
    watch(run, 90)
    made = report_runs([run], tmp_path / "out")
    known = cost(run)
    assert known is not None
    numbers = said(made, "cost.watching")[0]["numbers"]
    assert numbers["total"] == pytest.approx(known["own_s"] + known["probe_s"]) == 89 * 4e-3
    assert numbers["share"] == pytest.approx(4e-3)
    assert "0.40 % of the time" in said(made, "cost.watching")[0]["en"]


@pytest.mark.usefixtures("undrawn")
def test_no_english_is_left_in_the_chinese(tmp_path: Path, monkeypatch: Any) -> None:
    """Parts, causes, verdicts, samplers' settings: no cell or line that should have a name."""
    known = {"median_s": 0.1, "k": 2.0, "steps": 9, "outliers": [{"step": 3}] * 2,
             "unexplained": 1, "excess_s": 1.0, "share": 0.5, "evidence": ["resources", "events"],
             "by_cause": {name: {"steps": 1, "excess_s": 1.0} for name in CAUSES}}  # fmt: skip
    monkeypatch.setattr(outliers, "attribute", lambda run: known)
    runs = whole_study(tmp_path, 60)
    report_runs(runs, tmp_path / "out", search=[tmp_path], markdown_too=True)
    text = (tmp_path / "out" / "report.zh.md").read_text("utf-8")
    cells = {c.strip() for line in text.splitlines() if line.startswith("|")
             for c in line.split("|")}  # fmt: skip
    english = {"data", "to_device", "forward", "backward", "optimizer", "compile", "pass",
               "fail", "none", "network calls", "spacing", *CAUSES}  # fmt: skip
    assert not cells & english
    assert not [c for c in cells if "s/image" in c or "one pass" in c]
    for figure in figures(tmp_path / "out" / "index.html").values():
        names = {t["label"]["zh"] for t in figure["traces"]}
        assert not names & english
        assert not [n for n in names if "others" in n]


CAUSES = ("data", "checkpoint", "grid", "flush", "histograms", "validation", "gc", "compile",
          "first step", "neighbours", "scheduling", "paused", "steal", "memory",
          "unexplained")  # fmt: skip


def test_every_cause_that_is_looked_for_has_a_name() -> None:
    source = Path(outliers.__file__).read_text("utf-8")
    found = set(re.findall(r'(?<!\.)found(?: = \{|\[)"([a-z ]+)"', source)) | {*outliers.WAITING}
    found |= {*outliers.INTERRUPTIONS, "unexplained", "data"}
    assert len(found) >= 12 and found <= {*CAUSES}
    assert {f"cause.{name.replace(' ', '_')}" for name in CAUSES} <= set(catalogue())
