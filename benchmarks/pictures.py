"""Animations of 1,000 frames: time per frame against Pillow's default, loss, memory, size.

    python -m benchmarks.pictures                     about two minutes on two quiet cores
    python -m benchmarks.pictures --frames 200 --json

The frames are 8x8 grids of 32x32 colour images on their way from noise to a smooth image: alpha
x0 + sigma eps over the linear schedule. Two measurements:

- in turns with Pillow (`save(save_all=True, append_images=...)`, its default), the same frames from
  the whole trajectory: milliseconds per frame, the median of the rounds' ratios, and the loss (PSNR
  against the frames) of the noisy half of the trajectory and of its end.
- all frames in one file per format: the resident memory after a tenth of them and at the end. It
  must grow by less than MOST_GROWTH, the raw pixels of about 100 frames.

Processor time replaces wall time on a shared machine; it does not include ffmpeg's.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from PIL import Image

from diptych.config.load import DiffusionConfig
from diptych.diffusion.schedule import make_schedule
from diptych.figures.grids import grid
from diptych.figures.movie import FORMATS
from diptych.figures.movie.mp4 import find_ffmpeg
from diptych.files import write_json
from diptych.training.batches import to_uint8
from diptych.types import Pixels

BAR = 50.0
MOST_GROWTH = 24.0  # MB


class Frames:
    """Frame k of N, made on demand: only the images and their noise are kept."""

    def __init__(self, count: int, images: int = 64, size: int = 32) -> None:
        random = np.random.default_rng(0)
        coarse = random.uniform(-1.6, 1.6, (images, 3, 5, 5))
        at = np.linspace(0, 4, size)
        weights = np.maximum(0.0, 1.0 - np.abs(at[:, None] - np.arange(5)))
        self.x0 = np.clip(weights @ coarse @ weights.T, -1, 1).astype(np.float32)
        self.eps = random.standard_normal(self.x0.shape).astype(np.float32)
        self.schedule, self.count = make_schedule(DiffusionConfig()), count

    def __call__(self, k: int) -> Pixels:
        t = round((self.count - 1 - k) / max(1, self.count - 1) * (self.schedule.timesteps - 1))
        level = self.schedule.level(t)
        return grid(to_uint8(level.alpha * self.x0 + level.sigma * self.eps), columns=8)


def pillow_gif(path: Path, frames: list[Pixels]) -> None:
    """Write a GIF with Pillow, as in its documentation."""
    first, *rest = (Image.fromarray(frame.transpose(1, 2, 0)) for frame in frames)
    first.save(path, save_all=True, append_images=rest, duration=20, loop=0)


def ours(name: str) -> Callable[[Path, list[Pixels]], None]:
    """A writer of this package, by the name of its format."""

    def write(path: Path, frames: list[Pixels]) -> None:
        with FORMATS[name](path) as frame:
            for picture in frames:
                frame(picture, 20)

    return write


def read(path: Path, shape: tuple[int, ...]) -> Pixels:
    """Read all frames of a file, (N, C, H, W) uint8."""
    _, height, width = shape
    if path.suffix == ".mp4":
        command = [find_ffmpeg(), "-loglevel", "error", "-i", str(path), "-f", "rawvideo"]
        raw = subprocess.run([*command, "-pix_fmt", "rgb24", "-"], capture_output=True, check=True)
        frames = np.frombuffer(raw.stdout, np.uint8)
        frames = frames.reshape(-1, height + height % 2, width + width % 2, 3)
        return frames[:, :height, :width].transpose(0, 3, 1, 2)
    found = []
    with Image.open(path) as image:
        for k in range(image.n_frames):
            image.seek(k)
            found.append(np.asarray(image.convert("RGB")).transpose(2, 0, 1))
    return np.stack(found)


def psnr(a: Pixels, b: Pixels) -> float:
    """PSNR over all frames in dB; 99 if they are equal."""
    error = float(((a.astype(np.float64) - b) ** 2).mean())
    return 99.0 if error == 0 else 10 * float(np.log10(255**2 / error))


def turns(frames: Frames, rounds: int, each: int) -> dict[str, Any]:
    """Time every contender on the same frames, in turns."""
    chosen = [frames(round(k)) for k in np.linspace(0, frames.count - 1, each)]
    writers = {"pillow": pillow_gif, **{name: ours(name) for name in FORMATS}}
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in writers}
    loss: dict[str, tuple[float, float]] = {}
    half = each // 2
    with tempfile.TemporaryDirectory() as folder:
        for k in range(rounds):
            for name in list(writers)[:: 1 if k % 2 == 0 else -1]:
                path = Path(folder) / f"x.{'gif' if name == 'pillow' else name}"
                clock, work = time.perf_counter(), time.process_time()
                writers[name](path, chosen)
                spent = time.perf_counter() - clock, time.process_time() - work
                seconds[name].append((spent[0] / each, spent[1] / each))
                if k == 0:
                    back, given = read(path, chosen[0].shape)[:each], np.stack(chosen)
                    loss[name] = psnr(given[:half], back[:half]), psnr(given[-1:], back[-1:])
    table = {name: np.array(rows) for name, rows in seconds.items()}
    return {
        name: {
            "clock_ms": 1e3 * float(np.median(rows[:, 0])),
            "cpu_ms": 1e3 * float(np.median(rows[:, 1])),
            "times_as_fast_as_pillow": float(np.median(table["pillow"][:, 0] / rows[:, 0])),
            "psnr_noisy_db": loss[name][0],
            "psnr_image_db": loss[name][1],
        }
        for name, rows in table.items()
    }


def growth(frames: Frames, name: str) -> dict[str, float]:
    """Resident memory while one long file is written, and the file's size."""
    process, marks = psutil.Process(), {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"x.{name}"
        with FORMATS[name](path) as frame:
            for k in range(frames.count):
                frame(frames(k), 20)
                if k in (frames.count // 10, frames.count - 1):
                    marks[k] = process.memory_info().rss / 2**20
        size = path.stat().st_size / 2**20
    first, last = marks.values()
    return {"rss_tenth_mb": first, "rss_end_mb": last, "growth_mb": last - first, "file_mb": size}


def main() -> int:
    """Measure and print; the exit code says whether the bars are met."""
    parser = argparse.ArgumentParser(description="Animations against Pillow's default.")
    parser.add_argument("--frames", type=int, default=1000, help="frames of the long files")
    parser.add_argument("--rounds", type=int, default=3, help="turns of every contender")
    parser.add_argument("--each", type=int, default=10, help="frames per turn")
    parser.add_argument("--json", action="store_true", help="JSON instead of the table")
    parser.add_argument("--out", type=Path, help="also write this JSON file")
    asked = parser.parse_args()
    frames = Frames(asked.frames)
    speed = turns(frames, asked.rounds, asked.each)
    memory = {name: growth(frames, name) for name in FORMATS}
    found = {
        "frame": list(frames(0).shape),
        "frames": asked.frames,
        "load": os.getloadavg()[0],
        "speed": speed,
        "memory": memory,
        "fast_enough": speed["gif"]["times_as_fast_as_pillow"] >= BAR,
        "flat": all(row["growth_mb"] < MOST_GROWTH for row in memory.values()),
    }
    if asked.out:
        write_json(asked.out, found)
    print(json.dumps(found, indent=2) if asked.json else table(found))
    return 0 if found["fast_enough"] and found["flat"] else 1


def table(found: dict[str, Any]) -> str:
    """The results as text for people."""
    lines = [f"frames {found['frame']}, load {found['load']:.1f}"]
    lines.append(f"{'':8}{'ms/frame':>10}{'CPU ms':>8}{'x Pillow':>10}{'dB noisy':>10}{'image':>8}"
                 f"{'MB file':>9}{'MB growth':>11}")  # fmt: skip
    for name, row in found["speed"].items():
        more = found["memory"].get(name)
        tail = f"{more['file_mb']:9.1f}{more['growth_mb']:11.1f}" if more else ""
        lines.append(
            f"{name:8}{row['clock_ms']:10.1f}{row['cpu_ms']:8.1f}"
            f"{row['times_as_fast_as_pillow']:10.1f}{row['psnr_noisy_db']:10.1f}"
            f"{row['psnr_image_db']:8.1f}{tail}"
        )
    lines.append(f"GIF at least {BAR:.0f} times as fast: {'yes' if found['fast_enough'] else 'NO'}")
    lines.append(f"memory flat over {found['frames']:,} frames: {'yes' if found['flat'] else 'NO'}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
