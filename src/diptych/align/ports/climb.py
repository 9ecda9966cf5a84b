"""`diptych align --subject`: a user's network, checkpoint or trace against a reference.

network      [torch:|jittor:]package.module:function   against   torch:PRESET or jittor:PRESET
checkpoint   a run, a checkpoint or a file of weights  against   another one, bit by bit
trace        a folder that `diptych.align.ladder.trace.Tracer` wrote, against another one
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from diptych.align.ladder import judge, results
from diptych.align.ladder.floors import Passes, gate_of
from diptych.align.ladder.judge import FAIL, Finding, Verdict
from diptych.align.ladder.trace import Rung, Trace, read_trace
from diptych.align.ports.evidence import PORT
from diptych.align.ports.names import matched, read_names, translate
from diptych.align.ports.rung import PLAIN
from diptych.align.ports.targets import found_module
from diptych.align.process.panels import REFERENCE
from diptych.align.process.workbench import Spec, find_images
from diptych.align.process.workers import Say, Subject, subjects
from diptych.backends import BACKENDS
from diptych.config.load import load_config
from diptych.errors import UserError, nearest
from diptych.files.scratch import scratch

RUNGS = ("weights", "layers", "loss", "gradients")
Result = tuple[dict[str, Any], str]


def compare_port(
    subject: str,
    reference: str,
    names: Path | None,
    takes: str,
    batch: int,
    overrides: Sequence[str],
    say: Say,
    keep: Path | None,
) -> Result:
    """Compare two of the same kind; return the result and the terminal's table.

    Raises:
        UserError: if their kinds differ, or one of them cannot be used.
    """
    began = time.perf_counter()
    mapped = read_names(names)
    kinds = [kind_of(text) for text in (subject, reference)]
    if "trace" in kinds:
        verdicts = _traces(subject, reference, kinds, mapped)
    elif "weights" in kinds:
        verdicts = _checkpoints(subject, reference, kinds, mapped)
    else:
        verdicts = _network(subject, reference, mapped, takes, batch, overrides, say, keep)
    return _result(verdicts, subject, reference, time.perf_counter() - began)


def kind_of(text: str) -> str:
    """The kind of a subject: `trace`, `weights` or `network`."""
    path = Path(text)
    if (path / "trace.json").is_file():
        return "trace"
    if path.exists() or text.startswith("zoo:"):
        return "weights"
    if ":" not in text:
        raise UserError(
            f"'{text}' is not there; give package.module:function, a checkpoint or a trace folder"
        )
    return "network"


def _result(verdicts: list[Verdict], subject: str, reference: str, seconds: float) -> Result:
    rungs = [results.rung_content(v, [PORT], False) for v in verdicts]
    failed = next((v for v in verdicts if v.verdict == FAIL), None)
    text = (
        f"first failure: rung '{failed.rung}', {results.describe(failed)}"
        if failed
        else f"all {len(verdicts)} rungs pass"
        if len(verdicts) > 1
        else f"the rung '{verdicts[0].rung}' passes"
    )
    first = failed.first_failure if failed else None
    content: dict[str, Any] = {
        "schema": results.SCHEMA, "kind": "align-port", "preset": reference, "subject": subject,
        "reference": reference, "backends": [PORT, reference.partition(":")[0]], "data": "",
        "passed": failed is None, "rungs": rungs, "mutations": [], "seconds": seconds,
        "first_failure": {"rung": failed.rung, **judge.as_json(first)} if failed and first
        else None, "conclusion": text,
    }  # fmt: skip
    return content, results.rung_table(rungs)


def _traces(subject: str, reference: str, kinds: list[str], names: dict[str, str]) -> list[Verdict]:
    if kinds != ["trace", "trace"]:
        other = subject if kinds[1] == "trace" else reference
        raise UserError(f"'{other}' is not a trace folder; compare a trace with a trace")
    ours, theirs = read_trace(Path(reference)), read_trace(Path(subject))
    verdicts = []
    for name in ours.listed:
        got = _renamed(theirs.rung(name), ours.rung(name), names)
        verdicts.append(judge.judge(name, ours.rung(name), {PORT: Passes(got)}, gate="trace"))
    if not verdicts:
        raise UserError(f"{reference}: the trace holds no rung; trace something first")
    return verdicts


def _renamed(got: Rung, truth: Rung, names: dict[str, str]) -> Rung:
    """The subject's rung under the reference's names, mapped at once: a map may swap two."""
    pairs = {name: translate(name, names) for name in truth.arrays}
    arrays = {n: got.arrays[theirs] for n, theirs in pairs.items() if theirs in got.arrays}
    used = {theirs for theirs in pairs.values() if theirs in got.arrays}
    for name, array in got.arrays.items():
        if name not in used:
            arrays[f"{name} (not mapped)" if name in arrays else name] = array
    return Rung(arrays, got.facts, got.seconds)


def _checkpoints(
    subject: str, reference: str, kinds: list[str], names: dict[str, str]
) -> list[Verdict]:
    if kinds != ["weights", "weights"]:
        raise UserError(
            "a checkpoint is compared with a checkpoint; give both --subject and --reference so"
        )
    ours, theirs = (weights_of(text) for text in (reference, subject))
    wanted = {name: array.shape for name, array in ours.items()}
    pairs = matched(wanted, {n: a.shape for n, a in theirs.items()}, names, subject)
    got = Rung({name: theirs[pairs[name]] for name in ours})
    return [judge.judge("weights", Rung(dict(ours)), {PORT: Passes(got)})]


def weights_of(text: str) -> dict[str, Any]:
    """The weights of a run, a checkpoint or a file."""
    if Path(text).is_file():
        from diptych.weights.formats import load_weights

        return dict(load_weights(Path(text)).weights)
    from diptych.weights.find import find_weights

    return dict(find_weights(text).weights)


def framework_of(target: str) -> tuple[str, str]:
    """(framework, package.module:function): from the prefix, or from the module's imports."""
    head, _, rest = target.partition(":")
    if head in BACKENDS and ":" in rest:
        return head, rest
    found = found_module(head)
    if found is None or not found.origin:
        raise UserError(
            f"--subject {target}: module '{head}' is not found; run from the folder that holds "
            f"it, or set PYTHONPATH"
        )
    text = Path(found.origin).read_text("utf-8", errors="replace")
    return ("jittor" if re.search(r"^\s*(import|from)\s+jittor", text, re.M) else "torch"), target


