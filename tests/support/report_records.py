"""Records beside runs, in the form their commands write, and helpers to read a report's content."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

from diptych.evaluation.score import Score, combine
from diptych.pages import png
from diptych.runs.checkpoint import weights_sha256
from synthetic_runs import PNG, make_rows, make_run, make_samples

ARRAYS = {panel: {"w": np.full(3, i, np.float32)} for i, panel in enumerate(("torch", "jittor"))}
WEIGHTS = {panel: weights_sha256(arrays) for panel, arrays in ARRAYS.items()}


def write(path: Path, content: Any) -> Path:
    """Write a JSON file; create its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def hold_weights(run: Path, panel: str, step: int = 100) -> Path:
    """Write a checkpoint with the weights of WEIGHTS[panel]."""
    folder = run / "checkpoints" / f"step-{step:08d}"
    folder.mkdir(parents=True)
    save_file(ARRAYS[panel], folder / "ema.safetensors")
    return folder


def make_scores(
    path: Path, backend: str, sets: dict[str, list[float]], num: int = 2000, **protocol: Any
) -> Path:
    """Write a file of `diptych evaluate`: for each metric, the values of its sample sets."""
    facts = {"protocol": "native", "extractor": "mnist", "num": num, "reference.name": "mnist",
             "reference.split": "test", "weights": "ema", "sampler.solver": "ddim",
             "sampler.steps": 50, "sampler.eta": 0.0} | protocol  # fmt: skip
    about = {"samples": "x", "weights_sha256": WEIGHTS[backend], "backend": backend}
    scores = [
        combine(name, [Score(name, value, facts, subject=about) for value in values]).to_json()
        for name, values in sets.items()
    ]
    return write(path, {"schema": 1, "kind": "diptych scores", "scores": scores})


def make_sweep(folder: Path, panels: tuple[str, ...] = ("torch", "jittor")) -> Path:
    """Write a folder of `diptych sweep`."""
    cells = [
        {"backend": panel, "device": "cpu", "steps": steps, "eta": eta, "network_calls": steps,
         "seconds_per_image": steps * (2e-3 if panel == "torch" else 2.4e-3),
         "mnist-frechet": 30 / steps + 2 * eta + i, "mnist-frechet_low": 30 / steps + 2 * eta,
         "mnist-frechet_high": 30 / steps + 2 * eta + 2 * i + 1,
         "mnist-frechet_split_half": None, "mnist-frechet_protocol_id": "0123456789ab"}
        for i, panel in enumerate(panels) for eta in (0.0, 1.0) for steps in (10, 20, 50)
    ]  # fmt: skip
    cells += [{**cell, "solver": "heun", "eta": None} for cell in cells[:2]]
    request = {"weights_sha256": WEIGHTS["torch"], "num": 500, "repeats": 3,
               "reference": "mnist:test"}  # fmt: skip
    content = {"schema": 1, "kind": "diptych sweep", "request": request, "cells": cells}
    return write(folder / "sweep.json", content)


def make_ladder(path: Path, passed: bool = True, identity: str = "0" * 64) -> Path:
    """Write an align.json with two rungs."""
    rungs = [
        {"rung": "config", "verdict": "pass", "error": 0.0, "floor": None, "margin": None},
        {"rung": "layers", "verdict": "pass" if passed else "fail", "error": 2e-6, "floor": 1e-6,
         "margin": 2.0 if passed else 0.5},
    ]  # fmt: skip
    failure = None if passed else {"rung": "layers"}
    content = {"kind": "align", "preset": "tiny", "config_identity": identity, "passed": passed,
               "first_failure": failure, "rungs": rungs,
               "mutations": [{"verdict": "pass"}, {"verdict": "pass"}]}  # fmt: skip
    return write(path, content)


def make_profile(path: Path, backend: str) -> Path:
    """Write a profile.json like `diptych profile`: parts of a step, the whole step, memory."""
    parts = {"data": 1e-4, "to_device": 1e-3, "forward": 0.1, "backward": 0.2, "optimizer": 0.02}
    total = sum(parts.values())
    phases: list[dict[str, Any]] = [
        {"name": name, "median_s": value, "share": value / total,
         "note": "measured apart" if name == "to_device" else ""}
        for name, value in parts.items()
    ]  # fmt: skip
    fused = "inside the optimizer's one pass over the weights"
    phases.append({"name": "ema", "median_s": None, "share": None, "note": fused})
    note = "seconds in all, over the warm-up; 37 kernels loaded"
    phases.append({"name": "compile", "median_s": 24.0, "share": None, "note": note})
    memory = [{"step": 0, "rss_mb": 500.0, "allocated_mb": None, "reserved_mb": 45.0,
               "live_vars": 448},
              {"step": 9, "rss_mb": 512.0, "allocated_mb": None, "reserved_mb": 46.0,
               "live_vars": 450}]  # fmt: skip
    spread = {"median_s": total, "p5_s": total, "p95_s": total}
    content = {"kind": "profile", "backend": backend, "phases": phases, "split": spread,
               "unsplit": spread | {"median_s": 0.3}, "memory": memory,
               "overhead": {"ratio": 1.07, "low": 1.04, "high": 1.11}}  # fmt: skip
    return write(path, content)


