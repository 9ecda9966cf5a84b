"""golden.json: the numbers of a training's first steps, and the tolerance that holds elsewhere.

numbers    one value per step of each: loss, grad_norm, any other that the training gives
arrays     of each: a hash of its bits, its norm, and its product with fixed random signs, which
           a change that keeps the norm still changes
tolerance  relative, per number and step, and per group of arrays; `source` says where from
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field

from diptych.errors import UserError
from diptych.files import write_text
from diptych.runs.records import Number, Part, Truth, Whole
from diptych.types import Array

VERSION = 1
LOSS = "loss"
# Training of which no spread was measured: two processors' float32 sums, over a few dozen steps.
DEFAULT_RTOL = 1e-5
# Elsewhere, the spread of nudged runs times this; see docs/golden.md for what was measured.
FACTOR = 10.0
# Two float32 sums of the same values in other orders, relative to their result.
ROUNDING = 5e-7


@dataclass
class Trace:
    """The numbers of one training: `numbers` per step, `arrays` at the end, `raised` if it broke.

    Attributes:
        numbers: name -> one float per step; "loss" is always there.
        arrays: name -> facts of `array_facts`.
        data: identity of the data that was read; "" if unknown.
    """

    numbers: dict[str, list[float]]
    arrays: dict[str, dict[str, Any]] = field(default_factory=dict)
    place: dict[str, Any] = field(default_factory=dict)
    data: str = ""
    raised: str = ""


Threads = Annotated[int, Field(strict=True, ge=1)]


class ArrayFacts(Part):
    """A recorded array."""

    sha256: str
    norm: Number
    signs: Number


class Tolerance(Part):
    """Relative tolerances elsewhere than at the recorded place, and where they come from."""

    numbers: dict[str, list[Number]]
    arrays: dict[str, Number] = Field(default_factory=dict)
    source: str


class TrainingSubject(Part):
    """A training of Diptych: its config, panel and device; `data` is the identity of its data."""

    kind: Literal["training"]
    config: dict[str, Any]
    backend: str
    device: str
    resume_at: Annotated[int, Field(strict=True, ge=0)]
    threads: Threads
    data: str = ""


class FunctionSubject(Part):
    """A user's function; one that a test holds has a bare name, and the test's own threads."""

    kind: Literal["function"]
    function: str
    threads: Threads | None = None


Subject = Annotated[TrainingSubject | FunctionSubject, Field(discriminator="kind")]


class Golden(Part):
    """golden.json."""

    golden: Whole
    steps: Annotated[int, Field(strict=True, ge=1)]
    subject: Subject
    place: dict[str, Any]
    repeats: Truth
    numbers: dict[str, list[Number]]
    tolerance: Tolerance
    arrays: dict[str, ArrayFacts] = Field(default_factory=dict)


def read_golden(path: Path) -> Golden:
    """Read a golden.json.

    Raises:
        UserError: missing, damaged, of a later version, or with fewer numbers than steps.
    """
    found = Golden.read(path)
    if found.golden != VERSION:
        raise UserError(f"{path}: has version {found.golden}, this Diptych reads {VERSION}")
    columns = [*found.numbers.items(), *found.tolerance.numbers.items()]
    short = [name for name, values in columns if len(values) != found.steps]
    if LOSS not in found.numbers or short or set(found.tolerance.numbers) != set(found.numbers):
        raise UserError(f"{path}: needs one number per step of {', '.join(short) or LOSS}; record")
    return found


def write_golden(path: Path, golden: Golden, overwrite: bool = False) -> None:
    """Write a golden.json whole, a line per array.

    Raises:
        UserError: the file is there and `overwrite` is off.
    """
    if path.exists() and not overwrite:
        raise UserError(f"{path}: is there already; --overwrite replaces the record")
    tree = golden.model_dump(mode="json")
    lines = []
    for key, value in tree.items():
        if key in ("arrays", "numbers", "tolerance") and value:
            inner = [f"  {json.dumps(k)}: {json.dumps(v)}" for k, v in value.items()]
            lines.append(f" {json.dumps(key)}: {{\n" + ",\n".join(inner) + "\n }")
        else:
            lines.append(f" {json.dumps(key)}: {json.dumps(value)}")
    write_text(path, "{\n" + ",\n".join(lines) + "\n}\n")


def array_facts(values: Any) -> dict[str, Any]:
    """An array's hash, norm and product with fixed signs; see `ArrayFacts`."""
    array = host(values)
    header = f"{array.dtype.str} {array.shape}\n".encode()
    digest = hashlib.sha256(header + np.ascontiguousarray(array).tobytes()).hexdigest()
    flat = array.astype(np.float64).ravel()
    signs = np.random.Generator(np.random.Philox(key=flat.size)).integers(0, 2, flat.size)
    norm = math.sqrt(float(flat @ flat))
    return {"sha256": digest[:24], "norm": norm, "signs": float(flat @ (2.0 * signs - 1.0))}


def host(values: Any) -> Array:
    """An array of any framework as a NumPy array."""
    for name in ("detach", "cpu"):
        step = getattr(values, name, None)
        values = step() if callable(step) else values
    if not isinstance(values, np.ndarray) and callable(getattr(values, "numpy", None)):
        values = values.numpy()
    array: Array = np.asarray(values)
    if array.dtype.kind not in "biuf":
        raise UserError(f"golden: an array of {array.dtype} has no numbers to keep")
    return array


