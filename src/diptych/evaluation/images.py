"""Streams of uint8 images from any source; a stream holds a few batches in memory.

Sources are named as everywhere else (`diptych.data.sources.spec`) and read as for training
(`diptych.data.picture`), but not cropped. Sizes may be mixed: a batch holds images of one size
and their positions.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from diptych.config.load import Config
from diptych.data.dataset import Dataset, load_configured
from diptych.data.decoded import Decoded, Items
from diptych.data.notes import note
from diptych.data.packed.read import read_index
from diptych.data.picture import ON_WHITE, as_pixels, open_picture
from diptych.data.readers import celeba, npz
from diptych.data.readers.folder import Files, is_sample_folder, open_file, open_folder
from diptych.data.readers.lmdb import is_lsun
from diptych.data.sources.named import open_splits
from diptych.data.sources.spec import PICTURE, Spec, parse, test_split
from diptych.errors import UserError
from diptych.files import expanded, look, sha256_of
from diptych.ranks import Part
from diptych.runs.records import MANIFEST_LATER, Manifest
from diptych.training.batches import held_out_rows
from diptych.types import Int64, Pixels

WAITING = 4  # batches' worth of images that may wait for others of their size


@dataclass(frozen=True)
class Images:
    """A set of images that can be read again and again.

    Attributes:
        name: shown to people and in protocols: "mnist", or the folder's or file's name.
        count: number of images.
        stream: yields them in order, each (H, W, C) uint8, C = 1 or 3.
        identify: computes their sha256, which may take a while.
        split: the split of a data set or of a Hugging Face set (hf:); None for other sources.
        pick: yields the images at these rising positions, and reads no others; None: the stream
            is quick to pass over.
        manifest: the manifest of a sample folder; empty for other sources.
        left_out: number of files skipped, by reason.
        by_pixels: whether `identify` sees every pixel. The identity of a training set of encoded
            pictures is made from their names and sizes.
        on_white: the positions of pictures, as far as streamed, that were composited onto white
            because some of their pixels are transparent.
    """

    name: str
    count: int
    stream: Callable[[], Iterator[Pixels]]
    identify: Callable[[], str]
    split: str | None = None
    pick: Callable[[Sequence[int]], Iterator[Pixels]] | None = None
    manifest: dict[str, Any] = field(default_factory=dict)
    left_out: dict[str, int] = field(default_factory=dict)
    on_white: set[int] = field(default_factory=set)
    by_pixels: bool = True

    def batches(
        self, size: int, first: int = 0, num: int | None = None, part: Part | None = None
    ) -> Iterator[tuple[Int64, Pixels]]:
        """Batches of (positions from 0, images (B, H, W, C)); B is at most `size`.

        Images of one size have the same batches in parts as together.

        Args:
            size: images in a batch.
            first, num: take `num` images from `first` on; all by default.
            part: of these, take the runs of `size` images that are this part's.

        Raises:
            UserError: too few images, or a damaged one.
        """
        if 0 < self.count <= first:
            raise UserError(f"{self.name}: holds {self.count} images; none is left after {first}")
        num = self.count - first if num is None else num
        if num < 1 or first + num > self.count:
            raise UserError(f"{self.name}: holds {self.count} images, {first + num} were asked for")
        waiting: dict[tuple[int, ...], list[tuple[int, Pixels]]] = {}
        positions = positions_of(num, size, part)
        images = self._at([first + position for position in positions])
        for position, image in zip(positions, images, strict=True):
            group = waiting.setdefault(image.shape, [])
            group.append((position, image))
            if len(group) == size:
                yield _batch(waiting.pop(image.shape))
            elif sum(map(len, waiting.values())) >= WAITING * size:
                yield _batch(waiting.pop(max(waiting, key=lambda k: len(waiting[k]))))
        for group in waiting.values():
            yield _batch(group)

    def _at(self, rows: Sequence[int]) -> Iterator[Pixels]:
        """The images at these rising positions."""
        if self.pick is not None:
            yield from self.pick(rows)
            return
        wanted = iter(rows)
        row = next(wanted, None)
        for position, image in enumerate(self.stream() if rows else ()):
            if position == row:
                yield image
                row = next(wanted, None)
            if row is None:
                break


def positions_of(num: int, size: int, part: Part | None = None) -> list[int]:
    """The positions of a part among `num` images: its runs of `size`; None: all of them."""
    if part is None:
        return list(range(num))
    return [position for position in range(num) if part.has(position // size)]


def _batch(group: list[tuple[int, Pixels]]) -> tuple[Int64, Pixels]:
    positions, images = zip(*group, strict=True)
    return np.array(positions, np.int64), np.stack(images)


def open_images(source: str | Path, data_dir: Path | None = None) -> Images:
    """The images that `source` names; see `diptych.data.sources.spec`.

    Raises:
        UserError: nothing there, an unfinished sample folder, an unknown data set or kind of file.
        MachineError: the source cannot be read on this machine.
    """
    spec = parse(str(source))
    if spec.own and spec.path is None and data_dir is None:
        raise UserError(f"source '{spec.kind}' needs a path: {spec.kind}:PATH, or --data PATH")
    if not spec.own:
        return _dataset(str(source), spec, data_dir)
    path = spec.path or expanded(data_dir or "")
    if spec.kind in ("folder", PICTURE):
        return _files(open_file(path) if spec.kind == PICTURE else open_folder(path))
    if spec.kind == "hf":
        splits = "+".join(spec.splits or ("train",))
        return _pictures(path.name, open_splits(str(source), data_dir), splits)
    if spec.kind == "packed":
        read_index(path)
    count = npz.shape_of(path)[0]
    return Images(path.name, count, lambda: npz.stream(path), lambda: sha256_of(path))


def images_of(data: Dataset, split: str | None, rows: Int64 | None = None) -> Images:
    """A data set's images, or some rows of it, as they are after any resizing; `split` is their
    name beside the data set's."""
    chosen = range(len(data)) if rows is None else rows
    sha256 = data.sha256
    if rows is not None:
        sha256 = hashlib.sha256(sha256.encode() + rows.astype("<i8").tobytes()).hexdigest()

    def pick(positions: Sequence[int]) -> Iterator[Pixels]:
        return (data.images[chosen[position]].transpose(1, 2, 0) for position in positions)

    return Images(
        data.name,
        len(chosen),
        lambda: pick(range(len(chosen))),
        lambda: sha256,
        split,
        pick,
        left_out=data.left_out,
        by_pixels=not isinstance(data.images, Decoded),
    )


