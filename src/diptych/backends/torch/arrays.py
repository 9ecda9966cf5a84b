"""Arrays and weights between host and device, PyTorch backend; mirror: `jittor/arrays.py`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from diptych.backends.torch.own import Own
from diptych.backends.torch.unet import UNet
from diptych.errors import UserError
from diptych.network.own import AnyPlan, OwnPlan
from diptych.network.parameters import check_weights
from diptych.rng import stream
from diptych.types import Array, Float32, Weights


def put(values: Array, device: str) -> torch.Tensor:
    """Copy a host array to the device; on a CPU it may share the host's memory.

    The copy to a GPU is asynchronous, from pinned memory.
    """
    host = torch.from_numpy(np.ascontiguousarray(values))
    return host.pin_memory().to(device, non_blocking=True) if device.startswith("cuda") else host


def read(values: torch.Tensor) -> Array:
    """Copy a device array to the host; waits for it."""
    return np.array(values.detach().cpu().numpy(), order="C")


def assign(target: torch.Tensor, values: Float32) -> None:
    """Overwrite a device array in place; shapes must be equal."""
    if tuple(target.shape) != values.shape:
        raise ValueError(f"cannot assign {values.shape} to {tuple(target.shape)}")
    with torch.no_grad():
        target.copy_(torch.from_numpy(np.ascontiguousarray(values)))


def build(plan: AnyPlan, weights: Mapping[str, Float32] | None, device: str) -> Any:
    """Build the plan's network with exactly these weights; None keeps those of its maker."""
    if isinstance(plan, OwnPlan):
        network: Any = Own(plan, device)
    else:
        check_weights(plan, weights or {}, "weights")
        # Not channels_last: on a CPU it measured slower with 32 channels and with 128.
        network = UNet(plan).to(device)
    if weights is not None:
        load(weights_of(network), weights)
    return network


def load(arrays: Mapping[str, torch.Tensor], weights: Mapping[str, Float32]) -> None:
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


def weights_of(network: Any) -> dict[str, torch.Tensor]:
    """The network's own arrays by name."""
    return dict(network.named_parameters())


def read_all(arrays: Mapping[str, torch.Tensor]) -> Weights:
    """Host copies by name."""
    return {name: read(array) for name, array in arrays.items()}


def add_all(sums: list[torch.Tensor], more: list[torch.Tensor]) -> list[torch.Tensor]:
    """The sums with `more` added in place, without their graphs."""
    with torch.no_grad():
        found = [array.detach() for array in sums]
        for array, part in zip(found, more, strict=True):
            array += part
    return found


def draw_noise(like: torch.Tensor, seed: int, step: int, images: int) -> torch.Tensor:
    """Draw the normal noise of all `images` of a step on the device (`noise: device`), keyed by
    (seed, step) there."""
    torch.manual_seed(int(stream(seed, "training_noise", step).integers(2, 2**31)))
    return torch.randn((images, *like.shape[1:]), device=like.device)


def draw_masks(plan: AnyPlan, batch: int, device: str) -> list[torch.Tensor] | None:
    """Draw dropout's keep masks on the device, after `draw_noise`; None at rate 0."""
    if not plan.dropout:
        return None
    shapes = [(batch, *block.shape) for block in plan.blocks]
    draws = [torch.rand(shape, device=device) for shape in shapes]
    return [(draw >= plan.dropout).to(torch.uint8) for draw in draws]
