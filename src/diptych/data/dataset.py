"""A data set in memory: uint8 images and labels, and a hash that is their identity.

    sha256 = SHA-256(b"uint8 N C H W\\n" + the image bytes)

The hash is of the pixels and their shape, not of the files, so that the same images give the same
identity however they were packed and wherever they lay; run records carry it. Pixels stay uint8:
60,000 MNIST images are 47 MB, and a batch is rescaled when it is gathered.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diptych.config.load import DataConfig
from diptych.data.decoded import CHUNK, Decoded, Images
from diptych.data.readers.idx import read_idx
from diptych.data.resize import shrink
from diptych.data.sources.named import NAMED, OWN, Asked, is_known, open_known
from diptych.data.sources.registry import SOURCES, Located, Source, find, lookup
from diptych.errors import UserError, nearest
from diptych.types import Int64, Pixels

ARRAYS = "arrays"  # the `data.source` of a run that was given its images in Python


@dataclass(frozen=True, repr=False)
class Dataset:
    """Images and labels of one split.

    Attributes:
        name: the source, such as "mnist".
        split: "train" or "test".
        images: (N, C, H, W), uint8, 0..255, read-only: in memory, mapped from a packed file, or
            decoded when they are asked for.
        labels: (N,), int64, 0 .. classes - 1, read-only; None where the source has none.
        sha256: the identity of the images as they are here, after any resizing; of encoded ones
            their names, lengths and recipe stand in for the pixels.
        origin: where they were found, for people.
    """

    name: str
    split: str
    images: Images
    labels: NDArray[np.int64] | None
    sha256: str
    origin: str

    @property
    def labels_sha256(self) -> str | None:
        """The identity of the labels; None without."""
        if self.labels is None:
            return None
        return hashlib.sha256(np.ascontiguousarray(self.labels, "<i8").data).hexdigest()

    @staticmethod
    def from_arrays(images: Any, labels: Any = None, name: str = ARRAYS) -> Dataset:
        """A data set of the user's own images; they are copied into memory.

        Args:
            images: uint8 (N, C, H, W), (N, H, W, C) or (N, H, W), C = 1 .. 4; or any object with
                `len` and `[]` whose items are such images, or pairs of an image and its label.
            labels: (N,) integers, 0 or more; None: of the pairs, or none.
            name: for people.

        Raises:
            UserError: another shape or type, labels that do not fit, no image at all.
        """
        pixels, paired = _own_images(images)
        if paired is not None and labels is not None:
            raise UserError("Dataset.from_arrays: the items have labels already; leave labels out")
        labels = paired if labels is None else np.asarray(labels)
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
    image_size: int | None = None,
    channels: int | None = None,
    crop: str | None = None,
    data_dir: Path | None = None,
    download: bool = True,
    settable: bool = False,
) -> Dataset:
    """Find, if need be download, read and check one split of a known data set.

    Args:
        source: "mnist" (60,000 and 10,000 images), "fashion_mnist" (likewise) or "mnist-10k"
            (in the package; its "train" is MNIST's 10,000 test images); or one of those of
            `diptych.data.sources.named`: "cifar10", "celeba", "lsun_bedroom", "folder:PATH" ...
        split: "train" or "test".
        image_size: height and width in pixels, a divisor of the native 28; None: native.
        channels: 1 or 3 for pictures that are decoded; the others have their own.
        crop: a recipe of `diptych.data.crops` for pictures; None: the source's own.
        data_dir: read from this folder and nowhere else.
        download: whether to fetch what is not on this machine.
        settable: whether the user can change a config by `--set`, as an error may then advise.

    Raises:
        UserError: unknown source or split; files missing, damaged or of another data set; a size
            that 28 is not a multiple of; no way to download; a crop where nothing is cropped.
        MachineError: files that the machine does not let us read or write.
    """
    if source == ARRAYS:
        raise UserError(
            "the run was trained on images given in Python; give the same ones: "
            "diptych.train(..., data=images, resume=True)"
        )
    asked = Asked(source, split, image_size, channels or 3, crop, data_dir, download, settable)
    if is_known(source):
        return _known(asked)
    if source not in SOURCES:
        hint = nearest(
            source, [*SOURCES, *NAMED, "lsun_bedroom", *(f"{kind}:PATH" for kind in OWN)]
        )
        raise UserError(f"no data set is called '{source}'{hint}")
    known = lookup(source, split)
    if crop not in (None, "none"):
        raise UserError(f"{source} is not cropped; leave data.crop={crop} out")
    return _from_idx(known, asked)


def load_configured(
    data: DataConfig, data_dir: Path | None = None, download: bool = True, settable: bool = False
) -> Dataset:
    """The split that a config names, in its form; otherwise as `load_dataset`.

    Raises:
        UserError: as there; or images that have another number of channels than the config.
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
    channels = found.images.shape[1]
    if channels != data.channels:
        advice = f"; use --set data.channels={channels}" if settable else ""
        raise UserError(f"data.channels is {data.channels}, {found.name} has {channels}{advice}")
    return found


def _from_idx(known: Source, asked: Asked) -> Dataset:
    """MNIST and its like."""
    split, image_size = asked.split, asked.image_size
    located = find(asked.source, split, asked.data_dir)
    if located is None:
        from diptych.data.sources.download import fetch

        located = fetch(known, split, asked.download, asked.settable)
    images = read_idx(located.images, ndim=3)
    labels = read_idx(located.labels, ndim=1)
    _check(known, located, images, labels)
    images = images[:, None]
    full_size = identity(images)
    _check_identity(known, split, located, full_size)
    small = shrink(images, image_size) if image_size is not None else images
    sha256 = full_size if small is images else identity(small)
    wide = labels.astype(np.int64)
    wide.setflags(write=False)
    return Dataset(known.name, split, small, wide, sha256, located.origin)


def _known(asked: Asked) -> Dataset:
    """A data set of `diptych.data.sources.named`."""
    found = open_known(asked)
    images = found.images
    if not isinstance(images, Decoded):
        if asked.image_size is not None:
            images = shrink(images, asked.image_size)
        images.setflags(write=False)
    if found.labels is not None:
        found.labels.setflags(write=False)
    whole = images is found.images and found.sha256 is not None
    sha256 = str(found.sha256) if whole else identity(images)
    return Dataset(asked.source, asked.split, images, found.labels, sha256, found.origin)


def _own_images(images: Any) -> tuple[Pixels, Int64 | None]:
    """The user's images as (N, C, H, W), and their labels where the items are pairs."""
    where = "Dataset.from_arrays: images"
    if not hasattr(images, "__len__") or not hasattr(images, "__getitem__"):
        raise UserError(f"{where}: expected an array, or an object with len and [], not {images!r}")
    if len(images) == 0:
        raise UserError(f"{where}: holds no image")
    if hasattr(images, "__array__"):
        return _channels_first(np.array(images), where), None
    rows: list[Any] = []
    labels: list[Any] = []
    for i in range(len(images)):
        item = images[i]
        if isinstance(item, tuple) and len(item) == 2:
            item, label = item
            labels.append(label)
        array = np.asarray(item)
        if rows and array.shape != rows[0].shape:
            raise UserError(f"{where}: number {i} is {array.shape}, the first is {rows[0].shape}")
        if len(labels) not in (0, i + 1):
            raise UserError(f"{where}: number {i} differs from the first in having a label or none")
        rows.append(array)
    return _channels_first(np.stack(rows), where), np.asarray(labels) if labels else None


def _channels_first(images: NDArray[Any], where: str) -> Pixels:
    if images.dtype != np.uint8:
        raise UserError(
            f"{where}: are {images.dtype}, expected uint8, 0 .. 255; of floats in [0, 1]: "
            f"(255 * images).round().astype('uint8')"
        )
    if images.ndim == 3:
        images = images[:, None]
    first, last = (images.ndim == 4 and images.shape[axis] <= 4 for axis in (1, 3))
    if first == last:
        raise UserError(
            f"{where}: are {images.shape}, expected (N, C, H, W), (N, H, W, C) or (N, H, W) with "
            f"1 to 4 channels and 5 pixels or more a side"
        )
    return np.ascontiguousarray(images if first else images.transpose(0, 3, 1, 2))


def _own_labels(labels: NDArray[Any], count: int) -> Int64:
    where = "Dataset.from_arrays: labels"
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
    """What `Dataset.sha256` is; read in parts, so that a mapped file need not fit into memory."""
    if isinstance(images, Decoded):
        return images.identity()
    header = "uint8 " + " ".join(str(size) for size in images.shape) + "\n"
    digest = hashlib.sha256(header.encode())
    for first in range(0, len(images), CHUNK):
        digest.update(np.ascontiguousarray(images[first : first + CHUNK]).data)
    return digest.hexdigest()


def _check(
    known: Source, located: Located, images: NDArray[np.uint8], labels: NDArray[np.uint8]
) -> None:
    """Whether the two files fit the source and each other."""
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
    """Refuse one known data set in the place of another: their files bear the same names."""
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
            f"({split}). Use data.source={name}, or put {known.name}'s files there."
        )
