"""JSON read within bounds: no text makes the reader slow, large or wrong. Arrays, one by one."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diptych.errors import UserError
from diptych.files.paths import read_bytes

if TYPE_CHECKING:
    from diptych.types import Array

MOST_BYTES = 64 * 2**20  # of a JSON file
MOST_VALUES = 2_000_000  # in it; an empty list takes 2 bytes there and 64 in memory
MOST_LEVELS = 64  # of lists and objects in each other
# NumPy's numbers, as safetensors names them.
_OF_NUMPY = ["F64", "F32", "F16", "I64", "I32", "I16", "I8", "U64", "U32", "U16", "U8", "BOOL"]


def read_json(
    path: Path,
    *,
    most_bytes: int = MOST_BYTES,
    most_values: int = MOST_VALUES,
    finite: bool = True,
) -> dict[str, Any]:
    """A JSON object from a file; limits as in `parse_json`.

    Raises:
        UserError: missing, no file, not an object, damaged, or out of bounds.
        MachineError: it cannot be read.
    """
    content = read_bytes(path, "a JSON file", most_bytes)
    try:
        value = parse_json(content, most_values, finite=finite)
    except ValueError as error:
        raise UserError(f"{path}: cannot be read as JSON ({error})") from error
    if not isinstance(value, dict):
        raise UserError(f"{path}: expected a JSON object")
    return value


def parse_json(text: str | bytes, most_values: int = MOST_VALUES, *, finite: bool = True) -> Any:
    """The value of a JSON text from outside, within bounds.

    Args:
        text: UTF-8 where it is bytes.
        most_values: how many values it may hold at most.
        finite: refuse NaN and infinity; False for rows of a training, whose loss may be either.

    Raises:
        ValueError: not JSON, a key that occurs twice, a whole number beyond 64 bits, a number that
            is not finite, more than `most_values` values, or more than `MOST_LEVELS` levels.
    """
    if isinstance(text, bytes):
        text = text.decode("utf-8")
    opened = text.count("[") + text.count("{")
    if opened + text.count(",") > most_values:
        raise ValueError(f"more than {most_values:,} values")
    deep = ValueError(f"more than {MOST_LEVELS} levels of lists and objects")
    try:
        value = (_DECODER if finite else _LENIENT).decode(text)
    except RecursionError:
        raise deep from None
    if opened > MOST_LEVELS and _levels(value) > MOST_LEVELS:
        raise deep
    return value


def _levels(value: object) -> int:
    """Depth of nested lists and objects, without recursion."""
    level, found = [value], 0
    while level:
        containers = [item for item in level if isinstance(item, (list, dict))]
        level = [x for c in containers for x in (c.values() if isinstance(c, dict) else c)]
        found += bool(containers)
    return found


def _whole(text: str) -> int:
    if len(text) > 21 or abs(int(text)) >= 2**64:
        raise ValueError("a whole number beyond 64 bits")
    return int(text)


def _finite(text: str) -> float:
    if not math.isfinite(number := float(text)):
        raise ValueError("a number that is not finite")
    return number


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"key {ascii(twice)[:80]} occurs twice")
    return found


_DECODER = json.JSONDecoder(
    object_pairs_hook=_once, parse_int=_whole, parse_float=_finite, parse_constant=_finite
)
_LENIENT = json.JSONDecoder(object_pairs_hook=_once, parse_int=_whole)


def numpy_array(held: Any, name: str) -> Array:
    """One array of an open safetensors file.

    Raises:
        ValueError: it is bfloat16 or another number that NumPy lacks. The library reads these only
            in processes where something else happened to import ml_dtypes.
    """
    kind = held.get_slice(name).get_dtype()
    if kind not in _OF_NUMPY:
        raise ValueError(f"'{name}' is {kind}, which NumPy lacks")
    array: Array = held.get_tensor(name)
    return array
