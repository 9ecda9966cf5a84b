"""The report: any runs, with gaps, torn ends and different lengths; every number has its record."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from diptych.errors import UserError
from diptych.report.build import report_runs
from diptych.runs.reader import read_run
from report_records import (
    hold_weights,
    make_ladder,
    make_scores,
    said,
    table,
    undrawn,  # noqa: F401 - a fixture
    whole_study,
)
from synthetic_runs import make_rows, make_run, make_samples


@pytest.mark.usefixtures("undrawn")
def test_the_whole_study(tmp_path: Path) -> None:
    """Everything that may lie in and beside two runs is found, and every number has a record."""
    runs = whole_study(tmp_path)
    out = tmp_path / "report"
    content = report_runs(runs, out, search=[tmp_path], markdown_too=True)
    assert json.loads((out / "report.json").read_text()) == content
    assert [part["key"] for part in content["sections"]] == [
        "short", "alignment", "losses", "performance", "sampling", "scores", "sweep", "pictures",
        "environment", "data", "training", "testing", "method", "records",
    ]  # fmt: skip
    page = (out / "index.html").read_text()
    assert len(page) < 5_000_000
    assert not re.search(r"""<(script|link|img|source)[^>]+(src|href)\s*=\s*["'](?!data:)""", page)
    for part in content["sections"]:
        for sentence in part["sentences"]:
            assert sentence["en"] and sentence["zh"] and sentence["en"] != sentence["zh"]
            exempt = part["key"] in ("method", "records")
            exempt = exempt or sentence["key"] in ("score.seeds", "commands")
            assert exempt or sentence["records"], sentence
            for record in sentence["records"]:
                assert (out / record["file"]).is_file(), record
        for each in part["tables"]:
            assert part["key"] == "records" or each["records"], each["caption"]
    assert said(content, "score.mnist-frechet")[0]["en"].endswith(
        "which leaves out 0: jittor is higher, that is worse, with these weights."
    )
    assert "includes 0: no difference is shown" in said(content, "score.mnist-is")[0]["en"]
    assert said(content, "samples", "pictures")[0]["numbers"]["differing"] == 9
    assert table(content, "Seconds per batch")["1"] == ["1.20", "40.0"]
    assert table(content, "Parts of a training step")["backward"][0] == "200 ms (62 %)"
    assert said(content, "cost.batches.jittor")[0]["numbers"]["first"] == 40.0
    page = (out / "index.html").read_text("utf-8")
    checkpoint = hold_weights(runs[0], "torch", step=200).parent / "step-00000100"
    place = checkpoint.relative_to(tmp_path)
    assert f"diptych sample ../{place} --backend torch --solver ddim --steps 50" in page
    assert "the run no longer holds" not in page
    assert "not those of the runs" in said(content, "align.ladder_other")[0]["en"]


@pytest.mark.usefixtures("undrawn")
def test_numbers_are_those_of_the_records(tmp_path: Path) -> None:
    rows = make_rows(60)
    run = make_run(tmp_path / "run", "jittor", rows)
    content = report_runs([run], tmp_path / "out")
    time = [row["data_s"] + row["compute_s"] for row in rows]
    step = said(content, "cost.step.run")[0]["numbers"]
    assert step["median"] == pytest.approx(np.median(time))
    assert step["max"] == pytest.approx(max(time))
    assert said(content, "short.none", "short")
    page = (tmp_path / "out" / "index.html").read_text("utf-8")
    assert "diptych data info mnist --split train --size 28 --channels 1" in page
    assert "diptych train ../run/config.yaml --backend jittor --out NEW-run" in page
    assert str(tmp_path) not in page
    assert table(content, "Losses")["first step"] == [f"{rows[0]['loss']:.4g}"]


