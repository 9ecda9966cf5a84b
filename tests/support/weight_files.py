"""Hand-made weights files for the tests: torch's containers, and the pickle of a tensor."""

from __future__ import annotations

import io
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from diptych.errors import UserError
from diptych.weights.formats import load_weights

MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
SYSTEM = {"protocol_version": PROTOCOL, "little_endian": True}


def as_zip(data: bytes, *parts: tuple[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in (("data.pkl", data), ("byteorder", b"little"), *parts):
            archive.writestr(f"archive/{name}", content)
    return buffer.getvalue()


def as_legacy(data: bytes, keys: bytes = pickle.dumps([], 2), tail: bytes = b"") -> bytes:
    head = b"".join(pickle.dumps(item, 2) for item in (MAGIC, PROTOCOL, SYSTEM))
    return head + data + keys + tail


FORMS: dict[str, Callable[[bytes], bytes]] = {
    "zip": as_zip,
    "legacy": as_legacy,
    "legacy keys": lambda data: as_legacy(pickle.dumps({}, 2), data),
    "plain": lambda data: data,
}


def tensor(numel: int, offset: int, size: tuple[int, ...], stride: tuple[int, ...]) -> bytes:
    """A pickle of {"a": a float32 tensor} over the storage "0"."""

    def tuple_of(values: tuple[int, ...]) -> bytes:
        return b"(" + b"".join(pickle.dumps(v, 2)[2:-1] for v in values) + b"t"

    return (
        b"\x80\x02}U\x01actorch._utils\n_rebuild_tensor_v2\n((U\x07storagectorch\nFloatStorage\n"
        b"U\x010U\x03cpu" + pickle.dumps(numel, 2)[2:-1] + b"tQ"
        + pickle.dumps(offset, 2)[2:-1] + tuple_of(size) + tuple_of(stride) + b"\x89NtRs."
    )  # fmt: skip


def refused(path: Path, content: bytes) -> str:
    path.write_bytes(content)
    with pytest.raises(UserError) as error:
        load_weights(path)
    message = str(error.value)
    assert message.startswith(str(path)) and "\n" not in message and len(message) < 600
    return message
