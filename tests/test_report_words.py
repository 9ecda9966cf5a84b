"""What a report says of several pairs of runs: each by name, of each kind some, nothing unfounded."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from diptych.report.chapters_short import VERDICTS
from diptych.report.report import report_runs
from report_records import (
    hold_weights,
    make_scores,
    said,
    undrawn,  # noqa: F401 - a fixture
)
from synthetic_runs import make_rows, make_run

pytestmark = pytest.mark.usefixtures("undrawn")


def seeds(folder: Path, n: int = 3, steps: int = 60) -> list[Path]:
    """Runs of both panels from n seeds, in pairs."""
    return [
        make_run(folder / f"{panel}-{seed}", panel, rows, seed=seed)
        for seed in range(n)
        for panel, rows in (
            ("torch", make_rows(steps, stream=seed)),
            ("jittor", make_rows(steps, relative=1e-6, stream=seed + 9)),
        )
    ]


def test_in_short_stands_something_of_every_kind(tmp_path: Path) -> None:
    """Three seeds in two panels fill the chapters; the top holds two of a kind, and says so."""
    runs = seeds(tmp_path)
    for i, panel in enumerate(("torch", "jittor")):
        hold_weights(runs[i], panel)
        make_scores(tmp_path / f"{panel}-0.json", panel, {"fid": [3.0 + i, 3.1 + i, 2.9 + i]})
    content = report_runs(runs, tmp_path / "out")
    top = said(content, "", "short")
    kinds = Counter(next((k for k in VERDICTS if s["key"].startswith(k)), "") for s in top)
    assert kinds["memory.peak."] == kinds["difference"] == kinds["run.end."] == 2
    assert top[0]["key"] == "matched" and said(content, "score.fid", "short")
    assert max(kinds.values()) == 2 and len(top) <= 19
    more = top[-1]
    assert more["key"] == "short.more" and more["en"] == (
        f"The chapters below hold more of the same kinds: {more['numbers']['n']}."
    )
    kept = {s["en"] for s in top}
    rest = [s for s in said(content, "memory.peak.") if s["en"] not in kept]
    assert len(rest) == 4 and more["numbers"]["n"] > 10
    assert not said(report_runs(runs[:2], tmp_path / "two"), "short.more")
