"""A data set: uint8 images, labels, and a hash that identifies the images.

    sha256 = SHA-256(b"uint8 N C H W\\n" + the image bytes)

The hash covers the pixels and their shape, not the files, so the same images have the same identity
however they are packed and wherever they are stored; run records carry it. Pixels stay uint8:
60,000 MNIST images take 47 MB, and a batch is rescaled when it is gathered.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from diptych.config.load import DataConfig
from diptych.config.size import Size
from diptych.data.decoded import CHUNK, Chosen, Decoded, Images
from diptych.data.notes import note
from diptych.data.readers.idx import read_idx
from diptych.data.resize import shrink
from diptych.data.scan import ADVICE, BAD, scan
from diptych.data.sources.named import Asked, Opened, joined, open_known
from diptych.data.sources.registry import MNIST, MNIST_10K, SOURCES, Located, Source, find, lookup
from diptych.data.sources.spec import Spec, parse, split_names
from diptych.data.survey import DECODED, in_colour, spread
from diptych.errors import UserError, refused
from diptych.types import Array, Int64, Pixels

ARRAYS = "arrays"  # the `data.source` of a run whose images were passed in Python


@dataclass(frozen=True, repr=False)
class Dataset:
    """Images and labels of one split.

    Attributes:
        name: the source, such as "mnist".
        split: "train", "test" or "train+test".
        images: (N, C, H, W), uint8, 0..255, read-only: in memory, mapped from a packed file, or
            decoded on demand.
        labels: (N,), int64, 0 .. classes - 1, read-only; None if the source has none.
        sha256: the identity of the images as they are here, after any resizing; for encoded
            images, a hash of their names, lengths and recipe instead of their pixels.
        origin: the place where they were found, for people.
        left_out: number of skipped files by reason.
    """

    name: str
    split: str
    images: Images
    labels: Int64 | None
    sha256: str
    origin: str
    left_out: dict[str, int] = field(default_factory=dict)

    @property
    def labels_sha256(self) -> str | None:
        """The identity of the labels; None if there are none."""
        if self.labels is None:
            return None
        return hashlib.sha256(np.ascontiguousarray(self.labels, "<i8").data).hexdigest()

    @staticmethod
    def from_arrays(images: Any, labels: Any = None, name: str = ARRAYS) -> Dataset:
        """Build a data set from the user's own images, copied into memory.

        Args:
            images: uint8 (N, C, H, W), (N, H, W, C) or (N, H, W), C = 1 .. 4; or any object with
                `len` and `[]` whose items are such images, or pairs of an image and its label.
            labels: (N,) integers, 0 or more; None: those of the pairs, if any.
            name: the name shown to people.

        Raises:
            UserError: another shape or type, labels that do not fit, or no images.
        """
        pixels, paired = _own_images(images)
        if paired is not None and labels is not None:
            raise UserError("Dataset.from_arrays: the items have labels already; leave labels out")
        labels = paired if labels is None else labels
        wide = None if labels is None else _own_labels(labels, len(pixels))
        pixels.setflags(write=False)
        count, channels, height, width = pixels.shape
        origin = f"{count} images of {channels}x{height}x{width}, given in Python"
        return Dataset(name, "train", pixels, wide, identity(pixels), origin)

    def __len__(self) -> int:
        return len(self.images)

    def __repr__(self) -> str:
        count, channels, height, width = self.images.shape
        classes = "" if self.labels is None else f", {int(self.labels.max()) + 1} classes"
        return (
            f"<Dataset {self.name}: {count:,} images of {channels}x{height}x{width}{classes}, "
            f"sha256 {self.sha256[:12]}>"
        )


def load_dataset(
    source: str,
    split: str = "train",
    *,
    image_size: Size | None = None,
    channels: int | None = None,
    crop: str | None = None,
    data_dir: Path | None = None,
    download: bool = True,
    settable: bool = False,
) -> Dataset:
    """Find, download if needed, read and check the images that a source names.

    Args:
        source: a name in the syntax of `diptych.data.sources.spec`: "mnist" (60,000 and 10,000
            images), "fashion_mnist" (likewise), "mnist-10k" (in the package; its "train" is MNIST's
            10,000 test images), "cifar10:train+test", "celeba", "lsun_bedroom", "folder:PATH", a
            path ...
        split: "train", "test" or "train+test", if the source names none.
        image_size: in pixels: of a square, or (height, width); for arrays both sides divided by the
            same number (28 for MNIST); None: native.
        channels: 1 or 3 for pictures that are decoded; arrays keep their own.
        crop: a recipe of `diptych.data.crops` for pictures; None: the source's own.
        data_dir: read from this folder and nowhere else.
        download: fetch the files if they are not on this machine.
        settable: the user can change a config with `--set`, so errors may advise it.

    Raises:
        UserError: unknown source or split; files missing, damaged or of another data set; a size
            that does not divide the native one; no way to download; a crop for a source that is
            not cropped.
        MachineError: the machine does not let us read or write files.
    """
    if source == ARRAYS:
        raise UserError(
            "the run was trained on images given in Python; give the same ones: "
            "diptych.train(..., data=images, resume=True)"
        )
    spec = parse(source)
    splits = chosen_splits(spec, source, split)
    if spec.kind in SOURCES and crop not in (None, "none"):
        raise UserError(f"{spec.kind} is not cropped; leave the crop '{crop}' out")
    parts = []
    for one in splits:
        asked = Asked(
            source, spec, one, image_size, channels or 3, crop, data_dir, download, settable
        )
        known = spec.kind in SOURCES
        parts.append(_from_idx(lookup(spec.kind, one), asked) if known else open_known(asked))
    found = parts[0] if len(parts) == 1 else joined(parts, splits)
    return _finished(found, spec.name, "+".join(splits), image_size)


def chosen_splits(spec: Spec, source: str, split: str) -> tuple[str, ...]:
    """The splits named by the source, else those of `split`.

    Raises:
        UserError: both name splits and they differ.
    """
    if not spec.splits:
        known = SOURCES.get(spec.kind)
        return (split,) if known and split in known.splits else split_names(source, split)
    if split not in ("train", "+".join(spec.splits)):
        raise UserError(f"{source} names its split already; leave the split '{split}' out")
    return spec.splits


def load_configured(
    data: DataConfig, data_dir: Path | None = None, download: bool = True, settable: bool = False
) -> Dataset:
    """Load the split that a config names, at its size, channels and crop, with `load_dataset`.

    Pictures that are decoded on demand are scanned first; see `diptych.data.scan`.

    Raises:
        UserError: as `load_dataset`; pictures that cannot be used, without `data.skip_bad`; or
            images whose number of channels differs from the config.
    """
    found = load_dataset(
        data.source,
        data.split,
        image_size=data.image_size,
        channels=data.channels,
        crop=data.crop,
        data_dir=data_dir,
        download=download,
        settable=settable,
    )
    found = usable(found, data.skip_bad)
    channels = found.images.shape[1]
    if channels != data.channels:
        advice = f"; use --set data.channels={channels}" if settable else ""
        raise UserError(f"data.channels is {data.channels}, {found.name} has {channels}{advice}")
    if channels == 1 and isinstance(found.images, Decoded):
        items = found.images.items
        if in_colour(items, spread(len(items.names), DECODED)):
            note(
                f"{found.origin}: the pictures are in colour, and data.channels=1 makes them grey; "
                "keep their colours with data.channels=3"
            )
    return found


def _from_idx(known: Source, asked: Asked) -> Opened:
    """Read MNIST or another IDX data set at full size."""
    split = asked.split
    located = find(known.name, split, asked.data_dir)
    if located is None and (known.name, split) == (MNIST.name, "test"):
        located = find(MNIST_10K.name)  # the same images, shipped in the package
    if located is None:
        from diptych.data.sources.download import fetch

        located = fetch(known, split, asked.download, asked.settable)
    images = read_idx(located.images, ndim=3)
    labels = read_idx(located.labels, ndim=1)
    _check(known, located, images, labels)
    images = images[:, None]
    sha256 = identity(images)
    _check_identity(known, split, located, sha256)
    return Opened(images, labels.astype(np.int64), located.origin, sha256)


def _finished(found: Opened, name: str, split: str, size: Size | None) -> Dataset:
    """Turn opened images into a data set: arrays resized and read-only."""
    images = found.images
    if not isinstance(images, Decoded):
        if size is not None:
            images = shrink(images, size)
        images.setflags(write=False)
    if found.labels is not None:
        found.labels.setflags(write=False)
    whole = images is found.images and found.sha256 is not None
    sha256 = str(found.sha256) if whole else identity(images)
    return Dataset(name, split, images, found.labels, sha256, found.origin, found.left_out)


def _own_images(images: Any) -> tuple[Pixels, list[Any] | None]:
    """The user's images as (N, C, H, W), and their labels if the items are pairs."""
    where = "Dataset.from_arrays: images"
    listed = hasattr(images, "__len__") and hasattr(images, "__getitem__")
    if not listed or isinstance(images, str | Mapping) or getattr(images, "shape", None) == ():
        raise refused(where, images, "an array, or an object with len and []")
    if len(images) == 0:
        raise UserError(f"{where}: holds no image")
    if hasattr(images, "__array__"):
        return _channels_first(_array(images, where).copy(), where), None
    rows: list[Any] = []
    labels: list[Any] = []
    for i in range(len(images)):
        item = images[i]
        if isinstance(item, tuple) and len(item) == 2:
            item, label = item
            labels.append(label)
        array = _array(item, where)
        if rows and array.shape != rows[0].shape:
            raise UserError(f"{where}: number {i} is {array.shape}, the first is {rows[0].shape}")
        if len(labels) not in (0, i + 1):
            raise UserError(f"{where}: number {i} differs from the first in having a label or none")
        rows.append(array)
    return _channels_first(np.stack(rows), where), labels or None


