"""A report of several runs: pairs by name, some runs of each kind, no unfounded claims."""

from __future__ import annotations

import json
import re
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
from synthetic_runs import Row, edited, make_rows, make_run, make_samples

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


@pytest.mark.parametrize(
    ("factor", "gradient", "words", "zh"),
    [
        (1 + 8e-7, 1.0, "(one float32 rounding is 6.0e-8): weights, images", "四者|相同"),
        (1 - 1.3e-5, 1.0, "1.3e-5 relative, their gradient norms by 0. The order", "求和次序"),
        (1 - 1.3e-5, None, "1.3e-5 relative. The order of a float32 sum over many", "求和次序"),
        (1 - 2e-4, 1.0, "far more than rounding: the two did not start alike", "起点不同"),
    ],
)
def test_a_sum_in_another_order_is_no_other_start(
    tmp_path: Path, factor: float, gradient: float | None, words: str, zh: str
) -> None:
    """One rounding, 50,176 squares added serially, and other numbers are told apart at step 1."""
    rows = make_rows(60, relative=0.1)  # apart from step 2 on, as where training is chaotic
    first = make_rows(1)[0]
    norm = None if gradient is None else first["grad_norm"] * gradient
    rows[0] = first | {"loss": first["loss"] * factor, "grad_norm": norm}
    runs = [
        make_run(tmp_path / "a", "torch", make_rows(60)),
        make_run(tmp_path / "b", "jittor", rows),
    ]
    content = report_runs(runs, tmp_path / "out")
    sentence = said(content, "align.first", "alignment")[0]
    assert words in sentence["en"] and "losses of torch and jittor" in sentence["en"]
    assert re.search(zh, sentence["zh"]) and "torch 与 jittor" in sentence["zh"]
    assert bool(said(content, "align.chaos")) == (abs(factor - 1) < 1e-4)


def test_a_cause_is_supposed_only_where_none_is_recorded(tmp_path: Path) -> None:
    """A slow first step: of a bare run compiling is called likely, of a watched one looked up."""
    slow = edited("compute_s", {1: 30.0})
    bare = make_run(tmp_path / "bare", "torch", make_rows(60, change=slow))

    def ended(row: Row) -> Row:
        return slow(row) | {"ended": 1030.0 + 0.75 * row["step"]}

    watched = make_run(tmp_path / "watched", "jittor", make_rows(60, change=ended))
    kernels = {"time": 1001.0, "kind": "compile", "seconds": 25.0}
    (watched / "events.jsonl").write_text(json.dumps(kernels) + "\n")
    content = report_runs([bare, watched], tmp_path / "out")
    assert [s["key"] for s in said(content, "time.first.")] == ["time.first.torch"]
    assert said(content, "time.outliers.jittor")
    assert "the first 20 steps of torch; compiling" in said(content, "time.first.")[0]["en"]
    told = said(content, "cost.outliers.jittor")[0]
    assert "counted from the end of the step before" in told["en"]
    assert told["en"].endswith("each has a recorded cause.") and "从上一步结束算起" in told["zh"]
    assert [s["key"] for s in said(content, "cost.bare.")] == ["cost.bare.torch"]
    told = said(content, "cost.bare.")[0]
    assert "nothing but step times was recorded" in told["en"] and "没有其他记录" in told["zh"]


def test_one_of_a_thing_is_said_of_one(tmp_path: Path) -> None:
    """A step, a resume, a gap; and a sample folder that bears its run's name."""
    slow = make_rows(60, change=edited("compute_s", {9: 5.0}))
    starts = {"starts": [{"step": 0}, {"step": 30}, {"step": 60}]}  # the last did nothing
    run = make_run(tmp_path / "runs" / "one", "torch", slow, environment=starts)
    for place, sha in ((tmp_path / "runs" / "samples" / "one", "d"), (run / "samples" / "x", "e")):
        make_samples(place, "torch", card={"weights_from": "one", "weights_sha256": sha * 64})
    content = report_runs([run], tmp_path / "out")
    outliers = said(content, "cost.outliers.")[0]
    assert outliers["en"].startswith("1 step of one took more than 2 times the median; no cause")
    assert outliers["zh"].startswith("one 有 1 步用时超过中位数的 2 倍")
    resumed = said(content, "run.resumed.")[0]
    assert resumed["en"] == "one ended early and was taken up again after step 30."
    assert resumed["zh"] == "one 曾提前结束，并在第 30 步之后续训。"
    weights = {s["key"]: s for s in said(content, "pictures.weights", "pictures")}
    assert "folder samples/one was drawn" in weights["pictures.weights.one"]["en"]
    assert "by its name" in weights["pictures.weights.one"]["en"]
    assert "样本目录 samples/one" in weights["pictures.weights.one"]["zh"]
    assert "lies in that run's folder" in weights["pictures.weights.x"]["en"]


def test_sentences_about_a_pair_name_it(tmp_path: Path) -> None:
    """In both languages, and what holds of two pairs alike is said of both."""
    runs = [*seeds(tmp_path, 2), make_run(tmp_path / "torch-7", "torch", make_rows(60), seed=7)]
    for i, (run, panel) in enumerate(
        zip(runs, ("torch", "jittor", "torch", "jittor"), strict=False)
    ):
        hold_weights(run, panel)
        make_samples(run / "samples" / f"s-{i}", panel, flipped=9 * (i % 2),
                     card={"seed": i // 2})  # fmt: skip
    content = report_runs(runs, tmp_path / "out")
    pairs = [("torch-0", "jittor-0"), ("torch-1", "jittor-1")]
    for key in ("align.first", "difference", "difference.grad_norm", "difference.growth",
                "difference.every_200", "samples", "time.caveat", "loss.end"):  # fmt: skip
        found = [s for part in content["sections"] if part["key"] != "short"
                 for s in part["sentences"] if s["key"] == key]  # fmt: skip
        for pair in pairs:
            told = [s for s in found if (s["numbers"]["a"], s["numbers"]["b"]) == pair]
            assert len(told) == 1, (key, pair)
            assert all(name in told[0][form] for name in pair for form in ("en", "zh"))
    for run, panel in zip(runs[:2], ("torch", "jittor"), strict=True):
        make_samples(run / "samples" / "more", panel, card={"eta": 1.0})
    again = report_runs(runs, tmp_path / "again")
    named = {s["numbers"]["a"] for s in said(again, "samples", "pictures")}
    assert {"torch-0 (more)", "torch-0 (s-0)", "torch-1"} <= named
    unlike = said(content, "unmatched", "alignment")
    assert len(unlike) == 1 and "losses of torch-0 and torch-7 are not" in unlike[0]["en"]
    assert "torch-0 与 torch-7 不匹配" in unlike[0]["zh"]
