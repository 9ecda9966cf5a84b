"""Resuming: a state saved, read and restored into a fresh learner continues to the same bits.

    restored/GROUP/WEIGHT    the fresh learner has the bits of the saved one
    resumed/GROUP/WEIGHT     the same after some more steps of both

All must be equal, so the reference computes nothing and records "equal". On a GPU the order of sums
may differ from run to run; only `restored` is compared there.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from diptych.align.process.panels import REFERENCE
from diptych.align.process.workbench import Workbench
from diptych.backends.protocol import State
from diptych.network.parameters import parameter_table
from diptych.network.plan import make_plan
from diptych.runs import checkpoint

BEFORE, AFTER = 2, 2  # steps
LR = 1e-3
GROUPS = ("raw", "ema", "adam_m", "adam_v")


def trace_resume(bench: Workbench) -> None:
    """Train, save and continue; restore into a fresh learner and continue; compare."""
    settings = bench.settings(train__batch_size=bench.spec.batch, model__dropout=0.25)
    plan = make_plan(settings)
    moments = ("restored", "resumed") if bench.spec.device == "cpu" else ("restored",)
    if bench.panel.name == REFERENCE:
        for moment in moments:
            bench.note(f"{moment}: step", BEFORE + (AFTER if moment == "resumed" else 0))
            for group in GROUPS:
                for name in parameter_table(plan):
                    bench.note(f"{moment}/{group}/{name}", "equal")
        return
    learner, source = bench.learner(settings), bench.batches(settings)
    for step in range(1, BEFORE + 1):
        learner.step(source.batch(step), LR)
    saved = learner.state()
    with TemporaryDirectory() as folder:
        read = checkpoint.load_state(checkpoint.save(Path(folder), saved, {}, 1), plan)
    fresh = bench.panel.backend.learner(
        plan,
        {name: np.zeros_like(a) for name, a in saved.raw.items()},
        settings.train,
        settings.seed,
    )
    fresh.restore(read)
    compare(bench, "restored", fresh.state(), saved)
    if "resumed" in moments:
        for step in range(BEFORE + 1, BEFORE + AFTER + 1):
            for each in (learner, fresh):
                each.step(source.batch(step), LR)
        compare(bench, "resumed", fresh.state(), learner.state())


def compare(bench: Workbench, moment: str, found: State, right: State) -> None:
    """Record tensor by tensor if the bits are equal."""
    bench.note(f"{moment}: step", found.step)
    for group in GROUPS:
        for name, array in getattr(right, group).items():
            other = getattr(found, group)[name]
            unequal = int(np.count_nonzero(array.view(np.uint32) != other.view(np.uint32)))
            verdict = f"unequal in {unequal:,} of {array.size:,} values" if unequal else "equal"
            bench.note(f"{moment}/{group}/{name}", verdict)
