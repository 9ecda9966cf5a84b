"""Diptych: DDPM and DDIM in two mirrored frameworks, PyTorch and Jittor.

    import diptych
    model = diptych.load("zoo:mnist-torch", backend="torch")
    images = model.sample(64, steps=50)          # uint8, (64, 28, 28, 1)

Importing the package loads neither framework; `load` loads the one it is asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from diptych._version import __version__

if TYPE_CHECKING:
    from diptych.config.load import Config, load_config
    from diptych.errors import MachineError, UserError
    from diptych.model import Model, load
    from diptych.training.loop import train

_HOMES = {
    "Config": "config.load",
    "load_config": "config.load",
    "MachineError": "errors",
    "UserError": "errors",
    "Model": "model",
    "load": "model",
    "train": "training.loop",
}

__all__ = [
    "Config",
    "MachineError",
    "Model",
    "UserError",
    "__version__",
    "load",
    "load_config",
    "train",
]


# Modules that can be had by these addresses too, and are loaded when they are asked for.
_ROOMS = {"solvers": "solvers", "torch": "backends.torch", "jittor": "backends.jittor"}


def __getattr__(name: str) -> Any:
    import importlib

    if name in _ROOMS:
        return importlib.import_module(f"diptych.{_ROOMS[name]}")
    if name not in _HOMES:
        raise AttributeError(f"module 'diptych' has no attribute '{name}'")
    return getattr(importlib.import_module(f"diptych.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return [*__all__, *_ROOMS]
