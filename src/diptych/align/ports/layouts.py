"""Layouts of arrays: the rules that may be declared, and how an array is moved by one.

transpose    (in, out) for (out, in)              hwio    (H, W, in, out) for (out, in, H, W)
jax          both, by the number of axes; arrays of another number are left alone
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from diptych.types import Array

Rule = str
RULES: dict[Rule, tuple[int, ...]] = {"transpose": (1, 0), "hwio": (2, 3, 1, 0)}
DECLARED: dict[Rule, tuple[Rule, ...]] = {
    "transpose": ("transpose",),
    "hwio": ("hwio",),
    "jax": ("transpose", "hwio"),
}  # what may be declared, as rules by the number of axes


def relaid(array: Array, shape: Sequence[int]) -> Array:
    """An array of shape () as (1,), and the other way: Jittor has no array without axes."""
    one = array.shape in ((), (1,)) and tuple(shape) in ((), (1,))
    return array.reshape(tuple(shape)) if one else array


def moved_over(array: Array, rule: Rule | None) -> Array:
    """A reference's array in the port's layout."""
    if rule is None:
        return array
    return np.ascontiguousarray(array.transpose(RULES[rule]))


def moved_back(array: Array, rule: Rule | None) -> Array:
    """A port's array in the reference's layout."""
    if rule is None:
        return array
    axes = RULES[rule]
    return np.ascontiguousarray(array.transpose([axes.index(i) for i in range(len(axes))]))


def turned(shape: tuple[int, ...], rule: Rule | None) -> tuple[int, ...]:
    """The shape after a rule."""
    if rule is None:
        return shape
    axes = RULES[rule]
    return tuple(shape[a] for a in axes) if len(axes) == len(shape) else shape


def fitting(a: tuple[int, ...], b: tuple[int, ...]) -> str:
    """The rule that would turn shape `a` into `b`; '' if none does."""
    if a == b:
        return ""
    return next((r for r, axes in RULES.items() if len(axes) == len(a) and turned(a, r) == b), "")
