"""A training step in phases: the phases add up to the whole step, in numbers and in time."""

from __future__ import annotations

import json
from itertools import chain, repeat
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from conftest import Panel
from diptych.cli import cli
from diptych.errors import UserError
from diptych.figures.grids import save_png
from diptych.profiling import PHASES, render
from diptych.profiling.split import ARRAYS, overhead, profile
from diptych.profiling.subject import ProfileRequest, run_profile
from diptych.profiling.table import render_outliers
from panel_jobs import SMALL, small
from watch_jobs import profiled, split_and_whole

CONFIG = small()


def test_a_split_step_computes_what_a_whole_one_does(panel: Panel) -> None:
    """To the bit in PyTorch; in Jittor other fusions may round otherwise, within float32."""
    split, whole = panel.call(split_and_whole, panel.name, CONFIG, 3)
    assert split.step == whole.step == 3
    for name, values in whole.raw.items():
        if panel.name == "torch":
            np.testing.assert_array_equal(split.raw[name], values)
        else:
            np.testing.assert_allclose(split.raw[name], values, atol=2e-3)


def test_a_profile_holds_every_phase(panel: Panel) -> None:
    """The phases are positive, and parts of the split step; the average is fused in Jittor."""
    found = panel.call(profiled, panel.name, CONFIG, 7)
    phases = {phase["name"]: phase for phase in found["phases"]}
    assert list(phases) == [*PHASES, "compile"]
    assert all(phases[name]["median_s"] > 0 for name in ("data", "forward", "backward"))
    fused = phases["ema"]["median_s"] is None
    assert fused == phases["ema"]["fused"] == (panel.name == "jittor")
    assert not any(phase["fused"] for name, phase in phases.items() if name != "ema")
    for name in ("to_device", "forward", "backward", "optimizer"):
        usual = np.median([row[name] for row in found["timeline"]])
        assert phases[name]["share"] == pytest.approx(usual / found["split"]["median_s"])
    low, high = found["overhead"]["low"], found["overhead"]["high"]
    assert low <= found["overhead"]["ratio"] <= high
    assert len(found["memory"]) == 8 and all(row["rss_mb"] > 50 for row in found["memory"])
    assert (found["memory"][-1]["live_vars"] is None) == (panel.name == "torch")
    text = render({**found, "backend": panel.name, "preset": "small", "batch_size": 8})
    assert "split / whole" in text and "moving average" in text


def test_the_overhead_is_that_of_the_pairs() -> None:
    """A machine that slows down for half the pairs does not move the ratio; few have no bounds."""
    whole = [1.0, 1.0, 1.0, 1.0, 7.0, 7.0, 7.0, 7.0]
    split = [w * r for w, r in zip(whole, (1.1, 1.2, 1.3, 1.2, 1.1, 1.2, 1.3, 1.2), strict=True)]
    found = overhead(split, whole)
    assert found["ratio"] == pytest.approx(1.2)
    assert found["low"] == pytest.approx(1.1) and found["high"] == pytest.approx(1.3)
    assert overhead([1.0] * 5, [1.0] * 5)["low"] is None


