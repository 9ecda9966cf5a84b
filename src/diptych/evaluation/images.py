"""Images from wherever they are, as a stream of uint8 pictures; memory holds a few batches.

    mnist:test        a split of a known data set
    FOLDER            a sample folder (with its manifest), or any folder of pictures, by name
    FILE.npz, .npy    uint8, (N, H, W), (N, H, W, C) or (N, C, H, W)

Sizes may be mixed: pictures of one size go together in a batch, and carry their positions.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from diptych.errors import UserError, nearest
from diptych.evaluation import arrays
from diptych.evaluation.pixels import SUFFIXES, read_image
from diptych.files import machine_faults, read_json, sha256_of
from diptych.types import Int64, Pixels

WAITING = 4  # batches' worth of odd sizes that may wait for company


@dataclass(frozen=True)
class Images:
    """A set of images that can be read again and again.

    Attributes:
        name: for people and protocols: "mnist", or the folder's or file's name.
        count: how many there are.
        stream: gives them in order, each (H, W, C) uint8, C = 1 or 3.
        identify: computes their sha256, which may take a while.
        split: of a data set.
        manifest: of a sample folder.
    """

    name: str
    count: int
    stream: Callable[[], Iterator[Pixels]]
    identify: Callable[[], str]
    split: str | None = None
    manifest: dict[str, Any] = field(default_factory=dict)

    def batches(
        self, size: int, first: int = 0, num: int | None = None
    ) -> Iterator[tuple[Int64, Pixels]]:
        """Batches of (positions from 0, images (B, H, W, C)); B is at most `size`.

        Args:
            size: images in a batch.
            first, num: take `num` images from `first` on; all by default.

        Raises:
            UserError: fewer images than that, or a damaged one.
        """
        num = self.count - first if num is None else num
        if num < 1 or first + num > self.count:
            raise UserError(f"{self.name}: holds {self.count} images, {first + num} were asked for")
        waiting: dict[tuple[int, ...], list[tuple[int, Pixels]]] = {}
        for position, image in enumerate(self.stream()):
            if position < first:
                continue
            if position >= first + num:
                break
            group = waiting.setdefault(image.shape, [])
            group.append((position - first, image))
            if len(group) == size:
                yield _batch(waiting.pop(image.shape))
            elif sum(map(len, waiting.values())) >= WAITING * size:
                yield _batch(waiting.pop(max(waiting, key=lambda k: len(waiting[k]))))
        for group in waiting.values():
            yield _batch(group)


def _batch(group: list[tuple[int, Pixels]]) -> tuple[Int64, Pixels]:
    positions, images = zip(*group, strict=True)
    return np.array(positions, np.int64), np.stack(images)


def open_images(source: str | Path, data_dir: Path | None = None) -> Images:
    """The images that `source` names; see the module.

    Raises:
        UserError: nothing there, an unfinished sample folder, an unknown data set or kind of file.
    """
    path = Path(source)
    if path.is_dir():
        return _sample_folder(path) if is_sample_folder(path) else _folder(path)
    if path.is_file():
        if path.suffix not in (".npz", ".npy"):
            raise UserError(f"{path}: not a folder, .npz or .npy; give one of these")
        count = arrays.shape_of(path)[0]
        return Images(path.name, count, lambda: arrays.stream(path), lambda: sha256_of(path))
    name, _, split = str(source).partition(":")
    if split and "/" not in name:
        return _dataset(name, split, data_dir)
    from diptych.data import SOURCES

    hint = nearest(f"{name}:test", [f"{known}:test" for known in SOURCES])
    raise UserError(f"{source}: not found; give a folder, an .npz, or a data set{hint}")


def _dataset(name: str, split: str, data_dir: Path | None) -> Images:
    from diptych.data import find, load_dataset

    # MNIST's test images travel with the package under another name: no download is needed.
    packaged = (name, split) == ("mnist", "test") and find(name, split, data_dir) is None
    source = ("mnist-10k", "train") if packaged else (name, split)
    data = load_dataset(*source, data_dir=data_dir)

    def rows() -> Iterator[Pixels]:
        return (image.transpose(1, 2, 0) for image in data.images)

    return Images(name, len(data.images), rows, lambda: data.sha256, split)


def is_sample_folder(path: Path) -> bool:
    """Whether `diptych sample` made this folder."""
    manifest = path / "manifest.json"
    return manifest.is_file() and "solver" in read_json(manifest)


def _sample_folder(path: Path) -> Images:
    manifest = read_json(path / "manifest.json")
    if not manifest.get("complete"):
        raise UserError(
            f"{path}: the sampling was not finished; go on with diptych sample --resume"
        )
    files = sorted(p for p in path.glob("[0-9]*.png") if p.stem.isdigit())
    if [int(p.stem) for p in files] != list(range(int(manifest.get("num", -1)))):
        raise UserError(
            f"{path}: the manifest speaks of {manifest.get('num')} images 00000.png and on, found "
            f"{len(files)}; sample them again"
        )
    return _files(path, files, manifest)


def _folder(path: Path) -> Images:
    with machine_faults(f"reading {path}"):
        files = sorted(p for p in path.iterdir() if p.suffix.lower() in SUFFIXES)
    if not files:
        raise UserError(
            f"{path}: no pictures here ({', '.join(SUFFIXES)}); folders below it are not searched"
        )
    return _files(path, files, {})


def _files(path: Path, files: list[Path], manifest: dict[str, Any]) -> Images:
    def identify() -> str:
        digest = hashlib.sha256()
        for file in files:
            digest.update(sha256_of(file).encode())
        return digest.hexdigest()

    name = path.resolve().name
    return Images(name, len(files), lambda: map(read_image, files), identify, None, manifest)
