"""Whole pipelines at indistinguishable scores: `python -m benchmarks.pipeline`.

The same weights (`zoo:mnist-torch`) and batch, in one process, in turns: diffusers' DDIMPipeline
with 50 steps at eta 0, read from Diptych's own export, and `model.sample` with its default solver
and fewer calls (`--steps`), at which docs/scores.md cannot distinguish its score from that of DDIM
with 50 steps.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # before any framework is loaded

import click
import numpy as np
import torch

from benchmarks.driver import machine
from benchmarks.results import median, verdict
from diptych import load
from diptych.evaluation.score_table import markdown
from diptych.files import write_json, write_text
from diptych.sampling.sampler import DEFAULT_SOLVER
from diptych.weights.find import find_weights
from diptych.weights.formats.diffusers_out import write_folder

SOURCE, THEIR_STEPS, BAR = "zoo:mnist-torch", 50, 4.0


@click.command()
@click.option("--steps", type=click.IntRange(2), default=8, show_default=True, help="Our steps.")
@click.option("--batch", type=click.IntRange(1), default=64, show_default=True)
@click.option("--rounds", type=click.IntRange(1), default=6, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="JSON on stdout instead of the table.")
@click.option("--out", type=click.Path(path_type=Path), help="Also write OUT.json and OUT.md.")
def main(steps: int, batch: int, rounds: int, as_json: bool, out: Path | None) -> None:
    """Time our default pipeline against diffusers' DDIM of 50 steps, on the same weights."""
    contenders = {"diptych": ours(steps, batch), "diffusers": theirs(batch)}
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for k in range(rounds + 1):  # the first round warms up
        for name in sorted(contenders, reverse=bool(k % 2)):
            began = time.perf_counter()
            contenders[name](k)
            if k:
                seconds[name].append(time.perf_counter() - began)
    found = digest(seconds, steps, batch)
    click.echo(json.dumps(found, indent=2) if as_json else table(found))
    if out is not None:
        write_json(out.with_name(out.name + ".json"), found)
        write_text(out.with_name(out.name + ".md"), table(found))


def ours(steps: int, batch: int) -> Callable[[int], Any]:
    """A function from a seed to a batch of our images."""
    model = load(SOURCE, "torch", device="cpu")
    return lambda seed: model.sample(batch, steps=steps, seed=seed, batch=batch)


def theirs(batch: int) -> Callable[[int], Any]:
    """A function from a seed to a batch of diffusers' images."""
    from diffusers import DDIMPipeline

    found = find_weights(SOURCE, None, False)
    with tempfile.TemporaryDirectory() as folder:
        write_folder(Path(folder), found.config, found.weights)
        pipeline = DDIMPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)

    def draw(seed: int) -> Any:
        generator = torch.Generator().manual_seed(seed)
        return pipeline(
            batch_size=batch, num_inference_steps=THEIR_STEPS, eta=0.0, generator=generator,
            output_type="np",
        )  # fmt: skip

    return draw


def digest(seconds: dict[str, list[float]], steps: int, batch: int) -> dict[str, Any]:
    """All results as JSON values."""
    ratio = median(np.array(seconds["diffusers"]) / np.array(seconds["diptych"]))
    return {
        "source": SOURCE,
        "solver": DEFAULT_SOLVER,
        "steps": steps,
        "their_steps": THEIR_STEPS,
        "batch": batch,
        "threads": torch.get_num_threads(),
        "machine": machine(),
        "seconds_per_image": {k: float(np.median(v)) / batch for k, v in seconds.items()},
        "ratio": {**ratio, "bar": f"at least {BAR:g}", "verdict": verdict("least", BAR, ratio)},
        "rounds": seconds,
    }


def table(found: dict[str, Any]) -> str:
    """The results for people, in Markdown."""
    ratio, each = found["ratio"], found["seconds_per_image"]
    interval = "-" if ratio["low"] is None else f"{ratio['low']:.2f} to {ratio['high']:.2f}"
    rows = [
        [f"Diptych, {found['solver']}, {found['steps']} steps", f"{each['diptych']:.4f}"],
        [f"diffusers, DDIMPipeline, {found['their_steps']} steps", f"{each['diffusers']:.4f}"],
        ["ratio, its 95 % interval", f"{ratio['median']:.2f} ({interval})"],
        [f"bar: {ratio['bar']}", ratio["verdict"]],
    ]
    what = f"{found['source']}, batch {found['batch']}, {found['threads']} threads"
    return markdown([what, "s/image"], rows)


if __name__ == "__main__":
    main()
