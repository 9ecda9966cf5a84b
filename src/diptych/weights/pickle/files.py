"""Weights written by torch.save, jt.save or pickle, read without torch and executing nothing.

    zip      ROOT/data.pkl, ROOT/byteorder, ROOT/data/KEY ...             torch 1.6 and later
    legacy   magic, protocol, system, object, keys, (int64 count, bytes) ...     before 1.6
    pickle   one pickle of containers and NumPy arrays; Jittor appends a checksum

The format is recognised by content, never by the file's name. All three go through `Machine`, which
knows the few names in `known_names` and calls nothing else. torch's tar format (before 0.2),
TorchScript and tensors inside a plain pickle are refused.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import struct
import zipfile
import zlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import IO, TypeVar

from diptych.errors import MachineError, UserError
from diptych.files import open_file
from diptych.weights.pickle.arrays import Storage, decode, known_names, storage_id, whole
from diptych.weights.pickle.ops import Bounded, Fault, operations, show
from diptych.weights.pickle.vm import Machine

T = TypeVar("T")

_ZIP_START = b"PK\x03\x04"
_TORCH_MAGIC = 0x1950A86A20F9469CFC6C
_TORCH_PROTOCOL = 1001
JITTOR_END = b"HCAJSLHD"  # after a pickle and its 20 bytes of SHA-1

# All exceptions of the standard library and NumPy on damaged or hostile bytes.
_DAMAGE = (
    ValueError,  # also UnicodeDecodeError and the pickle decoder's errors
    TypeError,
    LookupError,
    ArithmeticError,
    EOFError,
    RuntimeError,  # also NotImplementedError: zip features not used by torch
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
    Warning,  # an invalid escape in a text, if warnings are errors
)


def read_pickle_weights(path: Path) -> object:
    """Read a torch, Jittor or plain pickle file into containers, numbers and NumPy arrays.

    Args:
        path: the file, with any name.

    Returns:
        dict, list, tuple, numbers and text as saved; every tensor as a read-only NumPy view of its
        storage (bfloat16 as float32), with its shape and strides.

    Raises:
        UserError: the file has another format, is damaged or truncated, or names something that
            weights do not need; nothing in it was executed.
        MachineError: the file cannot be read.
    """
    return read_with_form(path)[1]


def read_with_form(path: Path) -> tuple[str, object]:
    """`read_pickle_weights` preceded by the format: torch-zip, torch-legacy, pickle or jittor."""

    def read(file: IO[bytes], size: int) -> tuple[str, object]:
        start = file.read(len(_ZIP_START))
        file.seek(0)
        return ("torch-zip", _zip(file, size)) if start == _ZIP_START else _pickles(file, size)

    return guarded(path, read)


def guarded(path: Path, read: Callable[[IO[bytes], int], T]) -> T:
    """`read(file, size)` with the file's faults as one-line errors that name the path."""
    with open_file(path, "a weights file") as file:
        try:
            size = os.fstat(file.fileno()).st_size
            if size == 0:
                raise Fault("the file is empty")
            if what := _known_otherwise(file.read(len(_ZIP_START) + 60), path.name):
                raise Fault(what)
            file.seek(0)
            return read(file, size)
        except Fault as fault:
            raise UserError(f"{path}: {fault}") from fault
        except MemoryError as error:
            raise MachineError(f"{path}: not enough memory to read its {size:,} bytes") from error
        except (OSError, *_DAMAGE) as error:
            if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
                raise MachineError(f"{path}: cannot be read ({error.strerror})") from error
            detail = " ".join(str(error).split())[:120] or type(error).__name__
            raise UserError(
                f"{path}: not a weights file, or damaged or truncated ({detail}); expected a "
                "torch, NumPy or Jittor pickle or safetensors; fetch or save it again"
            ) from error


WEB_PAGE = "is not a weights file but a web page; open the address and download the file"
_STARTS = (
    (b"version https://git-lfs", "is a pointer of Git LFS, not the file itself; git lfs pull"),
    *((mark, WEB_PAGE) for mark in (b"<!", b"<h", b"<H", b"<?")),
    (b"\x89HDF\r\n", "is HDF5, as Keras writes it; expected weights of PyTorch or Jittor"),
    (b"\x89PNG", "is a picture; expected weights of PyTorch or Jittor"),
    (b"\x93NUMPY", "is a single NumPy array; expected weights by name, of PyTorch or Jittor"),
    (b"GGUF", "is GGUF; expected weights of PyTorch or Jittor"),
    (b"\x1f\x8b", "is compressed with gzip; unpack it first"),
    (b"\xfd7zXZ", "is compressed with xz; unpack it first"),
    (b"\x28\xb5\x2f\xfd", "is compressed with zstd; unpack it first"),
)
_TENSORFLOW = re.compile(r".+\.(index|meta|data-\d+-of-\d+)")


def _known_otherwise(start: bytes, name: str) -> str | None:
    """Known kind of a file that is certainly not readable weights, and its remedy."""
    for mark, words in _STARTS:
        if start.startswith(mark):
            return words
    if _TENSORFLOW.fullmatch(name):
        return (
            "is a part of a TensorFlow checkpoint, such as the original DDPM's; those weights "
            "are pretrained:ema_cifar10 and others, converted to PyTorch"
        )
    return None


