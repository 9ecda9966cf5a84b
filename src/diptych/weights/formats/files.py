"""Read a weights file of any known format as name -> float32 array, and report its kind.

    file -> format (torch zip, torch legacy, pickle, jittor, safetensors)
         -> content (state dict; official training list; wrapper around a state dict)
         -> weights: EMA if the file has both, unless `raw` is set

The official training file is a list [model, optimizer, epoch, step, ema]; without EMA it has four
items. Its model's names begin with `module.`, its EMA's do not; the prefix is removed if all names
have it. Names and shapes are not checked against a network here.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from diptych.errors import UserError
from diptych.files import parse_json, read_json
from diptych.types import Array
from diptych.weights.formats.graphs import is_graph, read_graph
from diptych.weights.pickle.arrays import BFLOAT16, StorageType, decode
from diptych.weights.pickle.files import guarded, read_with_form
from diptych.weights.pickle.ops import Fault, show

log = logging.getLogger(__name__)
_PREFIX = "module."
_RAW_NAMES = ("state_dict", "model_state_dict", "model", "net", "unet")
_EMA_NAMES = ("ema_state_dict", "model_ema", "ema_model", "ema")
# A float32 copy has at most 4 times the size of its tensor, and a few tensors may share a storage;
# a file that expands further (a number repeated along a stride of zero) is refused.
_UNFOLD, _UNFOLD_FREE = 16, 64 * 2**20
_SAFETENSORS = {
    "F64": "f8", "F32": "f4", "F16": "f2", "BF16": BFLOAT16, "BOOL": "b1",
    "I64": "i8", "I32": "i4", "I16": "i2", "I8": "i1",
    "U64": "u8", "U32": "u4", "U16": "u2", "U8": "u1",
}  # fmt: skip
_TINY = float(np.finfo(np.float32).tiny)
_SAFETENSORS_HEADER = 100_000_000  # bytes; the format's own limit


@dataclass(frozen=True)
class Loaded:
    """Weights read from a file.

    Attributes:
        kind: "FORMAT/CONTENT". FORMAT: torch-zip, torch-legacy, pickle, jittor, safetensors.
            onnx and openvino: as `diptych convert` writes them.
            CONTENT: state-dict, official-training, or wrapper:KEY for the chosen entry.
        weights: name -> array, float32, C-contiguous, writable, own memory.
        ema: True for EMA weights, False for raw ones, None if the file does not say.
    """

    kind: str
    weights: dict[str, np.ndarray[Any, np.dtype[np.float32]]]
    ema: bool | None


def load_weights(path: str | os.PathLike[str], *, raw: bool = False) -> Loaded:
    """Read the weights in `path`; nothing in the file is executed.

    Args:
        path: a file of any format above, with any name, or an index (.index.json) of several.
        raw: choose the raw weights if the file holds raw and EMA weights. A file with one set
            gives that set either way; `Loaded.ema` identifies it.

    Raises:
        UserError: an unknown, damaged, hostile or ambiguous file, or entries that are not numbers.
        MachineError: the file cannot be read.
    """
    path = Path(path)
    if is_shards(path):
        return _shards(path, raw)
    if is_graph(path):
        form, weights, _ = read_graph(path)
        return Loaded(f"{form}/state-dict", weights, None)
    if guarded(path, is_safetensors):
        form = "safetensors"
        tree: object = guarded(path, _safetensors)
    else:
        form, tree = read_with_form(path)
    content, found, ema = _choose(tree, raw, path)
    return Loaded(f"{form}/{content}", _float32(found, path), ema)


def is_shards(path: Path) -> bool:
    """True if a file's name is that of an index of weights split over several files."""
    return path.name.endswith(".index.json")


def _shards(path: Path, raw: bool) -> Loaded:
    """Read the weights that an index lists, {"weight_map": {name: file}}, from files beside it."""
    names = read_json(path).get("weight_map")
    if not isinstance(names, dict) or not names:
        raise UserError(f"{path}: holds no 'weight_map' of names to files; expected an index")
    weights: dict[str, np.ndarray[Any, np.dtype[np.float32]]] = {}
    kinds = set()
    for file in sorted({str(file) for file in names.values()}):
        if Path(file).name != file or is_shards(Path(file)) or file in ("", ".", ".."):
            raise UserError(f"{path}: names {show(file)}; expected a weights file beside it")
        loaded = load_weights(path.with_name(file), raw=raw)
        kinds.add(loaded.kind)
        listed = {name for name, where in names.items() if where == file}
        if listed != set(loaded.weights):
            odd = sorted(listed ^ set(loaded.weights))[0]
            raise UserError(
                f"{path}: {show(odd)} is in the index or in {file}, and not in both; fetch all "
                "parts again"
            )
        weights |= loaded.weights
    return Loaded(f"{'+'.join(sorted(kinds))}, {len(set(names.values()))} parts", weights, None)


def _choose(tree: Any, raw: bool, path: Path) -> tuple[str, dict[str, Array], bool | None]:
    """Return (content, arrays, ema) from the tree of a weights file."""
    if _is_state_dict(tree):
        return "state-dict", tree, None
    if isinstance(tree, (list, tuple)) and len(tree) in (4, 5) and _is_state_dict(tree[0]):
        if len(tree) == 4:
            return "official-training", tree[0], False
        if _is_state_dict(tree[4]):
            return "official-training", tree[0 if raw else 4], not raw
    if isinstance(tree, dict):
        return _unwrap(tree, raw, path)
    raise UserError(
        f"{path}: holds a {_describe(tree)}, which is not a known weights file; expected name -> "
        "tensor, or the official list [model, optimizer, epoch, step, ema]"
    )


