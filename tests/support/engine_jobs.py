"""Jobs of the engines' tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from diptych.config.load import Config, load_config
from diptych.network.parameters import initial_weights
from diptych.network.plan import make_plan
from diptych.rng import stream
from diptych.weights.convert import _write_safetensors
from diptych.weights.find import Source

# Every kind of block, attention, classes; as small as they come.
SMALL = [
    "data.image_size=8", "data.channels=1", "model.ch=8", "model.norm_groups=4",
    "model.ch_mult=[1, 2]", "model.num_res_blocks=1", "model.attn_resolutions=[4]",
    "model.num_classes=3",
]  # fmt: skip


def settings(*changes: str) -> Config:
    """The network's config."""
    return load_config("tiny", [*SMALL, *changes])


def write_model(path: Path, config: Config) -> Source:
    """A safetensors file of a model whose constant weights are perturbed."""
    weights = initial_weights(make_plan(config), 0)
    for index, (name, array) in enumerate(weights.items()):
        if name.endswith(".bias") or "norm" in name:
            draws = stream(0, "weights", index, 1).standard_normal(array.shape)
            weights[name] = (array + 0.1 * draws).astype(np.float32)
    found = Source(path, config, weights, "ema")
    _write_safetensors(path, found)
    return found


def predicted(path: Path, x: Any, t: Any, classes: Any) -> Any:
    """The network's output by the PyTorch panel; its objective is eps."""
    import diptych

    return diptych.load(path, "torch", device="cpu").predict(x, t, classes)


def drawn(path: Path, backend: str, **settings: Any) -> Any:
    """Samples as floats."""
    import diptych

    return diptych.load(path, backend, device="cpu").sample(as_float=True, **settings)