@pytest.mark.usefixtures("undrawn")
def test_gaps_torn_ends_repeats_and_lengths_are_reported(tmp_path: Path) -> None:
    """Three runs that a strict reader refuses in part; the whole one stays as it is."""
    whole = make_run(tmp_path / "whole", "torch", make_rows(60))

    def gap(row: dict[str, Any]) -> dict[str, Any] | None:
        return None if 11 <= row["step"] <= 15 or row["step"] == 30 else row

    holes = make_run(tmp_path / "holes", "jittor", make_rows(50, change=gap), tail='{"step": 51,')
    twice = make_rows(20) + make_rows(25)[17:]
    again = make_run(tmp_path / "again", "jittor", twice)
    with pytest.raises(UserError, match="steps 11 to 15 missing"):
        read_run(holes)
    content = report_runs([whole, holes, again], tmp_path / "out")
    gaps = said(content, "run.gaps.holes", "losses")[0]["numbers"]
    assert gaps == {"run": "holes", "n": 6, "gaps": 2, "first": 11, "last": 15}
    assert said(content, "torn.holes", "losses")[0]["numbers"]["last"] == 50
    assert said(content, "run.repeated.again")[0]["numbers"]["n"] == 3
    assert said(content, "run.end.whole", "short")
    compared = [s["numbers"]["n"] for s in said(content, "difference", "alignment")
                if "equal to the last bit" in s["en"]]  # fmt: skip
    assert compared[0] == 44  # of the 50 steps those that both have
    assert [run["gaps"] for run in content["runs"]] == [[], [[11, 15], [30, 30]], []]


@pytest.mark.usefixtures("undrawn")
def test_an_epoch_with_a_gap_is_not_complete(tmp_path: Path) -> None:
    rows = make_rows(40, per_epoch=10, change=lambda r: None if r["step"] in (15, 20) else r)
    run = make_run(tmp_path / "run", "torch", rows, environment={"dataset_images": 640})
    content = report_runs([run], tmp_path / "out")
    # Epoch 2 lacks two steps; of the third it is not known that it begins with step 21.
    assert set(table(content, "Time per complete epoch")) == {"1", "4"}


@pytest.mark.usefixtures("undrawn")
def test_seeds_are_paired_and_others_only_set_beside(tmp_path: Path) -> None:
    """Two seeds in two panels give two comparisons; a run that matches none stands beside one."""
    runs = [make_run(tmp_path / f"{panel}-{seed}", panel, make_rows(40), seed=seed)
            for panel in ("torch", "jittor") for seed in (0, 1)]  # fmt: skip
    content = report_runs(runs, tmp_path / "out")
    assert [(p["a"], p["b"], p["matched"]) for p in content["pairs"]] == [
        ("torch-0", "jittor-0", True),
        ("torch-1", "jittor-1", True),
    ]
    assert not said(content, "unmatched")
    runs = [make_run(tmp_path / "torch-2", "torch", make_rows(40), seed=2), *runs,
            make_run(tmp_path / "again", "torch", make_rows(40), seed=1)]  # fmt: skip
    content = report_runs(runs, tmp_path / "out2")
    assert [(p["a"], p["b"], p["matched"]) for p in content["pairs"]] == [
        ("torch-0", "jittor-0", True),
        ("torch-1", "jittor-1", True),
        ("jittor-1", "again", True),
        ("torch-2", "torch-0", False),
    ]
    content = report_runs([runs[1], runs[0], runs[2], runs[5]], tmp_path / "out3")
    assert [(p["a"], p["b"], p["matched"]) for p in content["pairs"]] == [
        ("torch-1", "again", True),  # of one panel, where the other has none
        ("torch-0", "torch-2", False),
    ]
    assert content["pairs"][1]["mismatches"] == ["seed is 0 and 2"]
    unlike = said(content, "unmatched", "alignment")[0]
    assert "seed is 0 and 2" in unlike["en"] and "随机种子分别为 0 和 2" in unlike["zh"]
    first, second = said(content, "", "short")[:2]
    assert first["key"] == "short.pair" and second["key"] == "matched"
    assert first["en"].startswith("Of 4 runs, the table compares the first pair")
    page = (tmp_path / "out3" / "index.html").read_text("utf-8")
    titles = re.findall(r'<th scope="col">(.*?)</th>', page.partition("</thead>")[0])
    assert "torch-1" in titles and "again" in titles and len(titles) == 5


