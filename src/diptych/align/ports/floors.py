"""Floors that no measurement on the reference shows, because PyTorch adds pairwise.

A float32 sum of n values, one after another as Jittor's kernels add, strays by about sqrt(n) / 2
roundings; the same sum in pairs by a few. So where a tensor is a sum over a batch, over pixels or
over outputs (losses, gradients of weights), its floor is at least that. An optimizer's step is
known to one rounding of the weight that it is added to, however small the step.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from diptych.align.ladder.judge import Finding
from diptych.align.ladder.tolerances import tolerances
from diptych.align.ladder.trace import Rung
from diptych.types import Array


def widened(
    rung: str,
    findings: Sequence[Finding],
    truth: Rung,
    weights: Mapping[str, Array],
    about: Mapping[str, Any],
) -> list[Finding]:
    """The findings of a rung, with floors that are at least those of sums and of steps."""
    rounding = tolerances().rounding
    found = []
    for f in findings:
        least = 0.0
        if rung == "update":
            least = rounding * _weight_over_step(f.name, truth, weights)
        elif (terms := summed(rung, f.name, truth, about)) > 1:
            least = rounding * math.sqrt(terms) / 2
        if f.floor and least > f.floor:
            f = dataclasses.replace(f, floor=least, gate=f.gate / f.floor * least)
        found.append(f)
    return found


def summed(rung: str, tensor: str, truth: Rung, about: Mapping[str, Any]) -> int:
    """Number of values added up in each value of a tensor; 1 if it is no sum over a batch."""
    if rung == "loss":
        return max((math.prod(shape) for shape in about["outputs"]), default=1)
    if rung == "operators":
        path, _, name = tensor.rpartition("/")
        made = truth.arrays.get(f"{path}/y")
        if name.startswith("dx") or not name.startswith("d") or made is None:
            return 1
        return _terms(made.shape, truth.arrays[tensor].shape)
    if rung == "gradients" and tensor in truth.arrays and not tensor.startswith("act/"):
        call = about["calls"].get(tensor.rpartition(".")[0])
        if call and call["shapes"]:
            return _terms(call["shapes"][0], truth.arrays[tensor].shape)
    return 1


def _terms(made: Sequence[int], weight: Sequence[int]) -> int:
    """Values of a layer's output for each of its channels."""
    return max(1, math.prod(made) // max(1, weight[0] if len(weight) else 1))


def _weight_over_step(tensor: str, truth: Rung, weights: Mapping[str, Array]) -> float:
    weight, step = weights.get(tensor.partition("/")[2]), truth.arrays.get(tensor)
    if weight is None or step is None or not step.size or not np.abs(step).max():
        return 0.0
    return float(np.abs(weight).max() / np.abs(step).max())
