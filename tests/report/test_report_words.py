"""A report of several runs: pairs by name, some runs of each kind, no unfounded claims."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

import pytest

from diptych.report.build import report_runs
from diptych.report.chapters.summary import URGENT
from report_records import (
    hold_weights,
    make_scores,
    said,
    table,
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


def test_the_verdict_is_eight_rows_and_five_sentences(tmp_path: Path) -> None:
    """Three seeds in two panels fill the chapters; the top holds one pair, and says so."""
    runs = seeds(tmp_path)
    for i, panel in enumerate(("torch", "jittor")):
        hold_weights(runs[i], panel)
        make_scores(tmp_path / f"{panel}-0.json", panel, {"fid": [3.0 + i, 3.1 + i, 2.9 + i]})
    content = report_runs(runs, tmp_path / "out", markdown_too=True)
    top = said(content, "", "short")
    assert [s["key"] for s in top[:2]] == ["short.pair", "matched"] and len(top) <= 5
    kinds = Counter(next((k for k in URGENT if s["key"].startswith(k)), "short") for s in top)
    assert max(kinds.values()) == 1
    assert "of 6 runs" in top[0]["en"].lower() and "compare 2 more" in top[0]["en"]
    rows = {row["what"]["en"]: row for row in content["verdict"]}
    assert len(rows) <= 8 and rows["fid"]["verdict"]["en"] == "jittor-0 worse"
    assert rows["losses, step by step"]["verdict"]["zh"].startswith("起点相同")
    assert all(row["records"] for row in rows.values())
    text = (tmp_path / "out" / "report.md").read_text("utf-8")
    verdict = text[text.index("## Verdict") : text.index("## Alignment")]
    assert verdict.count("\n|") == len(rows) + 2 and "[^" not in verdict


def test_a_verdict_follows_from_the_interval_alone(tmp_path: Path) -> None:
    """A direction only where 1 is left out, none without an interval, and like with like."""
    rows = make_rows(300, stream=1)
    a = make_run(tmp_path / "a", "torch", rows)
    same = make_run(tmp_path / "b", "jittor", make_rows(300, stream=2))
    slow = make_run(tmp_path / "c", "jittor", make_rows(300, stream=3, seconds=0.9))
    short = make_run(tmp_path / "d", "jittor", make_rows(20, seconds=0.9))
    other = make_run(tmp_path / "e", "jittor", make_rows(300, seconds=0.9),
                     environment={"threads": 7})  # fmt: skip

    def verdicts(run: Path) -> dict[str, str]:
        found = report_runs([a, run], tmp_path / "out", overwrite=True)["verdict"]
        return {row["what"]["en"]: row["verdict"]["en"] for row in found}

    step = "time of a step, median"
    assert verdicts(same)[step] == "no difference shown"
    assert verdicts(same)["peak memory"] == "no interval, no verdict"
    assert verdicts(same)["losses, step by step"] == "equal to the last bit"
    assert verdicts(slow)[step] == "Jittor slower"
    assert verdicts(short)[step] == "no interval, no verdict"
    assert verdicts(other)[step] == "not comparable"
    lower = [row | {"loss": row["loss"] * 0.98} for row in rows]
    low = make_run(tmp_path / "f", "jittor", lower)
    found = verdicts(low)
    assert found["final loss (steps 271 to 300)"] == "Jittor lower"  # paired: all steps by 2 %
    assert found["losses, step by step"] == "not the same start"
    unlike = make_run(tmp_path / "g", "jittor", rows, environment={"dataset_sha256": "f" * 64})
    found = verdicts(unlike)
    assert found["losses, step by step"] == "not comparable"
    assert found["final loss (steps 271 to 300)"] == "not comparable"
    alone = report_runs([a], tmp_path / "alone")["verdict"]
    assert all(row["verdict"]["en"] == "" for row in alone) and len(alone) >= 4


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
    """A slow first step: of a bare run that is all, of a watched one its cause is looked up."""
    slow = edited("compute_s", {1: 30.0})
    bare = make_run(tmp_path / "bare", "torch", make_rows(60, change=slow))

    def ended(row: Row) -> Row:
        return slow(row) | {"ended": 1030.0 + 0.75 * row["step"]}

    watched = make_run(tmp_path / "watched", "jittor", make_rows(60, change=ended))
    kernels = {"time": 1001.0, "kind": "compile", "seconds": 25.0}
    (watched / "events.jsonl").write_text(json.dumps(kernels) + "\n")
    content = report_runs([bare, watched], tmp_path / "out")
    first = table(content, "torch: steps that took more than 2 times")
    assert list(first) == ["first step of a process"]
    assert list(table(content, "jittor: steps that took more")) == ["compiling kernels"]
    told = said(content, "slow.steps.jittor")[0]
    assert "counted from the end of the step before" in told["en"]
    assert told["en"].endswith("each has a recorded cause.") and "从上一步结束算起" in told["zh"]
    assert [s["key"] for s in said(content, "slow.bare.")] == ["slow.bare.torch"]
    told = said(content, "slow.bare.")[0]
    assert "recorded only step times" in told["en"] and "没有其他记录" in told["zh"]


def test_one_of_a_thing_is_said_of_one(tmp_path: Path) -> None:
    """A step, a resume, a gap; and a sample folder that bears its run's name."""
    slow = make_rows(60, change=edited("compute_s", {9: 5.0}))
    starts = {"starts": [{"step": 0}, {"step": 30}, {"step": 60}]}  # the last did nothing
    run = make_run(tmp_path / "runs" / "one", "torch", slow, environment=starts)
    for place, sha in ((tmp_path / "runs" / "samples" / "one", "d"), (run / "samples" / "x", "e")):
        make_samples(place, "torch", card={"weights_from": "one", "weights_sha256": sha * 64})
    content = report_runs([run], tmp_path / "out")
    outliers = said(content, "slow.steps.")[0]
    assert outliers["en"].startswith("1 of one's 60 timed steps took more than 2 times their")
    assert "step 9. The time" in outliers["en"] and outliers["en"].endswith("no cause is recorded.")
    assert outliers["zh"].startswith("one 的 60 个计时的步中，有 1 步超过其中位数")
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
