"""Trainings that are resumed after something has changed, for a panel's own process."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import panel_jobs
from diptych.config.load import Config, load_config
from diptych.training.loop import train

CHANGES = ("train.steps=8", "train.checkpoint_every=2", "train.log_every=2", "train.grid_every=4")


def small(*changes: str) -> Config:
    return panel_jobs.small(*panel_jobs.NARROW, *CHANGES, "train.batch_size=4", *changes)


def pictures(folder: Path, count: int = 5, seed: int = 0) -> Path:
    """Grey PNG pictures of noise, 14x14."""
    folder.mkdir(parents=True)
    draws = np.random.default_rng(seed).integers(0, 256, (count, 14, 14), dtype=np.uint8)
    for i, pixels in enumerate(draws):
        Image.fromarray(pixels).save(folder / f"{i}.png")
    return folder


def run(
    name: str, run: Path, *changes: str, cwd: Path | None = None, own: bool = False, **options: Any
) -> list[str]:
    """Train into `run`; gives the warnings.

    Args:
        changes: of the config; with `own`, of the one in the folder.
        cwd: the folder to be in meanwhile.
    """
    kept: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: kept.append(record.getMessage())  # type: ignore[method-assign]
    logger, before = logging.getLogger("diptych"), Path.cwd()
    logger.addHandler(handler)
    try:
        os.chdir(cwd or before)
        config = load_config(str(run / "config.yaml"), list(changes)) if own else small(*changes)
        train(config, run, name, device="cpu", progress=False, **options)
    finally:
        os.chdir(before)
        logger.removeHandler(handler)
    return kept
