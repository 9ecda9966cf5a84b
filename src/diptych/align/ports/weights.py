"""The rung `weights`: each array read back, what has no partner, and what only one side trains."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np

from diptych.align.ladder import judge
from diptych.align.ladder.floors import Passes
from diptych.align.ladder.judge import Finding, Reason, Verdict
from diptych.align.ladder.trace import Rung
from diptych.align.ports.evidence import PORT, Evidence
from diptych.align.ports.reasons import Why, told, why
from diptych.align.ports.targets import GRAPHS, MODULES


def weights_verdict(seen: Evidence, truth: Rung, port: Rung, own: Sequence[Rung]) -> Verdict:
    """Weights read back: equal bits; those without a partner fail with their reason."""
    names = [n for n in truth.arrays if n in port.arrays]
    cut = Rung({n: own[0].arrays[n] for n in names})
    verdict = judge.judge("weights", cut, {PORT: Passes(port)}, only=PORT)
    for k, each in enumerate(verdict.findings):
        ours, theirs = cut.arrays[each.name].dtype, port.arrays[each.name].dtype
        if each.failed and ours != theirs:
            reason = why("dtype", theirs=str(theirs), ours=str(ours))
            verdict.findings[k] = dataclasses.replace(each, text=told(reason).en, why=reason)
    match = seen.subject["match"]
    graph = seen.about["framework"] in GRAPHS.values()
    for name, (kind, left) in match["left_reference"].items():
        if name in truth.arrays and truth.arrays[name].dtype.kind != "f":
            continue  # numbers of places, such as position_ids: a port may make them in its code
        if graph and name in truth.arrays and truth.arrays[name].size == 1:
            continue  # a constant of a graph's code, such as an eps
        if name in buffers_alone(seen):
            continue  # a port may make it in its code, and the layers judge it
        verdict.findings.append(without(name, why("no_partner", left=left), kind))
    for name, off in seen.subject.get("misfolded", {}).items():
        norm, _, key = name.rpartition(".")
        reason = why(f"misfolded_{key}", before=seen.subject["folded"][norm], off=f"{off:.2g}")
        verdict.findings.append(without(name, reason))
    entries = {e["name"]: e for e in seen.about["entries"]}
    ties = {n: a for n, a in seen.about["tied"].items() if n in entries}
    for name, (kind, left) in match["left_subject"].items():
        if name not in seen.subject["parameters"]:
            continue
        shape = seen.port and _shape_left(seen, name)
        tie = next(
            ((n, a[0]) for n, a in ties.items() if tuple(entries[n]["shape"]) == shape), None
        )
        reason = why("alone", left=left)
        if tie:
            reason = why("untied", tie=tie[0], name=name)
            name, kind = tie[1], "untied"
        verdict.findings.append(without(name, reason, kind))
    if seen.about["framework"] in MODULES and seen.subject["framework"] in MODULES:
        verdict.findings += _trained(seen)
    return verdict


def without(name: str, reason: Why, kind: Reason = "", measure: str = "") -> Finding:
    """A tensor that fails for a reason in place of numbers."""
    return Finding(name, PORT, measure, np.inf, 0, 0, told(reason).en, kind, reason)


def buffers_alone(seen: Evidence) -> list[str]:
    """The reference's buffers, such as a causal mask, that the port has nothing for.

    None if the layers are not climbed, which judge them; running statistics and frozen weights are
    no such buffers.
    """
    if "layers" not in seen.rungs():
        return []
    left, known = seen.subject["match"]["left_reference"], seen.about["plan"]["buffers"]
    made = [n for n in known if n not in seen.about["stopped"] and "running_" not in n]
    return [name for name, (reason, _) in left.items() if not reason and name in made]


def _trained(seen: Evidence) -> Iterator[Finding]:
    """Weights that only one side trains; the others are frozen, or buffers."""
    ours, theirs = set(seen.about["plan"]["parameters"]), set(seen.subject["parameters"])
    for name, other in seen.subject["match"]["weights"].items():
        if name not in ours and other in theirs:
            yield without(name, why("to_freeze"))
        elif name in ours and other not in theirs:
            yield without(name, why("to_train"))


def _shape_left(seen: Evidence, name: str) -> tuple[int, ...]:
    shape = seen.subject.get("shapes", {}).get(name, ())
    return tuple(int(n) for n in shape)
