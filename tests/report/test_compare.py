"""The comparer: known differences give known numbers and sentences."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from diptych.cli import cli
from diptych.report import compare_runs
from diptych.report.build import report_runs
from report_records import figures, said, table
from synthetic_runs import (
    Row,
    all_words,
    edited,
    make_rows,
    make_run,
    pair,
    undrawn,  # noqa: F401 - a fixture
    words,
)


@pytest.mark.usefixtures("undrawn")
def test_a_planted_difference_is_found_where_it_is(tmp_path: Path) -> None:
    base = make_rows(400)
    factor = {3: 1 + 2e-6, 137: 1 - 5e-4, 350: 1 + 1e-5}
    other = make_rows(400)
    for step, by in factor.items():
        other[step - 1]["loss"] *= by
    result = compare_runs(*pair(tmp_path, base, other), tmp_path / "out")
    loss = result["numbers"]["difference"]["loss"]
    assert loss["max_relative"] == pytest.approx(5e-4, rel=1e-6)
    assert (loss["max_relative_step"], loss["equal"], loss["median_relative"]) == (137, 397, 0.0)
    above = {row["limit"]: (row["steps"], row["first"]) for row in loss["above"]}
    assert above[1e-6] == (3, 3) and above[1e-4] == (1, 137) and above[1e-3] == (0, None)
    assert words(result, "difference") == (
        "Over 400 common steps the losses of torch and jittor differ by at most 5.0e-4 relative "
        "(step 137); median 0."
    )
    assert words(result, "difference.equal") == (
        "397 of 400 losses of torch and jittor are equal to the last bit."
    )
    every = result["numbers"]["difference"]["every_200"]
    assert [row["step"] for row in every] == [200, 400]
    assert every[0]["a"] == base[199]["loss"]


@pytest.mark.usefixtures("undrawn")
def test_equal_losses_are_called_equal_and_one_bit_is_not(tmp_path: Path) -> None:
    result = compare_runs(*pair(tmp_path), tmp_path / "out")
    assert words(result, "difference") == (
        "At all 60 common steps the losses of torch and jittor are equal to the last bit."
    )
    loss = float(np.nextafter(np.float32(make_rows(60)[40]["loss"]), np.float32(2)))
    changed = make_rows(60, change=edited("loss", {41: loss}))
    result = compare_runs(*pair(tmp_path / "bit", rows_b=changed), tmp_path / "out2")
    assert "differ by at most" in words(result, "difference")
    assert "(step 41)" in words(result, "difference")


@pytest.mark.usefixtures("undrawn")
def test_a_time_ratio_is_claimed_only_outside_its_interval(tmp_path: Path) -> None:
    a = make_run(tmp_path / "a", "torch", make_rows(300, stream=1))
    same = make_run(tmp_path / "b", "jittor", make_rows(300, stream=2))
    slow = make_run(tmp_path / "c", "jittor", make_rows(300, stream=3, seconds=0.7 * 1.31))
    equal = compare_runs(a, same, tmp_path / "1")
    assert "the interval includes 1, so no difference is shown" in words(equal, "time.ratio")
    assert not re.search("faster|slower|better", all_words(equal))
    slower = compare_runs(a, slow, tmp_path / "2")
    ratio = slower["numbers"]["step_time"]["ratio"]
    assert ratio["low"] < 1.31 < ratio["high"] and ratio["high"] - ratio["low"] < 0.03
    assert re.fullmatch(
        r"The median step time of jittor is 1\.31\d? times that of torch \(95 % interval "
        r"1\.\d+ to 1\.\d+ by bootstrap over blocks of steps\); the interval leaves out 1: "
        r"jittor was slower in these two runs\.",
        words(slower, "time.ratio"),
    )
    assert "is not recorded; the load of the machine may" in words(slower, "time.caveat")
    assert "jittor" not in words(compare_runs(slow, a, tmp_path / "3"), "time.ratio").split(":")[1]


@pytest.mark.usefixtures("undrawn")
def test_whether_runs_trained_at_the_same_time_is_read_from_their_records(tmp_path: Path) -> None:
    """By the ends of their steps, or in older records by the steps' own times."""

    def started(*starts: tuple[int, float]) -> dict[str, Any]:
        return {"starts": [{"step": step, "time": time} for step, time in starts]}

    def ended(row: Row) -> Row:
        return row | {"ended": 1000.0 + 2.0 * row["step"]}

    rows = make_rows(60, change=ended)  # 1000 to 1120
    a = make_run(tmp_path / "a", "torch", rows, environment=started((0, 1000.0)))
    apart = make_run(tmp_path / "b", "jittor", make_rows(60), environment=started((0, 1120.0)))
    result = compare_runs(a, apart, tmp_path / "1")
    assert result["numbers"]["step_time"]["together"] == {"seconds": 0.0, "share": 0.0}
    assert words(result, "time.caveat").startswith("torch and jittor did not train at the same")
    # 30 steps of 0.7 s and more from 990 s on, which end in time; 30 more from 1100 s on.
    starts = started((0, 990.0), (30, 1100.0), (60, 1101.0))
    part = make_run(tmp_path / "c", "jittor", make_rows(60), environment=starts)
    both = compare_runs(a, part, tmp_path / "2")["numbers"]["step_time"]["together"]
    spent = [0.001 + row["compute_s"] for row in make_rows(60)]
    assert both["seconds"] == pytest.approx(sum(spent[:30]) - 10 + 20, abs=1e-6)
    assert both["share"] == pytest.approx(both["seconds"] / sum(spent))
    result = compare_runs(part, a, tmp_path / "3")
    assert re.fullmatch(
        r"jittor and torch trained at the same time for 31\.\d s, 7\d\.\d % of the shorter of the "
        r"two trainings, and each may have slowed the other\.",
        words(result, "time.caveat"),
    )


