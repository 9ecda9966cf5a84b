"""Fixtures of the tests with several ranks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image


@pytest.fixture(scope="session")
def pictures(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    noise = np.random.default_rng(0).integers(0, 256, (11, 8, 8), np.uint8)
    for i, each in enumerate(noise):
        Image.fromarray(each).save(folder / f"{i:02}.png")
    return folder
