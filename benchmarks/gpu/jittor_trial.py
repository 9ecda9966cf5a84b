"""Jittor on CUDA, one question after the other: python -m benchmarks.gpu.jittor_trial FOLDER."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from diptych import backends, rng
from diptych.config.load import load_config
from diptych.network.parameters import initial_weights
from diptych.network.plan import make_plan
from diptych.training.batches import Batches


def device() -> Any:
    """Facts that Jittor reports."""
    import jittor as jt

    return {
        "jittor": jt.__version__,
        "cuda": bool(jt.has_cuda),
        "cudnn": str(getattr(jt, "cudnn", None)),
        "devices": jt.get_device_count(),
    }


def operators() -> Any:
    """A product and a convolution against NumPy's."""
    import jittor as jt

    draw = np.random.default_rng(0)
    a = draw.standard_normal((64, 96)).astype(np.float32)
    product = np.abs(jt.matmul(jt.array(a), jt.array(a.T)).numpy() - a @ a.T).max()
    x, w = (draw.standard_normal(s).astype(np.float32) for s in ((8, 16, 12, 12), (4, 16, 3, 3)))
    found = jt.nn.conv2d(jt.array(x), jt.array(w), padding=1).numpy()
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1))).astype(np.float64)
    rows = [
        np.einsum("nchw,oc->nohw", padded[:, :, i : i + 12, j : j + 12], w[:, :, i, j])
        for i in range(3)
        for j in range(3)
    ]
    return {"product": float(product), "convolution": float(np.abs(found - sum(rows)).max())}


def bits() -> Any:
    """Keyed noise drawn there against the host's."""
    backend = backends.load("jittor", "cuda")
    found = backend.numpy(backend.keyed_noise(3, "training_noise", [5], (3, 32, 32)))[0]
    host = rng.keyed_normal(3, "training_noise", (3, 32, 32), 5)
    return bool(np.array_equal(found.view("<u4"), host.view("<u4")))


def speed(preset: str, *changes: str) -> Callable[[], Any]:
    """Seconds of a training step with keyed noise."""

    def piece() -> Any:
        config = load_config(preset, ["train.noise=keyed", *changes])
        plan = make_plan(config)
        backend = backends.load("jittor", "cuda")
        learner = backend.learner(plan, initial_weights(plan, 0), config.train, 0)
        shape = (4096, *config.data.shape)
        pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
        batches = Batches(config, plan, pixels)
        ready = [batches.batch(step) for step in range(1, 5)]
        times = []
        began = time.perf_counter()
        loss = backend.scalar(learner.step(ready[0], 2e-4)[0])
        backend.synchronize()
        first = time.perf_counter() - began
        for i in range(1, 40):
            begin = time.perf_counter()
            learner.step(ready[i % 4], 2e-4)
            backend.synchronize()
            times.append(time.perf_counter() - begin)
            if time.perf_counter() - began > 40:
                break
        middle = float(np.median(times[3:] or times))
        return {
            "loss": loss,
            "first_s": first,
            "p50_s": middle,
            "reps": len(times),
            "img_per_s": config.train.batch_size / middle,
            "memory_mb": backend.memory_mb(),
        }

    return piece


def command(*words: str) -> Callable[[], Any]:
    """A command of diptych; its last lines."""

    def piece() -> Any:
        done = subprocess.run(
            [sys.executable, "-m", "diptych", *words], capture_output=True, text=True
        )
        return {"code": done.returncode, "out": done.stdout[-3000:], "err": done.stderr[-1500:]}

    return piece


def main() -> None:
    """Ask them all; an answer is kept at once."""
    out = Path(sys.argv[1])
    asked = {
        "operators": operators,
        "bits": bits,
        "mnist": speed("mnist"),
        "ladder": command("align", "tiny", "--device", "cuda", "--out", str(out / "ladder")),
        "cifar10": speed("cifar10"),
    }
    backends.load("jittor", "cuda")
    found: dict[str, Any] = {"device": device()}
    print(found, flush=True)
    for name, piece in asked.items():
        began = time.perf_counter()
        try:
            found[name] = piece()
        except Exception as error:
            found[name] = {"failed": repr(error)[:600], "trace": traceback.format_exc()[-1500:]}
        print(f"{name} ({time.perf_counter() - began:.0f} s): {found[name]}"[:2500], flush=True)
        (out / "jittor.json").write_text(json.dumps(found, indent=1, default=str))


if __name__ == "__main__":
    main()
