"""Run and sample folders with known numbers, and shared helpers of the comparer's tests."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from diptych.errors import UserError
from diptych.pages import png
from diptych.report import compare_runs

PNG = b"\x89PNG"
Row = dict[str, Any]
SHA = "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609"


def losses(steps: int) -> np.ndarray[Any, Any]:
    """A loss curve like that of a small diffusion model: a fall from 1, then noise around 0.03."""
    generator = np.random.default_rng(7)
    step = np.arange(1, steps + 1)
    return (0.03 + np.exp(-step / 40.0)) * np.exp(0.12 * generator.standard_normal(steps))


def make_rows(
    steps: int,
    *,
    seconds: float = 0.7,
    relative: float = 0.0,
    memory: float = 800.0,
    leak: float = 0.0,
    compile_s: float = 0.0,
    per_epoch: int = 938,
    stream: int = 0,
    change: Callable[[Row], Row | None] | None = None,
) -> list[Row]:
    """One row per step. `relative` disturbs the losses, `leak` is MB per step, `change` edits a row
    or drops it (None)."""
    generator = np.random.default_rng(stream)
    base = losses(steps)
    noise = generator.standard_normal((3, steps))
    rows = []
    for i in range(steps):
        row: Row | None = {
            "step": i + 1,
            "epoch": i // per_epoch,
            "loss": float(np.float32(base[i] * (1 + relative * noise[0, i]))),
            "lr": 1e-3,
            "grad_norm": float(np.float32(0.4 * (1 + relative * noise[1, i]))),
            "data_s": 0.001,
            "compute_s": seconds * (1 + 0.04 * abs(noise[2, i])) + (compile_s if i == 0 else 0.0),
            "synced": True,
            "memory_mb": memory + leak * i,
        }
        row = change(row) if change else row
        if row is not None:
            rows.append(row)
    return rows


def make_run(
    folder: Path,
    backend: str,
    rows: list[Row],
    *,
    seed: int = 0,
    train: dict[str, Any] | None = None,
    environment: dict[str, Any] | None = None,
    tail: str = "",
) -> Path:
    """Write a run folder with these rows; `tail` is written after the last line."""
    folder.mkdir(parents=True)
    settings = ", ".join(f"{key}: {value}" for key, value in (train or {}).items())
    (folder / "config.yaml").write_text(f"train: {{{settings}}}\nseed: {seed}\n")
    facts = {
        "backend": backend,
        "device": "cpu",
        "framework_version": {"torch": "2.13.0", "jittor": "1.3.11.0"}.get(backend, "1"),
        "python": "3.11.4",
        "numpy": "1.26.4",
        "cpu": "Example CPU",
        "threads": 2,
        "dataset_sha256": SHA,
        "dataset_images": 60000,
    }
    (folder / "environment.json").write_text(json.dumps(facts | (environment or {})))
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "metrics.jsonl").write_text(lines + tail)
    return folder


def make_samples(
    folder: Path,
    backend: str,
    *,
    count: int = 64,
    flipped: int = 0,
    levels: int = 3,
    card: dict[str, Any] | None = None,
) -> Path:
    """Write a sample folder of 28x28 rings; `flipped` of the pixels differ by `levels` from those
    of a folder made with 0."""
    folder.mkdir(parents=True)
    generator = np.random.default_rng(5)
    row, column = np.mgrid[-14:14, -14:14]
    images = np.empty((count, 28, 28), np.uint8)
    for i in range(count):
        radius = 4 + 7 * generator.random()
        ring = np.exp(-(((np.hypot(row, column * (1 + generator.random())) - radius) / 2) ** 2))
        images[i] = (5 + 240 * ring).astype(np.uint8)
    at = generator.choice(images.size, flipped, replace=False)
    images.reshape(-1)[at] += np.uint8(levels)
    for i, image in enumerate(images):
        Image.fromarray(image).save(folder / f"{i:05d}.png")
    manifest = {
        "solver": "ddim",
        "steps": 50,
        "eta": 0.0,
        "spacing": "uniform",
        "sigma_type": "none",
        "clip": False,
        "seed": 0,
        "weights": "ema",
        "backend": backend,
        "network_calls": 50,
        "seconds_per_image": 0.21,
    }
    (folder / "manifest.json").write_text(json.dumps(manifest | (card or {})))
    return folder


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """No PNGs: for tests of numbers and words."""
    monkeypatch.setattr(png, "png_of", lambda *_: PNG)


def pair(
    tmp_path: Path, rows_a: list[Row] | None = None, rows_b: list[Row] | None = None, **b: Any
) -> tuple[Path, Path]:
    """A torch run and a jittor run; by default with equal losses."""
    return (
        make_run(tmp_path / "a", "torch", make_rows(60) if rows_a is None else rows_a),
        make_run(tmp_path / "b", "jittor", make_rows(60) if rows_b is None else rows_b, **b),
    )


def edited(key: str, values: dict[int, Any]) -> Any:
    """A `change` for make_rows that sets `key` at the given steps."""

    def change(row: Row) -> Row:
        return row | {key: values[row["step"]]} if row["step"] in values else row

    return change


def words(result: dict[str, Any], key: str) -> str:
    """The only sentence with this key."""
    found = [s["text"] for s in result["sentences"] if s["key"] == key]
    assert len(found) == 1, [s["key"] for s in result["sentences"]]
    return str(found[0])


def all_words(result: dict[str, Any]) -> str:
    """All sentences in one text."""
    return " ".join(s["text"] for s in result["sentences"])


def refused(tmp_path: Path, a: Path, b: Path, **options: Any) -> str:
    """The one-line refusal of a comparison; nothing is written."""
    out = tmp_path / "out"
    with pytest.raises(UserError) as caught:
        compare_runs(a, b, out, **options)
    assert not out.exists() and not list(tmp_path.glob(".*"))
    text = str(caught.value)
    assert "\n" not in text
    return text
