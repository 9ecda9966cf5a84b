"""The comparer's figures, page and folder, and the wording of its sentences."""

from __future__ import annotations

import html
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from diptych import stats
from diptych.errors import MachineError, UserError
from diptych.figures import charts
from diptych.figures.numbers import seconds, significant
from diptych.pages import html as page
from diptych.pages.catalogue import same
from diptych.pages.template import fill
from diptych.report import compare_runs
from synthetic_runs import (
    PNG,
    make_rows,
    make_run,
    make_samples,
    pair,
    undrawn,  # noqa: F401 - a fixture
    words,
)


def test_the_whole_output(tmp_path: Path) -> None:
    """Figures, page and JSON of one comparison, and of the same again."""
    rows = make_rows(450, relative=1e-7, compile_s=60, per_epoch=200, stream=1)
    facts = {"dataset_images": 12800, "cpu": "<Example & Co>", "load": float("nan")}
    a = make_run(tmp_path / "a", "torch", make_rows(450, per_epoch=200), environment=facts)
    b = make_run(tmp_path / "b", "jittor", rows, environment=facts)
    samples = (
        make_samples(tmp_path / "s", "torch"),
        make_samples(tmp_path / "t", "jittor", flipped=9),
    )
    result = compare_runs(a, b, tmp_path / "out", samples=samples)
    out = tmp_path / "out"
    figures = {"loss", "loss-every-200", "difference", "step-time", "epoch-time", "memory", "grids"}
    assert {p.name for p in out.iterdir()} == {f"{name}.png" for name in figures} | {
        "compare.json",
        "index.html",
    }
    for name in figures:
        with Image.open(out / f"{name}.png") as image:
            assert image.width == 1344

    def not_json(constant: str) -> None:
        raise AssertionError(constant)

    assert json.loads((out / "compare.json").read_text(), parse_constant=not_json) == result
    page = (out / "index.html").read_text()
    remote = r"""<(script|link|img|source)[^>]+(src|href|srcset)\s*=\s*["'](?!data:)"""
    assert not re.search(remote, page)
    assert str(tmp_path) not in page + json.dumps(result)
    assert "<Example" not in page and "&lt;Example &amp; Co&gt;" in page
    for sentence in result["sentences"]:
        assert sentence["text"] in html.unescape(page)
    compare_runs(a, b, tmp_path / "again", samples=samples)
    for path in out.iterdir():
        assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes(), path.name


def test_both_curves_are_seen_where_they_coincide(tmp_path: Path) -> None:
    """Run A shows as a wide pale line on both sides of run B's, each in its panel's colour."""
    light = charts.LIGHT
    for order in (("torch", "jittor"), ("jittor", "torch")):
        folder = tmp_path / order[0]
        runs = [make_run(folder / name, name, make_rows(200)) for name in order]
        compare_runs(runs[0], runs[1], folder / "out")
        with Image.open(folder / "out" / "loss.png") as image:
            pixels = np.asarray(image.convert("RGB")).reshape(-1, 3)
        under, over = light.pair(*order)
        assert (under, over) == tuple(getattr(light, name) for name in order)
        for colour in (light.wash(under, 0.4), over):
            rgb = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)])
            near = np.abs(pixels.astype(np.int16) - rgb).max(axis=1) <= 2
            assert np.count_nonzero(near) > 1000


@pytest.mark.parametrize("steps", [1, 2, 25])
def test_short_runs_are_drawn(tmp_path: Path, steps: int) -> None:
    runs = pair(tmp_path, make_rows(steps), make_rows(steps, relative=1e-6))
    result = compare_runs(*runs, tmp_path / "out")
    assert result["numbers"]["difference"]["steps"] == steps
    assert result["figures"] == ["loss.png", "difference.png", "step-time.png", "memory.png"]
    if steps == 1:
        said = words(result, "difference")
        assert said.startswith("At the one common step, 1, the losses of torch and jittor differ")


def test_unmatched_runs_and_runs_with_holes_are_drawn(tmp_path: Path) -> None:
    """No loss finite, no memory, nothing synchronised, no sample alike: drawn without a warning."""
    empty = {"loss": None, "memory_mb": None, "grad_norm": None, "synced": False}
    bare = make_rows(500, change=lambda row: row | empty)
    runs = pair(tmp_path, make_rows(900), bare, seed=5)
    colour = make_samples(tmp_path / "t", "jittor", card={"seed": 5}, count=70)
    samples = (make_samples(tmp_path / "s", "torch", count=9), colour)
    result = compare_runs(*runs, tmp_path / "out", matched=False, samples=samples)
    assert result["numbers"]["memory"]["b"] is None
    assert words(result, "memory.none.jittor") == "jittor recorded no memory."
    figures = ["loss", "loss-every-200", "step-time", "memory", "grids"]
    assert result["figures"] == [f"{name}.png" for name in figures]


