"""Adapter of a user's own network to the backend's call. Mirrors `torch/own.py`."""

from __future__ import annotations

from typing import Any

import jittor as jt
from jittor import nn

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
            raise UserError(f"network: gave a {type(module).__name__}, expected a jittor.nn.Module")
        self.module = module

    def __call__(
        self, x: jt.Var, t: jt.Var, masks: Any = None, classes: jt.Var | None = None
    ) -> jt.Var:
        given = [t.expand(len(x))]  # a sampler passes one time and one class for all images
        if classes is not None:
            given.append(classes.argmax(1)[0].expand(len(x)))
        out = self.module(x, *given)
        if tuple(out.shape) != tuple(x.shape):
            raise UserError(
                f"network: gave {tuple(out.shape)} for images of {tuple(x.shape)}; it must give "
                f"the same shape"
            )
        return out

    def named_parameters(self) -> list[tuple[str, jt.Var]]:
        """Weights and other float arrays, such as averages, by the module's own names."""
        found: dict[str, jt.Var] = dict(self.module.named_parameters())
        found = {n: a for n, a in found.items() if "float" in str(a.dtype)}
        wide = [name for name, array in found.items() if str(array.dtype) != "float32"]
        if wide:
            raise UserError(f"network: '{wide[0]}' is {found[wide[0]].dtype}; make it float32")
        return list(found.items())

    def train(self) -> Own:
        """Set the training mode, for example with dropout."""
        self._mode(True)
        return self

    def eval(self) -> Own:
        """Set the prediction mode; Jittor's own `eval` would stop the training of the weights."""
        self._mode(False)
        return self

    def _mode(self, training: bool) -> None:
        for module in self.module.modules():
            module.is_train = training


def seed(seed: int, step: int, rank: int = 0) -> None:
    """Key the framework's generator, from which the user's module draws; step 0: its creation."""
    jt.set_global_seed(int(stream(seed, "own_network", step, rank).integers(2, 2**31)))


def gradients(loss: jt.Var, arrays: list[jt.Var]) -> list[jt.Var]:
    """The gradients of `loss`; zeros for arrays that are not trained or not used."""
    trained = [array for array in arrays if not array.is_stop_grad()]
    found = jt.grad(loss, trained)
    by_id = {id(array): gradient for array, gradient in zip(trained, found, strict=True)}
    return [by_id[id(array)] if id(array) in by_id else jt.zeros_like(array) for array in arrays]