def test_the_phases_add_up_and_slow_data_are_no_compiling(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock of which each call takes its seconds; the first step takes 3 more.

    What the warm-up took above a usual step is told of the step alone.
    """
    now = 0.0
    monkeypatch.setitem(profile.__globals__, "time", SimpleNamespace(perf_counter=lambda: now))

    def takes(seconds: float, result: Any = None) -> Any:
        def call(*_: Any) -> Any:
            nonlocal now
            now += seconds
            return result

        return call

    def update(gradients: Any, lr: float, mark: Any) -> None:
        for phase, seconds in (("optimizer", 0.25), ("ema", 0.5)):
            takes(seconds)()
            mark(phase)

    steps = chain([takes(7.0)], repeat(takes(4.0)))
    batch = SimpleNamespace(**dict.fromkeys((*ARRAYS, "masks")) | {"x0": "images"})
    backend = SimpleNamespace(synchronize=takes(0.0), array=takes(0.25), counters=dict)
    learner = SimpleNamespace(step=lambda *_: next(steps)(), loss=takes(1.25), update=update,
                              differentiate=takes(2.0), captured="a graph")  # fmt: skip
    batches: Any = SimpleNamespace(batch=takes(5.0, batch))
    found: Any = profile(backend, learner, batches, 3, 1e-3)  # type: ignore[arg-type]
    took = {phase["name"]: phase["median_s"] for phase in found["phases"]}
    assert took == {
        "data": 5.0, "to_device": 0.25, "forward": 1.0, "backward": 2.0, "optimizer": 0.25,
        "ema": 0.5, "compile": 3.0,
    }  # fmt: skip
    assert sum(phase["share"] or 0.0 for phase in found["phases"]) == 1.0
    assert found["split"]["median_s"] == found["unsplit"]["median_s"] == 4.0
    assert found["overhead"]["ratio"] == 1.0
    assert learner.captured is None  # whole steps are launched as the split ones are


def test_the_command_needs_a_place_for_a_preset_s_record(tmp_path: Path) -> None:
    """And refuses what makes no sense, before a framework is loaded."""

    def refused(*words: str) -> str:
        with pytest.raises(UserError) as fault:
            CliRunner().invoke(cli, ["profile", *words], standalone_mode=False,
                               catch_exceptions=False)  # fmt: skip
        return str(fault.value)

    assert "where to" in refused("tiny")
    assert "neither a run folder nor a preset" in refused(str(tmp_path / "nowhere"), "--json")
    assert "--steps is 0" in refused("tiny", "--steps", "0", "--json")
    (tmp_path / "there.json").write_text("{}")
    assert "exists" in refused("tiny", "--out", str(tmp_path / "there.json"))
    for words in (("tiny",), (str(tmp_path), "--outliers")):
        assert "give a folder" in refused(*words, "--out", str(tmp_path / "there.json" / "x"))
    assert "not a run folder" in refused(str(tmp_path), "--outliers")
    assert "not above 1" in refused(str(tmp_path), "--outliers", "--slow", "nan")
    assert "--steps is not for --outliers" in refused("run", "--outliers", "--steps", "5")
    nowhere = ("mnist", "--json", "--data", str(tmp_path))
    assert "'tf'" in refused(*nowhere, "--backend", "tf")  # before the data are looked for
    assert "device 'gpu' is not known" in refused(*nowhere, "--device", "gpu")
    assert "--slow is for --outliers" in refused("tiny", "--slow", "3")


def test_data_are_read_as_training_reads_them(panel: Panel, tmp_path: Path) -> None:
    """With labels where the network is told the class, in the config's own channels."""
    for k in range(4):
        save_png(tmp_path / "grey" / f"{k}.png", np.full((1, 14, 14), k, np.uint8))
    grey = (f"data.source=folder:{tmp_path / 'grey'}",)
    told = ("data.source=mnist-10k", "model.num_classes=10")
    for changes in (grey, told):
        asked = ProfileRequest(
            "tiny", panel.name, "cpu", 1, (*SMALL, *changes, "train.batch_size=4")
        )
        assert panel.call(run_profile, asked)["phases"]


def test_outliers_of_a_run_are_told_as_a_table(tmp_path: Path) -> None:
    """The command reads a run folder and names cause and excess."""
    rows: list[dict[str, Any]] = [
        {"step": n, "epoch": 0, "loss": 1.0, "data_s": 5.0 if n == 6 else 0.0, "compute_s": 1.0,
         "synced": True} for n in range(1, 12)
    ]  # fmt: skip
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    result = CliRunner().invoke(cli, ["profile", str(tmp_path), "--outliers"])
    assert "1 slower than 2 medians, 0 of them unexplained" in result.output
    assert "data, 100% of the excess" in result.output
    assert "only step times were recorded" in result.output
    assert "0 slower" in render_outliers(
        {"steps": 1, "median_s": 1.0, "k": 2.0, "outliers": [], "unexplained": 0,
         "evidence": ["ended"], "by_cause": {}}
    )  # fmt: skip
