"""CIFAR-10 in its python or binary format, as an archive or unpacked.

    python   cifar-10-batches-py/data_batch_1 .. 5, test_batch:  pickles of {data (N, 3072), labels}
    binary   cifar-10-batches-bin/data_batch_1.bin ...:          records of 1 + 3072 bytes

Both hold the red, green and blue planes of 32x32 pixels. An archive is read in place and never
unpacked to disk. Every file must match its published checksum. A custom data set in this layout
lists its checksums in a file MD5SUMS beside its files, in the format of `md5sum`, and must match
those. The pickles are read by an unpickler that knows NumPy's arrays and nothing else.
Source of the format and of the archives' sums: https://www.cs.toronto.edu/~kriz/cifar.html.
"""

from __future__ import annotations

import hashlib
import io
import pickle
import tarfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from diptych.data.sources.places import locate
from diptych.data.sources.registry import cache_folder
from diptych.errors import UserError
from diptych.files import read_bytes
from diptych.types import Int64, Pixels

NAME = "cifar10"
FOLDERS = {"train": ("cifar10", "cifar-10"), "test": ("cifar10_test", "cifar10", "cifar-10")}
URL = "https://www.cs.toronto.edu/~kriz/"
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
SIZE, RECORD = 32, 3 * 32 * 32


@dataclass(frozen=True)
class Form:
    """One of the two formats: its archive, its folder, and the published checksum of every file."""

    archive: str
    length: int  # bytes of the archive
    sha256: str  # of the archive
    folder: str
    suffix: str
    sums: dict[str, str]


PYTHON = Form(
    "cifar-10-python.tar.gz",
    170498071,
    "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",
    "cifar-10-batches-py",
    "",
    {
        "cifar-10-python.tar.gz": "c58f30108f718f92721af3b95e74349a",
        "data_batch_1": "c99cafc152244af753f735de768cd75f",
        "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
        "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
        "data_batch_4": "634d18415352ddfa80567beed471001a",
        "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
        "test_batch": "40351d587109b95175f43aff81a1287e",
    },
)
BINARY = Form(
    "cifar-10-binary.tar.gz",
    170052171,
    "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
    "cifar-10-batches-bin",
    ".bin",
    {
        "cifar-10-binary.tar.gz": "c32a1d4ab5d03f1284b67883e8d87530",
        "data_batch_1.bin": "cee916563c9f80d84e3cc88e17fdc0941787f1244f00a67874d45b261883ada5",
        "data_batch_2.bin": "a591ca11fa1708a91ee40f54b3da4784ccd871ecf2137de63f51ada8b3fa57ed",
        "data_batch_3.bin": "bbe8596564c0f86427f876058170b84dac6670ddf06d79402899d93ceea26f67",
        "data_batch_4.bin": "014e562d6e23c72197cc727519169a60359f5eccd8945ad5a09d710285ff4e48",
        "data_batch_5.bin": "755304fc0b379caeae8c14f0dac912fbc7d6cd469eb67a1029a08a39453a9add",
        "test_batch.bin": "8e2eb146ae340b09e24670f29cabc6326dba54da8789dab6768acf480273f65b",
    },
)
FORMS = (PYTHON, BINARY)


@dataclass(frozen=True)
class Found:
    """A copy in one format: a folder with the batches, or an archive."""

    form: Form
    path: Path
    origin: str

    def files(self, split: str) -> list[str]:
        """The batches of a split, in order."""
        stems = [f"data_batch_{k}" for k in range(1, 6)] if split == "train" else ["test_batch"]
        return [stem + self.form.suffix for stem in stems]


def read_cifar10(
    split: str, data_dir: Path | None = None, download: bool = True
) -> tuple[Pixels, Int64, str]:
    """Read images (N, 3, 32, 32), labels (N,) and their origin.

    Raises:
        UserError: missing and not downloadable; damaged; or the checksum differs from the
            published one.
    """
    found = find_cifar10(split, data_dir)
    if found is None:
        from diptych.data.sources.download import fetch_whole

        fetched = fetch_whole(
            NAME, URL, PYTHON.archive, PYTHON.sha256, cache_folder(NAME), download
        )
        found = Found(PYTHON, fetched, f"{fetched.parent} (downloaded)")
    parts = [_parse(found, name, data) for name, data in _contents(found, split)]
    images = np.concatenate([part[0] for part in parts])
    labels = np.concatenate([part[1] for part in parts])
    return images, labels, found.origin


def find_cifar10(split: str, data_dir: Path | None = None) -> Found | None:
    """Find the split on this machine, or return None. No download."""

    def probe(folder: Path, origin: str) -> Found | None:
        for form in FORMS:
            if folder.is_file():
                if folder.name == form.archive:
                    return Found(form, folder, origin)
                continue
            for place in (folder / form.folder, folder):
                # One batch is enough: missing batches are reported when they are read.
                if any((place / name).exists() for name in Found(form, place, "").files(split)):
                    return Found(form, place, origin)
            if (folder / form.archive).is_file():
                return Found(form, folder / form.archive, origin)
        return None

    wanted = f"{PYTHON.archive}, {BINARY.archive} or one of them unpacked"
    return locate(NAME, FOLDERS[split], wanted, data_dir, probe)


