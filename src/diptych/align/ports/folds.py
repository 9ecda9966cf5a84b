"""Batch norms that an exporter folded into the layer before them.

In evaluation mode a batch norm is a factor and a shift for each channel, so exporters multiply the
weights of the layer before it and drop the norm:

    weight * s  and  (bias - mean) * s + shift,  where s = scale / sqrt(variance + eps)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from diptych.align.ports.matching import Entry
from diptych.types import Array

CLOSE = 1e-5  # of the largest value: a fold in float32 is off by less
NEAR = 0.05  # weights within it are a fold that is wrong; ten times as far, if all else is right


@dataclass
class Folds:
    """Norms and layers that were found.

    Attributes:
        norms: the norm's path -> the layer before it.
        pairs: that layer's `weight` and `bias` -> the graph's arrays that hold both layers.
        ours: the arrays of the reference that are thereby compared.
        wrong: the norm's `weight` or `bias` -> how far the product is off, of its largest value.
    """

    norms: dict[str, str] = field(default_factory=dict)
    pairs: dict[str, str] = field(default_factory=dict)
    ours: set[str] = field(default_factory=set)
    wrong: dict[str, float] = field(default_factory=dict)


def find_folds(
    entries: Sequence[Entry],
    weights: Mapping[str, Array],
    held: Mapping[str, Array],
    calls: Mapping[str, Any],
) -> Folds:
    """The norms of a reference that a graph holds within the weights of the layers before them."""
    found = Folds()
    for entry in entries:
        if entry.leaf != "running_var" or f"{entry.after}.weight" not in weights:
            continue
        settings = calls.get(entry.module, {}).get("settings", {})
        before = {n: weights[f"{entry.after}.{n}"] for n in ("weight", "bias")
                  if f"{entry.after}.{n}" in weights}  # fmt: skip
        norm = {n: weights[f"{entry.module}.{n}"]
                for n in ("weight", "bias", "running_mean", "running_var")
                if f"{entry.module}.{n}" in weights}  # fmt: skip
        if any(_equal(before["weight"], a) for a in held.values()):
            continue
        weight, bias = _folded(before, norm, float(settings.get("eps", 1e-5)))
        if any(_equal(norm["running_var"], a) for a in held.values()):
            continue  # the graph has the norm itself
        nearest = [_nearest(array, held) for array in (weight, bias)]
        (_, off), (_, shift) = nearest
        if off > (10 * NEAR if shift <= CLOSE else NEAR) or shift > 10 * NEAR:
            continue
        found.norms[entry.module] = entry.after
        for key, (name, off) in zip(("weight", "bias"), nearest, strict=True):
            found.pairs[f"{entry.after}.{key}"] = name
            if off > CLOSE:
                found.wrong[f"{entry.module}.{key}"] = off
        found.ours |= {f"{entry.after}.{n}" for n in before}
        found.ours |= {f"{entry.module}.{n}" for n in norm}
    return found


def _folded(
    before: Mapping[str, Array], norm: Mapping[str, Array], eps: float
) -> tuple[Array, Array]:
    """The weight and the bias of a layer with its norm inside, in float64."""
    wide = {n: a.astype(np.float64) for n, a in norm.items()}
    mean, variance = wide["running_mean"], wide["running_var"]
    scale = wide.get("weight", np.ones_like(mean)) / np.sqrt(variance + eps)
    weight = before["weight"].astype(np.float64)
    if weight.ndim < 2 or len(weight) != scale.size:
        return np.empty(0), np.empty(0)
    shape = (-1,) + (1,) * (weight.ndim - 1)
    bias = before.get("bias", np.zeros_like(mean)).astype(np.float64)
    return weight * scale.reshape(shape), (bias - mean) * scale + wide.get("bias", 0.0)


def _nearest(wanted: Array, held: Mapping[str, Array]) -> tuple[str, float]:
    """The array of a graph that is nearest to the wanted one, and the share that it is off by."""
    rows = ((_off(wanted, array), name) for name, array in held.items())
    off, name = min(rows, default=(np.inf, ""))
    return name, off


def _equal(wanted: Array, found: Array) -> bool:
    return _off(wanted, found) == 0.0


def _off(wanted: Array, found: Array) -> float:
    """The largest difference by the largest value, maybe transposed or with axes of length 1."""
    if not wanted.size or found.size != wanted.size or found.dtype.kind != "f":
        return np.inf
    largest = float(np.abs(wanted).max()) or 1.0
    rows = [wanted, wanted.T] if wanted.ndim == 2 else [wanted]
    off = min(float(np.abs(w.ravel() - found.ravel()).max()) / largest for w in rows)
    return off if np.isfinite(off) else np.inf  # NaN is near nothing
