"""The colour data sets and the user's own pictures, by the name that `data.source` gives them.

    cifar10   celeba   ffhq   lsun_CATEGORY            known data sets, looked for by `data.places`
    folder:PATH   npz:PATH   packed:PATH   hf:PATH     the user's own; PATH may be left to --data

Here a name becomes images: arrays as they are, or pictures that are decoded when they are asked
for. Nothing here knows the IDX files of MNIST and its like; see `data.sources`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from diptych.config.schema import PLACED_SOURCES
from diptych.data.crops import Recipe, check_crop
from diptych.data.decoded import Decoded, Images, Items
from diptych.data.packed.read import read_packed
from diptych.data.picture import open_picture
from diptych.data.readers import celeba, cifar10, lmdb
from diptych.data.readers.folder import open_folder
from diptych.data.readers.huggingface import open_huggingface
from diptych.data.readers.npz import read_npz
from diptych.errors import UserError
from diptych.types import Int64

OWN = PLACED_SOURCES
NAMED = (cifar10.NAME, celeba.NAME, "ffhq")
SPLITS = ("train", "test")


@dataclass(frozen=True)
class Asked:
    """What `load_dataset` was asked for."""

    source: str
    split: str = "train"
    image_size: int | None = None
    channels: int = 3
    crop: str | None = None
    data_dir: Path | None = None
    download: bool = True
    settable: bool = False
    workers: int | None = None

    @property
    def kind(self) -> str:
        """The name before the colon."""
        return self.source.partition(":")[0]

    def path(self) -> Path:
        """Of the user's own data. Raises UserError where it is given nowhere, or twice."""
        named = self.source.partition(":")[2]
        if named and self.data_dir is not None:
            raise UserError(f"{self.source} names its path already; leave --data out")
        if not named and self.data_dir is None:
            raise UserError(f"source '{self.kind}' needs a path: {self.kind}:PATH, or --data PATH")
        return Path(named).expanduser() if named else Path(self.data_dir or "").expanduser()


def absolute(source: str) -> str:
    """The source with its path absolute, so that it means the same from any folder.

    What `hf:` names on the Hugging Face hub, and is no path here, stays as it is.
    """
    kind, _, place = source.partition(":")
    path = Path(place).expanduser()
    if kind not in OWN or not place or (kind == "hf" and not path.exists()):
        return source
    return f"{kind}:{path.absolute()}"


@dataclass(frozen=True)
class Opened:
    """What was found: images in some form, and what is known of them."""

    images: Images
    labels: Int64 | None
    origin: str
    sha256: str | None = None


def is_known(source: str) -> bool:
    """Whether this module knows the name."""
    kind = source.partition(":")[0]
    return kind in OWN or source in NAMED or lmdb.is_lsun(source)


def open_known(asked: Asked) -> Opened:
    """The images that were asked for, at full size where they are arrays.

    Raises:
        UserError: an unknown split or crop, data that are missing or damaged; each in one line.
        MachineError: files that the machine does not let us read.
    """
    if asked.split not in SPLITS:
        raise UserError(f"{asked.source} has no split '{asked.split}'; known: train, test")
    if asked.crop is not None:
        check_crop(asked.crop)
    if asked.kind in ("folder", "npz", "packed") and asked.split != "train":
        raise UserError(f"{asked.source} has the split 'train' only, which is all of it")
    arrays = _arrays(asked)
    if arrays is not None:
        if asked.crop not in (None, "none"):
            raise UserError(f"{asked.source} is not cropped; leave data.crop={asked.crop} out")
        return arrays
    items = open_items(asked)
    return Opened(decoded(asked, items), items.labels, items.origin)


def _arrays(asked: Asked) -> Opened | None:
    if asked.source == cifar10.NAME:
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
    """The encoded pictures of a source that has such."""
    if asked.source == celeba.NAME:
        return celeba.open_celeba(asked.split, asked.data_dir)
    if asked.source == "ffhq":
        return lmdb.open_ffhq(asked.split, asked.image_size, asked.data_dir)
    if lmdb.is_lsun(asked.source):
        return lmdb.open_lsun(asked.source, asked.split, asked.data_dir)
    if asked.kind == "hf":
        return open_huggingface(str(asked.path()), asked.split)
    return open_folder(asked.path())


def decoded(asked: Asked, items: Items) -> Decoded:
    """Pictures that are decoded on demand, at the size asked for.

    Without a size the first picture gives it, and every other must have the same.
    """
    if asked.channels not in (1, 3):
        raise UserError(
            f"{asked.source}: pictures are decoded to 1 or 3 channels, not {asked.channels}; "
            "set data.channels"
        )
    if asked.image_size is not None:
        recipe = Recipe(asked.image_size, asked.channels, asked.crop or items.crop)
        return Decoded(items, recipe, asked.workers)
    first = open_picture(items.read(0), items.title(0))
    crop = asked.crop or "none"
    if crop != "none" or first.width != first.height:
        raise UserError(
            f"{items.title(0)}: is {first.width}x{first.height}; give the size of the square "
            "that it becomes, for example --size 64"
        )
    return Decoded(items, Recipe(first.width, asked.channels, "none"), asked.workers)
