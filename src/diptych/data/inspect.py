"""Inspect a source: list its place, describe its content, verify that every image is usable."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from diptych.data.dataset import Dataset, identity
from diptych.data.decoded import CHUNK, Decoded, Images, Items, default_workers
from diptych.data.packed.read import read_index
from diptych.data.picture import read_pixels
from diptych.data.readers import celeba, cifar10, lmdb
from diptych.data.sources.places import locate
from diptych.data.sources.registry import SOURCES, find
from diptych.errors import MachineError, UserError
from diptych.types import Pixels

KINDS = {
    "cifar10": "60,000 photographs, 32x32, 10 classes; downloads",
    "celeba": "202,599 faces, 178x218; official crop to 64x64",
    "lsun_CATEGORY": "LSUN as LMDB, such as lsun_bedroom, lsun_church_outdoor",
    "ffhq": "70,000 faces, LMDB of the official code or a folder",
    "folder:PATH": "any folder of pictures, with its sub-folders",
    "npz:PATH": "uint8 images in an .npz or .npy file",
    "packed:PATH": "what diptych data prepare made",
    "hf:PATH": "Hugging Face parquet files, image folder or name",
}
_IDX = {
    "mnist": "70,000 digits, 28x28; downloads",
    "fashion_mnist": "70,000 pieces of clothing, 28x28; downloads",
    "mnist-10k": "10,000 digits, 28x28; in the package",
}


def list_sources(data_dir: Path | None = None) -> list[dict[str, str]]:
    """Every source with a description and its place on this machine ("" if it is absent)."""
    rows = []
    for name, what in {**_IDX, **KINDS}.items():
        try:
            where = _where(name, data_dir)
        except (UserError, MachineError):
            where = ""
        rows.append({"source": name, "what": what, "where": where})
    return rows


def _where(name: str, data_dir: Path | None) -> str:
    if name in SOURCES:
        found = find(name, "train", None if name == "mnist-10k" else data_dir)
        return found.origin if found else ""
    if name == "cifar10":
        archive = cifar10.find_cifar10("train", data_dir)
        return archive.origin if archive else ""
    tests = {
        "celeba": (celeba.FOLDERS, (celeba.PICTURES, celeba.ARCHIVE)),
        "lsun_CATEGORY": (lmdb.LSUN_FOLDERS, ("*_train_lmdb",)),
        "ffhq": (lmdb.FFHQ_FOLDERS, ("data.mdb",)),
    }
    if name not in tests:
        return ""
    folders, patterns = tests[name]

    def probe(folder: Path, origin: str) -> str | None:
        held = [path.name for pattern in patterns for path in sorted(folder.glob(pattern))]
        return f"{origin}: {', '.join(held)}" if held else None

    return locate(name, folders, " or ".join(patterns), data_dir, probe) or ""


def describe(dataset: Dataset) -> dict[str, Any]:
    """Describe a data set without reading all of its pixels."""
    count, channels, height, width = dataset.images.shape
    labels = dataset.labels
    lazy = dataset.images if isinstance(dataset.images, Decoded) else None
    return {
        "source": dataset.name,
        "split": dataset.split,
        "images": count,
        "channels": channels,
        "height": height,
        "width": width,
        "form": "decoded on demand" if lazy else "array",
        "crop": lazy.recipe.crop if lazy else None,
        "classes": None if labels is None else np.bincount(labels).tolist(),
        "megabytes": round(count * channels * height * width / 1e6, 1),
        "sha256": dataset.sha256,
        "origin": dataset.origin,
        "left_out": dataset.left_out,
    }


def verify(dataset: Dataset, path: Path | None = None) -> dict[str, Any]:
    """Read every image; return the pixels' sha256 and the pictures that cannot be used.

    Args:
        dataset: the data set to read.
        path: the packed file, if it is one; its index holds the sha256 to compare with.

    Raises:
        UserError: the pixels of a packed file differ from those that were packed.
    """
    images = dataset.images
    if isinstance(images, Decoded):
        return _verify_decoded(images)
    # Mapped again, because `read_packed` tells the system to expect random order.
    rows = images if path is None else np.load(path, mmap_mode="r").transpose(0, 3, 1, 2)
    sha256 = identity(rows)
    if path is not None and sha256 != read_index(path)["sha256"]:
        raise UserError(
            f"{path}: the pixels have the sha256 {sha256}, its index says "
            f"{read_index(path)['sha256']}: it was changed or damaged. Pack it again"
        )
    return {"images": len(images), "bad": [], "pixels_sha256": sha256}


def _verify_decoded(images: Decoded) -> dict[str, Any]:
    digest = hashlib.sha256(("uint8 " + " ".join(map(str, images.shape)) + "\n").encode())
    bad: list[str] = []
    for row in _rows(images.one, len(images)):
        if isinstance(row, UserError):
            bad.append(str(row))
        else:
            digest.update(row.tobytes())
    return {
        "images": len(images),
        "bad": bad,
        "pixels_sha256": None if bad else digest.hexdigest(),
    }


def verify_pictures(items: Items) -> dict[str, Any]:
    """Read every picture at its own size; return the sizes and the pictures that cannot be used."""
    bad: list[str] = []
    sizes: Counter[str] = Counter()

    def one(row: int) -> Pixels:
        return read_pixels(items.read(row), items.title(row))

    count = len(items.names)
    for found in _rows(one, count):
        if isinstance(found, UserError):
            bad.append(str(found))
        else:
            sizes[f"{found.shape[1]}x{found.shape[0]}"] += 1
    return {"images": count, "bad": bad, "pixels_sha256": None, "sizes": dict(sizes.most_common())}


def sound_ones(images: Images, num: int) -> tuple[Pixels, list[str]]:
    """Up to `num` usable images evenly spread over a set, and the errors of the unusable ones."""
    spread = np.linspace(0, len(images) - 1, min(num, len(images))).astype(np.int64)
    if not isinstance(images, Decoded):
        return np.ascontiguousarray(images[spread]), []
    found = list(_rows(lambda row: images.one(int(spread[row])), len(spread)))
    bad = [str(row) for row in found if isinstance(row, UserError)]
    good = [row for row in found if not isinstance(row, UserError)]
    if not good:
        raise UserError(f"{bad[0]} (none of {len(bad)} pictures can be used)")
    return np.stack(good), bad


def _rows(read: Callable[[int], Pixels], count: int) -> Iterator[Pixels | UserError]:
    def attempt(row: int) -> Pixels | UserError:
        try:
            return read(row)
        except UserError as error:
            return error

    workers = default_workers()
    bar = tqdm(total=count, desc="reading", unit="image", delay=2, disable=None)
    with bar, ThreadPoolExecutor(workers, "diptych-verify") as pool:
        for first in range(0, count, CHUNK):
            for found in pool.map(attempt, range(first, min(first + CHUNK, count))):
                bar.update()
                yield found
