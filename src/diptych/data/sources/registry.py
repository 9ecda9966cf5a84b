"""The known IDX data sets and the search for their files on this machine.

A data set has two IDX files per split, under their authors' names. They are searched in this order,
and the first place that holds both wins:

    1. the given folder (`--data`), else the one that DIPTYCH_DATA names; if given, nowhere else
    2. the user's cache, where a download puts them
    3. the places where other software keeps them (a Debian package, torchvision's layout)

A folder that was named explicitly and lacks the files is an error: otherwise training on a
different copy would go unnoticed. Nothing here opens a connection; see `download`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from diptych.errors import MachineError, UserError, nearest
from diptych.files import expanded, user_cache

ENVIRONMENT = "DIPTYCH_DATA"


@dataclass(frozen=True)
class File:
    """One published file: its name without `.gz`, and the sha256 of its unpacked content.

    The hash covers the content and not the gzip container, because recompressed copies are common
    (Debian's, for example).
    """

    name: str
    sha256: str


@dataclass(frozen=True)
class Source:
    """One row of the table of known data sets.

    `identities` are the values of `Dataset.sha256` at full size; they reveal one data set stored in
    place of another. `folders` are tried below each place.
    """

    name: str
    size: int
    splits: Mapping[str, tuple[File, File]]  # split -> images, labels
    identities: Mapping[str, str]
    folders: tuple[str, ...] = ()
    places: tuple[Path, ...] = ()  # folders of other software that hold only this data set
    mirrors: tuple[str, ...] = ()  # tried in order; each ends in a slash
    hint: str = ""
    instead: str = ""  # alternative images, offered if the config can be changed


@dataclass(frozen=True)
class Located:
    """The two files of a split, and the name of their place for people."""

    images: Path
    labels: Path
    origin: str


def _files(stem: str, images: str, labels: str) -> tuple[File, File]:
    return File(f"{stem}-images-idx3-ubyte", images), File(f"{stem}-labels-idx1-ubyte", labels)


_MNIST_TEST = _files(
    "t10k",
    "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
)
_MNIST_TEST_IDENTITY = "9f53148e9a344e98be76058daa43d967a8a4f69ef3a02db8d9bc1d9712f9dc06"

MNIST = Source(
    name="mnist",
    size=28,
    splits={
        "train": _files(
            "train",
            "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
            "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        ),
        "test": _MNIST_TEST,
    },
    identities={
        "train": "f035de44535e00d0555e27516e803b8a8449e7b62d247ad69db05679be7c4c83",
        "test": _MNIST_TEST_IDENTITY,
    },
    folders=("mnist", "MNIST/raw", "MNIST"),
    mirrors=(
        "https://storage.googleapis.com/cvdf-datasets/mnist/",
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
    ),
    instead="10,000 of its images travel with Diptych: --set data.source=mnist-10k",
)
FASHION_MNIST = Source(
    name="fashion_mnist",
    size=28,
    splits={
        "train": _files(
            "train",
            "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
            "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
        ),
        "test": _files(
            "t10k",
            "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
            "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
        ),
    },
    identities={
        "train": "7521872f656781fe14976a15048c2a9549cba6cd5e30a40b419bd681594da3f2",
        "test": "63f7b14934ae58a370a21f8b5ad70fed85f8ae2fd53773934ef26689f561cea1",
    },
    folders=("fashion_mnist", "fashion-mnist", "FashionMNIST/raw", "FashionMNIST"),
    places=(Path("/usr/share/datasets/fashion-mnist"),),
    mirrors=(
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/",
    ),
    hint="Debian and Ubuntu have it as a package: apt-get install dataset-fashion-mnist",
)
# MNIST's 10,000 test images as training data: small enough to ship in the package.
MNIST_10K = Source(
    "mnist-10k", 28, {"train": _MNIST_TEST}, identities={"train": _MNIST_TEST_IDENTITY}
)

SOURCES: dict[str, Source] = {s.name: s for s in (MNIST, FASHION_MNIST, MNIST_10K)}


def lookup(source: str, split: str) -> Source:
    """The row of the table for `source`.

    Raises:
        UserError: an unknown source or split, with the nearest known one.
    """
    if source not in SOURCES:
        raise UserError(f"no data set is called '{source}'{nearest(source, list(SOURCES))}")
    known = SOURCES[source]
    if split in known.splits:
        return known
    if known.name == MNIST_10K.name and split == "test":
        raise UserError(
            "mnist-10k has the split 'train' only, which is MNIST's 10,000 test images; "
            "no images are left to test on. Use the source mnist for both splits."
        )
    raise UserError(f"{source} has no split '{split}'{nearest(split, list(known.splits))}")


def find(source: str, split: str = "train", data_dir: Path | None = None) -> Located | None:
    """Find the files of a split on this machine, or return None. No download.

    Args:
        source: a name in `SOURCES`.
        split: "train" or "test".
        data_dir: search here and nowhere else; None: in DIPTYCH_DATA if set, else the usual places.
            "mnist-10k" always comes from the package: it refuses `data_dir` and ignores
            DIPTYCH_DATA, which is for the other sources.

    Raises:
        UserError: unknown source or split; or `data_dir` or DIPTYCH_DATA is given and lacks them.
        MachineError: no permission to read the given folder.
    """
    known = lookup(source, split)
    if known.name == MNIST_10K.name:
        if data_dir is not None:
            raise UserError(
                f"mnist-10k travels in the package and is not read from {data_dir}. "
                "Leave --data out, or use that folder's own data: the source mnist."
            )
        return _packaged(known, split)
    if data_dir is not None:
        return _in_named(known, split, data_dir, "--data")
    if os.environ.get(ENVIRONMENT):
        return _in_named(known, split, Path(os.environ[ENVIRONMENT]), ENVIRONMENT)
    places = [cache_folder(known.name)]
    places += [root / folder for root in shared_roots() for folder in known.folders]
    for place in [*places, *known.places]:
        found = _pair(known, split, place)
        if found is not None and all(os.path.isfile(path) for path in found):
            return Located(*found, origin=str(place))
    return None


def cache_folder(name: str) -> Path:
    """The folder for this data set, downloaded or placed by hand."""
    return user_cache("data", name)


def shared_roots() -> list[Path]:
    """The folders below which other programs, above all torchvision, keep data sets."""
    return [Path.cwd() / "data", Path.home() / ".cache", Path.home() / ".cache" / "torch"]


def _packaged(known: Source, split: str) -> Located:
    folder = Path(str(resources.files("diptych.data") / known.name))
    images, labels = (folder / f"{file.name}.gz" for file in known.splits[split])
    return Located(images, labels, "in the package")


def _in_named(known: Source, split: str, root: Path, named_by: str) -> Located:
    """Find the files below a folder that the user named, or raise: no other copy is used."""
    root = checked_root(known.name, root, named_by)
    for folder in (*known.folders, "."):
        found = _pair(known, split, root / folder)
        if found is not None:
            return Located(*found, origin=f"{found[0].parent} ({named_by})")
    wanted = " and ".join(f"{file.name}.gz" for file in known.splits[split])
    raise UserError(
        f"{named_by} {root}: holds no {known.name} ({split}); expected {wanted} in "
        f"{root / known.folders[0]} or in {root} itself. Put them there, or leave {named_by} out."
    )


def checked_root(name: str, root: Path, named_by: str) -> Path:
    """Check a folder that the user named for a data set. Raises UserError or MachineError."""
    root = expanded(root)
    if not os.path.isdir(root):
        what = "is not a folder" if os.path.exists(root) else "does not exist"
        raise UserError(
            f"{named_by} {root}: {what}; expected a folder with {name} in it. Correct the "
            "path, or leave it out: the usual places are searched then, and a download follows."
        )
    if not os.access(root, os.R_OK | os.X_OK):
        raise MachineError(f"{named_by} {root}: may not be read. Check the folder's permissions.")
    return root


def _pair(known: Source, split: str, folder: Path) -> tuple[Path, Path] | None:
    """The images and labels in `folder`, or None if either is missing."""
    images, labels = (_present(folder, file.name) for file in known.splits[split])
    return (images, labels) if images and labels else None


def _present(folder: Path, name: str) -> Path | None:
    """Find the file of that name, gzip or raw; some archives unpack to `images.idx3`, not `-idx3`.

    Anything else of that name, such as a folder, is returned only if there is no such file; reading
    it then raises the specific error.
    """
    names = (f"{name}.gz", name, name.replace("-idx", ".idx"))
    paths = [folder / each for each in names if os.path.exists(folder / each)]
    return next((path for path in paths if os.path.isfile(path)), paths[0] if paths else None)
