"""A sample folder, read back: its manifest and its images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from diptych.errors import UserError
from diptych.runs.reader import Run
from diptych.runs.records import Manifest
from diptych.types import Pixels


@dataclass(frozen=True)
class Samples:
    """A sample folder: its manifest, and its images (N, H, W) or (N, H, W, 3), uint8."""

    folder: Path
    card: dict[str, Any]
    images: Pixels


def read_samples(folder: Path, run: Run) -> Samples:
    """The numbered images of a sample folder made by `run`'s panel.

    Raises:
        UserError: not a sample folder, images missing or of unlike sizes, or another panel's.
    """
    card = _read_card(folder)
    if (card["backend"] or run.backend) != run.backend:
        raise UserError(
            f"{folder}: sampled with {card['backend']}, but {run.name} was trained with "
            f"{run.backend}; give the sample folders in the order of the runs"
        )
    return open_samples(folder)


def open_samples(folder: Path, most: int | None = None) -> Samples:
    """The numbered images of a sample folder, of any panel; the first `most` of them.

    Raises:
        UserError: not a sample folder, or images missing or of unlike sizes.
    """
    card = _read_card(folder)
    numbered = (p for p in folder.glob("[0-9]*.png") if p.stem.isdecimal())
    paths = sorted(numbered, key=lambda path: int(path.stem))
    if not paths or [int(p.stem) for p in paths] != list(range(len(paths))):
        raise UserError(
            f"{folder}: expected images 00000.png, 00001.png and so on without a gap, found "
            f"{len(paths)}; finish the sampling first"
        )
    if card.get("num") not in (None, len(paths)):
        raise UserError(
            f"{folder}: the manifest speaks of {card['num']} images, found {len(paths)}; finish "
            f"the sampling first: diptych sample --resume"
        )
    return Samples(folder, card, _stack(paths[:most]))


def _read_card(folder: Path) -> dict[str, Any]:
    manifest = folder / "manifest.json"
    if not manifest.is_file():
        raise UserError(
            f"{folder}: not a sample folder: manifest.json missing; "
            "expected the --out folder of `diptych sample`"
        )
    found: dict[str, Any] = Manifest.read(manifest).model_dump()
    return found


def _stack(paths: list[Path]) -> Pixels:
    images: list[Pixels] = []
    for path in paths:
        try:
            with Image.open(path) as image:
                pixels = np.asarray(image if image.mode in ("L", "RGB") else image.convert("RGB"))
        except (OSError, SyntaxError) as error:
            raise UserError(f"{path}: not a readable PNG ({error}); sample it again") from error
        if images and pixels.shape != images[0].shape:
            raise UserError(
                f"{path}: {pixels.shape} pixels, the first image has {images[0].shape}; "
                "expected one size: sample into an empty folder"
            )
        images.append(pixels)
    return np.stack(images)
