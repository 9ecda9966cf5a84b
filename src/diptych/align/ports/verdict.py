"""The verdict on a port: every rung against its floor, and the first layer that is wrong.

A tensor passes if error <= k * floor (`diptych.align.ladder.judge`); the floor comes from the
reference itself: its float32 run against its float64 run, and its answer to one rounding of its
inputs and weights.

A port may cut its layers elsewhere (a norm with its activation). So a layer that differs is not
counted if what it gives is found further on in the reference, in the running network and on the
reference's own inputs. The rest of its checks have no counterpart; they are listed as not checked.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from diptych.align.ladder import judge
from diptych.align.ladder.floors import Passes, bare, gate_of
from diptych.align.ladder.judge import FAIL, PASS, Finding, Reason, Verdict
from diptych.align.ladder.tolerances import tolerances
from diptych.align.ladder.trace import Rung
from diptych.align.ports.arrays import fit
from diptych.align.ports.evidence import PORT, ROOT, Evidence, base_of, shown
from diptych.align.ports.fault import first_fault
from diptych.align.ports.floors import widened
from diptych.align.ports.matching import SHOWN_OUTPUT
from diptych.align.ports.notes import notes_of
from diptych.align.ports.plan import OUTPUT
from diptych.align.ports.reasons import Why, told, why
from diptych.align.ports.weights import weights_verdict, without
from diptych.types import Array

EVAL, TRAINING = "", "training: "


@dataclass
class Compared:
    """One subject's verdict: the rungs, the layers as a list, the first fault."""

    rungs: list[Verdict]
    layers: list[dict[str, Any]]
    fault: dict[str, Any] | None
    match: dict[str, Any]
    notes: list[dict[str, Any]]
    about: dict[str, Any]
    subject: dict[str, Any]
    left_out: list[dict[str, str]] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        return self.fault is None


def compare(folder: Path, k: int, turned: bool = False) -> Compared:
    """Judge one subject; `turned` as in `Evidence`."""
    seen = Evidence(folder, k, turned)
    fault: dict[str, Any] | None = None
    if seen.raised:
        fault = {
            "rung": "layers",
            "layer": ROOT,
            "where": "raised",
            "tensor": "",
            "text": seen.raised,
            "after": "",
            "before": "",
            "error": None,
            "floor": None,
            "allowed": None,
            "measure": "",
            "hints": [],
        }
        verdict = Verdict("layers", FAIL, gate_of("layers"))
        verdict.findings = [Finding("raised", PORT, "", np.inf, 0, 0, seen.raised)]
        return Compared([verdict], [], fault, {}, [], seen.about, seen.subject)
    verdicts: list[Verdict] = []
    layers: list[dict[str, Any]] = []
    whole, unfit_layers = _floored(seen, "layers", *seen.passes("layers"))
    excused = _excused(whole, *seen.passes("layers"))
    unchecked: dict[str, list[str]] = {}  # of an excused layer
    for name in seen.rungs():
        truth, port, own = seen.passes(name)
        if name == "weights":
            verdict = weights_verdict(seen, truth, port, own)
        elif name == "resume":
            verdict = _resume(seen, port)
        else:
            verdict = whole if name == "layers" else _floored(seen, name, truth, port, own)[0]
        if name == "layers":
            layers = _listed(seen, verdict, unfit_layers, excused)
        kept = []
        for f in verdict.findings:
            path, what = _checked(name, f.name, excused)
            if not f.failed or path not in excused:
                kept.append(f)
            elif what and what not in unchecked.setdefault(path, []):
                unchecked[path].append(what)
        verdict.findings = kept
        failed = any(f.failed and not bare(f.name).startswith("into/") for f in verdict.findings)
        verdict.verdict = FAIL if failed else PASS
        verdicts.append(verdict)
        if failed and fault is None:
            fault = first_fault(seen, verdict, truth, port, own)
        # What a layer was given is evidence for the place of a fault, not a check of its own.
        verdict.findings = [
            dataclasses.replace(f, name=shown(f.name))
            for f in verdict.findings
            if not bare(f.name).startswith("into/")
        ]
    for row in layers:
        if others := unchecked.get(row["layer"]):
            row["why"] = why("unchecked", first=row["why"], what=", ".join(others))
        row["reason"] = told(row["why"]).en if row["why"] else ""
    left = [
        {"side": side, "name": n, "reason": told(r).en, "why": r}
        for side, key in (("reference", "left_reference"), ("port", "left_subject"))
        for n, (_, r) in seen.subject["match"][key].items()
    ]
    notes = notes_of(seen, unchecked, fault is not None)
    return Compared(
        verdicts, layers, fault, seen.subject["match"], notes, seen.about, seen.subject, left
    )


