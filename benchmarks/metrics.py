"""Metrics against the algorithms of other tools, in one run; only the ratios are meaningful.

    python benchmarks/metrics.py                      all of it, about 4 minutes on two cores
    python benchmarks/metrics.py --dims 512           a quick look at the Frechet distance
    python benchmarks/metrics.py --inception FILE     also Inception, with weights from a file

Frechet distance: the nuclear norm of factors against scipy's sqrtm of the product, as pytorch-fid
and clean-fid call it, and against numpy's eigenvalues of the product, as torch-fidelity does.
Resizes: two matrix products against torch's interpolate and Pillow's per-channel bicubic.
Inception: the package's network against pytorch-fid's own, if that is installed. Routes take
turns, so that a change in the machine's load affects them equally. Processor time is given beside
wall time; on a busy machine it is the better measure (with OPENBLAS_NUM_THREADS=1 it does not
include threads waiting for each other).
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from diptych.evaluation.frechet import frechet_distance
from diptych.evaluation.protocol import PROTOCOLS
from diptych.evaluation.resize import resize
from diptych.evaluation.statistics import Moments

Route = Callable[[], Any]


Times = dict[str, tuple[float, float]]


def timed(routes: dict[str, Route], rounds: int) -> tuple[Times, dict[str, Any]]:
    """Median seconds (wall, processor) and last result of every route, run in turns."""
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in routes}
    results = {}
    for _ in range(rounds):
        for name, route in routes.items():
            began, cpu = time.perf_counter(), time.process_time()
            results[name] = route()
            taken[name].append((time.perf_counter() - began, time.process_time() - cpu))
    medians = {
        name: (statistics.median(t[0] for t in values), statistics.median(t[1] for t in values))
        for name, values in taken.items()
    }
    return medians, results


def rows(title: str, seconds: Times, notes: dict[str, str]) -> list[dict[str, Any]]:
    """Rows of the table: each route's times, and their ratios to the first route's."""
    clock, cpu = next(iter(seconds.values()))
    return [
        {
            "what": title,
            "route": name,
            "seconds": value[0],
            "ratio": value[0] / clock,
            "cpu_seconds": value[1],
            "cpu_ratio": value[1] / cpu,
            "note": notes.get(name, ""),
        }
        for name, value in seconds.items()
    ]


def spectrum(seed: int, n: int, dims: int, fall: float = 4.0) -> np.ndarray:
    """Correlated features, (n, dims) float32, with a covariance spectrum over `fall` decades.

    Independent columns would favour the other routes: a nearly diagonal matrix needs few steps.
    """
    turn = np.linalg.qr(np.random.RandomState(99).standard_normal((dims, dims)))[0]
    scale = np.logspace(0, -fall / 2, dims)
    drawn = np.random.RandomState(seed).standard_normal((n, dims)) * scale
    return (drawn @ turn + 0.4).astype(np.float32)


def moments(x: np.ndarray) -> Moments:
    """Mean and covariance in float64."""
    return Moments(len(x), x.mean(0, dtype=np.float64), np.cov(x.astype(np.float64), rowvar=False))


def by_sqrtm(a: Moments, b: Moments) -> float:
    """scipy's square root of the product; its imaginary part is dropped."""
    from scipy import linalg

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        root = linalg.sqrtm(a.cov @ b.cov)
    gap = a.mean - b.mean
    return float(gap @ gap + np.trace(a.cov) + np.trace(b.cov) - 2 * np.trace(np.real(root)))


def by_eigenvalues(a: Moments, b: Moments) -> float:
    """numpy's eigenvalues of the product, which is not symmetric."""
    roots = np.sqrt(np.linalg.eigvals(a.cov @ b.cov).astype(np.complex128)).real
    gap = a.mean - b.mean
    return float(gap @ gap + np.trace(a.cov) + np.trace(b.cov) - 2 * roots.sum())


def frechet(dims: int, rounds: int) -> list[dict[str, Any]]:
    """Regular pairs (n = 3 d), one of them worse conditioned, and singular pairs (n = d / 2)."""
    found = []
    cases = (("regular", 3, 4), ("regular, 8 orders", 3, 8), ("singular", 0.5, 4))
    for name, share, fall in cases:
        n = int(share * dims)
        x, y = spectrum(0, n, dims, fall), spectrum(1, n, dims, fall)
        a, b = moments(x), moments(y)
        routes: dict[str, Route] = {
            "diptych": lambda a=a, b=b, x=x, y=y: frechet_distance(a, b, x, y),
            "diptych, statistics only": lambda a=a, b=b: frechet_distance(a, b),
            "numpy eigvals": lambda a=a, b=b: by_eigenvalues(a, b),
            "scipy sqrtm": lambda a=a, b=b: by_sqrtm(a, b),
        }
        seconds, values = timed(routes, rounds)
        exact = values["diptych"]
        notes = {k: f"{v:.10g} ({(v - exact) / exact:+.1e})" for k, v in values.items()}
        found += rows(f"Frechet distance, {dims} dims, {name}", seconds, notes)
    return found


