"""Training steps: the panel's learner as it is and in other forms, and diffusers' loop."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from itertools import count
from typing import Any

import torch
from torch.nn import functional as F

from benchmarks.gpu.common import Place, Result, speed, timed
from diptych import backends
from diptych.backends.torch import unet
from diptych.backends.torch.layers import GroupNorm, attention
from diptych.training.batches import Batches
from diptych.training.prefetch import Prefetch

READY = 4  # batches made before the clock runs


def as_it_is(preset: str, noise: str, precision: str, *more: str) -> Callable[[Place], Result]:
    """`Learner.step` with `Prefetch`, as `diptych train` uses them, host and all."""

    def piece(place: Place) -> Result:
        changes = (f"train.noise={noise}", f"train.precision={precision}", *more)
        config, plan, weights = place.network(preset, *changes)
        backend = backends.load("torch", place.device, precision)
        learner = backend.learner(plan, weights, config.train, 0)
        batches = Batches(config, plan, place.images(config))
        with Prefetch(batches.batch, 1, None) as ahead:
            steps = count(1)
            step = lambda _: learner.step(ahead.get(next(steps)), 2e-4)  # noqa: E731
            return speed(place, lambda: step, config.train.batch_size)

    return piece


def sdpa(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """`layers.attention` by PyTorch's fused operator."""
    rows = (x.flatten(2).transpose(1, 2).unsqueeze(1) for x in (q, k, v))
    return F.scaled_dot_product_attention(*rows).squeeze(1).transpose(1, 2).reshape(q.shape)


def free_norm(norm: GroupNorm, x: torch.Tensor, shift: torch.Tensor | None = None) -> torch.Tensor:
    """`GroupNorm.forward` without a demand on the order in memory."""
    if shift is not None:
        x = x + shift[:, :, None, None]
    sizes = x.shape[0], x.shape[1], x.shape[2] * x.shape[3], norm.groups
    weight, bias = norm.weight.to(x.dtype), norm.bias.to(x.dtype)
    x, _, rstd = torch.native_group_norm(x, weight, bias, *sizes, norm.eps)
    norm.rstd = rstd.detach()
    return F.silu(x) if norm.silu else x


@contextlib.contextmanager
def forms(fused: bool, free: bool) -> Any:
    """Other forms of attention and norm while it lasts."""
    before = GroupNorm.forward
    unet.attention = sdpa if fused else attention
    if free:
        GroupNorm.forward = free_norm
    try:
        yield
    finally:
        unet.attention, GroupNorm.forward = attention, before


def formed(network: Any, *, last: bool, compiled: bool) -> Any:
    """The network in another order in memory, compiled or not."""
    if last:
        network = network.to(memory_format=torch.channels_last)
    return torch.compile(network, dynamic=False) if compiled else network


def panel(
    precision: str,
    preset: str = "cifar10",
    *,
    compiled: bool = False,
    captured: bool = False,
    last: bool = False,
    fused: bool = False,
    free: bool = False,
    draws: bool = True,
) -> Callable[[Place], Result]:
    """Steps on batches that lie ready, in another form of the learner."""

    def piece(place: Place) -> Result:
        changes = ("train.noise=keyed", f"train.precision={precision}")
        config, plan, weights = place.network(preset, *changes)
        backend = backends.load("torch", place.device, precision)
        learner = backend.learner(plan, weights, config.train, 0)
        learner.network = formed(learner.network, last=last, compiled=compiled)
        for group in (learner.adam_m, learner.adam_v, learner.ema):
            group.update({name: torch.zeros_like(p) for name, p in learner.raw.items()})
        if not captured:
            learner.captured = None
        batches = Batches(config, plan, place.images(config))
        ready = [batches.batch(step) for step in range(1, READY + 1)]
        if not draws:
            learner.draws = lambda batch, x0: (torch.randn_like(x0), None)
        with forms(fused, free):
            step = lambda i: learner.step(ready[i % READY], 2e-4)  # noqa: E731
            return speed(place, lambda: step, config.train.batch_size)

    return piece


