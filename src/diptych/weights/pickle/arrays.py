"""Names that a weights file may use, and our pure functions that replace them.

    torch: tensor = storage[offset + sum(index * stride)]       a read-only view, bounds checked
    NumPy, Jittor: array = bytes, dtype, shape, order           a read-only view of the bytes

Tensors are never copied: many views of one storage take the memory of one. bfloat16, which NumPy
lacks, is converted exactly to float32, once per storage. Object, complex, text and quantised arrays
are refused. NumPy's own reconstruction is not used, because its state can forge pointers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from diptych.types import Array
from diptych.weights.pickle.ops import Fault, show
from diptych.weights.pickle.vm import Blank, Known

BFLOAT16 = "bfloat16"
_MAX_DIMS = 32  # limit of NumPy 1
_CODES = frozenset({"f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "b1"})
_STORAGES = {
    "FloatStorage": "f4",
    "DoubleStorage": "f8",
    "HalfStorage": "f2",
    "BFloat16Storage": BFLOAT16,
    "LongStorage": "i8",
    "IntStorage": "i4",
    "ShortStorage": "i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "b1",
}
_TORCH_DTYPES = (
    "float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool",
)  # fmt: skip


@dataclass(frozen=True)
class StorageType:
    """A kind of torch storage; `code` is NumPy's type code, or BFLOAT16."""

    code: str

    @property
    def itemsize(self) -> int:
        """Size of one number in bytes."""
        return 2 if self.code == BFLOAT16 else np.dtype(self.code).itemsize


@dataclass(frozen=True)
class Storage:
    """A flat array of numbers; `values` is None until the file has been read that far."""

    kind: StorageType
    numel: int
    values: Array | None = None


def decode(data: bytes | bytearray, kind: StorageType, numel: int, order: str = "<") -> Array:
    """The numbers of a storage, (numel,), from its bytes. Raises Fault if the length differs."""
    if len(data) != numel * kind.itemsize:
        raise Fault(
            f"a storage of {show(numel)} numbers takes {show(numel * kind.itemsize)} bytes, "
            f"the file holds {len(data)}: damaged or truncated"
        )
    if not data:
        return np.empty(0, np.float32 if kind.code == BFLOAT16 else kind.code)
    if kind.code == BFLOAT16:
        high = np.frombuffer(data, dtype=f"{order}u2").astype(np.uint32) << np.uint32(16)
        return high.view(np.float32)
    return np.frombuffer(data, dtype=f"{order}{kind.code}")


def storage_id(pid: object) -> tuple[StorageType, str | int, int, object]:
    """(kind, key, numel, view) from torch's ('storage', kind, key, place, numel[, view])."""
    if not isinstance(pid, tuple) or len(pid) not in (5, 6) or not _is(pid[0], "storage"):
        raise Fault("it refers to something other than a storage")
    _, kind, key, _, numel, *view = pid
    if not isinstance(kind, StorageType) or not isinstance(key, (str, int)):
        raise Fault("it describes a storage without a known type and key")
    return kind, key, whole(numel, "number count"), view[0] if view else None


def whole(value: object, what: str) -> int:
    """`value` as an integer in [0, 2**63). Raises Fault if it is not one."""
    if type(value) is not int or not 0 <= value < 2**63:
        raise Fault(f"its {what} is {show(value)}; expected a whole number of 0 or more")
    return value


def _is(value: object, *words: str) -> bool:
    return isinstance(value, str) and value in words  # an array would compare elementwise


def _sizes(values: object, what: str) -> tuple[int, ...]:
    if not isinstance(values, (tuple, list)) or len(values) > _MAX_DIMS:
        raise Fault(f"its {what} is not a tuple of at most {_MAX_DIMS} whole numbers")
    return tuple(whole(value, what) for value in values)


def _tensor(storage: object, offset: object, size: object, stride: object, *_: object) -> object:
    if not isinstance(storage, Storage):
        raise Fault("it builds a tensor from something other than a storage")
    start, shape, steps = whole(offset, "offset"), _sizes(size, "shape"), _sizes(stride, "stride")
    if len(shape) != len(steps):
        raise Fault(f"a tensor of shape {shape} has {len(steps)} strides")
    last = start + sum((n - 1) * step for n, step in zip(shape, steps, strict=True))
    empty = 0 in shape
    if start > storage.numel or (not empty and last >= storage.numel):
        raise Fault(
            f"a tensor of shape {shape} reaches beyond its storage of {show(storage.numel)} numbers"
        )
    if storage.values is None:
        return None  # first pass over a legacy file: the data come later
    if empty:
        return np.empty(shape, storage.values.dtype)
    width = storage.values.itemsize
    flat = storage.values[start : last + 1]
    return np.ndarray(shape, flat.dtype, flat, 0, tuple(step * width for step in steps))