def _contents(found: Found, split: str) -> list[tuple[str, bytes]]:
    """The name and the verified bytes of every batch of the split."""
    own = _own_sums(found.path)
    names = found.files(split)
    if found.path.is_dir():
        held = [(name, read_bytes(found.path / name, "a file of CIFAR-10")) for name in names]
        for name, data in held:
            _check_sum(found.path / name, data, (own or found.form.sums).get(name))
        return held
    archive = read_bytes(found.path, "a file of CIFAR-10")
    if own is None and len(archive) < found.form.length:
        raise UserError(
            f"{found.path}: is cut short: {len(archive)} bytes, expected {found.form.length}. "
            "Fetch it again"
        )
    _check_sum(found.path, archive, (own or found.form.sums).get(found.path.name))
    return _from_archive(found, archive, names)


def _own_sums(path: Path) -> dict[str, str] | None:
    sums = (path if path.is_dir() else path.parent) / "MD5SUMS"
    if not sums.is_file():
        return None
    lines = [
        line.split(maxsplit=1) for line in sums.read_text("utf-8").splitlines() if line.strip()
    ]
    if any(len(line) != 2 for line in lines):
        raise UserError(f"{sums}: expected lines of a sum and a file name, as md5sum writes them")
    return {name.lstrip("*").strip(): value.lower() for value, name in lines}


def _check_sum(path: Path, data: bytes, expected: str | None) -> None:
    if expected is None:
        raise UserError(f"{path}: its checksum is not in {path.parent / 'MD5SUMS'}; add it")
    kind = "sha256" if len(expected) == 64 else "md5"
    found = hashlib.new(kind, data, usedforsecurity=False).hexdigest()
    if found != expected:
        raise UserError(
            f"{path}: the {kind} is {found}, expected {expected}: the file is damaged or another "
            "one. Fetch it again, or state the sums of a data set of your own in MD5SUMS beside it"
        )


def _from_archive(found: Found, archive: bytes, names: list[str]) -> list[tuple[str, bytes]]:
    held: dict[str, bytes] = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as tar:
            for member in tar:
                name = Path(member.name).name
                if name in names and member.isfile():
                    content = tar.extractfile(member)
                    held[name] = content.read() if content else b""
    except (tarfile.TarError, EOFError, OSError, zlib.error, ValueError) as error:
        raise UserError(
            f"{found.path}: the archive is cut short or damaged ({error}). Fetch it again"
        ) from None
    missing = [name for name in names if name not in held]
    if missing:
        raise UserError(f"{found.path}: holds no {missing[0]}. Fetch it again")
    return [(name, held[name]) for name in names]


def _parse(found: Found, name: str, data: bytes) -> tuple[Pixels, Int64]:
    where = f"{found.path / name}"
    parse: Callable[[bytes], tuple[Any, Any]] = _binary if found.form is BINARY else _python
    try:
        pixels, labels = parse(data)
        images = np.asarray(pixels)
        classes = np.asarray(labels, dtype=np.int64)
        if images.dtype != np.uint8 or images.shape != (len(classes), RECORD) or not len(classes):
            raise ValueError(f"{images.dtype} {images.shape} for {len(classes)} labels")
        if classes.min() < 0 or classes.max() >= len(CLASSES):
            raise ValueError(f"a label is {classes.max()}, expected 0 to 9")
    except Exception as error:  # a damaged pickle can make NumPy raise anything
        said = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{where}: is not a batch of CIFAR-10 ({said}). Fetch it again") from None
    return images.reshape(-1, 3, SIZE, SIZE), classes


def _binary(data: bytes) -> tuple[Any, Any]:
    records = np.frombuffer(data, np.uint8)
    if len(records) % (RECORD + 1):
        raise ValueError(f"{len(records)} bytes are not whole records of {RECORD + 1}")
    records = records.reshape(-1, RECORD + 1)
    return records[:, 1:], records[:, 0]


class _Arrays(pickle.Unpickler):
    """An unpickler that knows the parts of a pickled NumPy array and refuses every other name."""

    _KNOWN = frozenset(
        {
            ("numpy.core.multiarray", "_reconstruct"),
            ("numpy._core.multiarray", "_reconstruct"),
            ("numpy", "ndarray"),
            ("numpy", "dtype"),
            ("_codecs", "encode"),
        }
    )

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self._KNOWN:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is not read")
        return super().find_class(module.replace("numpy._core", "numpy.core"), name)


def _python(data: bytes) -> tuple[Any, Any]:
    # Python 2 wrote its strings as bytes, and NumPy requires them as latin1.
    batch = _Arrays(io.BytesIO(data), encoding="latin1").load()
    return batch["data"], batch["labels"]
