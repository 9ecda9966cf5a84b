"""Open the images of a named source: arrays as stored, or pictures decoded on demand.

The names are those of `diptych.data.sources.spec`. The IDX data sets, such as MNIST, are not
handled here; see `diptych.data.sources.registry`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from diptych.config.size import Size
from diptych.data.crops import Recipe, check_crop
from diptych.data.decoded import Decoded, Images, Items, Joined
from diptych.data.packed.read import read_packed
from diptych.data.picture import open_picture
from diptych.data.readers import celeba, cifar10, lmdb
from diptych.data.readers.folder import open_file, open_folder
from diptych.data.readers.huggingface import open_huggingface
from diptych.data.readers.npz import read_npz
from diptych.data.sources.spec import (
    OWN,
    PICTURE,
    SPLITS,
    Spec,
    is_name,
    parse,
    split_names,
)
from diptych.errors import UserError
from diptych.files import expanded, look
from diptych.types import Int64

TRIED = 100  # leading pictures to try until one that can be read gives the size


@dataclass(frozen=True)
class Asked:
    """A request to `load_dataset` for one split; `split` is one of SPLITS."""

    source: str
    spec: Spec
    split: str = "train"
    image_size: Size | None = None
    channels: int = 3
    crop: str | None = None
    data_dir: Path | None = None
    download: bool = True
    settable: bool = False
    workers: int | None = None

    @property
    def kind(self) -> str:
        """The name before the colon."""
        return self.spec.kind

    def path(self) -> Path:
        """The path of the user's own data. Raises UserError if it is missing or given twice."""
        named = self.spec.path
        if named is not None and self.data_dir is not None:
            raise UserError(f"{self.source} names its path already; leave --data out")
        if named is None and self.data_dir is None:
            raise UserError(f"source '{self.kind}' needs a path: {self.kind}:PATH, or --data PATH")
        return named if named is not None else expanded(self.data_dir or "")


def absolute(source: str) -> str:
    """The source with an absolute path and an explicit kind, so that it means the same anywhere.

    An `hf:` name that is not a local path stays unchanged.
    """
    try:
        source.encode()
    except UnicodeEncodeError as error:
        raise UserError(f"{source}: is no UTF-8, so no config can hold it; rename it") from error
    head = source.partition(":")[0]
    if head not in OWN and (is_name(head) or not look(expanded(source))):
        return source
    spec = parse(source)
    if spec.path is None or (spec.kind == "hf" and not look(spec.path)):
        return source
    kind = "" if spec.kind == PICTURE else f"{spec.kind}:"
    split = f":{'+'.join(spec.splits)}" if spec.splits else ""
    return f"{kind}{spec.path.absolute()}{split}"


@dataclass(frozen=True)
class Opened:
    """The opened images, as an array or decoded on demand, with their labels and origin."""

    images: Images
    labels: Int64 | None
    origin: str
    sha256: str | None = None
    left_out: dict[str, int] = field(default_factory=dict)


def open_known(asked: Asked) -> Opened:
    """Open the requested images; arrays stay at full size.

    Raises:
        UserError: an unknown split or crop, or missing or damaged data; each in one line.
        MachineError: the machine cannot read the files.
    """
    if asked.split not in SPLITS:
        raise UserError(f"{asked.source} has no split '{asked.split}'; known: train, test")
    if asked.crop is not None:
        check_crop(asked.crop)
    if asked.kind in ("folder", "npz", "packed", PICTURE) and asked.split != "train":
        raise UserError(f"{asked.source} has the split 'train' only, which is all of it")
    arrays = _arrays(asked)
    if arrays is not None:
        if asked.crop not in (None, "none"):
            raise UserError(f"{asked.source} is not cropped; leave the crop '{asked.crop}' out")
        return arrays
    items = open_items(asked)
    left_out = dict(getattr(items, "left_out", {}))
    return Opened(decoded(asked, items), items.labels, items.origin, None, left_out)


def joined(parts: Sequence[Opened], splits: Sequence[str]) -> Opened:
    """Concatenate splits of one source."""
    left_out = dict(sum((Counter(part.left_out) for part in parts), Counter[str]()))
    pictures = [part.images for part in parts if isinstance(part.images, Decoded)]
    if len(pictures) == len(parts):
        first = pictures[0]
        items = Joined([images.items for images in pictures], splits)
        whole = Decoded(items, first.recipe, first.workers)
        return Opened(whole, items.labels, items.origin, None, left_out)
    images = np.concatenate([np.asarray(part.images[:]) for part in parts])
    labels = [part.labels for part in parts if part.labels is not None]
    origins = " and ".join(dict.fromkeys(part.origin for part in parts))
    every = np.concatenate(labels) if len(labels) == len(parts) else None
    return Opened(images, every, origins, None, left_out)


def _arrays(asked: Asked) -> Opened | None:
    if asked.kind == cifar10.NAME:
        read = cifar10.read_cifar10(asked.split, asked.data_dir, asked.download)
        return Opened(*read)
    if asked.kind == "npz":
        path = asked.path()
        return Opened(*read_npz(path), str(path))
    if asked.kind == "packed":
        path = asked.path()
        images, labels, index = read_packed(path)
        return Opened(images, labels, str(path), index["sha256"])
    return None


def open_items(asked: Asked) -> Items:
    """Open the encoded pictures of a source that is not stored as arrays."""
    if asked.kind == celeba.NAME:
        return celeba.open_celeba(asked.split, asked.data_dir)
    if asked.kind == "ffhq":
        return lmdb.open_ffhq(asked.split, asked.image_size, asked.data_dir)
    if lmdb.is_lsun(asked.kind):
        return lmdb.open_lsun(asked.kind, asked.split, asked.data_dir)
    if asked.kind == "hf":
        return open_huggingface(str(asked.path()), asked.split)
    if asked.kind == PICTURE:
        return open_file(asked.path())
    return open_folder(asked.path())


def open_splits(source: str, data_dir: Path | None = None, split: str = "train") -> Items:
    """Open the encoded pictures of all splits that a source names, else of `split`."""
    spec = parse(source)
    splits = spec.splits or split_names(source, split)
    parts = [open_items(Asked(source, spec, one, data_dir=data_dir)) for one in splits]
    return parts[0] if len(parts) == 1 else Joined(parts, splits)


def decoded(asked: Asked, items: Items) -> Decoded:
    """Wrap pictures for decoding on demand at the requested size.

    Without a size, the first usable picture gives it and all others must match.
    """
    if asked.channels not in (1, 3):
        raise UserError(
            f"{asked.source}: pictures are decoded to 1 or 3 channels, not {asked.channels}"
        )
    if asked.image_size is not None:
        recipe = Recipe(asked.image_size, asked.channels, asked.crop or items.crop)
        return Decoded(items, recipe, asked.workers)
    title, first = _first_usable(items)
    crop = asked.crop or "none"
    if crop != "none" or first.width != first.height:
        raise UserError(
            f"{title}: is {first.width}x{first.height}; give the size that it "
            "becomes, for example --size 64 or --size 48x64"
        )
    return Decoded(items, Recipe(first.width, asked.channels, "none"), asked.workers)


def _first_usable(items: Items) -> tuple[str, Image.Image]:
    """The title of the first readable picture, and the picture; bad ones are reported when used.

    Raises:
        UserError: none of the first TRIED can be read; the error of the first one.
    """
    fault: UserError | None = None
    for row in range(min(len(items.names), TRIED)):
        try:
            return items.title(row), open_picture(items.read(row), items.title(row))
        except UserError as error:
            fault = fault or error
    assert fault is not None  # a source without pictures was refused earlier
    raise fault
