"""Is the PyTorch panel on this device the one of a CPU? Same draws, training and images."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.gpu.common import Place, Result, flat, relative, timed
from diptych import backends, rng
from diptych.backends.protocol import State
from diptych.backends.torch import block_draws
from diptych.backends.torch.draws import keyed_masks, keyed_noise
from diptych.diffusion.schedule import make_schedule
from diptych.files.paths import sha256_of
from diptych.sampling.engine import Engine
from diptych.sampling.sampler import make_sampler
from diptych.training.batches import Batches


def ceilings(place: Place) -> Result:
    """The machine: versions, and what its memory and its units reach."""
    found: Result = {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "cudnn": torch.backends.cudnn.version(),
        "cores": os.cpu_count(),
    }
    if not place.on_gpu:
        return found
    properties = torch.cuda.get_device_properties(0)
    found |= {"name": properties.name, "multiprocessors": properties.multi_processor_count}
    size = 2**31
    a = torch.empty(size, dtype=torch.uint8, device=place.device).random_()
    b = torch.empty_like(a)
    copy = timed(place, lambda i: b.copy_(a), reps=10)
    found["copy_tb_s"] = 2 * size / copy["p50_s"] / 1e12
    n = 8192
    kinds = (("fp32", torch.float32), ("tf32", torch.float32), ("bf16", torch.bfloat16))
    for name, kind in kinds:
        torch.set_float32_matmul_precision("high" if name == "tf32" else "highest")
        x, y = (torch.randn(n, n, device=place.device, dtype=kind) for _ in "xy")
        product = timed(place, lambda i, x=x, y=y: x @ y, reps=8)
        found[f"product_{name}_tflop_s"] = 2 * n**3 / product["p50_s"] / 1e12
    host = torch.empty(2**27, dtype=torch.uint8).pin_memory()
    device = torch.empty(2**27, dtype=torch.uint8, device=place.device)
    sent = timed(place, lambda i: device.copy_(host, non_blocking=True), reps=8)
    found["to_device_gb_s"] = 2**27 / sent["p50_s"] / 1e9
    return found


def bits(place: Place) -> Result:
    """Keyed noise and masks drawn on the device against the host's, bit for bit, and their cost."""
    config, plan, _ = place.network()
    found: Result = {"triton": bool(place.on_gpu and block_draws.triton_kernels())}
    batch, shape = config.train.batch_size, plan.shape
    for seed, purpose, rows, b in (
        (0, "training_noise", [1], 0),
        (2**63 - 1, "solver_noise", [12_345, 7], 999),
        (7, "initial_noise", [49_999], 0),
    ):
        ours = keyed_noise(seed, purpose, rows, shape, b, 0, place.device).cpu().numpy()
        host = np.stack([rng.keyed_normal(seed, purpose, shape, row, b) for row in rows])
        found[f"normals {purpose}"] = bool(np.array_equal(ours.view("<u4"), host.view("<u4")))
    drawn = keyed_masks(plan, 5, 9, batch, 3, place.device) or []
    for layer in (0, len(drawn) - 1):
        block = plan.blocks[layer]
        whole = (batch + 3, *block.shape)
        host = rng.keep_mask(5, 9, layer, whole, plan.dropout)[3:]
        found[f"mask {layer}"] = bool(np.array_equal(drawn[layer].cpu().numpy(), host))
    if place.on_gpu:
        begin = rng.Blocks(3, "training_noise", 0, 0)
        plain = block_draws.normal_of(block_draws.words(begin, [4], 512, place.device))
        kernels = block_draws.block_normals(begin, [4], 512, place.device)
        found["operators = kernels"] = bool(torch.equal(plain.reshape(-1), kernels.reshape(-1)))
    found["masks of a step"] = timed(
        place, lambda i: keyed_masks(plan, 0, i, batch, 0, place.device), reps=20
    )
    found["noise of a step"] = timed(
        place,
        lambda i: keyed_noise(0, "training_noise", [i], (batch, *shape), 0, 0, place.device),
        reps=20,
    )
    batches = Batches(place.config("cifar10", "train.noise=host"), plan, place.images(config))
    began = time.perf_counter()
    batches.batch(1)
    found["a batch with the host's noise, s"] = time.perf_counter() - began
    return found


def same_training(place: Place) -> Result:
    """The panel here against itself on a CPU: loss, gradients, steps; and from run to run."""
    kinds = ("fp32", "tf32", "bf16") if place.on_gpu else ("fp32",)
    return {precision: compared(place, precision) for precision in kinds}