def trained_on(config: Config, data_dir: Path | None = None) -> Images:
    """The images that a model was trained on, as it saw them apart from mirroring; without those
    that it held out.

    Raises:
        UserError: they are not on this machine, or cannot be used.
    """
    data = load_configured(config.data, data_dir)
    held_out = held_out_rows(config, len(data))
    if not len(held_out):
        return images_of(data, data.split)
    return images_of(data, data.split, np.setdiff1d(np.arange(len(data)), held_out))


def not_trained_on(config: Config, data_dir: Path | None = None) -> Images | None:
    """The pictures that a model held out, else the test split of its source; None if there is none.

    Raises:
        UserError: as `trained_on`.
    """
    if config.data.held_out:
        data = load_configured(config.data, data_dir)
        return images_of(data, "held out", np.sort(held_out_rows(config, len(data))))
    test = test_split(parse(config.data.source), config.data.split)
    if test is None:
        return None
    changes = {"source": test, "split": "test"}
    return trained_on(
        config.model_copy(update={"data": config.data.model_copy(update=changes)}), data_dir
    )


def _dataset(source: str, spec: Spec, data_dir: Path | None) -> Images:
    from diptych.data import load_dataset

    if not spec.splits:
        if look(Path(source)):
            raise UserError(
                f"{source}: is a data set, and a file or folder here; say {source}:train or "
                f"{source}:test for the one, ./{source} for the other"
            )
        note(f"{source}: taken is {source}:train; {source}:test and {source}:train+test are others")
    if spec.kind == celeba.NAME or is_lsun(spec.kind):
        raise UserError(
            f"{source}: its pictures are cropped before training, and so must these be: diptych "
            f"data prepare {spec.kind} --size 64 --out FILE.npy, then give FILE.npy"
        )
    data = load_dataset(source, data_dir=data_dir)
    return replace(images_of(data, data.split), name=spec.kind)


def _files(files: Files) -> Images:
    """Images stored as files; a sample folder comes with its manifest."""
    root = Path(files.origin)
    places = sorted({str(Path(name).parent) for name in files.names})
    inner = [place for place in places if is_sample_folder(root / place)]
    if len(inner) > 1:
        raise UserError(
            f"{root}: holds samples in {', '.join(inner[:3])}{' and others' * (len(inner) > 3)}, "
            "which have samplers of their own; name these folders, each as a set"
        )
    card = Manifest.content(root / inner[0] / "manifest.json") if inner == places else {}
    manifest = {**MANIFEST_LATER, **card} if card else {}
    found = _pictures(root.resolve().name, files, None)
    return replace(found, manifest=manifest, left_out=files.left_out)


def _pictures(name: str, items: Items, split: str | None) -> Images:
    """Encoded images, each at its own size."""
    count = len(items.names)

    on_white: set[int] = set()

    def pick(rows: Sequence[int]) -> Iterator[Pixels]:
        for row in rows:
            picture = open_picture(items.read(row), items.title(row), None)
            if picture.info.get(ON_WHITE):
                on_white.add(row)
            yield as_pixels(picture)

    def identify() -> str:
        digest = hashlib.sha256()
        for row in range(count):
            digest.update(hashlib.sha256(items.read(row)).hexdigest().encode())
        return digest.hexdigest()

    return Images(name, count, lambda: pick(range(count)), identify, split, pick, on_white=on_white)
