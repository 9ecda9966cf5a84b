"""The first bad layer of a failing rung: its place, its numbers, and hints.

A layer is wrong by itself if it fails on the reference's own inputs (`fed`); a container only if
none of the layers inside fails, for then its own code is wrong. If every layer is right when it is
fed, what joins them is wrong: the first layer that is *given* something else.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from diptych.align.ladder.floors import bare
from diptych.align.ladder.judge import Finding, Verdict
from diptych.align.ladder.trace import Rung
from diptych.align.ports.arrays import drawn_input
from diptych.align.ports.evidence import ROOT, Evidence, base_of, shown
from diptych.align.ports.hints import hints_for
from diptych.align.ports.hints.case import Case
from diptych.types import Array


def first_fault(
    seen: Evidence, verdict: Verdict, truth: Rung, port: Rung, own: Sequence[Rung]
) -> dict[str, Any]:
    """The first bad layer of a failing rung, its numbers, and hints."""
    name = verdict.rung
    failed = [f for f in verdict.findings if f.failed]
    where, between = "layer", ("", "")
    if name == "layers":
        layer, where, between, first = bad_layer(seen, verdict)
    elif name == "operators":
        first = failed[0]
        layer = first.name.removeprefix("faint/").rpartition("/")[0]
    elif name == "gradients":
        layer, where, between, first = _bad_gradient(seen, failed)
    else:
        first = failed[0]
        tensor = first.name.partition("/")[2] if name in ("update", "resume") else first.name
        layer = tensor.rpartition(".")[0]
        most = len(failed) > 0.5 * len(verdict.findings)
        if name == "update":
            # The smallest module that holds all that fail, or the optimizer: a wrong rule may show
            # in some weights only, or in the second step.
            layer, whole = (_shared(f.name for f in each) for each in (failed, verdict.findings))
            layer = ROOT if most or layer == whole else layer
            where = "layer" if layer else "optimizer"
        elif (name == "resume" and most) or name in ("loss", "lockstep"):
            layer, where = ROOT, name
    facts: dict[str, Any] = {
        "rung": name,
        "layer": layer,
        "where": where,
        "after": between[0],
        "before": between[1],
        "tensor": shown(first.name),
        "text": first.text,
        "why": first.why,
        **{
            k: v if np.isfinite(v) else None
            for k, v in (("error", first.error), ("floor", first.floor), ("allowed", first.gate))
        },
        "measure": first.measure,
    }
    base = layer.partition("#")[0]
    call = seen.calls.get(layer, {})
    own_call = seen.subject["calls"].get(seen.subject["layers"].get(base, ""), {})
    facts |= {
        "kind": call.get("kind", ""),
        "port_layer": seen.subject["layers"].get(base, ""),
        "port_kind": own_call.get("kind", ""),
        "source": own_call.get("source", ""),
    }
    case = Case(
        layer,
        call,
        own_call,
        first.name,
        name,
        truth,
        port,
        seen.weights,
        seen.about,
        seen.subject,
        first.text,
        given_to(seen, layer, name, first.name, between[0]),
        where != "value" or _joined(verdict, truth, layer),
        first.reason,
    )
    facts["hints"] = hints_for(case)
    return facts


def given_to(seen: Evidence, layer: str, rung: str, tensor: str, after: str) -> Array | None:
    """The first input, in float64, that the failing layer was run on; for code between two layers,
    what the one before it gave."""
    if bare(tensor).startswith("into/"):
        made = seen.truth.rung("layers").arrays.get(f"free/{after}")
        return None if made is None else made.astype(np.float64)
    array = seen.truth.rung("layers").arrays.get(f"in/{layer}/0")
    if array is None or array.dtype.kind != "f":
        return None
    if rung == "operators":
        factor = 0.01 if tensor.startswith("faint/") else 1.0
        return drawn_input(f"{layer}/0", array.shape, factor).astype(np.float64)
    return array.astype(np.float64) * (0.01 if "faint/" in tensor else 1.0)


def _joined(verdict: Verdict, truth: Rung, layer: str) -> bool:
    """True if a layer's first input is the output of a layer that agrees: no code lies between."""
    given = truth.arrays.get(f"in/{layer}/0")
    made = [truth.arrays[f.name] for f in verdict.findings if not f.failed]
    return given is not None and any(np.array_equal(given, m) for m in made)


def _inside(path: str, container: str) -> bool:
    return container == ROOT or path.startswith(container + ".")


