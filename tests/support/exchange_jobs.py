"""Jobs of the checkpoint exchange tests with the real libraries, in a backend's own process."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np

from diptych import backends
from diptych.config.load import Config
from diptych.network.parameters import initial_weights
from diptych.network.plan import make_plan


def predicted(name: str, source: str, x: Any, t: Any, config: Config | None = None) -> Any:
    """A backend's prediction with weights in any format."""
    import diptych

    return diptych.load(source, name, config=config, device="cpu").predict(x, t)


def sampled(name: str, source: str, noise: Any, steps: int) -> Any:
    """DDIM's images from this noise, uint8 (N, H, W, C)."""
    import diptych

    return diptych.load(source, name, device="cpu").sample(len(noise), "ddim", steps, x_T=noise)


def in_diffusers(folder: Path, x: Any, t: Any) -> Any:
    """The prediction of diffusers' own network, loaded from a pipeline folder."""
    import torch
    from diffusers import UNet2DModel

    with torch.no_grad():
        network = UNet2DModel.from_pretrained(folder, subfolder="unet").eval()
        return network(torch.from_numpy(x), torch.from_numpy(t)).sample.numpy()


def pipeline(name: str, folder: Path, num: int, steps: int) -> tuple[Any, Any, str]:
    """Images of diffusers' own pipeline from seed 0, its initial noise, its scheduler's class."""
    import diffusers
    import torch

    diffusers.utils.logging.disable_progress_bar()
    logging.getLogger("diffusers").setLevel(logging.ERROR)
    pipe = getattr(diffusers, name).from_pretrained(folder)
    pipe.set_progress_bar_config(disable=True)
    shape = (num, pipe.unet.config.in_channels, *np.broadcast_to(pipe.unet.config.sample_size, 2))
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(0)).numpy()
    options: dict[str, Any] = {"eta": 0.0} if name == "DDIMPipeline" else {}
    images = pipe(
        batch_size=num, generator=torch.Generator().manual_seed(0), output_type="np",
        num_inference_steps=steps, **options,
    ).images  # fmt: skip
    return np.rint(images * 255).astype(np.uint8), noise, type(pipe.scheduler).__name__


def diffusers_weights(config: dict[str, Any], folder: Path, safe: bool) -> dict[str, Any]:
    """Save a fresh diffusers network to a folder; return its weights by diffusers' names."""
    import torch
    from diffusers import UNet2DModel

    torch.manual_seed(0)
    network = UNet2DModel(**config)
    network.save_pretrained(folder, safe_serialization=safe)
    return {name: tensor.numpy() for name, tensor in network.state_dict().items()}


def torch_loads(path: Path) -> Any:
    """The arrays that torch loads with weights_only, as NumPy."""
    import torch

    found = torch.load(path, weights_only=True)
    return {name: tensor.numpy() for name, tensor in found.items()}


def jittor_loads(path: Path, config: Config) -> Any:
    """The arrays that jt.load reads, and those of a Jittor module after `load`."""
    plan = make_plan(config)
    network = backends.load("jittor", "cpu").network(plan, initial_weights(plan, 5))
    import jittor as jt  # only once its settings are made

    network.load(str(path))
    return jt.load(str(path)), {name: var.numpy() for name, var in network.state_dict().items()}


def adam_goes_on(path: Path, gradient: float) -> tuple[Any, dict[str, Any]]:
    """Weights and settings after a step of PyTorch's Adam from an official training list."""
    import torch

    model, optimizer, _, _, _ = torch.load(path, weights_only=True)
    parameters = [torch.nn.Parameter(tensor) for tensor in model.values()]
    adam = torch.optim.Adam(parameters, lr=1.0)
    adam.load_state_dict(optimizer)
    for parameter in parameters:
        parameter.grad = torch.full_like(parameter, gradient)
    adam.step()
    weights = {n: p.detach().numpy() for n, p in zip(model, parameters, strict=True)}
    return weights, {key: adam.param_groups[0][key] for key in ("lr", "betas", "eps")}


def ddim(arguments: list[str], folder: Path) -> tuple[int, str, str]:
    """Run `python -m diptych.ddim` in a folder; return exit code, stdout, stderr."""
    import contextlib
    import io
    import os
    import sys

    from diptych.cli import main
    from diptych.cli.ddim.main import ddim as command

    out, err, argv, place = io.StringIO(), io.StringIO(), sys.argv, os.getcwd()
    stdin = sys.stdin
    sys.argv, sys.stdin = ["diptych.ddim", *arguments], io.StringIO()  # no answers
    os.chdir(folder)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            main(command, "python -m diptych.ddim")
        code = 0
    except SystemExit as stop:
        code = int(stop.code or 0)
    finally:
        sys.argv, sys.stdin = argv, stdin
        os.chdir(place)
    return code, out.getvalue(), err.getvalue()


def recommended(name: str, source: str, seed: int, changes: dict[str, Any]) -> dict[str, Any]:
    """Two images drawn as a folder recommends: floats, pixels, and all the noise they took."""
    import diptych
    from diptych.rng import normal_per_image
    from diptych.sampling.sampler import make_sampler
    from diptych.weights.find import find_weights

    found, model = find_weights(source), diptych.load(source, name, device="cpu")
    diffusion = found.config.diffusion
    sampler = make_sampler(
        **{**(found.sampler or {}), **changes},
        timesteps=diffusion.timesteps,
        ends_in_noise=diffusion.zero_terminal_snr,
    )
    images, shape = range(2), model.engine.shape
    drawn = model.engine.draw(sampler, images, seed)
    noises = [
        normal_per_image(seed, "solver_noise", images, shape, k, sampler.noise)
        for k in range(sampler.steps)
    ]
    first = normal_per_image(seed, "initial_noise", images, shape, noise=sampler.noise)
    pixels = model.engine.pixels(drawn)
    return {"pixels": pixels, "first": first, "noises": noises, "steps": sampler.steps}


def scheduler_files(names: list[str], out: Path) -> None:
    """Let diffusers write the file of each of these classes, OUT/NAME/scheduler_config.json."""
    import diffusers

    for name in names:
        getattr(diffusers, name)().save_pretrained(out / name)


def by_diffusers(folder: Path, given: dict[str, Any], step: dict[str, Any]) -> Any:
    """The same by diffusers' own network and scheduler, float32 (2, C, H, W)."""
    import diffusers
    import torch

    import diffusers_jobs

    kind = json.loads((folder / "scheduler" / "scheduler_config.json").read_text())["_class_name"]
    unet = diffusers.UNet2DModel.from_pretrained(folder, subfolder="unet").eval()
    with diffusers_jobs.module_of(kind, False, given["noises"]) as module, torch.no_grad():
        scheduler = getattr(module, kind).from_pretrained(folder, subfolder="scheduler")
        scheduler.set_timesteps(given["steps"])
        x = torch.from_numpy(given["first"].copy())
        for t in scheduler.timesteps:
            x = scheduler.step(unet(x, t).sample, t, x, **step).prev_sample
    return x.numpy()
