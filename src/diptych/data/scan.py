"""Scan pictures before training, so that a bad one does not end it at some later step.

    up to WHOLE encoded bytes, or with skip_bad    every picture is decoded
    more                                           files: beginning and end of each are read; a
                                                   picture is decoded if either leaves a doubt
                                                   records of an archive or a database: SPREAD of
                                                   them, evenly spread, are decoded

The outcome is kept in the user's cache under a hash of the names, lengths, modification times and
the crop, so that the same pictures are scanned once. Damage that the quick scan misses (in the
middle of a file) is reported at the step that reads the picture.
"""

from __future__ import annotations

import contextlib
import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import PIL

from diptych.data.crops import CELEBA
from diptych.data.decoded import Decoded, as_bytes
from diptych.data.picture import LIMIT, open_header
from diptych.errors import MachineError, UserError
from diptych.files import read_json, user_cache, write_json

WHOLE = 128 * 2**20
SPREAD = 1000
BAD = "cannot be used"  # the reason in `left_out` that counts such pictures
_ENDS = {b"\xff\xd8": b"\xff\xd9", b"\x89P": b"IEND\xaeB`\x82"}  # JPEG and PNG
ADVICE = "leave such pictures out with --skip-bad, or list them with diptych data verify"


def scan(images: Decoded, whole: bool = False) -> dict[int, str]:
    """Find the pictures that cannot be used: index -> reason; see the module.

    Args:
        images: the pictures to scan.
        whole: decode every picture, however many there are.
    """
    whole = whole or _small(images)
    kept = _kept(images, whole)
    known = _remembered(kept)
    if known is None:
        known = _look_over(images, whole)
        _remember(kept, known)
    return known


def _small(images: Decoded) -> bool:
    total = 0
    for row in range(len(images)):
        total += images.items.size(row)
        if total > WHOLE:
            return False
    return total > 0


def _look_over(images: Decoded, whole: bool) -> dict[int, str]:
    from tqdm import tqdm

    count = len(images)
    rows = range(count)
    if not whole and images.items.ends(0) is None and count > SPREAD:
        rows = np.unique(np.linspace(0, count - 1, SPREAD).astype(np.int64)).tolist()

    def look(row: int) -> str:
        try:
            if whole or not _sound(images, row):
                images.one(row)
        except UserError as error:
            return str(error)
        return ""

    found: dict[int, str] = {}
    with ThreadPoolExecutor(images.workers, "diptych-scan") as pool:
        looked = zip(rows, pool.map(look, rows), strict=True)
        bar = tqdm(looked, "looking over", len(rows), unit="image", delay=2, disable=None)
        for row, fault in bar:
            if fault:
                found[row] = fault.removesuffix(f"; or {images.advice}")
    return found


def _sound(images: Decoded, row: int) -> bool:
    """True if a picture's beginning and end leave no doubt; False: it must be decoded."""
    ends = images.items.ends(row)
    if ends is None:
        return False
    head, tail = ends
    end = _ENDS.get(head[:2])
    if end is None or not tail.endswith(end):
        return False
    try:
        size = open_header(head, "").size
    except (UserError, MachineError):
        return False
    crop, (height, width) = images.recipe.crop, images.recipe.sides
    if crop == "none":
        return size == (width, height)
    return not crop.startswith("celeba") or size == CELEBA


def _kept(images: Decoded, whole: bool) -> Path:
    """The cache file of the outcome."""
    items, recipe = images.items, images.recipe
    reader = f"Pillow {PIL.__version__}"  # another version may read other kinds
    digest = hashlib.sha256(f"scan 2 {reader} {LIMIT} {whole} {recipe} {items.origin!r}\n".encode())
    for row, name in enumerate(items.names):
        digest.update(as_bytes(f"{name}\t{items.stamp(row)}\n"))
    return user_cache("scans", f"{digest.hexdigest()[:32]}.json")


def _remembered(path: Path) -> dict[int, str] | None:
    try:
        found = read_json(path)["bad"]
        return {int(row): str(fault) for row, fault in found.items()}
    except (UserError, KeyError, ValueError, AttributeError):
        return None


def _remember(path: Path, bad: dict[int, str]) -> None:
    """Save the outcome; if the cache cannot be written, the next start scans again."""
    with contextlib.suppress(UserError, MachineError):
        write_json(path, {"bad": {str(row): fault for row, fault in bad.items()}})