def _unwrap(
    tree: dict[Any, Any], raw: bool, path: Path
) -> tuple[str, dict[str, Array], bool | None]:
    inner = {key: value for key, value in tree.items() if _is_state_dict(value)}
    # ddpm-torch's EMA: {"decay": .., "shadow": name -> tensor, "num_updates": ..}
    shadows = {k: v["shadow"] for k, v in tree.items() if isinstance(v, dict) and "shadow" in v}
    inner |= {key: value for key, value in shadows.items() if _is_state_dict(value)}
    raws = [key for key in inner if key in _RAW_NAMES]
    emas = [key for key in inner if key in _EMA_NAMES]
    if len(inner) == 1:
        key = next(iter(inner))
        ema = True if key in _EMA_NAMES else None
    elif len(raws) == len(emas) == 1 and len(inner) == 2:
        key, ema = (raws[0], False) if raw else (emas[0], True)
    elif inner:
        names = ", ".join(show(key) for key in list(inner)[:8])
        raise UserError(
            f"{path}: holds {len(inner)} sets of weights ({names}) and does not say which is "
            "meant; save the one you want by itself"
        )
    else:
        odd = [k for k, v in tree.items() if not (isinstance(k, str) and isinstance(v, np.ndarray))]
        what = f"entry {show(odd[0])} is a {type(tree[odd[0]]).__name__}" if odd else "it is empty"
        raise UserError(f"{path}: holds no weights: {what}; expected name -> tensor")
    return f"wrapper:{key}", inner[key], ema


def _is_state_dict(value: object) -> bool:
    return (
        isinstance(value, dict)
        and bool(value)
        and all(isinstance(k, str) and isinstance(v, np.ndarray) for k, v in value.items())
    )


def _describe(tree: object) -> str:
    if isinstance(tree, (list, tuple)):
        parts = ", ".join(type(item).__name__ for item in tree[:6])
        return f"{type(tree).__name__} of {len(tree)} ({parts})"
    return type(tree).__name__


def _float32(found: Mapping[str, Array], path: Path) -> dict[str, np.ndarray[Any, Any]]:
    """Copy to float32; remove the prefix `module.` if all names have it."""
    cut = len(_PREFIX) if all(name.startswith(_PREFIX) for name in found) else 0
    total = sum(4 * math.prod(array.shape) for array in found.values())
    if total > max(_UNFOLD_FREE, _UNFOLD * path.stat().st_size):
        raise UserError(f"{path}: its tensors would unfold to {total:,} bytes; refused")
    weights = {}
    rounded = []
    for name, array in found.items():
        try:
            with np.errstate(over="raise"):
                weights[name[cut:]] = np.array(array, dtype=np.float32, order="C")
        except FloatingPointError as error:
            raise UserError(f"{path}: weight {show(name)} does not fit float32") from error
        if array.dtype.itemsize > 4 and not np.array_equal(
            weights[name[cut:]], array, equal_nan=True
        ):
            rounded.append(name)
        if array.dtype.kind == "f" and _is_no_float(weights[name[cut:]]):
            raise UserError(
                f"{path}: weight {show(name)} holds numbers below {_TINY:.0e} only: integers "
                "declared as floats, or bytes in the other order; save it again"
            )
    if rounded:
        log.warning("%s: %d weights rounded to float32, first %s", path, len(rounded), rounded[0])
    return weights


def _is_no_float(array: np.ndarray[Any, Any]) -> bool:
    """True if all nonzero numbers are subnormal, like the bits of small integers."""
    sizes = np.abs(array[array != 0])
    return bool(sizes.size) and bool((sizes < _TINY).all())  # NaN is neither


def is_safetensors(file: IO[bytes], size: int) -> bool:
    """True for 8 bytes of header length, then JSON; no pickle or zip file begins like that."""
    start = file.read(9)
    length = int.from_bytes(start[:8], "little")
    return len(start) == 9 and start[8:] == b"{" and length <= _SAFETENSORS_HEADER


def _safetensors(file: IO[bytes], size: int) -> dict[str, Array]:
    from safetensors import SafetensorError, deserialize

    length = int.from_bytes(file.read(8), "little")
    try:
        parse_json(file.read(min(length, size)))  # refuses duplicate names
    except ValueError as error:
        raise Fault(f"damaged or truncated safetensors ({error}); fetch it again") from error
    file.seek(0)
    try:
        entries = deserialize(file.read())  # type: ignore[no-untyped-call]
    except SafetensorError as error:
        detail = " ".join(str(error).split())[:120]
        raise Fault(f"damaged or truncated safetensors ({detail}); fetch it again") from error
    return {name: _entry(name, entry) for name, entry in entries}


def _entry(name: str, entry: Mapping[str, Any]) -> Array:
    code = _SAFETENSORS.get(entry["dtype"])
    if code is None:
        raise Fault(f"weight {show(name)} is {show(entry['dtype'])}; expected plain numbers")
    shape = tuple(entry["shape"])
    return decode(entry["data"], StorageType(code), math.prod(shape)).reshape(shape)
