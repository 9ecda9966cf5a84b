"""Adapter of a user's own network to the backend's call. Mirrors `jittor/own.py`."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from diptych.errors import UserError
from diptych.network.own import OwnPlan
from diptych.rng import stream


class Own:
    """The user's module with the call of the backend's network: x, time, masks, classes."""

    def __init__(self, plan: OwnPlan, device: str) -> None:
        if plan.seed is not None:
            seed(plan.seed, 0)
        module = plan.make()
        if not isinstance(module, nn.Module):
            raise UserError(f"network: gave a {type(module).__name__}, expected a torch.nn.Module")
        self.module = module.to(device)

    def __call__(
        self,
        x: torch.Tensor,
        t: torch.Tensor,
        masks: Any = None,
        classes: torch.Tensor | None = None,
    ) -> torch.Tensor:
        given = [t.expand(len(x))]  # a sampler passes one time and one class for all images
        if classes is not None:
            given.append(classes.argmax(1).expand(len(x)))
        out = self.module(x, *given)
        if tuple(out.shape) != tuple(x.shape):
            raise UserError(
                f"network: gave {tuple(out.shape)} for images of {tuple(x.shape)}; it must give "
                f"the same shape"
            )
        return out

    def named_parameters(self) -> list[tuple[str, torch.Tensor]]:
        """Weights and floating-point buffers, such as averages, by the module's own names."""
        found: dict[str, torch.Tensor] = dict(self.module.named_parameters())
        found |= {n: b for n, b in self.module.named_buffers() if b.is_floating_point()}
        wide = [name for name, array in found.items() if array.dtype != torch.float32]
        if wide:
            raise UserError(f"network: '{wide[0]}' is {found[wide[0]].dtype}; make it float32")
        return list(found.items())

    def train(self) -> Own:
        """Set the training mode, for example with dropout."""
        self.module.train()
        return self

    def eval(self) -> Own:
        """Set the prediction mode."""
        self.module.eval()
        return self


def seed(seed: int, step: int, rank: int = 0) -> None:
    """Key the framework's generator, from which the user's module draws; step 0: its creation."""
    torch.manual_seed(int(stream(seed, "own_network", step, rank).integers(2, 2**31)))


def gradients(loss: torch.Tensor, arrays: list[torch.Tensor]) -> list[torch.Tensor]:
    """The gradients of `loss`; zeros for arrays that are not trained or not used."""
    trained = [array for array in arrays if array.requires_grad]
    found = torch.autograd.grad(loss, trained, allow_unused=True, materialize_grads=True)
    by_id = {id(array): gradient for array, gradient in zip(trained, found, strict=True)}
    return [by_id[id(array)] if id(array) in by_id else torch.zeros_like(array) for array in arrays]