def _zip(file: IO[bytes], size: int) -> object:
    with zipfile.ZipFile(file) as archive:
        _check_entries(archive, size)
        names = [n for n in archive.namelist() if n.count("/") <= 1 and _last(n) == "data.pkl"]
        if len(names) != 1:
            raise Fault("a zip file without one data.pkl in it: not written by torch.save")
        root = names[0].removesuffix("data.pkl")
        present = set(archive.namelist())
        word = archive.read(f"{root}byteorder") if f"{root}byteorder" in present else b"little"
        if word not in (b"little", b"big"):
            raise Fault(f"its byte order is {show(word.decode('latin-1'))}; expected little or big")
        storages: dict[str, Storage] = {}

        def storage(pid: object) -> Storage:
            kind, key, numel, _ = storage_id(pid)
            name = f"{root}data/{key}"
            if name not in present:
                raise Fault(f"its storage {show(str(key))} is missing")
            if name not in storages:
                values = decode(archive.read(name), kind, numel, "<" if word == b"little" else ">")
                storages[name] = Storage(kind, numel, values)
            return _agreeing(storages[name], Storage(kind, numel))

        pickle = archive.read(names[0])
        ops = operations(Bounded(BytesIO(pickle), len(pickle)))
        return Machine(known_names(size), storage).run(ops)


def _last(name: str) -> str:
    return name.rsplit("/", 1)[-1]


def _check_entries(archive: zipfile.ZipFile, size: int) -> None:
    """Refuse entries larger, alone or together, than the file: torch does not compress."""
    entries = archive.infolist()
    if any(e.compress_type != zipfile.ZIP_STORED or e.flag_bits & 1 for e in entries):
        raise Fault("a compressed or encrypted zip file: not written by torch.save")
    if sum(e.file_size for e in entries) > size or any(e.file_size < 0 for e in entries):
        raise Fault("its parts overlap: damaged, or made to fill the memory")
    if len({e.filename for e in entries}) != len(entries):
        raise Fault("two of its parts have the same name")


def _agreeing(found: Storage, asked: Storage) -> Storage:
    if (found.kind, found.numel) != (asked.kind, asked.numel):
        raise Fault("it describes one storage in two ways")
    return found


def _pickles(file: IO[bytes], size: int) -> tuple[str, object]:
    end, form = size, "pickle"
    if size > 28:
        file.seek(size - 28)
        tail = file.read(28)
        file.seek(0)
        if tail.endswith(JITTOR_END):
            end, form = size - 28, "jittor"
            if hashlib.sha1(file.read(end)).digest() != tail[:20]:
                raise Fault("its checksum does not fit its content: damaged; fetch it again")
            file.seek(0)
    stream = Bounded(file, end)
    first = _one(stream, size)
    if type(first) is int and first == _TORCH_MAGIC:
        return "torch-legacy", _legacy(stream, size)
    if stream.tell() != end:
        raise Fault(f"{end - stream.tell()} bytes follow the pickle: damaged, or another format")
    return form, first


def _one(stream: Bounded, size: int) -> object:
    return Machine(known_names(size)).run(operations(stream))


def _legacy(stream: Bounded, size: int) -> object:
    """Read the object twice, because it precedes its data: first to learn the storages' types."""
    protocol = _one(stream, size)
    if type(protocol) is not int or protocol != _TORCH_PROTOCOL:
        raise Fault("an unknown version of torch's legacy format")
    _one(stream, size)  # system: ignored, the data are always little-endian
    ops = list(operations(stream))
    storages: dict[str | int, Storage] = {}

    def storage(pid: object) -> Storage:
        kind, key, numel, view = storage_id(pid)
        found = _agreeing(storages.setdefault(key, Storage(kind, numel)), Storage(kind, numel))
        return found if view is None else _view(found, view)

    Machine(known_names(size), storage).run(ops)
    keys = _one(stream, size)
    if not isinstance(keys, list) or set(keys) != set(storages):
        raise Fault("its list of storages does not fit its tensors")
    for key in keys:
        kind, numel = storages[key].kind, storages[key].numel
        (count,) = struct.unpack("<q", stream.read(8))
        if count != numel:
            raise Fault(f"its storage {show(key)} holds {count} numbers, expected {numel}")
        storages[key] = Storage(
            kind, numel, decode(stream.read(numel * kind.itemsize), kind, numel)
        )
    return Machine(known_names(size), storage).run(ops)


def _view(base: Storage, view: object) -> Storage:
    """A slice of a storage: (key, first number, count), written by torch before 0.4."""
    if not isinstance(view, tuple) or len(view) != 3:
        raise Fault("it describes a part of a storage in an unknown way")
    first, count = whole(view[1], "storage view"), whole(view[2], "storage view")
    if first + count > base.numel:
        raise Fault("a part of a storage reaches beyond it")
    values = None if base.values is None else base.values[first : first + count]
    return Storage(base.kind, count, values)
