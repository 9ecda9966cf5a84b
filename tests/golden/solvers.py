"""Images of every solver that has a name: on NumPy arrays, and of a small network in a panel.

    python tests/golden/solvers.py numpy|torch|jittor     prints one JSON object

A refactor leaves all of it as it is; tests/project/test_golden.py compares with solvers.json. As
with steps-torch.json, the hashes hold on one processor, framework and number of threads, which
`where` names, and the file is renewed only with a change of numbers that CHANGELOG.md announces.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent / "support")]

# name -> settings of `make_sampler` and `Model.sample`
CASES: dict[str, dict[str, Any]] = {
    "ddim": {"solver": "ddim"},
    "ddim-eta": {"solver": "ddim", "eta": 0.6, "spacing": "quad"},
    "ddim-repeats": {"solver": "ddim", "eta": 1.0, "spacing": "official-quad", "steps": 40},
    "ddim-clip": {"solver": "ddim", "clip": True, "spacing": "trailing"},
    "ddim-threshold": {"solver": "ddim", "threshold": 0.9},
    "ddpm": {"solver": "ddpm"},
    "ddpm-large": {"solver": "ddpm-large"},
    "ddpm-noisy": {"solver": "ddpm-noisy"},
    "deis": {"solver": "deis"},
    "deis-3": {"solver": "deis", "order": 3, "spacing": "logsnr"},
    "dpmpp": {"solver": "dpmpp"},
    "dpmpp-3": {"solver": "dpmpp", "order": 3, "spacing": "logsnr"},
    "dpmpp-long": {"solver": "dpmpp", "order": 3, "steps": 16},
    "dpmpp-sde": {"solver": "dpmpp-sde", "spacing": "karras"},
    "euler": {"solver": "euler"},
    "heun": {"solver": "heun"},
    "ipndm": {"solver": "ipndm"},
    "ipndm-2": {"solver": "ipndm", "order": 2, "spacing": "karras"},
    "plms": {"solver": "plms"},
    "pndm": {"solver": "pndm", "spacing": "trailing"},
    "unipc": {"solver": "unipc"},
    "unipc-3": {"solver": "unipc", "order": 3, "spacing": "logsnr"},
}
STEPS, SEED, THREADS = 8, 5, 2


def facts(x: Any) -> tuple[str, float]:
    """A hash of an array's type, shape and bytes; and its root mean square, to compare anywhere."""
    header = f"{x.dtype} {x.shape}\n".encode()
    size = float((x.astype("float64") ** 2).mean() ** 0.5)
    return hashlib.sha256(header + x.tobytes()).hexdigest()[:24], size


def on_numpy() -> dict[str, tuple[str, float]]:
    """The rules alone, in both precisions, with a network that is no more than arithmetic."""
    import numpy as np

    from diptych.config.load import DiffusionConfig
    from diptych.diffusion.schedule import CLEAN, make_schedule
    from diptych.sampling.sampler import make_sampler
    from diptych.sampling.solvers import solve

    table = make_schedule(DiffusionConfig())
    random = np.random.default_rng(SEED)
    first, noises = random.standard_normal((2, 1, 4, 4)), random.standard_normal((40, 2, 1, 4, 4))

    def network(x: Any, level: Any) -> Any:
        return (level.sigma * x + (0.1 * level.alpha) * x * x).astype(x.dtype)

    found = {}
    for name, case in CASES.items():
        settings = {"steps": STEPS, **case, "clip": None, "threshold": None}
        sampler = make_sampler(**settings)
        levels = [*map(table.level, sampler.timesteps(table)), CLEAN]
        for dtype in (np.float64, np.float32):
            x, z = first.astype(dtype), noises.astype(dtype)
            images = solve(sampler.make(table), network, x, levels, lambda k, z=z: z[k])
            found[f"{name} {np.dtype(dtype)}"] = facts(images)
    return found


def on_panel(backend: str) -> dict[str, tuple[str, float]]:
    """Images of fresh networks: of eps, and of v with classes, guided, out of noise alone."""
    import panel_jobs

    drawn: dict[str, Any] = {"steps": STEPS, "seed": SEED, "noise": "host"}  # as when recorded
    plain = panel_jobs.make(backend, panel_jobs.small())
    found = {
        name: facts(plain.sample(3, as_float=True, **{**drawn, **case}))
        for name, case in CASES.items()
    }
    told = panel_jobs.small("model.num_classes=4", "diffusion.objective=v",
                      "train.weighting=none", "diffusion.zero_terminal_snr=true")  # fmt: skip
    model = panel_jobs.make(backend, told)
    for name in ("ddim", "dpmpp-sde", "heun", "unipc"):
        images = model.sample(3, name, as_float=True, classes=[1, 3], guidance=2, **drawn)
        found[f"{name} guided"] = facts(images)
    pixels = plain.sample(2, "ddim", **drawn)
    found["encode"] = facts(plain.encode(pixels, STEPS, refine=2))
    return found


def solvers(where: str) -> dict[str, Any]:
    """The hashes and sizes, in a process of its own."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(THREADS)}
    command = [sys.executable, str(HERE / "solvers.py"), where]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stderr}")
    return dict(json.loads(done.stdout))


if __name__ == "__main__":
    from importlib.metadata import version

    from diptych.golden.place import processor

    place = sys.argv[1]
    images = on_numpy() if place == "numpy" else on_panel(place)
    there = f"{processor()}; {place} {version(place)}; {THREADS} threads"
    print(json.dumps({"where": there, "images": images}, indent=1))
