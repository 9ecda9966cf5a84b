"""A training against its record: the first number that differs, and by how much."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

from diptych.figures.numbers import significant
from diptych.golden.place import differences
from diptych.golden.record import LOSS, Golden, Trace, apart, arrays_apart, group, group_norms
from diptych.runs.records import number


@dataclass(frozen=True)
class Difference:
    """One number or array that differs by more than is allowed.

    Attributes:
        step: None for an array.
        golden, found: the number, or the array's norm; None: not recorded, or not given now.
        same: True if the bits are the same.
    """

    what: str
    step: int | None
    golden: float | None
    found: float | None
    relative: float
    allowed: float
    same: bool

    def text(self) -> str:
        """The difference in words."""
        at = f"step {self.step}: {self.what}" if self.step else f"after the last step: {self.what}"
        if self.golden is None:
            return f"{at} is {self.found!r}, and is not on record"
        if self.found is None:
            return f"{at} is missing, recorded {self.golden!r}"
        if self.step is None and self.relative == 0:
            return f"{at} has other bits (norm and signs are the same)"
        values = f"{self.found!r}, recorded {self.golden!r}"
        allowed = "the bits should be equal" if self.allowed == 0 else f"allowed {self.allowed:.2g}"
        return f"{at} is {values}: {significant(self.relative)} relative, {allowed}"


@dataclass(frozen=True)
class Verdict:
    """The result of a check.

    Attributes:
        bits: True if bits were compared, False if numbers within the tolerance.
        why: why bits were not compared; "" if they were.
        first: the first difference; None if there is none.
        differing: numbers and arrays that differ by more than is allowed, of `compared`.
        nearest: the largest share of its tolerance that a number took; 0 for bits.
        raised: the training's own error; "" if it went through.
    """

    bits: bool
    why: str
    first: Difference | None
    differing: int
    compared: int
    nearest: float
    source: str
    raised: str = ""

    @property
    def passed(self) -> bool:
        """True if nothing differs by more than is allowed."""
        return self.first is None and not self.raised

    def text(self) -> str:
        """The verdict in words, one fact a line."""
        if self.raised:
            return f"FAIL: the training stopped: {self.raised}"
        how = "bit by bit" if self.bits else f"within the tolerance ({self.source})"
        lines = [f"{self.compared:,} numbers and arrays compared {how}"]
        if self.why:
            lines.append(f"bits are not compared: {self.why}")
        if self.first is None:
            near = "" if self.bits else f"; the nearest took {self.nearest:.0%} of its tolerance"
            return "\n".join([f"pass: nothing differs{near}", *lines])
        more = f" ({self.differing:,} differ)" if self.differing > 1 else ""
        return "\n".join([f"FAIL: {self.first.text()}{more}", *lines])

    def content(self) -> dict[str, Any]:
        """The verdict as JSON values."""
        first = None if self.first is None else _finite(vars(self.first))
        return {"passed": self.passed, **_finite(vars(self)), "first": first}


def _finite(facts: dict[str, Any]) -> dict[str, Any]:
    """Facts as JSON values: None for a number that is not finite."""
    return {k: number(v) if isinstance(v, float) else v for k, v in facts.items()}


def compare(golden: Golden, found: Trace) -> Verdict:
    """Compare a training with its record: bits at the recorded place, else within the tolerance."""
    if found.raised:
        return Verdict(False, "", None, 0, 0, 0.0, "", found.raised)
    elsewhere = differences(golden.place, found.place)
    why = "; ".join(elsewhere)
    if not golden.repeats:
        why = "the recorded training did not repeat its own bits, or was run once only"
    bits = not why
    wrong: list[Difference] = []
    compared, nearest = 0, 0.0
    for each in _pairs(golden, found, bits):
        compared += 1
        share = math.inf if each.allowed == 0 else each.relative / each.allowed
        nearest = max(nearest, 0.0 if each.relative == 0 else share)
        # Equal bits have one norm but for the last digits, which the threads of BLAS decide.
        unequal = not each.same if bits else each.relative > each.allowed
        if unequal:
            wrong.append(each)
    wrong.sort(key=_order)  # stable: the loss of a step comes first
    return Verdict(
        bits,
        why,
        wrong[0] if wrong else None,
        len(wrong),
        compared,
        0.0 if bits else nearest,
        golden.tolerance.source,
    )


def _order(each: Difference) -> tuple[float, bool]:
    return (math.inf if each.step is None else each.step), each.what != LOSS


def _pairs(golden: Golden, found: Trace, bits: bool) -> Iterator[Difference]:
    """Every number and array of the record or the training, with its distance and its limit."""
    for name in dict.fromkeys((*golden.numbers, *found.numbers)):
        recorded, allowed = golden.numbers.get(name, []), golden.tolerance.numbers.get(name, [])
        both = zip_longest(recorded, found.numbers.get(name, []))
        for k, (value, other) in enumerate(both):
            limit = 0.0 if bits or value is None else allowed[k]
            if value is None or other is None:
                yield Difference(name, k + 1, value, other, math.inf, limit, False)
            else:
                same = struct.pack("<d", value) == struct.pack("<d", other)  # 0.0 is not -0.0
                yield Difference(name, k + 1, value, other, apart(value, other), limit, same)
    facts = {name: each.model_dump() for name, each in golden.arrays.items()}
    norms = group_norms(facts)
    for name in dict.fromkeys((*facts, *found.arrays)):
        here, there = facts.get(name), found.arrays.get(name)
        limit = 0.0 if bits else golden.tolerance.arrays.get(group(name), 0.0)
        if here is None or there is None:
            ends = [None if each is None else each["norm"] for each in (here, there)]
            yield Difference(name, None, ends[0], ends[1], math.inf, limit, False)
        else:
            gap = arrays_apart(here, there, norms[group(name)])
            same = here["sha256"] == there["sha256"]
            yield Difference(name, None, here["norm"], there["norm"], gap, limit, same)