def resizes(size: int, count: int, rounds: int) -> list[dict[str, Any]]:
    """Resize `count` colour images of size x size to 299 x 299."""
    import torch
    from PIL import Image

    images = np.random.RandomState(0).randint(0, 256, (count, size, size, 3), dtype=np.uint8)
    planes = torch.from_numpy(images.transpose(0, 3, 1, 2).astype(np.float32))

    def interpolate() -> np.ndarray:
        mode = {"mode": "bilinear", "align_corners": False}
        return torch.nn.functional.interpolate(planes, size=(299, 299), **mode).numpy()

    def pillow() -> np.ndarray:
        made = np.empty((count, 3, 299, 299), np.float32)
        for i in range(count):
            for c in range(3):
                plane = Image.fromarray(images[i, :, :, c].astype(np.float32))
                made[i, c] = np.asarray(plane.resize((299, 299), Image.Resampling.BICUBIC))
        return np.clip(made, 0, 255)

    found = []
    for protocol, name, route in (
        ("pytorch-fid", "torch interpolate", interpolate),
        ("clean-fid", "Pillow, a channel at a time", pillow),
    ):
        chosen = PROTOCOLS[protocol]

        def ours(chosen: Any = chosen) -> np.ndarray:
            made = resize(images, chosen.resize)
            return np.clip(made, 0, 255) if chosen.clip else made

        seconds, values = timed({f"diptych {chosen.resize}": ours, name: route}, rounds)
        a, b = values.values()
        notes = {name: f"largest difference {np.abs(a - b).max():.1e} of 255"}
        found += rows(f"resize {count} x {size} px", seconds, notes)
    return found


def inception(weights: Path, backend: str, rounds: int) -> list[dict[str, Any]]:
    """Features of 64 images of 32 px, by the package's network and by pytorch-fid's."""
    from diptych.evaluation.features import open_extractor

    extractor = open_extractor("inception", backend, "cpu", weights)
    protocol = PROTOCOLS["pytorch-fid"]
    images = np.random.RandomState(0).randint(0, 256, (64, 32, 32, 3), dtype=np.uint8)
    routes: dict[str, Route] = {
        f"diptych {backend}": lambda: protocol.features(extractor, images).pool
    }
    if backend == "torch":
        routes |= official(weights, images)
    for route in routes.values():
        route()  # warm-up
    seconds, values = timed(routes, rounds)
    first, *others = values.values()
    notes = {name: f"{len(images) / value[0]:.1f} images/s" for name, value in seconds.items()}
    if others:
        gap = np.abs(first - others[0]).max() / np.abs(first).max()
        notes["pytorch-fid"] += f", largest relative difference {gap:.1e}"
    return rows("Inception, 64 x 32 px", seconds, notes)


def official(weights: Path, images: np.ndarray) -> dict[str, Route]:
    """pytorch-fid's network with the same weights; empty if it is not installed."""
    import torch

    try:
        from pytorch_fid import inception as theirs
    except ImportError:
        print("pytorch-fid is not installed: its Inception is left out", file=sys.stderr)
        return {}
    state = torch.load(weights, map_location="cpu", weights_only=True)
    theirs.load_state_dict_from_url = lambda *_, **__: state
    network = theirs.InceptionV3([3]).eval()
    pixels = torch.from_numpy(images.transpose(0, 3, 1, 2).astype(np.float32) / 255)

    def run() -> np.ndarray:
        with torch.no_grad():
            return network(pixels)[0][:, :, 0, 0].numpy()

    return {"pytorch-fid": run}


def main() -> None:
    """Print the table; `--json` for programs."""
    parser = argparse.ArgumentParser(description="Metrics against the routes of other tools.")
    parser.add_argument("--dims", type=int, default=2048)
    parser.add_argument("--rounds", type=int, default=1, help="rounds of the Frechet distances")
    parser.add_argument("--inception", type=Path, help="weights in the published layout")
    parser.add_argument("--backend", default="torch", choices=("torch", "jittor"))
    parser.add_argument("--only", choices=("frechet", "resize", "inception"))
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    found: list[dict[str, Any]] = []
    if asked.only in (None, "frechet"):
        found += frechet(asked.dims, asked.rounds)
    if asked.only in (None, "resize") and asked.backend == "torch":
        found += resizes(32, 64, 7) + resizes(64, 64, 7)
    if asked.inception is not None and asked.only in (None, "inception"):
        found += inception(asked.inception, asked.backend, 5)
    if asked.json:
        print(json.dumps(found, indent=2))
        return
    for row in found:
        clock = f"{row['seconds']:9.3f} s {row['ratio']:7.2f}x"
        cpu = f"cpu {row['cpu_seconds']:8.3f} s {row['cpu_ratio']:7.2f}x"
        print(f"{row['what']:38}  {row['route']:28} {clock}  {cpu}  {row['note']}")


if __name__ == "__main__":
    main()
