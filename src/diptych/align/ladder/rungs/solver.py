"""Sampling: exact levels and coefficients, and whole chains to pixels.

    coefficients/WALK   levels and images of the solver by itself, on a few numbers in float64
    WALK/x 003          the images after each step, from a network on the backend
    pixels/WALK         the last images as pixels

Three walks use the ladder's weights: DDIM with two spacings, and with eta 1. Every solver of the
command line walks with a small network in each of its orders; some also clipped and with dynamic
thresholding, and DDIM with eta 0.5, with either noise. A guided walk uses a
network with classes. Images are encoded as latents too. Error grows along a chain by the solver's
own law; the floor of a step grows with the change of a chain after one rounding of its start.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from diptych import rng
from diptych.align.ladder.rungs.exact import TRANSFORMS
from diptych.align.process.workbench import Workbench
from diptych.data.preprocess import preprocess_of
from diptych.diffusion import schedule
from diptych.errors import UserError
from diptych.network.plan import make_plan
from diptych.sampling import sampler
from diptych.sampling.engine import Engine
from diptych.sampling.inversion import encode, make_inversion
from diptych.sampling.solvers import from_v, invert, solve
from diptych.sampling.solvers.kinds import KINDS
from diptych.types import Array, Float64

STEPS, FEW, CLASSES = 10, 5, 10
SMALL = {
    "model__ch": 32, "model__ch_mult": [1], "model__num_res_blocks": 1,
    "model__attn_resolutions": [], "model__num_classes": 0, "model__dropout": 0.0,
    "data__image_size": 8,
}  # fmt: skip
OWN: dict[str, dict[str, Any]] = {
    "ddim": {"solver": "ddim"}, "quad": {"solver": "ddim", "spacing": "quad"},
    "eta": {"solver": "ddim", "eta": 1.0},
}  # fmt: skip
LIMITED = ("ddim", "dpmpp", "dpmpp-sde")  # limits are the same code for all: fewer kernels compile
RAMP = 4096
START = (0.5, -1.5, 1.0, -0.7)
INDICES = (5, 0, 11)  # of images drawn by number


def trace_solver(bench: Workbench) -> None:
    """Trace coefficients first, then the walks."""
    tables = schedule.make_schedule(bench.config.diffusion)
    own = chosen(bench, tables, OWN, min(STEPS, tables.timesteps))
    every = chosen(bench, tables, walks(), min(FEW, tables.timesteps))
    for name, each in {**own, **every}.items():
        bench.add(f"coefficients/{name}", coefficients(each, tables))
    add_ramps(bench)
    engine = engine_of(bench, bench.plan, tables)
    start = starts(bench, engine, bench.spec.batch)
    for name, each in own.items():
        chain(bench, engine, name, each, start)
    small = engine_of(bench, make_plan(bench.settings(**SMALL)), tables)
    start = starts(bench, small, bench.spec.batch)
    for name, each in every.items():
        chain(bench, small, name, each, start)
    encoded(bench, small)
    predicted(bench)
    guided(bench)
    by_number(bench)


def add_ramps(bench: Workbench) -> None:
    """Add the pixels of a ramp beyond both ends, through every transform, to show the rounding."""
    ramp = np.linspace(-1.2, 1.2, RAMP, dtype=np.float32).reshape(1, 1, 1, RAMP)
    for name, changes in TRANSFORMS.items():
        transform = preprocess_of(bench.settings(**changes).data)
        bench.add(f"coefficients/pixels, {name}", transform.pixels(ramp))


def walks() -> dict[str, dict[str, Any]]:
    """Settings of every solver in each of its orders, and of some with limits on the image."""
    found: dict[str, dict[str, Any]] = {}
    for name, kind in KINDS.items():
        for order in kind.orders or (None,):
            found[f"{name}, order {order}" if order else f"every {name}"] = {
                "solver": name, "order": order,
            }  # fmt: skip
        if name in LIMITED:
            found[f"{name}, clipped"] = {"solver": name, "clip": True}
            found[f"{name}, threshold"] = {"solver": name, "threshold": 0.9}
    found["ddim, image clipped"] = {"solver": "ddim", "clip": "image"}
    some = {"solver": "ddim", "eta": 0.5}
    return found | {"ddim, eta 0.5": some, "ddim, eta 0.5, keyed": some | {"noise": "keyed"}}


def chosen(
    bench: Workbench, tables: schedule.Schedule, asked: dict[str, dict[str, Any]], steps: int
) -> dict[str, sampler.Sampler]:
    """Samplers by name, with the host's noise unless keyed is asked for; one that this schedule
    refuses is recorded with the reason."""
    found = {}
    for name, options in asked.items():
        try:
            each = sampler.make_sampler(
                steps=steps,
                timesteps=tables.timesteps,
                num_classes=bench.plan.num_classes,
                ends_in_noise=bool(tables.alpha[-1] == 0),
                **{"noise": "host", **options},
            )
            each.check(tables)
            each.levels(tables)
        except UserError as error:
            bench.note(name, str(error))
            continue
        found[name] = each
    return found


def engine_of(bench: Workbench, plan: Any, tables: schedule.Schedule) -> Engine:
    """An engine for a network of the plan with the ladder's weights."""
    network = bench.panel.backend.network(plan, bench.weights_for(plan))
    return Engine(bench.panel.backend, network, plan, tables)