def make_batches(path: Path, backend: str, first: float = 3.0) -> Path:
    """Write the seconds of every sampled batch."""
    content = {"kind": "batch_times", "backend": backend, "solver": "ddim", "steps": 50,
               "batch": 64, "seconds": [first, 1.0, 1.1, 0.9]}  # fmt: skip
    return write(path, content)


def watch(run: Path, seconds: int = 90) -> None:
    """Write resources.jsonl of a run on a GPU, with a torn last line."""
    rows = [{"time": 1e9 + s, "rss_mb": 600 + s, "cpu_percent": 150 + s % 40,
             "others_percent": 20.0 + s % 7, "own_s": 1e-3, "probe_s": 3e-3,
             "counters": {"allocated_mb": 100.0 + s, "reserved_mb": 256.0, "live_vars": 730},
             "gpu": {"memory_mb": 900.0, "memory_total_mb": 8000.0, "util_percent": 60.0 + s % 3}}
            for s in range(seconds)]  # fmt: skip
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (run / "resources.jsonl").write_text(text + '{"time": 1')


def make_gif(path: Path) -> None:
    """Write a GIF of two frames."""
    frames = [Image.new("L", (64, 64), value) for value in (0, 255)]
    frames[0].save(path, save_all=True, append_images=frames[1:])


def whole_study(folder: Path, steps: int = 450) -> list[Path]:
    """Write a run of each backend with every file that may be in it and beside it."""
    runs = []
    for panel in ("torch", "jittor"):
        other = panel == "jittor"
        rows = make_rows(steps, relative=1e-7 if other else 0.0, stream=int(other), per_epoch=200,
                         compile_s=60.0 if other else 0.0)  # fmt: skip
        run = make_run(folder / "runs" / f"{panel}-seed0", panel, rows,
                       environment={"dataset_images": 12800, "dataset": "mnist"})  # fmt: skip
        hold_weights(run, panel)
        watch(run)
        samples = make_samples(
            run / "samples" / "ddim-50", panel, flipped=9 * other,
            card={"weights_sha256": WEIGHTS[panel], "num": 64, "batch": 64},
        )  # fmt: skip
        make_gif(samples / "trajectory.gif")
        Image.new("L", (62, 242), 100 + 50 * other).save(samples / "progress.png")
        values = [3.0 + other, 3.1 + other, 2.9 + other]
        make_scores(folder / "scores" / f"{panel}-seed0-mnist.json", panel,
                    {"mnist-frechet": values, "mnist-is": [8.0, 8.1, 7.9]})  # fmt: skip
        make_profile(folder / "profile" / f"{panel}.json", panel)
        make_batches(folder / "batches" / f"{panel}.json", panel, first=40.0 if other else 1.2)
        runs.append(run)
    make_sweep(folder / "sweep")
    make_ladder(folder / "align" / "align.json")
    return runs


def said(content: dict[str, Any], key: str, section: str | None = None) -> list[dict[str, Any]]:
    """The sentences whose key begins with `key`."""
    return [s for part in content["sections"] if section in (None, part["key"])
            for s in part["sentences"] if s["key"].startswith(key)]  # fmt: skip


def table(content: dict[str, Any], caption: str) -> dict[str, list[str]]:
    """The rows of the table with this caption, by their first cell."""
    found = [t for part in content["sections"] for t in part["tables"]
             if t["caption"]["en"].startswith(caption)]  # fmt: skip
    assert len(found) == 1, caption
    return {row[0]: row[1:] for row in found[0]["rows"]}


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """No PNGs: for tests of numbers and words."""
    monkeypatch.setattr(png, "png_of", lambda *_: PNG)


def figures(page: Path) -> dict[str, Any]:
    """The figures of an index.html as read by its script, by name."""
    found = re.search(r'id="figures">(.*?)</script>', page.read_text("utf-8"), re.S)
    assert found is not None
    content: dict[str, Any] = json.loads(found[1])
    return content
