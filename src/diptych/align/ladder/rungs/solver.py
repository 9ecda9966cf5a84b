"""Sampling: the levels and coefficients exactly, one step, and whole chains to pixels.

Chains of DDIM (eta 0) and of eta 1, whose noise is the keyed one, run with the ladder's weights; a
guided one with those of a network with classes.
Error grows along a chain by the solver's own law; what is allowed at a step is what a panel's own
chain has moved by then after one rounding of its start.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np

from diptych import rng
from diptych.align.process.workbench import Desk
from diptych.diffusion import schedule
from diptych.network.plan import make_plan
from diptych.sampling import sampler
from diptych.sampling.engine import Engine
from diptych.sampling.solvers import Ddim, Step
from diptych.training.batches import to_uint8
from diptych.types import Array

STEPS, GUIDED_STEPS, CLASSES = 10, 5, 10
CHAINS = {"ddim": ("ddim", 0.0, "uniform"), "quad": ("ddim", 0.0, "quad"), "eta": ("ddim", 1.0, "uniform")}  # noqa: E501 # fmt: skip


def trace_solver(desk: Desk) -> None:
    """Coefficients first, then the chains."""
    tables = schedule.make_schedule(desk.config.diffusion)
    steps = min(STEPS, tables.timesteps)
    chosen = {
        name: sampler.make_sampler(
            solver, steps, eta, spacing, timesteps=tables.timesteps,
            num_classes=desk.plan.num_classes,
        )
        for name, (solver, eta, spacing) in CHAINS.items()
    }  # fmt: skip
    for name, each in chosen.items():
        desk.add(f"coefficients/{name}", coefficients(each, tables))
    count = min(8, desk.spec.batch)
    weights = desk.weights
    network = desk.panel.backend.network(desk.plan, weights)
    engine = Engine(desk.panel.backend, network, desk.plan, tables)
    start = rng.normal_per_image(desk.config.seed, "initial_noise", range(count), engine.shape)
    for name, each in chosen.items():
        chain(desk, engine, name, each, start)
    guided(desk, start)


def chain(desk: Desk, engine: Engine, name: str, each: sampler.Sampler, start: Array) -> None:
    """The images after each step, and their pixels."""

    def observe(k: int, level: Any, x: Any) -> None:
        desk.add(f"{name}/x {k:03d}", desk.panel.read(x))

    x_T = desk.moved(start, name)
    drawn = engine.draw(each, range(len(start)), desk.config.seed, x_T, observe)
    desk.add(f"pixels/{name}", to_uint8(drawn.astype(np.float32)))


def guided(desk: Desk, start: Array) -> None:
    """A chain that a config need not have: of a network with classes that predicts v, guided,
    from a level where nothing of the image is left."""
    settings = desk.settings(
        model__num_classes=CLASSES, diffusion__objective="v", train__weighting="none",
        diffusion__zero_terminal_snr=True,
    )  # fmt: skip
    plan, tables = make_plan(settings), schedule.make_schedule(settings.diffusion)
    network = desk.panel.backend.network(plan, desk.weights_for(plan))
    each = sampler.make_sampler(
        "ddim", min(GUIDED_STEPS, tables.timesteps), spacing="trailing",
        timesteps=tables.timesteps, classes=(3, 7), guidance=2.0, num_classes=CLASSES,
    )  # fmt: skip
    engine = Engine(desk.panel.backend, network, plan, tables)
    chain(desk, engine, "guided", each, start)


def coefficients(each: sampler.Sampler, tables: schedule.Schedule) -> np.ndarray:  # type: ignore[type-arg]
    """(steps, 6): t, t', the update's factors of x, eps and noise, and sigma'; float64.

    The factors are read off the solver itself: it is a linear combination, so it is tried on
    numbers.
    """
    solver = Ddim(each.eta)
    levels = [tables.level(t) for t in each.timesteps(tables)] + [vars(sampler)["CLEAN"]]
    found = []
    for now, after in pairwise(levels):
        tried = []
        for x, eps, z in ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)):
            given = solver.step(Step(x, lambda _x, _level, eps=eps: eps, now, after, z))  # type: ignore[misc]
            tried.append(float(given))
        found.append([now.t, after.t, *tried, after.sigma])
    return np.array(found)