@pytest.mark.usefixtures("undrawn")
def test_only_synchronised_steps_are_timed(tmp_path: Path) -> None:
    def late(row: Row) -> Row:
        return row if row["step"] % 10 == 0 else row | {"synced": False, "compute_s": 1e-4}

    def never(row: Row) -> Row:
        return row | {"synced": False}

    result = compare_runs(*pair(tmp_path, make_rows(60, change=late)), tmp_path / "out")
    times = result["numbers"]["step_time"]["a"]
    assert times["synced_steps"] == 6 and times["median"] > 0.7
    assert "too few steps for an interval" in words(result, "time.ratio")
    result = compare_runs(*pair(tmp_path / "n", make_rows(60, change=never)), tmp_path / "out2")
    assert result["numbers"]["step_time"]["a"] is None
    assert words(result, "time.none.torch").startswith("No step of torch was synchronised")
    assert "step-time.png" in result["figures"]  # the other run's


@pytest.mark.usefixtures("undrawn")
def test_slow_steps_are_the_same_in_every_output(tmp_path: Path) -> None:
    """compare, report and profile --outliers once had bounds and causes of their own."""
    slow = make_rows(200, change=edited("compute_s", {1: 80.7, 101: 10.7, 150: 5.7}))
    slow[120]["data_s"] = 2.0
    runs = pair(tmp_path, None, slow, environment={"starts": [{"step": 0}, {"step": 100}]})
    told = json.loads(
        CliRunner().invoke(cli, ["profile", str(runs[1]), "--outliers", "--json"]).stdout
    )
    steps = [each["step"] for each in told["outliers"]]
    assert steps == [1, 101, 121, 150]
    result = compare_runs(*runs, tmp_path / "out")
    compared = result["numbers"]["step_time"]["b"]["outliers"]
    for key in ("k", "excess_s", "share", "by_cause", "unexplained"):
        assert compared[key] == told[key], key
    assert compared["steps"] == steps
    assert {cause: sums["steps"] for cause, sums in told["by_cause"].items()} == {
        "first step": 2, "data": 1, "unexplained": 1}  # fmt: skip
    content = report_runs(runs, tmp_path / "page")
    for sentence in (words(result, "slow.steps.jittor"),
                     said(content, "slow.steps.jittor")[0]["en"]):  # fmt: skip
        assert sentence.startswith("4 of jittor's 200 timed steps took more than 2 times their")
        assert "steps 1, 101, 121, 150." in sentence
        assert sentence.endswith("for 3 a cause is recorded, for 1 none.")
    causes = table(content, "jittor: steps that took more than 2 times the median")
    assert {cause: cells[0] for cause, cells in causes.items()} == {
        "first step of a process": "2", "waiting for data": "1", "unexplained": "1"}  # fmt: skip
    text = CliRunner().invoke(cli, ["profile", str(runs[1]), "--outliers"]).output
    assert "4 slower than 2 medians, 1 of them unexplained" in text