def diffusers(
    precision: str, *, compiled: bool = False, last: bool = False, plain: bool = False
) -> Callable[[Place], Result]:
    """diffusers' loop on the same weights; `plain`: with its own moving average and `.item()`."""

    def piece(place: Place) -> Result:
        from benchmarks import opponent

        config, _, weights = place.network("cifar10")
        torch.set_float32_matmul_precision("highest" if precision == "fp32" else "high")
        torch.backends.cudnn.allow_tf32 = precision != "fp32"
        torch.backends.cudnn.benchmark = not plain
        model = opponent.network(config, weights, place.device).train()
        size, kind = config.train.batch_size, place.device
        scheduler = opponent.DDPMScheduler(num_train_timesteps=1000)
        called = formed(model, last=last, compiled=compiled)
        parameters = list(model.parameters())
        adam = torch.optim.Adam(parameters, lr=2e-4, fused=None if plain else True)
        ema = opponent.EMAModel(parameters, decay=0.9999, foreach=not plain)
        clean = torch.randn((size, 3, 32, 32), device=kind).clamp(-1, 1)
        bf16 = precision == "bf16"

        def step(i: int) -> None:
            noise = torch.randn_like(clean)
            t = torch.randint(0, 1000, (size,), device=kind)
            noisy = scheduler.add_noise(clean, noise, t)
            with torch.autocast(kind, torch.bfloat16) if bf16 else contextlib.nullcontext():
                found = called(noisy, t).sample
            loss = F.mse_loss(found.float(), noise)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            adam.step()
            ema.step(parameters)
            adam.zero_grad()
            if plain:
                loss.item()

        return speed(place, lambda: step, size)

    return piece


def draws(place: Place) -> Result:
    """The host's part of a step of `mnist`: a batch with keyed noise."""
    config, plan, _ = place.network("mnist", "train.noise=keyed")
    batches = Batches(config, plan, place.images(config))
    return timed(place, lambda i: batches.batch(i + 1))


PIECES = {
    "train, as it is, host noise, fp32": as_it_is("cifar10", "host", "fp32"),
    "train, as it is, keyed, fp32": as_it_is("cifar10", "keyed", "fp32"),
    "train, as it is, keyed, tf32": as_it_is("cifar10", "keyed", "tf32"),
    "train, as it is, keyed, bf16": as_it_is("cifar10", "keyed", "bf16"),
    "train, as it is, keyed, bf16, compile": as_it_is(
        "cifar10", "keyed", "bf16", "train.compile=true"
    ),
    "train mnist, as it is, keyed, fp32": as_it_is("mnist", "keyed", "fp32"),
    "train mnist, eager, fp32": panel("fp32", "mnist"),
    "train mnist, captured, fp32": panel("fp32", "mnist", captured=True),
    "train, diffusers as documented, fp32": diffusers("fp32", plain=True),
    "train, diffusers, tf32": diffusers("tf32"),
    "train, diffusers, bf16": diffusers("bf16"),
    "train, diffusers, bf16, compiled": diffusers("bf16", compiled=True),
    "train, bf16": panel("bf16"),
    "train, bf16, captured": panel("bf16", captured=True),
    "train, bf16, compiled": panel("bf16", compiled=True),
    "train, bf16, compiled, captured": panel("bf16", compiled=True, captured=True),
    "train, bf16, channels last, compiled, captured": panel(
        "bf16", last=True, free=True, fused=True, compiled=True, captured=True
    ),
    "train, bf16, fused attention, captured": panel("bf16", fused=True, captured=True),
    "train, bf16, channels last, captured": panel("bf16", last=True, captured=True),
    "train, bf16, no masks, captured": panel("bf16", draws=False, captured=True),
    "train, tf32, captured": panel("tf32", captured=True),
    "train, tf32, channels last, captured": panel("tf32", last=True, captured=True),
    "train, fp32, captured": panel("fp32", captured=True),
    "a batch of mnist": draws,
    "train, diffusers, bf16, channels last, compiled": diffusers("bf16", last=True, compiled=True),
}
