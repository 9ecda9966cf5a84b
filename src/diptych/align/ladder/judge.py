"""The judge of traces: is each backend as close to the float64 reference as rounding allows?

    error(P) <= k * floor(P),     floor(P) = max(rounding, noise(Q), min(error(Q), cap * noise(Q)))

Q is the other backend: `error(Q)` is its distance from the reference, `noise(Q)` its largest change
after one rounding of its input (see `floors`). So a faulty backend never widens its own gate. This
module needs NumPy alone; no framework is loaded.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from diptych.align.ladder import measures
from diptych.align.ladder.floors import (
    NOT_COMPARED,
    Passes,
    floors_of,
    gate_kind,
    gate_of,
    kinds_of,
    least_scale,
)
from diptych.align.ladder.measures import Distances
from diptych.align.ladder.tolerances import Gate
from diptych.align.ladder.trace import Rung
from diptych.types import Array

PASS, FAIL = "pass", "fail"
# Why a tensor has a text in place of numbers: no array of its shape; one that a rule would turn;
# outputs in a layout that no rule declares; two arrays for the reference's one; no such number.
Reason = Literal["", "shape", "rule", "layout", "untied", "value"]


@dataclass(frozen=True)
class Finding:
    """One tensor of one backend, by its worst measure."""

    name: str
    panel: str
    measure: str
    error: float
    floor: float
    gate: float
    text: str = ""
    reason: Reason = ""
    why: Mapping[str, Any] | None = None  # the text as a key and its facts, for other languages

    @property
    def ratio(self) -> float:
        """error / gate; above 1 the tensor fails."""
        if self.error == 0:
            return 0.0
        return self.error / self.gate if self.gate else float("inf")

    @property
    def failed(self) -> bool:
        return bool(self.text) or not self.ratio <= 1


@dataclass
class Verdict:
    """The verdict on one rung, with all findings in the order of computation."""

    rung: str
    verdict: str
    gate: Gate
    findings: list[Finding] = field(default_factory=list)
    seconds: float = 0.0
    apart: float = 0.0  # the backends' largest distance from each other

    @property
    def first_failure(self) -> Finding | None:
        return next((f for f in self.findings if f.failed), None)

    @property
    def worst(self) -> Finding | None:
        """The finding with the largest ratio to its gate; findings with a text come first."""
        return max(self.findings, key=lambda f: (bool(f.text), f.ratio), default=None)

    def distance(self, panel: str) -> float:
        """The backend's largest distance from the reference over all tensors."""
        found = [f.error for f in self.findings if f.panel == panel and np.isfinite(f.error)]
        return max(found, default=0.0)


def judge(
    name: str,
    truth: Rung,
    panels: Mapping[str, Passes],
    only: Sequence[str] | None = None,
    gate: str | None = None,
) -> Verdict:
    """Judge one rung for all backends or `only` some, by the rung's gate or that of rung `gate`."""
    chosen = gate_of(gate or name)
    verdict = Verdict(name, PASS, chosen, seconds=sum(p.clean.seconds for p in panels.values()))
    for panel, passes in panels.items():
        if only is not None and panel not in only:
            continue
        others = {q: p for q, p in panels.items() if q != panel}
        verdict.findings += _findings(name, truth, panel, passes.clean, others, chosen.k)
    # A checkpoint's hash differs because a weight does, so the weight is named first.
    names = [*truth.arrays, *truth.facts] if name == "weights" else truth.names
    order = {tensor: i for i, tensor in enumerate(names)}
    verdict.findings.sort(key=lambda f: order.get(f.name, len(order)))
    if any(f.failed for f in verdict.findings):
        verdict.verdict = FAIL
    judged = [p.clean for panel, p in panels.items() if only is None or panel in only]
    verdict.apart = _apart(name, judged, truth)
    return verdict


def _findings(
    name: str, truth: Rung, panel: str, got: Rung, others: Mapping[str, Passes], k: float
) -> list[Finding]:
    found = _fact_findings(truth, panel, got)
    exact = gate_kind(name) == "exact"
    floors = {} if exact else floors_of(name, truth, others)
    for tensor, b in truth.arrays.items():
        if fnmatch.fnmatch(tensor, NOT_COMPARED):
            continue
        a = got.arrays.get(tensor)
        if a is None or a.shape != b.shape:
            found.append(_misfit(tensor, panel, a, b))
            continue
        kinds = ("bits",) if exact else kinds_of(name, tensor)
        errors = measures.distances(kinds, a, b, least_scale(name, tensor, truth))
        found.append(_worst(k, tensor, panel, errors, floors.get(tensor, {})))
    extra = [t for t in got.arrays if t not in truth.arrays and name != "layers"]
    found += [Finding(t, panel, "", np.inf, 0, 0, "is not in the reference") for t in extra]
    return found


def _worst(k: float, tensor: str, panel: str, errors: Distances, floors: Distances) -> Finding:
    each = [
        Finding(tensor, panel, kind, error, floors.get(kind, 0.0), k * floors.get(kind, 0.0))
        for kind, error in errors.items()
    ]
    return max(each, key=lambda f: f.ratio)


def _fact_findings(truth: Rung, panel: str, got: Rung) -> list[Finding]:
    found = []
    for key, value in truth.facts.items():
        other = got.facts.get(key, "nothing")
        same = other == value
        text = "" if same else f"is {other}, expected {value}"
        found.append(Finding(key, panel, "equal", 0.0 if same else 1.0, 0.0, 0.0, text))
    return found


def _misfit(tensor: str, panel: str, a: Array | None, b: Array) -> Finding:
    text = "is missing" if a is None else f"has shape {a.shape}, expected {b.shape}"
    reason: Reason = "" if a is None else "shape"
    return Finding(tensor, panel, "shape", float("inf"), 0.0, 0.0, text, reason)


def _apart(name: str, clean: Sequence[Rung], truth: Rung) -> float:
    """The largest distance between the first two backends, for the page."""
    if len(clean) < 2 or gate_kind(name) == "exact":
        return 0.0
    a, b = clean[0].arrays, clean[1].arrays
    both = [t for t in truth.arrays if t in a and t in b and a[t].shape == b[t].shape]
    found = [
        max(measures.distances(kinds_of(name, t), a[t], b[t], least_scale(name, t, truth)).values())
        for t in both
    ]
    return max((x for x in found if np.isfinite(x)), default=0.0)


def as_json(finding: Finding) -> dict[str, Any]:
    """A finding as JSON values; numbers that are not finite become null."""
    numbers = {"error": finding.error, "floor": finding.floor, "gate": finding.gate}
    kept = {k: v if np.isfinite(v) else None for k, v in numbers.items()}
    words = {"tensor": finding.name, "panel": finding.panel, "measure": finding.measure}
    text = {"text": finding.text} if finding.text else {}
    return {**words, **kept, "failed": finding.failed, **text}