def bad_layer(seen: Evidence, verdict: Verdict) -> tuple[str, str, tuple[str, str], Finding]:
    """(layer, where, (after, before), its finding)."""
    fed: dict[str, Finding] = {}
    into = [f for f in verdict.findings if f.failed and bare(f.name).startswith("into/")]
    if into:  # a mask of -inf, which the port may write as -1e9, is no evidence
        given = seen.truth.rung("layers").arrays
        into = [f for f in into if np.isfinite(given[f.name]).all()]
    fed_wrong = {_base_into(f.name) for f in into}
    for f in verdict.findings:
        if bare(f.name).startswith("buffer/") and base_of(f.name).rpartition(".")[0] in fed_wrong:
            continue  # it is of the inputs
        if f.failed and bare(f.name).startswith(("fed/", "faint/", "buffer/")):
            path = base_of(f.name)
            path = path.rpartition(".")[0] if bare(f.name).startswith("buffer/") else path
            fed.setdefault(path, f)
    alone = [
        p
        for p in fed
        if not any(q != p and _inside(q.partition("#")[0], p.partition("#")[0]) for q in fed)
    ]
    free = [
        f for f in verdict.findings if f.failed and (bare(f.name).startswith("free/") or f in into)
    ]
    if alone:
        place = {p: i for i, p in enumerate(seen.order)}
        layer = min(alone, key=lambda p: place.get(p, place.get(p.partition("#")[0], 1 << 30)))
        children = [p for p in seen.order if _inside(p, layer)]
        if not children:
            return layer, "layer", ("", ""), fed[layer]
        return layer, "between", _between(seen, free, children), fed[layer]
    outer = free[0] if free else next(f for f in verdict.findings if f.failed)
    after, before = _between(seen, free, seen.order)
    # Of a graph only values are seen, and a layer may be given another shape: padding of its own.
    if not into and base_of(outer.name) in seen.calls:
        return base_of(outer.name), "value", (_sound_before(verdict, outer), ""), outer
    container = _common(after, before) if before else ROOT
    while container not in seen.calls and container != ROOT:  # a list of layers has no code
        container = container.rpartition(".")[0]
    return container, "between", (after, before), outer


def _sound_before(verdict: Verdict, outer: Finding) -> str:
    """The last layer before a failing value whose own value passes."""
    names = [f.name for f in verdict.findings if f.name.startswith("free/")]
    passed = {f.name for f in verdict.findings if not f.failed}
    before = names[: names.index(outer.name)] if outer.name in names else []
    return next((base_of(n) for n in reversed(before) if n in passed), "")


def _between(seen: Evidence, free: Sequence[Finding], paths: Sequence[str]) -> tuple[str, str]:
    """The layer before and the one after the first place where what is given differs."""

    def start(path: str) -> int:
        return int(seen.calls[path]["order"])

    given = {_base_into(f.name) for f in free if bare(f.name).startswith("into/")}
    wrong = [p for p in paths if p in given]
    if not wrong:
        return _last(seen, paths), ""
    before = min(wrong, key=start)  # a container starts before its layers
    return _last(seen, [p for p in seen.order if start(p) < start(before)]), before


def _last(seen: Evidence, paths: Sequence[str]) -> str:
    """The last leaf of some layers, if possible one that the port has too."""
    leaves = [p for p in paths if seen.calls[p]["leaf"]]
    both = [p for p in leaves if p.partition("#")[0] in seen.subject["layers"]]
    return (both or leaves or [""])[-1]


def _base_into(tensor: str) -> str:
    return bare(tensor).partition("/")[2].rpartition("/")[0]


def _common(a: str, b: str) -> str:
    """The container of both."""
    found = []
    for x, y in zip(a.split(".")[:-1], b.split(".")[:-1], strict=False):
        if x != y:
            break
        found.append(x)
    return ".".join(found)


def _shared(weights: Iterable[str]) -> str:
    """The innermost module that holds all of `step 1/WEIGHT`...; '' if only the network does."""
    rows = [w.partition("/")[2].rpartition(".")[0].split(".") for w in weights]
    same = itertools.takewhile(lambda column: len(set(column)) == 1, zip(*rows, strict=False))
    return ".".join(column[0] for column in same)


def _bad_gradient(
    seen: Evidence, failed: Sequence[Finding]
) -> tuple[str, str, tuple[str, str], Finding]:
    """The layer nearest to the loss whose gradient is wrong: the fault lies right behind it."""
    place = {p: i for i, p in enumerate(seen.order)}
    acts = {base_of(f.name): f for f in failed if f.name.startswith("act/")}
    weights: dict[str, Finding] = {}
    for f in failed:
        if f.name != "total norm" and not f.name.startswith("act/"):
            weights.setdefault(f.name.rpartition(".")[0], f)
    by_call = sorted(
        (p for p in acts if p in place and seen.calls[p]["leaf"]), key=place.__getitem__
    )
    last = by_call[-1] if by_call else ""
    own = [p for p in weights if p in place and (not last or place[p] > place[last])]
    if own:
        layer = max(own, key=place.__getitem__)
        return layer, "layer", ("", ""), weights[layer]
    if last:
        later = [p for p in seen.order if place[p] > place[last] and seen.calls[p]["leaf"]]
        return last, "behind", (last, later[0] if later else ""), acts[last]
    first = next((f for f in failed if f.name != "total norm"), failed[0])
    return first.name.rpartition(".")[0], "layer", ("", ""), first
