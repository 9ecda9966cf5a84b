"""PyTorch and Jittor by the same few functions: arrays, gradients, structures of arrays."""

from __future__ import annotations

import copy
import importlib
import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from diptych import backends
from diptych.types import Array


class Framework:
    """PyTorch or Jittor: arrays in and out, gradients, modes."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.version = backends.load(name, "cpu").describe()["framework_version"]
        self.lib: Any = importlib.import_module(name)
        self.is_jittor = name == "jittor"
        self.call = "execute" if self.is_jittor else "forward"

    def seed(self, seed: int) -> None:
        """Seed everything that a build may draw from."""
        random.seed(seed)
        np.random.seed(seed % 2**32)
        if self.is_jittor:
            self.lib.set_global_seed(seed)
        else:
            self.lib.manual_seed(seed)

    def is_array(self, value: Any) -> bool:
        """True if `value` is an array of the framework."""
        return isinstance(value, self.lib.Var if self.is_jittor else self.lib.Tensor)

    def put(self, values: Array, wide: bool = False) -> Any:
        """Copy a host array to the device; floats become float64 if `wide`."""
        if self.is_jittor:
            return self.lib.array(np.ascontiguousarray(values)).stop_grad()
        array = np.array(values, order="C")
        if array.dtype.kind == "f":
            array = array.astype(np.float64 if wide else np.float32)
        return self.lib.from_numpy(array)

    def read(self, value: Any) -> Array:
        """Copy a device array to the host; half precisions become float32."""
        if self.is_jittor:
            found = np.array(value.numpy(), order="C")
        else:
            value = value.detach()
            if value.dtype in (self.lib.bfloat16, self.lib.float16):
                value = value.float()
            found = np.array(value.cpu().numpy(), order="C")
        return found.astype(np.float32) if found.dtype == np.float16 else found

    def dtype(self, value: Any) -> str:
        """The array's own dtype."""
        return str(value.dtype).rpartition(".")[2]

    def assign(self, target: Any, values: Array) -> None:
        """Overwrite a weight in place."""
        if tuple(target.shape) != values.shape:
            raise ValueError(f"cannot assign {values.shape} to {tuple(target.shape)}")
        if self.is_jittor:
            target.assign(self.lib.array(np.ascontiguousarray(values)).cast(target.dtype))
            return
        with self.lib.no_grad():
            target.copy_(self.lib.from_numpy(np.array(values, order="C")))

    def grads(self, loss: Any, wanted: Sequence[Any]) -> list[Array]:
        """d loss / d wanted on the host; zeros where nothing flows."""
        if self.is_jittor:
            # Of an array that is asked for twice (a layer's and its container's output), Jittor
            # gives the gradient once, and then zeros.
            once = {id(w): w for w in wanted if self.flows(w)} if self.flows(loss) else {}
            rows = self.lib.grad(loss, list(once.values())) if once else []
            by_id = dict(zip(once, [self.read(g) for g in rows], strict=True))
            return [by_id.get(id(w), np.zeros(tuple(w.shape))) for w in wanted]
        if not loss.requires_grad:
            return [np.zeros(tuple(w.shape)) for w in wanted]
        alive = [w for w in wanted if w.requires_grad]
        rest = iter(self.lib.autograd.grad(loss, alive, allow_unused=True, retain_graph=True))
        found = [next(rest) if w.requires_grad else None for w in wanted]
        return [
            np.zeros(tuple(w.shape)) if g is None else self.read(g)
            for g, w in zip(found, wanted, strict=True)
        ]

    def leaf(self, values: Array, wide: bool) -> Any:
        """An input with a gradient."""
        if self.is_jittor:
            return self.lib.array(np.ascontiguousarray(values))
        return self.put(values, wide).requires_grad_(True)

    def flows(self, value: Any) -> bool:
        """True if a gradient may reach this value."""
        if self.is_jittor:
            return "float" in str(value.dtype) and not value.is_stop_grad()
        return bool(value.requires_grad)

    def sync(self) -> None:
        """Finish pending work; in Jittor operators pile up otherwise."""
        if self.is_jittor:
            self.lib.sync_all()


def leaves(framework: Framework, value: Any) -> Iterator[Any]:
    """The arrays in nested tuples, lists and mappings, in order."""
    if framework.is_array(value):
        yield value
    elif isinstance(value, Mapping):
        for each in value.values():
            yield from leaves(framework, each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from leaves(framework, each)


def refilled(framework: Framework, value: Any, arrays: Iterator[Any]) -> Any:
    """The same structure with its arrays replaced in order."""
    if framework.is_array(value):
        return next(arrays)
    if isinstance(value, dict):
        return {k: refilled(framework, v, arrays) for k, v in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(refilled(framework, v, arrays) for v in value))
    if isinstance(value, list | tuple):
        return type(value)(refilled(framework, v, arrays) for v in value)
    return value


def copied(framework: Any, state: Any) -> Any:
    """A copy of an optimizer's state that later steps do not change."""
    if framework.is_array(state):
        return framework.read(state) if framework.is_jittor else state.detach().clone()
    if isinstance(state, dict):
        return {k: copied(framework, v) for k, v in state.items()}
    if isinstance(state, list | tuple):
        return type(state)(copied(framework, v) for v in state)
    return copy.copy(state)
