"""Arrays and weights between host and device, Jittor backend; mirror: `torch/arrays.py`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jittor as jt
import numpy as np

from diptych.backends.jittor.own import Own
from diptych.backends.jittor.unet import UNet
from diptych.errors import UserError
from diptych.network.own import AnyPlan, OwnPlan
from diptych.network.parameters import check_weights
from diptych.rng import stream
from diptych.types import Array, Float32, Weights


def put(values: Array, device: str) -> jt.Var:
    """Copy a host array to the device; Jittor's device is a global flag, set by the backend."""
    return jt.array(np.ascontiguousarray(values)).stop_grad()


def read(values: jt.Var) -> Array:
    """Copy a device array to the host; waits for it."""
    return np.array(values.numpy(), order="C")


def assign(target: jt.Var, values: Float32) -> None:
    """Overwrite a device array; shapes must be equal (Jittor's `assign` accepts any)."""
    if tuple(target.shape) != values.shape:
        raise ValueError(f"cannot assign {values.shape} to {tuple(target.shape)}")
    target.assign(jt.array(np.ascontiguousarray(values)))


def build(plan: AnyPlan, weights: Mapping[str, Float32] | None, device: str) -> Any:
    """Build the plan's network with exactly these weights; None keeps those of its maker."""
    if isinstance(plan, OwnPlan):
        network: Any = Own(plan, device)
    else:
        check_weights(plan, weights or {}, "weights")
        network = UNet(plan)
    if weights is not None:
        load(weights_of(network), weights)
    return network


def load(arrays: Mapping[str, jt.Var], weights: Mapping[str, Float32]) -> None:
    """Overwrite device arrays by name. Raises UserError if a name or a shape differs."""
    theirs = {name: array.shape for name, array in weights.items()}
    for name, array in arrays.items():
        if theirs.pop(name, None) != tuple(array.shape):
            raise UserError(
                f"network: its weight '{name}' is {tuple(array.shape)}, and the saved weights "
                f"hold another shape or none; give the network that was trained"
            )
    for name in theirs:
        raise UserError(
            f"network: has no weight '{name}', which was saved; give the network that was trained"
        )
    for name, array in arrays.items():
        assign(array, weights[name])


def weights_of(network: Any) -> dict[str, jt.Var]:
    """The network's own arrays by name."""
    return dict(network.named_parameters())


def read_all(arrays: Mapping[str, jt.Var]) -> Weights:
    """Host copies by name."""
    return {name: read(array) for name, array in arrays.items()}


def add_all(sums: list[jt.Var], more: list[jt.Var]) -> list[jt.Var]:
    """The sums with `more` added, computed at once, without their graphs.

    Lazily added, all micro-batches would be in memory together.
    """
    found = [(array + part).stop_grad() for array, part in zip(sums, more, strict=True)]
    jt.sync(found)
    return found


def draw_noise(like: jt.Var, seed: int, step: int, images: int) -> jt.Var:
    """Draw the normal noise of all `images` of a step on the device (`noise: device`), keyed by
    (seed, step) there."""
    jt.set_seed(int(stream(seed, "training_noise", step).integers(2, 2**31)))
    return jt.randn((images, *like.shape[1:])).stop_grad()


def draw_masks(plan: AnyPlan, batch: int, device: str) -> list[jt.Var] | None:
    """Draw dropout's keep masks on the device, after `draw_noise`; None at rate 0."""
    if not plan.dropout:
        return None
    shapes = [(batch, *block.shape) for block in plan.blocks]
    draws = [jt.rand(shape).stop_grad() for shape in shapes]
    return [(draw >= plan.dropout).uint8() for draw in draws]
