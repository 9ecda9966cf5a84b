"""The examples of docs/solvers.md on arrays of a framework; runs in a backend's process."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from diptych import backends
from diptych.config.load import DiffusionConfig
from diptych.diffusion.schedule import Level, make_schedule
from diptych.sampling.solvers import DpmSolverPP, dynamic_threshold, limited, solve

TABLE = make_schedule(DiffusionConfig())
PAGE = Path(__file__).parents[2] / "docs" / "solvers.md"


def examples() -> tuple[str, str, str]:
    """The page's code: the first example, and those with own betas and an own rule that go on."""
    first, betas, rule = re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.S)
    return str(first), str(betas), str(rule)


def limit_of(name: str) -> str:
    """The page's line for dynamic thresholding with a framework."""
    module = {"numpy": "dynamic", "torch": "torch", "jittor": "jt"}[name]
    (line,) = re.findall(rf"`(lambda x0: {module}.*?)`", PAGE.read_text("utf-8"))
    return str(line)


def network(x: Any, t: int) -> Any:
    """The optimal denoiser of Gaussian images: just a float times an array."""
    level = TABLE.level(t)
    return (level.sigma / (0.25 * level.alpha**2 + level.sigma**2)) * x


def first_noise() -> Any:
    return np.random.default_rng(0).standard_normal((2, 1, 4, 4)).astype(np.float32)


def run_example(name: str, own: bool = False, limit: bool = False, rule: bool = False) -> Any:
    """Its images, with the first noise as an array of `name`: numpy, torch or jittor.

    `own`: those of the example with betas; `limit`: those with the page's thresholding; `rule`:
    those of the page's own solver.
    """
    backend = None if name == "numpy" else backends.load(name, "cpu")
    x = first_noise() if backend is None else backend.array(first_noise())
    scope: dict[str, Any] = {"my_network": network, "x_T": x}
    exec(examples()[0], scope)
    if own:
        exec(examples()[1], scope)
    if rule:
        exec(examples()[2], scope)
    if limit:
        framework = import_module(name)
        scope |= {"torch": framework, "jt": framework, "dynamic_threshold": dynamic_threshold}
        denoise = limited(scope["denoise"], eval(limit_of(name), scope))
        scope["images"] = solve(DpmSolverPP(2), denoise, 3.0 * x, scope["levels"])
    images = scope["images"]
    assert type(images) is type(x)
    return images if backend is None else backend.numpy(images)


def run_solvers(name: str, solvers: list[Any], levels: list[Level]) -> list[Any]:
    """Images of each solver on arrays of a backend."""
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
