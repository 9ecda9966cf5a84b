"""One implementation as the ladder sees it: its layers, its learner, and hooks to watch it.

There are the backends `torch` and `jittor`, the engines `onnx` and `openvino`, which only predict,
and `reference`. Each is alone in its process.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import numpy as np

from diptych import backends
from diptych.types import Array

Seen = Callable[[str, Sequence[Any], Any], None]
"""Called after each module's forward with its path, its arguments and its output."""

REFERENCE = "reference"


class Panel:
    """An implementation's parts, under names that all three share."""

    def __init__(
        self, name: str, device: str = "cpu", precision: str = "fp32", deterministic: bool = True
    ) -> None:
        self.name = name
        self.only_predicts = name in backends.ENGINES
        if self.only_predicts:
            self.backend: Any = backends.load(name, device, precision, deterministic)
        elif name == REFERENCE:
            self.backend = importlib.import_module(
                "diptych.align.reference.backend"
            ).ReferenceBackend(precision)
            self.layers: ModuleType = importlib.import_module("diptych.align.reference.network")
        else:
            # On a GPU Jittor cannot promise it; its records say so.
            promised = deterministic and (name == "torch" or device == "cpu")
            self.backend = backends.load(name, device, precision, promised)
            self.layers = self.part("layers")

    def part(self, module: str) -> ModuleType:
        """A module of the backend's package, such as `optim`."""
        return importlib.import_module(f"diptych.backends.{self.name}.{module}")

    @property
    def is_jittor(self) -> bool:
        return self.name == "jittor"

    def put(self, values: Array) -> Any:
        """Copy a host array to the device, outside any graph."""
        return self.backend.array(values)

    def read(self, values: Any) -> Array:
        """Copy a device array to the host; bfloat16, which NumPy lacks, becomes float32."""
        half = str(values.dtype) == "torch.bfloat16"
        return np.asarray(self.backend.numpy(values.float() if half else values))

    def compute(self, operator: Callable[..., Any], *given: Any) -> Any:
        """The operator's or network's output in the panel's arithmetic."""
        if self.name == REFERENCE:
            return operator(*given)
        if self.only_predicts:
            x, embedding, _, classes = (*given, None, None)[:4]
            return self.backend.predict(operator, x, embedding, classes)
        return self.backend.arithmetic.call(operator, *given)

    def parameter(self, values: Array) -> Any:
        """Turn a host array into a layer's weight, with a gradient."""
        if self.is_jittor:
            import jittor

            return jittor.array(np.ascontiguousarray(values))
        import torch

        return torch.nn.Parameter(self.backend.array(values).clone())

    def leaf(self, values: Array) -> Any:
        """Turn a host array into an input with a gradient."""
        value = self.parameter(values)
        return value if self.is_jittor else value.detach().requires_grad_(True)

    def gradients(self, y: Any, wanted: Sequence[Any], g: Array) -> list[Array]:
        """d sum(y g) / d wanted, on the host."""
        if self.is_jittor:
            import jittor

            found = jittor.grad((y * self.put(g)).sum(), list(wanted))
        else:
            import torch

            found = torch.autograd.grad((y * self.put(g)).sum(), list(wanted))
        return [self.read(each) for each in found]

    @contextmanager
    def no_grad(self) -> Iterator[None]:
        """Run the block without building a graph."""
        if self.only_predicts:
            yield
            return
        framework = importlib.import_module("jittor" if self.is_jittor else "torch")
        with framework.no_grad():
            yield

    def modules(self, network: Any) -> dict[str, Any]:
        """The network's modules by path; the network itself is ''."""
        return dict(network.named_modules())

    @contextmanager
    def watch(self, network: Any, seen: Seen) -> Iterator[None]:
        """Call `seen` after each module inside the block; containers that are never called are
        never seen."""
        call = "execute" if self.is_jittor else "forward"
        watched = [module for path, module in self.modules(network).items() if path]
        try:
            for path, module in self.modules(network).items():
                if path:
                    setattr(module, call, _watched(getattr(module, call), path, seen))
            yield
        finally:
            for module in watched:
                module.__dict__.pop(call, None)


def _watched(call: Callable[..., Any], path: str, seen: Seen) -> Callable[..., Any]:
    def observed(*arguments: Any, **named: Any) -> Any:
        result = call(*arguments, **named)
        seen(path, [*arguments, *named.values()], result)
        return result

    return observed
