"""Regenerate the figures and the table of docs/editing.md with the zoo's models.

    python docs/editing.py [--data FOLDER]        FOLDER holds MNIST's training images

Every picture is what the command shown beside it in the page writes; only the figure of `--from`
puts four folders below each other. The speeds come from benchmarks/results/pictures.json. No number
is typed by hand.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from diptych.figures.grids import read_png
from diptych.figures.sheets import save_sheet
from diptych.pages.blocks import write_block

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "editing.md"
FIGURES = ROOT / "docs" / "figures"
BENCHMARK = ROOT / "benchmarks" / "results" / "pictures.json"
STEPS = (10, 20, 50, 100)
LEVELS = ("0.25", "0.5", "0.75")
IMAGES = "8"


def run(*words: object) -> dict[str, Any]:
    """A command of `diptych`; gives its JSON."""
    command = [sys.executable, "-m", "diptych", *map(str, words), "--quiet", "--json"]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def curves(folder: Path) -> str:
    """Errors of the round trip as Markdown, both panels, plain and refined."""
    rows: dict[tuple[str, int], dict[int, dict[str, Any]]] = {}
    for panel in ("torch", "jittor"):
        for refine in (0, 1):
            out = folder / f"{panel}-{refine}"
            model = ("--model", f"zoo:mnist-{panel}", "--backend", panel, "--device", "cpu")
            asked = ("--curve", ",".join(map(str, STEPS)), "--refine", refine, "--out", out)
            found = run("encode", "mnist:test", "--num", IMAGES, *model, *asked)
            rows[panel, refine] = {row["steps"]: row for row in found["curve"]}
    shutil.copyfile(folder / "torch-1" / "encode.png", FIGURES / "editing-encode.png")
    head = "| S | network calls | PyTorch | Jittor | calls, refined | PyTorch | Jittor |"
    lines = [head, "|---|---|---|---|---|---|---|"]
    for steps in STEPS:
        cells = [str(steps)]
        for refine in (0, 1):
            cells.append(str(rows["torch", refine][steps]["network_calls"]))
            cells += [f"{rows[panel, refine][steps]['mse']:.1e}" for panel in ("torch", "jittor")]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def levels(folder: Path) -> None:
    """Four digits and what becomes of them from three levels."""
    names, rows = ["level 0"], []
    out = folder / "from-0"
    source = ("sample", "zoo:mnist-torch", "--from", "mnist:test", "--num", 10)
    run(*source, "--level", "0", "--out", out)
    rows.append(np.stack([read_png(out / f"{i:05d}.png") for i in range(10)]))
    for level in LEVELS:
        out = folder / f"from-{level}"
        run(*source, "--level", level, "--out", out)
        rows.append(np.stack([read_png(out / f"{i:05d}.png") for i in range(10)]))
        names.append(f"level {level}")
    save_sheet(FIGURES / "editing-from.png", np.stack(rows), left=names)


def main() -> None:
    """Run the commands, copy the figures, rewrite the table."""
    parser = argparse.ArgumentParser(description="Figures and table of docs/editing.md.")
    parser.add_argument("--data", type=Path, help="where MNIST's training images are")
    data = parser.parse_args().data
    found = ("--data", data) if data else ()
    FIGURES.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        arcs = ("--interpolate", "3,7,9", "--out", folder / "arcs")
        run("sample", "zoo:mnist-torch", *arcs)
        shutil.copyfile(folder / "arcs" / "interpolation.png", FIGURES / "editing-arcs.png")
        pictures = ("--strip", "--show", "both", "--nearest", "--neighbours", 7, *found)
        run("sample", "zoo:mnist-torch", "--num", 4, *pictures, "--out", folder / "pictures")
        for kind in ("strip", "nearest"):
            target = FIGURES / f"editing-{kind}.png"
            shutil.copyfile(folder / "pictures" / f"{kind}.png", target)
        levels(folder)
        text = curves(folder)
        write_block(PAGE, "curve", text)
    write_block(PAGE, "pictures", animations())


def animations() -> str:
    """The benchmark's record as Markdown."""
    found = json.loads(BENCHMARK.read_text("utf-8"))
    names = {"pillow": "GIF, Pillow's default", "gif": "GIF", "webp": "WebP", "mp4": "MP4"}
    head = "| | CPU ms a frame | Pillow's time / this | PSNR noisy, at the end | file | growth |"
    lines = [head, "|---|---|---|---|---|---|"]
    for name, row in found["speed"].items():
        noisy, end = row["psnr_noisy_db"], row["psnr_image_db"]
        loss = "exact" if noisy == end == 99.0 else f"{noisy:.1f} dB, {end:.1f} dB"
        more = found["memory"].get(name)
        tail = f"{more['file_mb']:.1f} MB | {more['growth_mb']:.1f} MB" if more else "|"
        fast = f"{row['times_as_fast_as_pillow']:.0f}"
        lines.append(f"| {names[name]} | {row['cpu_ms']:.1f} | {fast} | {loss} | {tail} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