def _checked(rung: str, tensor: str, excused: Mapping[str, str]) -> tuple[str, str]:
    """The layer that a tensor belongs to, and the words for its check if it has no counterpart."""
    kind = bare(tensor).partition("/")[0]
    if rung == "layers":
        if kind == "faint":
            return base_of(tensor), "faint inputs, which alone show a small eps"
        if tensor.startswith(TRAINING + "fed/"):
            return base_of(tensor), "training mode"
        behind = excused.get(base_of(tensor), "").startswith(f"free/{OUTPUT}")
        return base_of(tensor), "the layer by itself" if kind == "fed" and behind else ""
    if rung == "operators":
        return tensor.removeprefix("faint/").rpartition("/")[0], "its operator"
    if rung == "gradients" and kind == "act":
        return base_of(tensor), "the gradient of its output"
    return "", ""


def _resume(seen: Evidence, port: Rung) -> Verdict:
    """A restored network against one that went on, within the floor of lockstep.

    Not bit by bit: Jittor fuses operators by what is pending, so a fresh start may round otherwise.
    """
    straight = {n.partition("/")[2]: a for n, a in port.arrays.items() if n[:8] == "straight"}
    resumed = {n.partition("/")[2]: a for n, a in port.arrays.items() if n[:7] == "resumed"}
    own = [trace.rung("lockstep") for trace in seen.own]
    names = [n for n in straight if n in own[0].arrays]
    cut = [Rung({n: rung.arrays[n] for n in names}) for rung in own]
    panels = {
        PORT: Passes(Rung({n: resumed[n] for n in names}, {}, port.seconds)),
        "reference": Passes(cut[0], cut[1:]),
    }
    truth = Rung({n: straight[n] for n in names})
    verdict = judge.judge("lockstep", truth, panels, only=PORT)
    verdict.rung = "resume"
    return verdict


def _floored(
    seen: Evidence, name: str, truth: Rung, port: Rung, own: Sequence[Rung]
) -> tuple[Verdict, dict[str, Why]]:
    """A rung against its floor, and the tensors whose shapes cannot be laid over each other."""
    fitted: dict[str, Array] = {}
    unfit: dict[str, Why] = {}
    outputs: list[Finding] = []
    for tensor, b in truth.arrays.items():
        a = port.arrays.get(tensor)
        if a is None or tensor.startswith("in/"):
            continue
        laid = fit(a, b.shape)
        output = base_of(tensor) == OUTPUT
        shapes = why("shapes", shape=a.shape, other=b.shape)
        reason: Reason = "shape" if laid is None else "layout"
        if laid is None:
            unfit[tensor] = shapes
        elif output and (a.shape or (1,)) != (b.shape or (1,)) and not seen.turned:
            unfit[tensor] = why("layout", shapes=shapes, name=SHOWN_OUTPUT)
        else:
            fitted[tensor] = laid
            continue
        if output:
            outputs.append(without(tensor, unfit[tensor], reason, "shape"))
    arrays = {n: b for n, b in truth.arrays.items() if n in fitted}
    panels = {PORT: Passes(Rung(fitted, {}, port.seconds)), "reference": Passes(own[0], own[1:])}
    gate = f"port {name}" if f"port {name}" in tolerances().rungs else name
    verdict = judge.judge(name, Rung(arrays), panels, only=PORT, gate=gate)
    verdict.findings = widened(name, verdict.findings, truth, seen.weights, seen.about)
    for tensor in truth.arrays:
        # A graph has no training mode.
        climbed = tensor.startswith("free/") or f"{TRAINING}free/{OUTPUT}" in port.arrays
        if base_of(tensor) == OUTPUT and climbed and tensor not in port.arrays:
            verdict.findings.append(without(tensor, why("missing"), measure="shape"))
    verdict.findings += outputs
    for fact, text in port.facts.items():
        if fact.startswith("raised/"):
            # It may want another form of the reference's arrays: not a fault by itself.
            unfit[fact.removeprefix("raised/")] = why("raises", text=text)
    return verdict, unfit


