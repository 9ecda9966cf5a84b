"""Arrays of a port's ladder: those drawn by key, and how one is laid out as another."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np

from diptych import rng
from diptych.errors import UserError
from diptych.types import Array


def drawn_input(key: str, shape: tuple[int, ...], factor: float) -> Array:
    """Keyed normal numbers that an operator is run on."""
    number = (1 << 25) + zlib.crc32(key.encode())
    drawn = rng.normal(0, "initial_noise", shape, number) * np.float32(factor)
    return drawn.astype(np.float32)


def given_gradient(name: str, shape: tuple[int, ...], step: int) -> Array:
    """Keyed gradients of many sizes, from 1e-5 to 0.1."""
    stream = rng.stream(step, "initial_noise", (1 << 27) + zlib.crc32(name.encode()))
    sign = np.where(stream.random(shape) < 0.5, -1.0, 1.0)
    return np.asarray(sign * 10.0 ** stream.uniform(-5, -1, shape), dtype=np.float32)


def nudge_number(key: str) -> int:
    """The number that keys a nudge of a port's ladder."""
    return (1 << 24) + zlib.crc32(key.encode())


def suffix(i: int) -> str:
    """The mark of a call's second, third ... output."""
    return f"~{i}" if i else ""


def narrow(array: Array) -> Array:
    """Floats as float32."""
    return array.astype(np.float32) if array.dtype.kind == "f" else array


def refuse_nan(array: Array, what: str) -> None:
    """Raise UserError if a reference computes NaN, which is equal to everything."""
    if array.dtype.kind == "f" and np.isnan(array).any():
        raise UserError(
            f"the reference's {what} is NaN on these inputs; give others, by INPUTS in its file "
            f"or --inputs"
        )


WAYS: tuple[tuple[int, tuple[int, ...]], ...] = (
    (4, (0, 2, 3, 1)),
    (4, (0, 3, 1, 2)),
    (3, (1, 0, 2)),
    (3, (0, 2, 1)),
    (5, (0, 2, 3, 4, 1)),
    (5, (0, 4, 1, 2, 3)),
    (2, (1, 0)),
)


def fit(array: Array, shape: Sequence[int]) -> Array | None:
    """The array in another layout of the given shape: channels last, or time first.

    None if none of them has that shape. An equal shape is left alone.
    """
    if array.shape == tuple(shape):
        return array
    for ndim, axes in WAYS:
        if array.ndim == ndim and tuple(array.shape[a] for a in axes) == tuple(shape):
            return np.ascontiguousarray(array.transpose(axes))
    return array.reshape(tuple(shape)) if merges(array.shape, shape) else None


def merges(a: Sequence[int], b: Sequence[int]) -> bool:
    """True if one shape is the other with neighbouring axes merged: (2, 3, 4) and (6, 4)."""
    long, short = [n for n in a if n != 1], [n for n in b if n != 1]
    if len(long) < len(short):
        long, short = short, long
    for size in short:
        product = 1
        while long and product < size:
            product *= long.pop(0)
        if product != size:
            return False
    return not long