def observed(given: Any, steps: int, where: str) -> Trace:
    """The first `steps` of a training that yields, per step, a loss, or a mapping with `loss`.

    Further scalars of the mapping are kept per step, arrays as they are when last given.

    Raises:
        UserError: fewer steps, no loss, or a number that some steps lack.
    """
    numbers: dict[str, list[float]] = {LOSS: []}
    last: dict[str, Any] = {}
    if not isinstance(given, Iterable):
        raise UserError(f"{where}: gave a {type(given).__name__}; it should yield a loss per step")
    count = 0
    for count, item in enumerate(islice(given, steps), start=1):
        facts = item if isinstance(item, Mapping) else {LOSS: item}
        if isinstance(item, tuple) and len(item) == 2 and isinstance(item[1], Mapping):
            facts = {LOSS: item[0], **item[1]}
        if LOSS not in facts:
            raise UserError(
                f"{where}: step {count} gave no 'loss', but {', '.join(map(str, facts))}"
            )
        for name, value in facts.items():
            array = host(value)
            if array.size == 1:
                numbers.setdefault(str(name), []).append(float(array.reshape(())))
            else:
                last[str(name)] = array.copy()
    if count < steps:
        raise UserError(f"{where}: gave {count} steps, {steps} were asked for")
    for name, values in numbers.items():
        if len(values) != steps:
            raise UserError(
                f"{where}: '{name}' was given in {len(values)} of {steps} steps; give it in all"
            )
    return Trace(numbers, {name: array_facts(array) for name, array in last.items()})


def group(name: str) -> str:
    """The group of an array's name, whose arrays share a tolerance: what stands before the `/`."""
    return name.partition("/")[0] if "/" in name else ""


def apart(a: float, b: float) -> float:
    """|a - b| / max(|a|, |b|); 0 if they are equal, infinite if either is not finite."""
    if a == b:
        return 0.0
    if not (math.isfinite(a) and math.isfinite(b)):
        return math.inf
    return abs(a - b) / max(abs(a), abs(b))


def arrays_apart(a: Mapping[str, Any], b: Mapping[str, Any], scale: float) -> float:
    """Distance of two arrays, by their facts, relative to `scale`, their group's norm.

    Not to their own norm: the gradient of a bias before a norm is nothing but rounding.
    """
    gap = max(abs(a["norm"] - b["norm"]), abs(a["signs"] - b["signs"]))
    if gap == 0:
        return 0.0
    return gap / scale if math.isfinite(gap) and scale > 0 else math.inf


def group_norms(arrays: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """The norm of each group of arrays."""
    found: dict[str, float] = {}
    for name, facts in arrays.items():
        found[group(name)] = math.hypot(found.get(group(name), 0.0), facts["norm"])
    return found


def measured(plain: Trace, nudged: Sequence[Trace]) -> Tolerance:
    """The tolerance from runs whose first weights were moved by one rounding.

    Raises:
        UserError: a number that is not finite, or no run in which anything moved.
    """
    for each in (plain, *nudged):
        refuse_nonfinite(each)
    if all((each.numbers, each.arrays) == (plain.numbers, plain.arrays) for each in nudged):
        raise UserError(
            "no number moved when the first weights did, so there is no spread to measure: "
            "the training does not start from these weights, or does not learn"
        )
    spread = {}
    for name, values in plain.numbers.items():
        most, found = 0.0, []
        for k, value in enumerate(values):
            most = max(most, *(apart(value, each.numbers[name][k]) for each in nudged))
            found.append(float(f"{max(FACTOR * most, ROUNDING):.3g}"))
        spread[name] = found
    groups: dict[str, float] = {}
    norms = group_norms(plain.arrays)
    for name, facts in plain.arrays.items():
        scale = norms[group(name)]
        gap = max(arrays_apart(facts, each.arrays[name], scale) for each in nudged)
        groups[group(name)] = max(groups.get(group(name), ROUNDING), FACTOR * gap)
    arrays = {name: float(f"{value:.3g}") for name, value in groups.items()}
    source = (
        f"{FACTOR:g} times the largest difference of {len(nudged)} runs at the recorded place "
        f"whose first weights were each moved to a neighbouring float32; {ROUNDING:g} at least"
    )
    return Tolerance(numbers=spread, arrays=arrays, source=source)


def stated(trace: Trace, rtol: float, source: str) -> Tolerance:
    """One relative tolerance for every number and array, with its source."""
    steps = len(trace.numbers[LOSS])
    groups = dict.fromkeys(map(group, trace.arrays), rtol)
    return Tolerance(
        numbers={name: [rtol] * steps for name in trace.numbers}, arrays=groups, source=source
    )


def make_golden(
    trace: Trace, subject: TrainingSubject | FunctionSubject, repeats: bool, tolerance: Tolerance
) -> Golden:
    """The record of a trace.

    Raises:
        UserError: a number that is not finite, which no check could hold on to.
    """
    refuse_nonfinite(trace)
    content = {
        "golden": VERSION,
        "steps": len(trace.numbers[LOSS]),
        "subject": subject.model_dump(),
        "place": trace.place,
        "repeats": repeats,
        "numbers": trace.numbers,
        "tolerance": tolerance.model_dump(),
        "arrays": trace.arrays,
    }
    return Golden.of(content, "the training")


def refuse_nonfinite(trace: Trace) -> None:
    """Refuse a trace with a number, or an array's element, that is not finite.

    Raises:
        UserError: names the first one.
    """
    for name, values in trace.numbers.items():
        bad = [k for k, value in enumerate(values, start=1) if not math.isfinite(value)]
        if bad:
            raise UserError(f"{name} of step {bad[0]} is {values[bad[0] - 1]}: nothing to record")
    for name, facts in trace.arrays.items():
        if not (math.isfinite(facts["norm"]) and math.isfinite(facts["signs"])):
            raise UserError(
                f"the array {name} has the norm {facts['norm']} after the last step: nothing to "
                "record; expected finite elements"
            )
