"""`diptych align train`: free training from several seeds, and a test of equivalence.

    OUT/plan.json        margin, seeds and steps, written before the first run
    OUT/runs/torch-0 ... one run folder for each backend and seed
    OUT/free.json        losses per bin of timesteps, the test, and the sentence that follows

Single steps are not compared here: training is chaotic, and after some thousand steps two runs
that differ by one rounding are unrelated. Only their final losses must agree.
"""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from diptych.backends import BACKENDS, TITLES
from diptych.config.load import Config, to_yaml
from diptych.errors import MachineError, UserError
from diptych.figures.numbers import significant
from diptych.files import output_folder, read_json, write_json, write_text
from diptych.machine.children import run_child
from diptych.runs.records import FreeTraining
from diptych.stats import paired_tost


@dataclass(frozen=True)
class FreeTrainingRequest:
    """Settings of the training runs, and the margin that is set beforehand."""

    name: str
    config: Config
    seeds: int
    steps: int
    margin: float
    bins: int
    device: str = "auto"

    def __post_init__(self) -> None:
        if self.seeds < 3:
            raise UserError(f"--seeds is {self.seeds}; an interval needs 3 or more on each side")
        if self.steps < 1 or not 1 <= self.bins <= self.config.diffusion.timesteps:
            raise UserError("--steps must be 1 or more, --bins 1 to the number of timesteps")
        if not 0 < self.margin < 1:
            raise UserError(f"--margin is {self.margin}; give a share between 0 and 1")

    @property
    def plan(self) -> dict[str, Any]:
        """Everything that is fixed before the first run."""
        first = self.config.seed
        return {
            "preset": self.name,
            "config_identity": self.config.identity(),
            "seeds": list(range(first, first + self.seeds)),
            "steps": self.steps,
            "margin": self.margin,
            "bins": self.bins,
            "test": "paired, two one-sided, level 0.05, on the log of the mean loss over bins",
        }


def compare_training(
    request: FreeTrainingRequest, out: Path, *, overwrite: bool = False, quiet: bool = False
) -> dict[str, Any]:
    """Train, evaluate and test; return the content of free.json."""
    with output_folder(out, overwrite=overwrite):
        return _compare(request, out, quiet)


def _compare(request: FreeTrainingRequest, out: Path, quiet: bool) -> dict[str, Any]:
    write_json(out / "plan.json", request.plan)
    write_text(out / "config.yaml", to_yaml(request.config))
    runs: dict[str, list[str]] = {panel: [] for panel in BACKENDS}
    for seed in request.plan["seeds"]:
        for panel in BACKENDS:  # alternate, so that a slower machine slows both
            run = out / "runs" / f"{panel}-{seed}"
            train_one(request, out / "config.yaml", panel, seed, run, quiet)
            runs[panel].append(str(run))
    losses = {panel: evaluate(request, panel, names, out) for panel, names in runs.items()}
    result = conclude(request, losses)
    write_json(out / "free.json", FreeTraining.checked(result))
    return result


def train_one(
    request: FreeTrainingRequest, config: Path, panel: str, seed: int, run: Path, quiet: bool
) -> None:
    """Train one run in a process of its own."""
    words = ["train", str(config), "--backend", panel, "--seed", str(seed), "--out", str(run)]
    words += ["--steps", str(request.steps), "--device", request.device]
    words += ["--set", f"train.checkpoint_every={request.steps}"]
    _diptych([sys.executable, "-m", "diptych", *words, *(["--quiet"] if quiet else [])])


def evaluate(
    request: FreeTrainingRequest, panel: str, runs: list[str], out: Path
) -> list[list[float]]:
    """Each run's loss in each bin, computed by the run's own backend."""
    spec, found = out / f"evaluate-{panel}.json", out / f"losses-{panel}.json"
    write_json(
        spec, {"backend": panel, "device": request.device, "bins": request.bins, "runs": runs}
    )
    _diptych([sys.executable, "-m", "diptych.align.training.losses", str(spec), str(found)])
    losses = read_json(found)
    return [losses[run] for run in runs]


def _diptych(command: list[str]) -> None:
    # The child's message is already on stderr; only its exit code is handled here.
    code = run_child(command, stdout=subprocess.DEVNULL)
    if code == 2:
        raise UserError(f"stopped at: {' '.join(command[2:])}")
    if code:
        raise MachineError(f"stopped (exit code {code}) at: {' '.join(command[2:])}")


def conclude(request: FreeTrainingRequest, losses: dict[str, list[list[float]]]) -> dict[str, Any]:
    """The test over the mean of all bins, each bin's interval, and the sentence."""
    a, b = (np.array(losses[panel]) for panel in BACKENDS)
    overall = paired_tost(a.mean(axis=1).tolist(), b.mean(axis=1).tolist(), request.margin)
    bins = [
        paired_tost(a[:, k].tolist(), b[:, k].tolist(), request.margin) for k in range(request.bins)
    ]
    spread = {
        panel: float(np.log(np.array(losses[panel]).mean(axis=1)).std(ddof=1)) for panel in BACKENDS
    }
    return {
        "schema": 1,
        "kind": "align-train",
        **request.plan,
        "losses": losses,
        "overall": overall,
        "per_bin": bins,
        "seed_sd": spread,
        "passed": overall["equivalent"],
        "conclusion": sentence(overall, request),
    }


def sentence(test: dict[str, Any], request: FreeTrainingRequest) -> str:
    """The conclusion that the test allows, in words."""
    numbers = (
        f"Jittor's loss differs from PyTorch's by {_percent(test['ratio'])} after "
        f"{request.steps:,} steps, 90 % interval {_percent(test['low'])} to "
        f"{_percent(test['high'])}, {test['seeds']} seeds"
    )
    within = f"{100 * request.margin:g} %, the margin set beforehand"
    if test["equivalent"]:
        return f"equivalent within {within}: {numbers} (p = {significant(test['p'])})"
    return f"equivalence within {within}, is not shown: {numbers} (p = {significant(test['p'])})"


def _percent(ratio: float) -> str:
    """A ratio as a signed difference: +0.31 %."""
    return f"{'+' if ratio > 1 else ''}{significant(100 * (ratio - 1))} %"


def table(result: dict[str, Any]) -> str:
    """Losses and ratios by bin, for the terminal."""
    lines = [f"{'timesteps':>12}  {'PyTorch':>9}  {'Jittor':>9}  difference (90 % interval)"]
    means = {panel: np.array(result["losses"][panel]).mean(axis=0) for panel in BACKENDS}
    count = result["bins"]
    for k, test in enumerate(result["per_bin"]):
        values = "  ".join(f"{means[panel][k]:9.5f}" for panel in BACKENDS)
        span = f"bin {k + 1}/{count}"
        interval = f"{_percent(test['low'])} to {_percent(test['high'])}"
        lines.append(f"{span:>12}  {values}  {_percent(test['ratio'])} ({interval})")
    sds = ", ".join(f"{TITLES[p]} {sd:.1%}" for p, sd in result["seed_sd"].items())
    return "\n".join([*lines, f"spread of one panel's losses over seeds: {sds}"])