@pytest.mark.usefixtures("undrawn")
def test_bars_of_a_step_are_medians_and_epochs_stand_within_their_axes(tmp_path: Path) -> None:
    """A mean held the minute of compiling; the last epoch stood on the edge."""
    rows = make_rows(300, per_epoch=100, compile_s=60.0)
    run = make_run(tmp_path / "a", "torch", rows, environment={"dataset_images": 6400})
    report_runs([run], tmp_path / "out")
    drawn = figures(tmp_path / "out" / "index.html")
    data, compute = drawn["split"]["traces"]
    times = [row["compute_s"] for row in rows]
    assert compute["y"][0] == pytest.approx(1000 * float(np.median(times)), rel=1e-3)
    assert data["y"] == [1.0]
    page = (tmp_path / "out" / "index.html").read_text("utf-8")
    assert "not in the bars: compiling and first steps, beyond the median a 60.0 s in all" in page
    epoch = drawn["epoch-time"]
    assert epoch["y_range"][0] == 0 and epoch["y_range"][1] > max(epoch["traces"][0]["y"])
    assert epoch["x_range"][0] < 1 and epoch["x_range"][1] > epoch["traces"][0]["x"][-1] == 3


@pytest.mark.usefixtures("undrawn")
def test_a_leak_shows_and_flat_memory_is_called_flat(tmp_path: Path) -> None:
    leaky = make_rows(300, leak=7.0, change=edited("memory_mb", {5: 9000.0, 6: None}))
    result = compare_runs(*pair(tmp_path, make_rows(300), leaky), tmp_path / "out")
    memory = result["numbers"]["memory"]
    assert memory["b"]["slope_per_1000_steps"] == pytest.approx(7000, rel=0.01)
    assert (memory["b"]["peak"], memory["b"]["peak_step"]) == (9000.0, 5)
    assert (memory["b"]["steps"], memory["b"]["slope_steps"]) == (299, 150)
    assert "rises by 7,000 MiB per 1,000 steps" in words(result, "memory.slope.jittor")
    assert "is flat" in words(result, "memory.slope.torch")


@pytest.mark.usefixtures("undrawn")
def test_memory_that_is_read_now_and_then_rises_over_steps_not_over_readings(
    tmp_path: Path,
) -> None:
    def now_and_then(row: Row) -> Row:
        """Every 50 steps, 1 MiB more a step: 40 readings of 2,000 steps."""
        return row | {"memory_mb": None if row["step"] % 50 else 1000.0 + row["step"]}

    nothing = make_rows(2000, change=lambda row: row | {"memory_mb": 0.0})
    rising = make_rows(2000, change=now_and_then)
    result = compare_runs(*pair(tmp_path, nothing, rising), tmp_path / "out")
    assert result["numbers"]["memory"]["b"]["slope_steps"] == 951
    said = words(result, "memory.slope.jittor")
    assert "rises by 1,000 MiB per 1,000 steps" in said and "951" in said
    assert "is flat" in words(result, "memory.slope.torch")


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize(
    ("steps", "images", "complete"),
    [
        (300, 6400, [1, 2, 3]),
        (299, 6400, [1, 2]),
        (99, 6400, []),
        (250, None, [1, 2]),
        (100, 6400, [1]),
    ],
)
def test_only_complete_epochs_count(
    tmp_path: Path, steps: int, images: int | None, complete: list[int]
) -> None:
    rows = make_rows(steps, per_epoch=100)
    run = make_run(tmp_path / "a", "torch", rows, environment={"dataset_images": images})
    found = compare_runs(run, run, tmp_path / "out")["numbers"]["epoch_time"]["a"]["complete"]
    assert [row["epoch"] + 1 for row in found] == complete
    for row in found:
        own = [r["data_s"] + r["compute_s"] for r in rows if r["epoch"] == row["epoch"]]
        assert row["seconds"] == pytest.approx(sum(own))


