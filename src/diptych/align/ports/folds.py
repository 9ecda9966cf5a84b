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


@dataclass
class Folds:
    """Norms and layers that were found.

    Attributes:
        norms: the norm's path -> the layer before it.
        pairs: that layer's `weight` and `bias` -> the graph's arrays that hold both layers.
        ours: the arrays of the reference that are thereby compared.
    """

    norms: dict[str, str] = field(default_factory=dict)
    pairs: dict[str, str] = field(default_factory=dict)
    ours: set[str] = field(default_factory=set)


def find_folds(
    entries: Sequence[Entry],
    weights: Mapping[str, Array],
    held: Mapping[str, Array],
    calls: Mapping[str, Any],
) -> Folds:
    """The norms of a reference that a graph holds within the weights of the layers before them."""
    found, taken = Folds(), set[str]()
    for entry in entries:
        if entry.leaf != "running_var" or f"{entry.after}.weight" not in weights:
            continue
        settings = calls.get(entry.module, {}).get("settings", {})
        before = {n: weights[f"{entry.after}.{n}"] for n in ("weight", "bias")
                  if f"{entry.after}.{n}" in weights}  # fmt: skip
        norm = {n: weights[f"{entry.module}.{n}"]
                for n in ("weight", "bias", "running_mean", "running_var")
                if f"{entry.module}.{n}" in weights}  # fmt: skip
        if any(_equal(before["weight"], a, 0.0) for a in held.values()):
            continue
        weight, bias = _folded(before, norm, float(settings.get("eps", 1e-5)))
        one, two = (
            next((n for n, a in held.items() if n not in taken and _equal(array, a)), "")
            for array in (weight, bias)
        )
        if not one:
            continue
        found.norms[entry.module] = entry.after
        found.pairs[f"{entry.after}.weight"] = one
        if two:
            found.pairs[f"{entry.after}.bias"] = two
        taken |= {one, two}
        whole = [f"{entry.after}.{n}" for n in before] + [f"{entry.module}.{n}" for n in norm]
        # A wrong shift leaves its arrays to the match, which tells them.
        shift = ("bias", "running_mean")
        found.ours |= {n for n in whole if two or n.rpartition(".")[2] not in shift}
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


def _equal(wanted: Array, found: Array, close: float = CLOSE) -> bool:
    """True if a graph's array is the wanted one, maybe transposed or with axes of length 1."""
    if not wanted.size or found.size != wanted.size or found.dtype.kind != "f":
        return False
    near = close * float(np.abs(wanted).max())
    rows = [wanted, wanted.T] if wanted.ndim == 2 else [wanted]
    return any(bool(np.allclose(w.ravel(), found.ravel(), rtol=0, atol=near)) for w in rows)
