"""Puzzles: verdicts follow from the numbers in either direction, and the page from both."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from tools.experiments.__main__ import judge, measure
from tools.experiments.page import markdown
from tools.experiments.puzzles import PUZZLES

DOCS = Path(__file__).resolve().parents[2] / "docs"
RECORD: dict[str, Any] = json.loads((DOCS / "puzzles.json").read_text("utf-8"))


def verdicts(loops: dict[str, Any]) -> dict[str, str]:
    return {puzzle.key: judge(puzzle, loops)["verdict"] for puzzle in PUZZLES}


def test_the_page_is_what_its_record_gives() -> None:
    """Nobody edited either of the two by hand."""
    again = {**RECORD, "puzzles": [judge(puzzle, RECORD["loops"]) for puzzle in PUZZLES]}
    assert again == RECORD
    assert markdown(RECORD) == (DOCS / "puzzles.md").read_text("utf-8")
    for puzzle in RECORD["puzzles"]:
        assert {"key", "title", "hypothesis", "prediction", "verdict", "device"} <= puzzle.keys()
        assert f"## {puzzle['title']}" in markdown(RECORD)


@pytest.mark.parametrize(
    ("loop", "change", "key"),
    [
        ("timers torch", lambda d: [r.update(cpu_s=9.0) for r in d["unwaited"][5::6]],
         "spikes-timer"),
        ("timers jittor", lambda d: [r.update(cpu_s=0.1) for r in d["unwaited"]], "spikes-timer"),
        ("kernels jittor", lambda d: d["rows"][7].update(cpu_s=9.0), "spikes-kernels"),
        ("memory jittor kept losses", lambda d: [r.update(reserved_mb=200.0) for r in d["rows"]],
         "memory-pile-up"),
        ("memory jittor panel", lambda d: d.update(held_after_gc_mb=d["held_mb"]),
         "memory-allocator"),
        ("sampling jittor cold", lambda d: d["rows"][0].update(compiler_s=0.0), "sampling-compile"),
        ("sampling jittor cold", lambda d: d["rows"][-1].update(kernels=99), "sampling-compile"),
        ("sampling jittor piled", lambda d: d["rows"][-1].update(cpu_s=1e-3), "sampling-pile-up"),
        ("sampling jittor long", lambda d: [r.update(cpu_s=9.0, held_mb=k) for k, r in
                                            enumerate(d["rows"][:6])], "sampling-growth"),
        ("shared jittor", lambda d: [r.update(wall_s=r["cpu_s"]) for r in d["rows"]],
         "sampling-neighbour"),
        ("shared jittor", lambda d: [r.update(cpu_s=9.0) for r in d["rows"][4:8]],
         "sampling-neighbour"),
        ("shared jittor", lambda d: [r.update(wall_s=9.0) for r in d["rows"][8:12]],
         "sampling-neighbour"),
    ],
)  # fmt: skip
def test_other_numbers_give_the_other_verdict(loop: str, change: Any, key: str) -> None:
    """Each measurement can turn the verdict of its own puzzle."""
    loops = copy.deepcopy(RECORD["loops"])
    before = verdicts(loops)[key]
    change(loops[loop])
    assert {before, verdicts(loops)[key]} == {"holds", "fails"}


def test_what_is_slow_by_the_clock_alone_decides_nothing() -> None:
    """A first time with new kernels, of no more processor time, may have waited for others."""
    loops = copy.deepcopy(RECORD["loops"])
    first = loops["kernels jittor"]["rows"][7]
    assert first["what"] == "sampling"
    first.update(cpu_s=0.08, wall_s=9.0)
    assert verdicts(loops)["spikes-kernels"] == "open"
    first.update(cpu_s=0.3)
    assert verdicts(loops)["spikes-kernels"] == "holds"


def test_a_verdict_that_falls_takes_its_conclusion_with_it() -> None:
    """No sentence says what the numbers beside it deny."""
    loops = copy.deepcopy(RECORD["loops"])
    loops["sampling jittor cold"]["rows"][-1]["kernels"] += 2
    loops["sampling jittor piled"]["rows"][-1]["cpu_s"] = 1e-3
    for row in loops["shared jittor"]["rows"]:
        row["wall_s"] = row["cpu_s"]
    words = {puzzle.key: judge(puzzle, loops)["words"] for puzzle in PUZZLES}
    assert "one batch slow" not in words["sampling-compile"]
    assert "no jump" not in words["sampling-pile-up"]
    assert "So a neighbour" not in words["sampling-neighbour"]


def test_growth_alone_or_slowness_alone_is_not_the_cause() -> None:
    """The hypothesis needs both, over more than one batch after the first."""
    for change in ({"held_mb": 1.0}, {"cpu_s": 9.0}):
        loops = copy.deepcopy(RECORD["loops"])
        for row in loops["sampling jittor long"]["rows"][:6]:
            row.update(change)
        assert verdicts(loops)["sampling-growth"] == "fails"


@pytest.mark.torch
def test_the_neighbour_comes_and_goes() -> None:
    """For real, in a process of its own; on one core, what it takes is waited for."""
    rows = measure(("shared", "torch", "3", "3"))["rows"]
    assert [row["what"] for row in rows] == ["alone"] * 3 + ["beside"] * 3 + ["alone"] * 3
    assert [row["spell"] for row in rows] == [0] * 3 + [1] * 3 + [2] * 3
    beside, alone = ([row for row in rows if row["what"] == name] for name in ("beside", "alone"))
    took = [sum(row["neighbour_s"] for row in each) for each in (beside, alone)]
    assert took[0] > 0.1 and took[1] < 0.05  # counted in ticks of 10 ms
    for row in rows:
        assert row["wall_s"] - row["cpu_s"] > row["neighbour_s"] - 0.05 and row["faults"] >= 0
