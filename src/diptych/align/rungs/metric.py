"""The metric rung: the same images through each panel's own features, statistics and distances.

It is there once `diptych.metrics` offers

    trace_for_alignment(backend_name, device, images) -> dict[str, numpy.ndarray]

`images` are (N, H, W, 3) uint8; the arrays are compared by name against the PyTorch panel's, whose
float64 pass (`backend_name` "reference") gives the truth. Until then the rung is 'not available':
no pass, and no failure.
"""

from __future__ import annotations

import importlib
import importlib.util

import numpy as np
import numpy.typing as npt

from diptych import noise
from diptych.align.desk import Desk

Pixels = npt.NDArray[np.uint8]
IMAGES = (16, 32, 32, 3)


def available() -> bool:
    """Whether the metrics can be traced."""
    if importlib.util.find_spec("diptych.metrics") is None:
        return False
    return hasattr(importlib.import_module("diptych.metrics"), "trace_for_alignment")


def images(seed: int) -> Pixels:
    """Keyed smooth colour images, IMAGES, uint8."""
    coarse = noise.stream(seed, "initial_noise", 1 << 23).integers(0, 256, (IMAGES[0], 4, 4, 3))
    return coarse.repeat(8, axis=1).repeat(8, axis=2).astype(np.uint8)


def trace_metric(desk: Desk) -> None:
    """Whatever the metrics give for keyed images."""
    trace = importlib.import_module("diptych.metrics").trace_for_alignment
    given = trace(desk.panel.name, desk.spec.device, images(desk.config.seed))
    for name, array in given.items():
        desk.add(name, array)