def compared(place: Place, precision: str) -> Result:
    """`same_training` in one precision; a CPU's is float32."""
    steps, small = (10, 16) if place.on_gpu else (3, 4)
    changes = ("model.ch=32", f"train.batch_size={small}", "train.noise=keyed")
    config, plan, weights = place.network("cifar10", *changes, f"train.precision={precision}")
    batches = Batches(config, plan, place.images(config)[:2048])

    def learner(device: str, deterministic: bool = False) -> Any:
        kind = "fp32" if device == "cpu" else precision
        backend = backends.load("torch", device, kind, deterministic)
        return backend.learner(
            plan, weights, config.train.model_copy(update={"precision": kind}), 0
        )

    def curve(device: str, deterministic: bool = False, eager: bool = False) -> Any:
        trained = learner(device, deterministic)
        if eager:
            trained.captured = None
        found = [trained.step(batches.batch(step), 2e-4)[0] for step in range(1, steps + 1)]
        return np.array([float(loss) for loss in found]), trained.state()

    loss, gradients = learner("cpu").gradients(batches.batch(1))
    our_loss, ours = learner(place.device).gradients(batches.batch(1))
    (losses, expected), (found, state) = curve("cpu"), curve(place.device)
    _, again = curve(place.device)
    _, fixed = curve(place.device, True)
    _, fixed_again = curve(place.device, True)
    _, eager = curve(place.device, True, True)
    return {
        "loss": abs(our_loss - loss) / loss,
        "gradients": relative(flat(ours), flat(gradients)),
        "losses": float(np.max(np.abs(found / losses - 1))),
        "weights": relative(flat(state.raw), flat(expected.raw)),
        "same bits in two runs": same(state, again),
        "deterministic: same bits": same(fixed, fixed_again),
        "replayed: same bits": same(fixed, eager),
    }


def same(a: State, b: State) -> bool:
    """True if all weights have the same bits."""
    return all(np.array_equal(a.raw[name], b.raw[name]) for name in a.raw)


def same_sampling(place: Place) -> Result:
    """Images of DDIM here against a CPU's, and rows of one batch against another batch's."""
    config, plan, weights = place.network("cifar10", "model.ch=32")
    schedule, count = make_schedule(config.diffusion), 8 if place.on_gpu else 2
    sampler = make_sampler("ddim", 10 if place.on_gpu else 2)

    def drawn(device: str, precision: str, images: range) -> np.ndarray:
        backend = backends.load("torch", device, precision)
        engine = Engine(backend, backend.network(plan, weights), plan, schedule)
        return engine.draw(sampler, images)

    expected, found = drawn("cpu", "fp32", range(2 * count)), {}
    for precision in ("fp32", "tf32", "bf16") if place.on_gpu else ("fp32",):
        ours = drawn(place.device, precision, range(2 * count))
        half = drawn(place.device, precision, range(count))
        found[precision] = {
            "largest": float(np.abs(ours - expected).max()),
            "relative": relative(ours, expected),
            "half the batch": float(np.abs(ours[:count] - half).max()),
        }
    return found


def resumed(place: Place) -> Result:
    """`diptych train --deterministic`: 20 steps at once, and 10 and then 10 more; same weights?"""
    with tempfile.TemporaryDirectory() as folder:
        whole, parts = Path(folder, "whole"), Path(folder, "parts")
        asked = ["tiny", "--deterministic", "--set", "train.noise=keyed"]
        diptych(place, "train", *asked, "--steps", "20", "--out", str(whole))
        diptych(place, "train", *asked, "--steps", "10", "--out", str(parts))
        diptych(place, "train", "--resume", "--steps", "20", "--out", str(parts))
        a, b = (run / "checkpoints" / "step-00000020" for run in (whole, parts))
        files = sorted(path.name for path in a.glob("*.safetensors"))
        equal = [sha256_of(a / name) == sha256_of(b / name) for name in files]
    return {"files": files, "same bits": bool(files) and all(equal)}


def diptych(place: Place, *words: str) -> None:
    """Run the command line; its error is ours."""
    command = [sys.executable, "-m", "diptych", *words, "--quiet", "--device", place.device]
    done = subprocess.run([*command, "--backend", "torch"], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(words)}: {done.stderr[-400:]}")


PIECES = {
    "ceilings": ceilings,
    "bits": bits,
    "same training": same_training,
    "same sampling": same_sampling,
    "resumed": resumed,
}
