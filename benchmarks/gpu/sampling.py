"""Network calls of a sampler: the panel as it is and in other forms, and diffusers."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import torch

from benchmarks.gpu.common import Place, Result, speed
from benchmarks.gpu.training import formed, forms
from diptych import backends
from diptych.backends.torch.captured import Captured
from diptych.diffusion.schedule import make_schedule
from diptych.sampling.engine import Engine
from diptych.sampling.sampler import make_sampler

STEPS = 10


def images(place: Place) -> int:
    """Images in a call."""
    return 512 if place.on_gpu else 2


def as_it_is(solver: str, precision: str, noise: str = "keyed") -> Callable[[Place], Result]:
    """`Engine.draw` of ten steps, noise and the copy to the host included."""

    def piece(place: Place) -> Result:
        config, plan, weights = place.network()
        backend = backends.load("torch", place.device, precision)
        schedule = make_schedule(config.diffusion)
        engine = Engine(backend, backend.network(plan, weights), plan, schedule)
        sampler = make_sampler(solver, STEPS, noise=noise)
        count = images(place)
        return speed(place, lambda: lambda i: engine.draw(sampler, range(count), i), count)

    return piece


def panel(
    precision: str,
    *,
    compiled: bool = False,
    captured: bool = False,
    last: bool = False,
    fused: bool = False,
    free: bool = False,
    cast: bool = False,
) -> Callable[[Place], Result]:
    """One call and one linear combination; `cast`: the weights in bfloat16, without autocast."""

    def piece(place: Place) -> Result:
        _, plan, weights = place.network()
        backend = backends.load("torch", place.device, precision)
        network = backend.network(plan, weights)
        if cast:
            network = network.to(torch.bfloat16)
        network = formed(network, last=last, compiled=compiled)
        count = images(place)
        x = backend.array(torch.randn((count, *plan.shape)).numpy())
        embedding = backend.array(plan.times([500]))

        def call(given: list[torch.Tensor], _: int = 0) -> list[torch.Tensor]:
            with torch.no_grad():
                if cast:
                    ours = (array.to(torch.bfloat16) for array in given)
                    found = network(*ours).float()
                else:
                    found = backend.arithmetic.call(network, *given)
                return [0.9 * given[0] + 0.1 * found]

        run = Captured(call) if captured and place.on_gpu else call
        with forms(fused, free):
            return speed(place, lambda: lambda i: run([x, embedding]), count)

    return piece


def diffusers(precision: str, *, compiled: bool, last: bool = False) -> Callable[[Place], Result]:
    """diffusers' network in its best form, and the same combination."""

    def piece(place: Place) -> Result:
        from benchmarks import opponent

        config, _, weights = place.network()
        torch.set_float32_matmul_precision("highest" if precision == "fp32" else "high")
        torch.backends.cudnn.allow_tf32 = precision != "fp32"
        torch.backends.cudnn.benchmark = place.on_gpu
        kind = torch.bfloat16 if precision == "bf16" else torch.float32
        model = opponent.network(config, weights, place.device).eval().to(kind)
        model = formed(model, last=last, compiled=compiled)
        count = images(place)
        x = torch.randn((count, 3, 32, 32), device=place.device, dtype=kind)
        t = torch.full((count,), 500, device=place.device)

        def call(i: int) -> torch.Tensor:
            with torch.no_grad(), contextlib.nullcontext():
                return 0.9 * x + 0.1 * model(x, t).sample

        return speed(place, lambda: call, count)

    return piece


PIECES = {
    "draw ddim, as it is, fp32": as_it_is("ddim", "fp32"),
    "draw ddim, as it is, bf16": as_it_is("ddim", "bf16"),
    "draw dpmpp-sde, as it is, bf16": as_it_is("dpmpp-sde", "bf16"),
    "call, diffusers, tf32": diffusers("tf32", compiled=False),
    "call, diffusers, bf16": diffusers("bf16", compiled=False),
    "call, diffusers, bf16, compiled": diffusers("bf16", compiled=True),
    "call, diffusers, bf16, channels last, compiled": diffusers("bf16", compiled=True, last=True),
    "call, fp32": panel("fp32"),
    "call, tf32": panel("tf32"),
    "call, bf16": panel("bf16"),
    "call, bf16, captured": panel("bf16", captured=True),
    "call, bf16, cast": panel("bf16", cast=True),
    "call, bf16, cast, compiled, captured": panel("bf16", cast=True, compiled=True, captured=True),
    "call, bf16, cast, channels last, compiled, captured": panel(
        "bf16", cast=True, last=True, free=True, fused=True, compiled=True, captured=True
    ),
    "call, bf16, compiled, captured": panel("bf16", compiled=True, captured=True),
}
