"""Jobs of the colour data tests in a backend's process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from diptych.config.load import Config
from diptych.generate.samples import SampleRequest, sample_to
from diptych.sampling.sampler import make_sampler
from diptych.training.loop import train
from panel_jobs import make


def train_on(name: str, config: Config, folder: Path, data_dir: Path | None) -> None:
    """`diptych train --data`."""
    train(config, folder, name, device="cpu", data_dir=data_dir, progress=False)


def draw_both(name: str, config: Config, out: Path) -> tuple[Any, Any]:
    """Floats and pixels of the same images of a fresh model; writes the pixels to `out` too."""
    model = make(name, config)
    floats = model.sample(3, "ddim", steps=2, as_float=True)
    request = SampleRequest(make_sampler("ddim", 2, 0.0), num=3)
    sample_to(model, request, out, progress=False)
    return np.asarray(floats), model.sample(3, "ddim", steps=2)
