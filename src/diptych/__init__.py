"""Diptych: DDPM and DDIM in two mirrored frameworks, PyTorch and Jittor.

    import diptych
    model = diptych.load("zoo:mnist-torch", backend="torch")
    images = model.sample(64, steps=50)          # uint8, (64, 28, 28, 1)

Importing the package loads neither framework; `load` loads the one it is asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from diptych.api import (
        Run,
        compare,
        denoise,
        evaluate,
        grid,
        make_report,
        search_steps,
        train,
    )
    from diptych.config.load import Config, load_config
    from diptych.data.dataset import Dataset
    from diptych.errors import Interrupted, MachineError, StopTraining, UserError
    from diptych.evaluation.score import Score
    from diptych.model import Model, load
    from diptych.training.callbacks import Callback
    from diptych.training.callbacks.usual import Recording

_HOMES = {
    "Callback": "training.callbacks",
    "Config": "config.load",
    "Dataset": "data.dataset",
    "Interrupted": "errors",
    "MachineError": "errors",
    "Model": "model",
    "Recording": "training.callbacks.usual",
    "Run": "api",
    "Score": "evaluation.score",
    "StopTraining": "errors",
    "UserError": "errors",
    "compare": "api",
    "denoise": "api",
    "evaluate": "api",
    "grid": "api",
    "load": "model",
    "load_config": "config.load",
    "make_report": "api",
    "search_steps": "api",
    "train": "api",
}

__all__ = [
    "Callback",
    "Config",
    "Dataset",
    "Interrupted",
    "MachineError",
    "Model",
    "Recording",
    "Run",
    "Score",
    "StopTraining",
    "UserError",
    "__version__",
    "compare",
    "denoise",
    "evaluate",
    "grid",
    "load",
    "load_config",
    "make_report",
    "search_steps",
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