def _excused(verdict: Verdict, truth: Rung, port: Rung, own: Sequence[Rung]) -> dict[str, str]:
    """Layers that give what the reference has further on: path -> that tensor."""
    found: dict[str, str] = {}
    names = list(truth.arrays)
    agree = [
        f.name
        for f in verdict.findings
        if not f.failed and f.name.partition("~")[0] == f"free/{OUTPUT}"
    ]

    def agrees(got: Array | None, other: str) -> bool:
        """True if there is nothing to compare, or if it is the reference's tensor."""
        if got is None or other not in truth.arrays:
            return True
        b = truth.arrays[other]
        laid = fit(got, b.shape)
        if laid is None:
            return False
        panels = {PORT: Passes(Rung({other: laid})), "reference": Passes(own[0], own[1:])}
        return not judge.judge("layers", Rung({other: b}), panels, only=PORT).first_failure

    for finding in verdict.findings:
        path = base_of(finding.name)
        if not finding.failed or not finding.name.startswith("free/") or path == OUTPUT:
            continue
        # The last layer, where a graph hides its last value behind the network's output.
        b = truth.arrays[finding.name]
        whole = next((n for n in agree if np.array_equal(b, truth.arrays[n])), None)
        if whole:
            found[path] = whole
            continue
        got = port.arrays[finding.name]
        later = names[names.index(finding.name) + 1 :]
        earlier = names[: names.index(finding.name)]
        before = [
            truth.arrays[n]
            for n in earlier
            if n.startswith(("free/", "into/")) and truth.arrays[n].shape == got.shape
        ]
        for other in later:
            if not other.startswith(("free/", "into/")):
                continue
            b = truth.arrays[other]
            if any(np.array_equal(b, e) for e in before if e.shape == b.shape):
                continue
            if (
                agrees(got, other)
                and agrees(port.arrays.get(f"fed/{finding.name[5:]}"), other)
                and agrees(port.arrays.get(TRAINING + finding.name), TRAINING + other)
            ):
                found[path] = other
                break
    return found


def _listed(
    seen: Evidence, verdict: Verdict, unfit: Mapping[str, Why], excused: Mapping[str, str]
) -> list[dict[str, Any]]:
    """The layers in the order of calls, each with its worst error over its floor by mode."""
    rows: dict[str, dict[str, Any]] = {}
    for path in [*seen.order, OUTPUT]:
        call = seen.calls.get(path, {})
        base = path.partition("#")[0]
        rows[path] = {
            "layer": path if path != OUTPUT else SHOWN_OUTPUT,
            "port": seen.subject["layers"].get(base, ""),
            "kind": call.get("kind", SHOWN_OUTPUT),
            "modes": {},
            "verdict": "",
            "source": call.get("source", ""),
            "why": None,
        }
    for f in verdict.findings:
        row = rows.get(base_of(f.name))
        mode = f.name.rpartition("/" + base_of(f.name))[0] or f.name
        if row is None or bare(f.name).startswith(("into/", "buffer/")):
            continue
        kept = row["modes"].get(mode)
        if kept is None or f.ratio > kept["ratio"]:
            finite = f.error if np.isfinite(f.error) else None
            row["modes"][mode] = {
                "error": finite,
                "floor": f.floor,
                "gate": f.gate,
                "ratio": min(f.ratio, 1e30),
                "failed": f.failed,
            }
    for path, row in rows.items():
        modes = row["modes"]
        if path in excused:
            row["verdict"], row["why"] = "cut elsewhere", why("gives", tensor=shown(excused[path]))
        elif any(m["failed"] for m in modes.values()):
            row["verdict"] = FAIL
        elif modes:
            row["verdict"] = PASS
        else:
            row["verdict"] = "not compared"
            other = why("not_called" if row["port"] else "no_layer")
            row["why"] = next((w for n, w in unfit.items() if base_of(n) == path), other)
    return list(rows.values())
