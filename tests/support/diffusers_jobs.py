"""Trajectories of diffusers' schedulers, step by step; runs in the PyTorch backend's process.

The schedulers keep their tables in float32 and cast images to float32. To compare formulas instead
of roundings, a scheduler's module gets a `torch` and a `numpy` whose float32 is float64.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from toy_networks import NETWORKS

MODULES = {
    "DDIMScheduler": "scheduling_ddim",
    "DDPMScheduler": "scheduling_ddpm",
    "PNDMScheduler": "scheduling_pndm",
    "HeunDiscreteScheduler": "scheduling_heun_discrete",
    "EulerDiscreteScheduler": "scheduling_euler_discrete",
    "DPMSolverMultistepScheduler": "scheduling_dpmsolver_multistep",
    "DEISMultistepScheduler": "scheduling_deis_multistep",
    "UniPCMultistepScheduler": "scheduling_unipc_multistep",
}
SCALED = ("HeunDiscreteScheduler", "EulerDiscreteScheduler")  # their images are x / alpha


class Wide:
    """A module whose float32 is its float64."""

    def __init__(self, module: Any) -> None:
        self._module = module
        self.float32 = module.float64

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)


@contextmanager
def module_of(name: str, wide: bool, noises: list[Any]) -> Iterator[Any]:
    """The scheduler's module, in float64 if `wide`, drawing from `noises`."""
    import torch

    module: Any = importlib.import_module(f"diffusers.schedulers.{MODULES[name]}")
    kept = {
        key: getattr(module, key) for key in ("torch", "np", "randn_tensor") if hasattr(module, key)
    }
    queue = iter(noises)
    if wide:
        module.torch, module.np = Wide(torch), Wide(np)
    if "randn_tensor" in kept:
        module.randn_tensor = lambda *_, **__: torch.from_numpy(next(queue))
    try:
        yield module
    finally:
        for key, value in kept.items():
            setattr(module, key, value)


def trajectory(
    name: str,
    steps: int,
    x: Any,
    settings: dict[str, Any],
    noises: list[Any] | None = None,
    step_settings: dict[str, Any] | None = None,
    network: str = "mild",
) -> dict[str, Any]:
    """x after each network call, and the timesteps of the calls.

    Args:
        name: the scheduler's class.
        steps: argument of `set_timesteps`.
        x: initial noise, float32 or float64; its dtype sets the precision.
        settings: settings of the scheduler; the tables are linear with 1,000 timesteps.
        noises: the noise that it draws, one array per step.
        step_settings: keyword arguments of every `step`.
        network: a key of `toy.NETWORKS`.
    """
    import torch

    predict = NETWORKS[network]
    wide = x.dtype == np.float64
    with module_of(name, wide, noises or []) as module:
        scheduler = getattr(module, name)(beta_start=1e-4, beta_end=0.02, **settings)
        scheduler.set_timesteps(steps)
        image = torch.from_numpy(x.copy())
        ratios = np.array(((1 - scheduler.alphas_cumprod) / scheduler.alphas_cumprod) ** 0.5)
        if name in SCALED:
            first = int(scheduler.timesteps[0])
            image = image * float((1 + ratios[first] ** 2) ** 0.5)
        seen, asked = [], []
        for t in scheduler.timesteps:
            given = scheduler.scale_model_input(image, t) if name in SCALED else image
            eps = torch.from_numpy(predict(given.numpy(), float(t))).to(image.dtype)
            image = scheduler.step(eps, t, image, **(step_settings or {})).prev_sample
            seen.append(image.numpy().copy())
            asked.append(int(t))
    return {"images": seen, "timesteps": asked, "ratios": ratios}