def _network(
    subject: str,
    reference: str,
    names: dict[str, str],
    takes: str,
    batch: int,
    overrides: Sequence[str],
    say: Say,
    keep: Path | None,
) -> list[Verdict]:
    panel, _, preset = reference.partition(":")
    if panel not in BACKENDS:
        raise UserError(
            f"--reference {reference}: '{panel}' is not a backend{nearest(panel, list(BACKENDS))}; "
            f"for example torch:cifar10"
        )
    framework, target = framework_of(subject)
    config = load_config(preset, [*overrides, "model.dropout=0.0", "train.noise=host"])
    if config.model.num_classes:
        raise UserError(
            f"--reference {reference}: takes classes, but a port is given none here; compare the "
            f"network without them: --set model.num_classes=0"
        )
    find_images(config)

    def spec(name: str, port: dict[str, Any], feed: str | None) -> Spec:
        return Spec(name, config.model_dump(mode="json"), RUNGS, 1, batch, "cpu", feed, port)

    def job(out: Path, nudge: int = 0) -> dict[str, Any]:
        return {"out": str(out), "nudge": nudge, "mutation": None, "rungs": list(RUNGS)}

    with scratch("align", keep) as folder:
        with subjects() as running:
            truth = job(folder / REFERENCE)
            running.append(Subject(spec(REFERENCE, {"role": "ours"}, None), [truth], folder, say))
            running[0].wait()
            ours = [job(folder / f"panel-{k}", k) for k in range(3)]
            theirs = job(folder / PORT)
            port = {"role": PORT, "target": target, "takes": takes, "names": names}
            (folder / "panel").mkdir(exist_ok=True)
            running.append(
                Subject(spec(panel, {"role": "ours"}, truth["out"]), ours, folder / "panel", say)
            )
            running.append(Subject(spec(framework, port, truth["out"]), [theirs], folder, say))
            for each in reversed(running):
                each.wait()
        rows = [read_trace(Path(j["out"])) for j in (truth, theirs, *ours)]
        return [_judged(name, *rows) for name in RUNGS]


def _judged(name: str, truth: Trace, port: Trace, *ours: Trace) -> Verdict:
    """Judge a rung of the port against the truth, with the backend's floor."""
    right, got = truth.rung(name), port.rung(name)
    own = [trace.rung(name) for trace in ours]
    if name != "layers":
        panels = {PORT: Passes(got), "panel": Passes(own[0], own[1:])}
        return judge.judge(name, right, panels, only=(PORT,))
    verdict = Verdict(name, judge.PASS, gate_of(name), seconds=got.seconds)
    for tensor in got.arrays:
        verdict.findings += _nearest(name, tensor, right, got, own)
    if any(f.failed for f in verdict.findings):
        verdict.verdict = FAIL
    return verdict


def _nearest(name: str, tensor: str, right: Rung, got: Rung, own: list[Rung]) -> list[Finding]:
    """The finding on a layer, for the nearer of the reference's two outputs; empty if the
    reference has no such layer."""
    found = []
    for chosen in dict.fromkeys((tensor, tensor.removesuffix(PLAIN), tensor + PLAIN)):
        if chosen in right.arrays:
            cut = [Rung({tensor: rung.arrays[chosen]}) for rung in (right, *own)]
            passes = {PORT: Passes(Rung({tensor: got.arrays[tensor]})),
                      "panel": Passes(cut[1], cut[2:])}  # fmt: skip
            found += judge.judge(name, cut[0], passes, only=(PORT,)).findings
    return sorted(found, key=lambda f: (bool(f.text), f.ratio))[:1]