def starts(bench: Workbench, engine: Engine, count: int) -> Array:
    """The initial noise of up to 8 images."""
    seed = bench.config.seed
    return rng.normal_per_image(seed, "initial_noise", range(min(8, count)), engine.shape)


def chain(bench: Workbench, engine: Engine, name: str, each: sampler.Sampler, start: Array) -> None:
    """Add the images after each step, and the pixels of the last."""

    def observe(k: int, level: Any, x: Any) -> None:
        bench.add(f"{name}/x {k:03d}", bench.panel.read(x))

    x_T = bench.moved(start, name)
    drawn = engine.draw(each, range(len(start)), bench.config.seed, x_T, observe)
    bench.add(f"pixels/{name}", engine.pixels(drawn.astype(np.float32)))


def encoded(bench: Workbench, engine: Engine) -> None:
    """Add images encoded as latents (inversion), on numbers and with a network."""
    tables = engine.schedule
    steps = min(FEW, tables.timesteps)
    ends = bool(tables.alpha[-1] == 0)
    each = make_inversion(steps, timesteps=tables.timesteps, ends_in_noise=ends)
    levels = each.sampler.levels(tables)[::-1]
    found: list[Float64] = []
    invert(numbers(tables), np.array(START), levels, each.refine, lambda k, a, x: found.append(x))
    bench.add("coefficients/encoded", np.stack(found))
    images = np.tanh(bench.normal("encoded", (min(8, bench.spec.batch), *engine.shape)))

    def observe(k: int, level: Any, x: Any) -> None:
        bench.add(f"encoded/x {k:03d}", bench.panel.read(x))

    encode(engine, each, images, observe)


def predicted(bench: Workbench) -> None:
    """Add the noise implied by a network of each objective, with one timestep per image."""
    for aim in ("eps", "x0", "v"):
        settings = bench.settings(
            **SMALL,
            diffusion__objective=aim,
            diffusion__zero_terminal_snr=False,
            train__weighting="none",
        )
        tables = schedule.make_schedule(settings.diffusion)
        engine = engine_of(bench, make_plan(settings), tables)
        t = np.linspace(0, int(tables.timesteps * 0.8), 4).astype(np.int64)
        x = bench.normal(f"predicted {aim}", (4, *engine.shape))
        bench.add(f"predicted by {aim}", engine.predictor.predict(x, t, None, tables))


def guided(bench: Workbench) -> None:
    """Add a guided walk, whatever the config: a network with classes that predicts v, from a level
    without any of the image (alpha = 0)."""
    settings = bench.settings(
        model__num_classes=CLASSES,
        diffusion__objective="v",
        train__weighting="none",
        diffusion__zero_terminal_snr=True,
    )
    tables = schedule.make_schedule(settings.diffusion)
    each = sampler.make_sampler(
        "ddim",
        min(FEW, tables.timesteps),
        spacing="trailing",
        timesteps=tables.timesteps,
        classes=(3, 7),
        guidance=2.0,
        num_classes=CLASSES,
    )
    engine = engine_of(bench, make_plan(settings), tables)
    chain(bench, engine, "guided", each, starts(bench, engine, bench.spec.batch))


def by_number(bench: Workbench) -> None:
    """Add images sampled by their numbers, of either noise, with a network that predicts none."""
    changes: dict[str, Any] = {"diffusion__objective": "eps", "train__weighting": "none"}
    settings = bench.settings(**SMALL, diffusion__zero_terminal_snr=False, **changes)
    plan, tables = make_plan(settings), schedule.make_schedule(settings.diffusion)
    steps, engine = min(FEW, tables.timesteps), Engine(bench.panel.backend, nothing, plan, tables)
    for noise, name in (("host", "by number"), ("keyed", "by number, keyed")):
        each = sampler.make_sampler("ddim", steps, 1.0, timesteps=tables.timesteps, noise=noise)
        bench.add(name, engine.draw(each, INDICES, bench.config.seed))


def nothing(x: Any, *_: Any) -> Any:
    """A network that predicts no noise."""
    return 0.0 * x


def coefficients(each: sampler.Sampler, tables: schedule.Schedule) -> Float64:
    """(steps, 5 + 4): t, t', alpha', sigma', the noise's scale, and four images after the step.

    A solver is a linear combination of images, predictions and noise, so it is tested on numbers:
    any wrong coefficient changes the bits.
    """
    solver, levels = each.make(tables), each.levels(tables)
    found: list[Float64] = []

    def observe(k: int, after: schedule.Level, x: Float64) -> None:
        scale = solver.noise_scale(levels[k], after) if levels[k].alpha > 0 else 0.0
        found.append(np.array([levels[k].t, after.t, after.alpha, after.sigma, scale, *x]))

    def noise(k: int) -> Float64:
        drawn: Float64 = np.cos((k + 1) * np.arange(1.0, 5.0))
        return drawn

    solve(solver, numbers(tables), np.array(START), levels, noise, observe)
    return np.stack(found)


def numbers(tables: schedule.Schedule) -> Any:
    """A prediction for four numbers in float64, different at any two levels."""
    slope = np.array([-1.0, -0.3, 0.4, 1.1])

    def velocity(x: Float64, level: schedule.Level) -> Float64:
        answer: Float64 = 0.2 * x + (level.t / tables.timesteps) * slope
        return answer

    return from_v(velocity)