@pytest.mark.usefixtures("undrawn")
def test_nothing_is_better_without_an_interval(tmp_path: Path) -> None:
    """One set each, and unlike protocols: no verdict, and the reason."""
    runs = [make_run(tmp_path / p, p, make_rows(20)) for p in ("torch", "jittor")]
    for run, panel in zip(runs, ("torch", "jittor"), strict=True):
        hold_weights(run, panel)
    make_scores(tmp_path / "one.json", "torch", {"fid": [3.0], "kid": [1.0, 1.1, 0.9]})
    make_scores(tmp_path / "two.json", "jittor", {"fid": [9.0]})
    make_scores(tmp_path / "three.json", "jittor", {"kid": [5.0, 5.1, 4.9]}, num=100)
    content = report_runs(runs, tmp_path / "out")
    assert "nothing can be said of the difference" in said(content, "score.fid")[0]["en"]
    assert said(content, "score.kid")[0]["en"].endswith("their protocols differ in num.")
    words = " ".join(s["en"] for s in said(content, ""))
    assert "better" not in words and "worse" not in words


@pytest.mark.usefixtures("undrawn")
def test_a_figure_to_be_as_that_of_held_out_images_is_only_higher_or_lower(tmp_path: Path) -> None:
    """C_T, authenticity and nearest ratio: neither direction is better, in every place."""
    runs = [make_run(tmp_path / p, p, make_rows(20)) for p in ("torch", "jittor")]
    for run, panel in zip(runs, ("torch", "jittor"), strict=True):
        hold_weights(run, panel)
    for name, ct in (("torch", 0.1), ("jittor", -3.0)):
        sets = {"mnist-ct": [ct, ct + 0.1, ct - 0.1]}
        if name == "torch":
            sets["mnist-kid"] = [1.0, 1.1, 0.9]
        make_scores(tmp_path / f"{name}.json", name, sets)
    content = report_runs(runs, tmp_path / "out")
    found = said(content, "score.mnist-ct")[0]
    assert found["en"].endswith("leaves out 0: jittor is lower with these weights.")
    row = next(row for row in content["verdict"] if row["what"]["en"] == "mnist-ct")
    assert (row["verdict"]["en"], row["verdict"]["zh"]) == ("Jittor lower", "Jittor 更低")
    reading = said(content, "score.reading")[0]
    assert "for mnist-kid; more is better for the others, except mnist-ct, which" in reading["en"]
    assert "mnist-ct 除外" in reading["zh"]


@pytest.mark.usefixtures("undrawn")
def test_a_ladder_that_fails_is_said_to_fail(tmp_path: Path) -> None:
    run = make_run(tmp_path / "runs" / "a", "torch", make_rows(20))
    ladder = make_ladder(tmp_path / "ladder" / "align.json", passed=False,
                         identity=read_run(run).config.identity())  # fmt: skip
    content = report_runs([run], tmp_path / "out", search=[ladder.parent])
    assert said(content, "align.ladder")[0]["en"].endswith("that fails is layers.")
    assert not said(content, "align.ladder_other")


@pytest.mark.usefixtures("undrawn")
def test_records_of_other_runs_are_left_out_and_counted(tmp_path: Path) -> None:
    run = make_run(tmp_path / "a", "torch", make_rows(20))
    other = make_run(tmp_path / "b", "torch", make_rows(20), seed=9)
    make_samples(other / "samples" / "x", "torch")  # inside a run that is not reported
    make_samples(tmp_path / "strange", "torch", card={"weights_sha256": "c" * 64})
    named = make_samples(tmp_path / "named", "torch",
                         card={"weights_from": "a", "weights_sha256": "d" * 64})  # fmt: skip
    by_command = {"environment": {"command": ["diptych", "sample", "runs/a/checkpoints/step-3"]},
                  "weights_from": "step-3", "weights_sha256": "e" * 64}  # fmt: skip
    told = make_samples(tmp_path / "told", "torch", card=by_command)
    (tmp_path / "broken.json").write_text("{")
    content = report_runs([run], tmp_path / "out")
    assert content["records_left_out"] == 1
    shown = {r["file"] for s in said(content, "pictures.weights") for r in s["records"]}
    assert shown == {f"../{each.name}/manifest.json" for each in (named, told)}
    assert "the run no longer holds those weights" in (tmp_path / "out/index.html").read_text()
