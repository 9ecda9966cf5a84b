"""A training against its record: the first number that differs, and by how much."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from diptych.figures.numbers import significant
from diptych.golden.place import differences
from diptych.golden.record import LOSS, Golden, Trace, apart, arrays_apart, group, group_norms


@dataclass(frozen=True)
class Difference:
    """One number or array that differs by more than is allowed; `step` is None for an array."""

    what: str
    step: int | None
    golden: float
    found: float
    relative: float
    allowed: float

    def text(self) -> str:
        """The difference in words."""
        at = f"step {self.step}: {self.what}" if self.step else f"after the last step: {self.what}"
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
        first = (
            None
            if self.first is None
            else {
                k: v if not isinstance(v, float) or math.isfinite(v) else None
                for k, v in vars(self.first).items()
            }
        )
        facts = {k: v for k, v in vars(self).items() if k != "first"}
        facts["nearest"] = self.nearest if math.isfinite(self.nearest) else None
        return {"passed": self.passed, **facts, "first": first}


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
        other = each.found != each.golden and bits
        if each.relative > each.allowed or other:
            wrong.append(each)
    if bits:
        known = {d.what for d in wrong}
        for name, facts in golden.arrays.items():
            there = found.arrays.get(name)
            if there is not None and there["sha256"] != facts.sha256 and name not in known:
                wrong.append(Difference(name, None, facts.norm, there["norm"], 0.0, 0.0))
    wrong.sort(key=_order)  # stable: the loss of a step comes first
    return Verdict(
        bits, why, wrong[0] if wrong else None, len(wrong), compared,
        0.0 if bits else nearest, golden.tolerance.source,
    )  # fmt: skip


def _order(each: Difference) -> tuple[float, bool]:
    return (math.inf if each.step is None else each.step), each.what != LOSS


def _pairs(golden: Golden, found: Trace, bits: bool) -> Iterator[Difference]:
    """Every number and every array, with its distance and what is allowed."""
    for name, values in golden.numbers.items():
        others, allowed = found.numbers.get(name), golden.tolerance.numbers[name]
        for k, value in enumerate(values):
            other = others[k] if others is not None and k < len(others) else math.nan
            limit = 0.0 if bits else allowed[k]
            yield Difference(name, k + 1, value, other, apart(value, other), limit)
    recorded = {name: facts.model_dump() for name, facts in golden.arrays.items()}
    norms = group_norms(recorded)
    for name, facts in golden.arrays.items():
        limit = 0.0 if bits else golden.tolerance.arrays.get(group(name), 0.0)
        there = found.arrays.get(name)
        if there is None:
            yield Difference(name, None, facts.norm, math.nan, math.inf, limit)
        else:
            gap = arrays_apart(recorded[name], there, norms[group(name)])
            yield Difference(name, None, facts.norm, there["norm"], gap, limit)