@pytest.mark.usefixtures("undrawn")
def test_an_output_folder_in_use_is_kept_unless_it_is_ours(tmp_path: Path) -> None:
    a, b = pair(tmp_path)
    out = tmp_path / "out"
    compare_runs(a, b, out)
    with pytest.raises(UserError, match="--overwrite"):
        compare_runs(a, b, out)
    (out / "loss.png").write_bytes(b"old")
    compare_runs(a, b, out, overwrite=True)
    assert (out / "loss.png").read_bytes() == PNG
    (out / "notes.txt").write_text("mine")
    for folder in (out, a):
        before = sorted(folder.iterdir())
        with pytest.raises(UserError, match="does not write"):
            compare_runs(a, b, folder, overwrite=True)
        assert sorted(folder.iterdir()) == before
    with pytest.raises(UserError, match="is a file"):
        compare_runs(a, b, out / "notes.txt")
    (tmp_path / "empty").mkdir()
    compare_runs(a, b, tmp_path / "empty")


@pytest.mark.usefixtures("undrawn")
def test_a_failure_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = pair(tmp_path)
    out = tmp_path / "out"
    compare_runs(a, b, out)
    before = {path.name: path.read_bytes() for path in out.iterdir()}

    def full(*_: Any, **__: Any) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(page, "render", full)
    with pytest.raises(MachineError, match="disk is full"):
        compare_runs(a, b, out, overwrite=True)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    assert not list(tmp_path.glob(".*"))


@pytest.mark.usefixtures("undrawn")
def test_one_panel_twice_goes_by_folder_names(tmp_path: Path) -> None:
    a = make_run(tmp_path / "before", "torch", make_rows(60))
    b = make_run(tmp_path / "after", "torch", make_rows(60))
    result = compare_runs(a, b, tmp_path / "1")
    assert [result["runs"][run]["label"] for run in "ab"] == ["before", "after"]
    result = compare_runs(a, a, tmp_path / "2")
    assert [result["runs"][run]["label"] for run in "ab"] == ["before (A)", "before (B)"]
    threads = make_run(tmp_path / "four", "torch", make_rows(60), environment={"threads": 4})
    result = compare_runs(a, threads, tmp_path / "3")
    assert "(threads differ)" in words(result, "machines")
    ranks = make_run(tmp_path / "ranks", "torch", make_rows(60), environment={"world": 2})
    result = compare_runs(a, ranks, tmp_path / "4")
    assert "(1 and 2)" in words(result, "worlds") and "up to rounding" in words(result, "worlds")
    assert "(world differ)" in words(result, "machines")


def test_the_interval_holds_the_truth_about_as_often_as_it_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two series without a true difference, whose load lasts for about 30 steps."""
    monkeypatch.setattr(stats, "DRAWS", 200)
    generator = np.random.default_rng(11)

    def series() -> Any:
        values = np.zeros(1600)
        for i in range(1, values.size):
            values[i] = 0.94 * values[i - 1] + generator.standard_normal()
        return 0.7 * np.exp(0.03 * values[600:])

    held = 0
    for _ in range(60):
        found = stats.ratio(series(), series(), np.median)
        assert found is not None and found["low"] is not None and found["high"] is not None
        held += found["low"] <= 1 <= found["high"]
    assert held >= 51  # of 60; a true 95 % would give less once in 1,000


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [
        (0, 2, "0"),
        (3.14159e-6, 2, "3.1e-6"),
        (0.0312345, 4, "0.03123"),
        (712.4, 3, "712"),
        (7000.4, 2, "7,000"),
        (-0.5, 2, "-0.50"),
        (0.9996, 3, "1.00"),
        (1.2e9, 2, "1.2e9"),
    ],
)
def test_significant_digits(value: float, digits: int, text: str) -> None:
    assert significant(value, digits) == text


def test_durations_in_words() -> None:
    given = (0.0004, 0.71, 0.9996, 83.0, 119.9, 700.0, 7300.0)
    shown = ["0.400 ms", "710 ms", "1.00 s", "83.0 s", "2.00 min", "11.7 min", "2.03 h"]
    assert [seconds(value) for value in given] == shown


@pytest.mark.parametrize(
    ("low", "high", "text"),
    [
        (1.281, 1.339, "1.28 to 1.34"),
        (1.0004, 1.02, "1.0004 to 1.0200"),
        (0.9, 1.2, "0.90 to 1.20"),
    ],
)
def test_an_interval_is_never_rounded_onto_one(low: float, high: float, text: str) -> None:
    ratio = {"b_over_a": (low * high) ** 0.5, "low": low, "high": high}
    assert fill(same("{ratio:range}"), ratio=ratio).en == text


def test_a_sentence_takes_no_number_that_it_does_not_name() -> None:
    with pytest.raises(AssertionError):
        fill(same("{a:count} steps"), a=3, b=4)