@pytest.mark.usefixtures("undrawn")
def test_losses_that_are_not_finite_are_named_and_left_out(tmp_path: Path) -> None:
    rows = make_rows(60, change=edited("loss", {31: float("nan"), 32: None}))
    result = compare_runs(*pair(tmp_path, None, rows), tmp_path / "out")
    assert "not finite at 2 of 60 steps, first at step 31" in words(
        result, "loss.not_finite.jittor"
    )
    assert result["numbers"]["difference"]["loss"]["compared"] == 58
    assert words(result, "difference").startswith("At all 58 common steps")


@pytest.mark.usefixtures("undrawn")
def test_runs_of_different_length_are_compared_over_the_common_steps(tmp_path: Path) -> None:
    runs = pair(tmp_path, make_rows(150), make_rows(120, relative=1e-6), tail='{"step": 12')
    result = compare_runs(*runs, tmp_path / "out")
    assert result["numbers"]["difference"]["steps"] == 120
    assert "torch recorded steps 1 to 150, jittor steps 1 to 120" in words(result, "loss.lengths")
    assert "ends with step 120" in words(result, "torn.jittor")
    assert "hold no multiple of 200" in words(result, "difference.every_200")
    assert "loss-every-200.png" not in result["figures"]


@pytest.mark.usefixtures("undrawn")
def test_a_longer_training_does_not_make_a_loss_lower(tmp_path: Path) -> None:
    """Losses that fall, seeds that differ: of the end the steps are compared that both reached."""

    def falling(row: Row) -> Row:
        return row | {"loss": row["loss"] / row["step"] ** 0.3}

    a = make_run(tmp_path / "a", "torch", make_rows(2000, change=falling))
    b = make_run(tmp_path / "b", "torch", make_rows(400, change=falling), seed=1)
    result = compare_runs(a, b, tmp_path / "out", matched=False)
    end = result["numbers"]["loss"]["end"]
    assert (end["first_step"], end["last_step"], end["whole"]) == (361, 400, False)
    assert end["a"]["mean"] == end["b"]["mean"] and end["a"]["steps"] == 40
    assert "The mean loss of steps 361 to 400 of b is 1.00 times" in words(result, "loss.ratio")
    assert "no difference is shown" in words(result, "loss.ratio")
    assert words(result, "loss.end").startswith("Over steps 361 to 400, the last tenth of those")
    c = make_run(tmp_path / "c", "torch", make_rows(2000, change=falling), seed=1)
    whole = compare_runs(a, c, tmp_path / "whole", matched=False)
    assert whole["numbers"]["loss"]["end"]["first_step"] == 1801
    assert words(whole, "loss.ratio").startswith("The mean loss of the last tenth of c is 1.00")
    late = [row | {"step": row["step"] + 2000} for row in make_rows(60)]
    d = make_run(tmp_path / "d", "torch", late, seed=1)
    apart = compare_runs(a, d, tmp_path / "apart", matched=False)
    assert apart["numbers"]["loss"]["end"] is None
    assert not any(s["key"] in ("loss.end", "loss.ratio") for s in apart["sentences"])


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize(
    "train", [{"loss": "sum"}, {"weighting": "min-snr"}, {"min_snr_gamma": 2.0}], ids=str
)
def test_losses_that_are_other_quantities_have_no_ratio(
    tmp_path: Path, train: dict[str, Any]
) -> None:
    result = compare_runs(*pair(tmp_path, train=train), tmp_path / "out", matched=False)
    rows = [row for row in result["verdict"] if row["what"]["en"].startswith("final loss")]
    assert [row["verdict"]["en"] for row in rows] == ["not comparable"]
    assert result["numbers"]["loss"]["end"]["ratio"] is None
    assert not any(s["key"] == "loss.ratio" for s in result["sentences"])
