"""The example of docs/solvers.md on arrays of a framework; runs in a panel's process."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from diptych import backend as backends
from diptych.config import DiffusionConfig
from diptych.schedule import Level, make_schedule
from diptych.solvers import solve

TABLE = make_schedule(DiffusionConfig())
PAGE = Path(__file__).parents[1] / "docs" / "solvers.md"


def example() -> str:
    """The code of the page."""
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.S)
    return str(code)


def network(x: Any, t: int) -> Any:
    """The best denoiser of Gaussian images: no more than a float times an array."""
    level = TABLE.level(t)
    return (level.sigma / (0.25 * level.alpha**2 + level.sigma**2)) * x


def first_noise() -> Any:
    return np.random.default_rng(0).standard_normal((2, 1, 4, 4)).astype(np.float32)


def run_example(name: str) -> Any:
    """Its images, with the first noise as an array of `name`: numpy, torch or jittor."""
    backend = None if name == "numpy" else backends.load(name, "cpu")
    x = first_noise() if backend is None else backend.array(first_noise())
    scope: dict[str, Any] = {"my_network": network, "x_T": x}
    exec(example(), scope)
    images = scope["images"]
    assert type(images) is type(x)
    return images if backend is None else backend.numpy(images)


def run_solvers(name: str, solvers: list[Any], levels: list[Level]) -> list[Any]:
    """Images of each solver on arrays of a panel."""
    backend = backends.load(name, "cpu")

    def noise(k: int) -> Any:
        return backend.array(np.random.default_rng(k).standard_normal((2, 1, 4, 4), np.float32))

    return [
        backend.numpy(
            solve(
                s, lambda x, level: network(x, level.t), backend.array(first_noise()), levels, noise
            )
        )
        for s in solvers
    ]
