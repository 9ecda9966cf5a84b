"""Regenerate the README's first screen from records: pictures, table and sentences.

    python docs/results.py TORCH_RUN JITTOR_RUN TORCH_SAMPLES JITTOR_SAMPLES

Compares the two runs, copies the figures to docs/figures, and replaces what stands between the
README's markers. The speeds come from benchmarks/results/*.json, where they were measured in one
run, in turns. No number is typed by hand.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from diptych.files import write_text
from diptych.report.compare import compare_runs

ROOT = Path(__file__).resolve().parents[1]
FIGURES = ("grids.png", "loss.png")
NAMES = {"torch": "PyTorch panel", "jittor": "Jittor panel", "diffusers": "diffusers"}
BEGIN, END = "<!-- results:begin -->", "<!-- results:end -->"


def main() -> None:
    """Run the comparison, copy the figures and rewrite the block."""
    run_a, run_b, *samples = (Path(word) for word in sys.argv[1:])
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "report"
        content: Any = compare_runs(run_a, run_b, out, samples=(samples[0], samples[1]))
        (ROOT / "docs" / "figures").mkdir(parents=True, exist_ok=True)
        for name in FIGURES:
            shutil.copyfile(out / name, ROOT / "docs" / "figures" / f"mnist-{name}")
    readme = ROOT / "README.md"
    text = readme.read_text("utf-8")
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    write_text(readme, before + BEGIN + "\n" + block(content) + END + after)


def block(content: dict[str, Any]) -> str:
    """The README's pictures and table in Markdown."""
    rows = "".join(f"| {name} | {value} |\n" for name, value in agreement(content) + speeds())
    return (
        "![The same 64 digits, drawn by the PyTorch panel, by the Jittor panel, and their "
        "difference](docs/figures/mnist-grids.png)\n\n"
        "| MNIST, 28x28, on a CPU | |\n|---|---|\n" + rows + "\n"
        "![Loss of every step, both panels](docs/figures/mnist-loss.png)\n"
    )


def agreement(content: dict[str, Any]) -> list[tuple[str, str]]:
    """How far apart the two runs of the study are."""
    numbers, runs = content["numbers"], content["runs"]
    loss, pixels = numbers["difference"]["loss"], numbers["samples"]["pixels"]
    share = pixels["values_differing"] / pixels["values"]
    epochs = len(numbers["epoch_time"]["a"]["complete"])
    return [
        (
            "trained side by side, same weights, order and noise",
            f"{loss['compared']:,} steps ({epochs} epochs), PyTorch "
            f"{runs['a']['framework_version']} and Jittor {runs['b']['framework_version']}",
        ),
        (
            "relative difference of the two losses of a step",
            f"first tenth of the steps: median {loss['median_relative_first_tenth']:.1e}; "
            f"last tenth: median {loss['median_relative_last_tenth']:.1e}; "
            f"largest {loss['max_relative']:.1e}",
        ),
        (
            "64 images, each panel with the weights it trained",
            f"{share:.1%} of the uint8 values differ, by {pixels['mean_levels']:.1f} levels of 255 "
            f"in the mean over all",
        ),
    ]


def speeds() -> list[tuple[str, str]]:
    """Ratios of times from the benchmarks on the same network, with their intervals."""
    rows = []
    for task, what in (("training", "a training step"), ("sampling", "a network call")):
        path = ROOT / "benchmarks" / "results" / f"{task}-mnist.json"
        if not path.is_file():
            continue
        for ratio in json.loads(path.read_text("utf-8"))["results"][0]["ratios"]:
            words = f"time of {what}: {NAMES[ratio['a']]} / {NAMES[ratio['b']]}"
            interval = ""
            if ratio["low"] is not None:
                interval = f" (95 % interval {ratio['low']:.2f} to {ratio['high']:.2f})"
            rows.append((words, f"{ratio['median']:.2f}{interval}"))
    return rows


if __name__ == "__main__":
    main()
