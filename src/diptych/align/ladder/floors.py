"""Floors: the distance of sound arithmetic from the truth, for each tensor and measure.

    floor(P) = max(rounding, noise(Q), min(error(Q), cap * noise(Q)))

Q is the other backend: `error(Q)` is its distance from the reference, `noise(Q)` its largest change
after one rounding of its input. A backend in bfloat16 or TF32 has a second Q: the reference itself,
rounded likewise, whose distance from the exact one counts in full. On growing rungs (steps of
training or of a chain) a step's floor is the largest up to AHEAD steps after it.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from diptych.align.ladder import measures
from diptych.align.ladder.measures import Distances
from diptych.align.ladder.rungs import LADDER
from diptych.align.ladder.tolerances import Gate, tolerances
from diptych.align.ladder.trace import Rung
from diptych.types import Array

NOT_COMPARED = "in/*"
POOLED = ("loss", "update")  # few numbers of one kind: all share the largest floor
NORMS, SINGLE = "*/norm", "network/*"  # norms are pooled apart; network tensors are not pooled
NOT_STEPS = ("raw", "ema", "adam_m", "adam_v", "pixels")  # groups that are not a sequence of steps
AHEAD = 2
# Distances that decide, by the tensor's name; the first matching pattern applies.
KINDS: dict[str, list[tuple[str, tuple[str, ...]]]] = {
    "gradients": [("total norm", ("max",)), ("*", ("max", "angle"))],
    "lockstep": [("loss/*", ("max",)), ("norm/*", ("max",)), ("*", ("mean", "p99.9"))],
    "solver": [("coefficients/*", ("bits",)), ("pixels/*", ("pixels",)), ("*", ("max",))],
}


@dataclass(frozen=True)
class Passes:
    """A backend's passes over one rung: the clean one and the nudged ones."""

    clean: Rung
    nudged: Sequence[Rung] = ()
    trusted: bool = False  # the reference itself in a lower precision: its distance is not capped


def gate_kind(name: str) -> str:
    """The gate of a rung; `floor` if the ladder does not know the rung."""
    return LADDER[name].gate if name in LADDER else "floor"


def gate_of(name: str) -> Gate:
    """A rung's tolerance; that of `trace` if the file does not list the rung."""
    rungs = tolerances().rungs
    return rungs.get(name, rungs["trace"])


def floors_of(name: str, truth: Rung, others: Mapping[str, Passes]) -> dict[str, Distances]:
    """The floor of each tensor of a rung, by measure; tensors that must be equal have none."""
    found: dict[str, Distances] = {}
    for tensor, b in truth.arrays.items():
        kinds = kinds_of(name, tensor)
        if kinds != ("bits",) and not fnmatch.fnmatch(tensor, NOT_COMPARED):
            least = least_scale(name, tensor, truth)
            found[tensor] = floor_of(tensor, kinds, b, others, least)
    if name in POOLED:
        for kind in (True, False):
            pool = [
                tensor
                for tensor in found
                if fnmatch.fnmatch(tensor, NORMS) is kind and not fnmatch.fnmatch(tensor, SINGLE)
            ]
            most = max((found[tensor]["max"] for tensor in pool), default=0.0)
            found |= {tensor: {"max": most} for tensor in pool}
        return found
    if gate_kind(name) == "growth":
        groups: dict[str, list[str]] = {}
        for tensor in found:
            groups.setdefault(tensor.rpartition("/")[0], []).append(tensor)
        for tensors in groups.values():
            if bare(tensors[0]).rpartition("/")[0] not in NOT_STEPS:
                _grow(found, tensors)
    return found


def _grow(floors: dict[str, Distances], tensors: Sequence[str]) -> None:
    """Raise each step's floor to the largest up to AHEAD steps later: one number may be right by
    luck."""
    for kind in floors[tensors[0]]:
        row = [floors[t][kind] for t in tensors]
        for i, tensor in enumerate(tensors):
            floors[tensor][kind] = max(row[: i + 1 + AHEAD])


def kinds_of(rung: str, tensor: str) -> tuple[str, ...]:
    """The measures that decide about a tensor."""
    table = KINDS.get(rung, [("*", ("max",))])
    return next(kinds for pattern, kinds in table if fnmatch.fnmatch(bare(tensor), pattern))


def bare(tensor: str) -> str:
    """A tensor's name without the settings or the mode before it: `training: NAME`."""
    return tensor.rpartition(": ")[2]


def least_scale(rung: str, tensor: str, truth: Rung) -> float:
    """The smallest scale for a tensor's relative error: a gradient that should be zero holds only
    rounding."""
    share, arrays = tolerances().least_gradient, truth.arrays
    plain = bare(tensor)
    settings = tensor.removesuffix(plain)
    if rung == "gradients" and f"{settings}total norm" in arrays:
        return share * float(arrays[f"{settings}total norm"])
    if rung == "lockstep" and plain.startswith("adam_") and f"{settings}norm/0001" in arrays:
        size = share * float(arrays[f"{settings}norm/0001"])
        return size * size if plain.startswith("adam_v/") else size
    return 0.0


def floor_of(
    tensor: str, kinds: tuple[str, ...], b: Array, others: Mapping[str, Passes], least: float
) -> Distances:
    """The floor of a tensor by measure, from the other backends' passes."""
    t = tolerances()
    rounding = 1.0 / b.size if kinds == ("pixels",) else t.rounding
    floors = dict.fromkeys(kinds, rounding)
    for passes in others.values():
        clean = passes.clean.arrays.get(tensor)
        if clean is None or clean.shape != b.shape:
            continue
        errors = measures.distances(kinds, clean, b, least)
        noise = dict.fromkeys(kinds, rounding)
        for nudged in passes.nudged:
            moved = nudged.arrays.get(tensor)
            if moved is not None and moved.shape == clean.shape:
                change = measures.distances(kinds, moved, clean, least)
                noise = {k: max(noise[k], change[k]) for k in kinds}
        for k in kinds:
            most = errors[k] if passes.trusted else min(errors[k], t.cap * noise[k])
            floors[k] = max(floors[k], noise[k], most)
    return floors