def _array(given: Any, where: str) -> Array:
    try:
        return np.asarray(given)
    except (TypeError, ValueError, RuntimeError) as error:  # rows of several lengths; on a GPU
        raise UserError(f"{where}: cannot be read as an array: {str(error)[:200]}") from error


def _channels_first(images: Array, where: str) -> Pixels:
    if images.dtype != np.uint8:
        raise UserError(
            f"{where}: are {images.dtype}, expected uint8, 0 .. 255; of floats in [0, 1]: "
            f"(255 * images).round().astype('uint8')"
        )
    if images.ndim == 3:
        images = images[:, None]
    first, last = (images.ndim == 4 and images.shape[axis] <= 4 for axis in (1, 3))
    if first == last or 0 in images.shape:
        raise UserError(
            f"{where}: are {images.shape}, expected (N, C, H, W), (N, H, W, C) or (N, H, W) with "
            f"1 to 4 channels and 5 pixels or more a side"
        )
    return np.ascontiguousarray(images if first else images.transpose(0, 3, 1, 2))


def _own_labels(given: Any, count: int) -> Int64:
    where = "Dataset.from_arrays: labels"
    labels = _array(given, where)
    if labels.shape != (count,) or not np.issubdtype(labels.dtype, np.integer):
        raise UserError(
            f"{where}: are {labels.dtype} {labels.shape}, expected {count} integers, one an image"
        )
    if labels.min() < 0:
        raise UserError(f"{where}: hold {labels.min()}; classes are 0 or more")
    wide = np.array(labels, dtype=np.int64)
    wide.setflags(write=False)
    return wide