def _dtype(code: object, *_: object) -> Blank:
    if not isinstance(code, str) or code not in _CODES:
        raise Fault(f"it holds an array of dtype {show(code)}; expected numbers")
    return Blank(lambda state: _ordered(code, state))


def _ordered(code: str, state: object) -> object:
    if not isinstance(state, tuple) or len(state) < 5 or not _is(state[1], "<", ">", "|", "="):
        raise Fault("it describes a dtype in an unknown way")
    if any(part is not None for part in state[2:5]):
        raise Fault("it holds an array with fields; expected plain numbers")
    return np.dtype(f"{state[1]}{code}")


def _array_state(state: object) -> object:
    if not isinstance(state, tuple) or len(state) != 5:
        raise Fault("it describes an array in an unknown way")
    _, shape, dtype, fortran, data = state
    return _from_buffer(data, dtype, shape, "F" if fortran else "C")


def _from_buffer(data: object, dtype: object, shape: object, order: object = "C") -> object:
    if not isinstance(dtype, np.dtype) or not isinstance(data, (bytes, bytearray)):
        raise Fault("it holds an array that is not made of numbers")
    sizes = _sizes(shape, "shape")
    if math.prod(sizes) * dtype.itemsize != len(data) or not _is(order, "C", "F"):
        raise Fault(f"an array of shape {sizes} and {dtype} does not fit its {len(data)} bytes")
    if not data:
        return np.empty(sizes, dtype)
    return np.ndarray(sizes, dtype, data, order="C" if order == "C" else "F")


def _scalar(dtype: object, data: object) -> object:
    array = _from_buffer(data, dtype, ())
    return array.item() if isinstance(array, np.ndarray) else array


def _variable(value: object) -> object:
    if not isinstance(value, (np.ndarray, int, float)):
        raise Fault(f"it holds a Jittor variable made of a {show(value)}")
    return np.asarray(value)


def _same(value: object = None, *_: object) -> object:
    return value


class _Latin1:
    """Bytes that an old protocol wrote as text, at most `left` of them per file."""

    def __init__(self, left: int) -> None:
        self.left = left

    def __call__(self, text: object, codec: object) -> bytes:
        if not isinstance(text, str) or not _is(codec, "latin1", "latin-1"):
            raise Fault("it encodes text in a way that weights do not need")
        self.left -= len(text)
        if self.left < 0:
            raise Fault("it repeats its bytes again and again")
        return text.encode("latin-1")


def known_names(size: int) -> dict[tuple[str, str], object]:
    """(module, name) -> stand-in, for every name allowed in a weights file of `size` bytes."""
    ndarray = object()  # only used as an argument of `_reconstruct`
    table: dict[tuple[str, str], object] = {
        ("collections", "OrderedDict"): Known("OrderedDict", lambda: {}),
        ("torch._utils", "_rebuild_tensor"): Known("tensor", _tensor),
        ("torch._utils", "_rebuild_tensor_v2"): Known("tensor", _tensor),
        ("torch._utils", "_rebuild_parameter"): Known("parameter", _same),
        ("torch", "Size"): Known("Size", _same),
        ("torch", "device"): Known("device", _same),
        ("numpy", "ndarray"): ndarray,
        ("numpy", "dtype"): Known("dtype", _dtype),
        ("_codecs", "encode"): Known("encode", _Latin1(size)),
        ("jittor", "jittor_core.Var"): Known("Var", _variable),
        ("jittor", "Var"): Known("Var", _variable),
    }
    for root in ("numpy.core", "numpy._core"):  # NumPy 1 and 2
        reconstruct = Known("_reconstruct", lambda *_: Blank(_array_state))
        table[f"{root}.multiarray", "_reconstruct"] = reconstruct
        table[f"{root}.multiarray", "scalar"] = Known("scalar", _scalar)
        table[f"{root}.numeric", "_frombuffer"] = Known("_frombuffer", _from_buffer)
    for module in ("builtins", "__builtin__"):  # protocol 2's form of b""
        table[module, "bytes"] = Known("bytes", lambda: b"")
    table.update({("torch", name): StorageType(code) for name, code in _STORAGES.items()})
    table.update({("torch", name): f"torch.{name}" for name in _TORCH_DTYPES})
    return table