def identity(images: Images) -> str:
    """Compute `Dataset.sha256` in parts, so that a mapped file need not fit into memory."""
    if isinstance(images, Decoded):
        return images.identity()
    header = "uint8 " + " ".join(str(size) for size in images.shape) + "\n"
    digest = hashlib.sha256(header.encode())
    for first in range(0, len(images), CHUNK):
        digest.update(np.ascontiguousarray(images[first : first + CHUNK]).data)
    return digest.hexdigest()


def _check(known: Source, located: Located, images: Pixels, labels: Pixels) -> None:
    """Refuse files that do not match the source or each other."""
    count, height, width = images.shape
    if (height, width) != (known.size, known.size):
        raise UserError(
            f"{located.images}: the images are {height}x{width}, {known.name} has "
            f"{known.size}x{known.size}. Put the published file there."
        )
    if len(labels) != count:
        raise UserError(
            f"{located.labels}: {len(labels)} labels for the {count} images of "
            f"{located.images.name}. Replace both with files of one split."
        )
    if labels.max() > 9:
        raise UserError(
            f"{located.labels}: a label is {labels.max()}, expected 0 to 9. "
            "Replace it with a sound copy."
        )


def _check_identity(known: Source, split: str, located: Located, sha256: str) -> None:
    """Refuse one known data set in place of another: their files have the same names."""
    owners = [
        (other.name, part)
        for other in SOURCES.values()
        for part, identity in other.identities.items()
        if identity == sha256
    ]
    if owners and (known.name, split) not in owners:
        name, part = owners[0]
        raise UserError(
            f"{located.images}: these are the images of {name} ({part}), expected {known.name} "
            f"({split}). Use the source {name}, or put {known.name}'s files there."
        )


def usable(dataset: Dataset, skip_bad: bool = False) -> Dataset:
    """Return the data set if all its pictures pass the scan; with `skip_bad`, only those that do.

    Raises:
        UserError: pictures that cannot be used, without `skip_bad`; or no usable picture.
    """
    images = dataset.images
    if not isinstance(images, Decoded):
        return dataset
    images.advice = ADVICE
    bad = scan(images, skip_bad)
    if not bad:
        return dataset
    first = next(iter(bad.values()))
    if not skip_bad:
        more = f" (and {len(bad) - 1} more)" if len(bad) > 1 else ""
        raise UserError(f"{first}{more}; or {ADVICE}")
    rows = [row for row in range(len(images)) if row not in bad]
    if not rows:
        raise UserError(f"{dataset.origin}: none of {len(bad)} pictures can be used. {first}")
    note(
        f"{dataset.origin}: {len(bad)} of {len(images)} pictures cannot be used and are left out; "
        f"the first: {first}"
    )
    chosen = Decoded(Chosen(images.items, rows), images.recipe, images.workers)
    labels = None if dataset.labels is None else dataset.labels[np.array(rows)]
    if labels is not None:
        labels.setflags(write=False)
    left_out = {**dataset.left_out, BAD: len(bad)}
    return replace(
        dataset, images=chosen, labels=labels, sha256=chosen.identity(), left_out=left_out
    )
