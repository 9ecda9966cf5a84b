"""One side of a port's ladder in a process of its own: `python -m ...ports.worker JOB.json`.

The reference describes itself, makes inputs, and traces its passes (float64, float32, nudged).
The subject waits for these files, matches names, takes over the weights, and traces one pass. A
job may hold several subjects and seeds; each is built anew.

    FOLDER/seed-S/inputs.safetensors, weights.safetensors, reference.json    what subjects need
    FOLDER/seed-S/reference-{float64,float32,nudge-1,nudge-2}/               traces
    FOLDER/seed-S/subject-K/ trace, subject.json
"""

from __future__ import annotations

import dataclasses
import json
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

from diptych.align.ladder.trace import Tracer
from diptych.align.ports import graph_sides, graphs
from diptych.align.ports.describe import (
    calls_of,
    entries,
    feeds_of,
    inputs_of,
    layer,
    orders_of,
    progress,
    save_arrays,
    worked,
)
from diptych.align.ports.layers import match_layers
from diptych.align.ports.matching import Entry, Given, match
from diptych.align.ports.passes import Pass
from diptych.align.ports.plan import FORWARD, RUNGS, UNTRAINED, Names, Plan
from diptych.align.ports.reasons import why
from diptych.align.ports.repeats import check_repeatable
from diptych.align.ports.targets import MODULES, Target, raised
from diptych.align.process.lines import say
from diptych.errors import MachineError, UserError, show_notices
from diptych.files import read_json, write_json
from diptych.machine.parent import end_with_parent
from diptych.types import Array


class Side:
    """The work of both sides: make a network, describe its calls."""

    def __init__(self, job: dict[str, Any]) -> None:
        self.job = job
        self.targets = [Target(**t) for t in job["targets"]]
        self.folder = Path(job["folder"])
        self.framework: Any = None
        self.usual: list[str] | None = None
        if self.targets[0].framework in MODULES:
            from diptych.align.ports.framework import Framework

            self.framework = Framework(self.targets[0].framework)

    def network(self, target: Target, seed: int, wide: bool = False) -> Any:
        """The user's network, or graph."""
        if self.framework is not None:
            from diptych.align.ports.modules import Network

            made = Network(self.framework, target, seed, wide)
            made.usual = self.usual
            return made
        return graphs.MODELS[target.framework](target, seed, wide)


def reference(job: dict[str, Any]) -> None:
    """Describe and trace the reference for every seed."""
    side = Side(job)
    for seed in job["seeds"]:
        folder = side.folder / f"seed-{seed}"
        folder.mkdir(parents=True, exist_ok=True)
        if side.framework is None:
            graph_sides.graph_reference(side, folder, seed)
        else:
            module_reference(side, folder, seed)
        say(done=str(folder / "reference"))


def module_reference(side: Side, folder: Path, seed: int) -> None:
    """A reference of modules: PyTorch also in float64."""
    job, target = side.job, side.targets[0]
    network = side.network(target, seed)
    inputs = inputs_of(job, network.file, seed, target.text)
    weights = network.weights()
    if job["perturb"]:
        weights = worked(weights, seed)
    network.load(weights)
    taken = network.taken(inputs)
    check_repeatable(network, inputs, "loss" in job["rungs"])
    parameters = network.parameters()
    about = calls_of(network, inputs)
    calls = about["calls"]
    buffers = [n for n in weights if n not in parameters]
    plan = Plan(parameters=parameters, buffers=[n for n in buffers if weights[n].dtype.kind == "f"])
    plan.buffered = sorted({n.rpartition(".")[0] for n in plan.buffers})
    held: dict[str, list[int]] = {}
    for n in parameters:
        held.setdefault(n.rpartition(".")[0], []).append(weights[n].ndim)
    plan.faint = [
        p
        for p in orders_of(calls)
        if "norm" in calls[p]["kind"].lower() or (p in held and max(held[p]) == 1)
    ]
    kinds: dict[str, str] = {}
    for path, each in calls.items():
        if "#" not in path and each["leaf"] and each["kind"] not in ("Identity", "Dropout"):
            kinds.setdefault(json.dumps([each["kind"], each["settings"]], default=str), path)
    plan.operators = {path: calls[path]["kind"] for path in kinds.values()}
    plan.training = changes(network, inputs, weights)
    network.load(weights)
    save_arrays(weights, folder / "weights.safetensors")
    save_arrays(inputs, folder / "inputs.safetensors")
    tied = network.aliases
    own = {name: network.own(name) is not None for name in ("optimizer", "loss")}
    rows = [
        dataclasses.asdict(e)
        for e in entries(weights, parameters, tied, orders_of(calls), feeds_of(calls))
    ]
    names = Names()
    whole = [r for r in RUNGS if r in job["rungs"] and (parameters or r in UNTRAINED)]
    rungs = [r for r in whole if r != "resume"]
    wide = folder / "reference-float64"
    truth = "float64"
    note = ""
    if target.framework == "torch":
        try:
            trace(side, target, seed, weights, inputs, names, plan, wide, None, rungs, wide=True)
        except Exception as error:
            note = " ".join(str(error).split())[:200]
    if target.framework != "torch" or note:
        truth = "float32"
        trace(side, target, seed, weights, inputs, names, plan, wide, None, rungs)
    facts = {
        "framework": target.framework,
        "version": side.framework.version,
        **about,
        "plan": dataclasses.asdict(plan),
        "entries": rows,
        "inputs": list(inputs),
        "taken": taken,
        "tied": tied,
        "own": own,
        "optimizer": network.optimizer_about() if parameters else {},
        "dropouts": network.dropouts,
        "stopped": network.stopped,
        "truth": truth,
        "note": note,
        "order": list(weights),
        "rungs": whole,
    }
    write_json(folder / "reference.json", facts)  # subjects may start now
    for nudge, name in ((0, "float32"), (1, "nudge-1"), (2, "nudge-2")):
        trace(
            side,
            target,
            seed,
            weights,
            inputs,
            names,
            plan,
            folder / f"reference-{name}",
            wide,
            rungs,
            nudge=nudge,
        )


def changes(network: Any, inputs: Mapping[str, Array], weights: Mapping[str, Array]) -> bool:
    """True if training mode changes what the network computes, dropout apart."""
    rows = []
    for on in (False, True):
        network.load(weights)
        network.train(on)
        with network.still():
            outputs = network.output(inputs)
        rows.append([network.framework.read(o) for o in outputs])
    network.train(False)
    return any(not np.array_equal(a, b, equal_nan=True) for a, b in zip(*rows, strict=True))


def trace(
    side: Side,
    target: Target,
    seed: int,
    weights: Mapping[str, Array],
    inputs: Mapping[str, Array],
    names: Names,
    plan: Plan,
    out: Path,
    feed: Path | None,
    rungs: Sequence[str],
    nudge: int = 0,
    wide: bool = False,
) -> None:
    """One pass into one trace folder."""
    label = out.name if out.name.startswith("reference") else "subject"
    with Tracer(out, label, framework=target.framework) as tracer:
        each = Pass(
            lambda: side.network(target, seed, wide),
            weights,
            inputs,
            names,
            plan,
            tracer,
            feed,
            nudge,
            side.job["steps"],
            progress(label, nudge),
        )
        each.run(rungs)


def subject(job: dict[str, Any]) -> None:
    """Match and trace every subject for every seed."""
    side = Side(job)
    given = Given(**job["given"])
    for seed in job["seeds"]:
        folder = side.folder / f"seed-{seed}"
        waited(folder / "reference.json")
        about = read_json(folder / "reference.json")
        weights = load_file(folder / "weights.safetensors")
        weights = {n: weights[n] for n in about["order"]}
        whole = load_file(folder / "inputs.safetensors")
        inputs = {n: whole[n] for n in about["inputs"]}
        for k, target in enumerate(side.targets):
            out = folder / f"subject-{k}"
            try:
                one_subject(side, target, seed, about, weights, inputs, given, out)
            except UserError:
                raise
            except (Exception, SystemExit) as error:
                traceback.print_exc()
                out.mkdir(parents=True, exist_ok=True)
                write_json(out / "subject.json", {"raised": raised(error)})
            say(done=str(out))


def waited(path: Path) -> None:
    """Wait for a file of the reference; whoever started us ends us if it never comes."""
    while not path.exists():
        time.sleep(0.02)


def one_subject(
    side: Side,
    target: Target,
    seed: int,
    about: dict[str, Any],
    weights: dict[str, Array],
    inputs: dict[str, Array],
    given: Given,
    out: Path,
) -> None:
    """Match one subject and trace it."""
    ours = [Entry(**{**e, "shape": tuple(e["shape"])}) for e in about["entries"]]
    layers = [layer(path, c) for path, c in about["calls"].items() if "#" not in path]
    without = {n: inputs[n] for n in about["taken"]}  # a loss's own inputs
    side.usual = about["taken"]
    if side.framework is None:
        facts = graph_sides.graph_subject(
            side, target, seed, about, weights, without, given, out, ours
        )
    else:
        network = side.network(target, seed)
        stopped = network.stopped
        inputs = inputs if network.own("loss") is not None else without
        network.way_of(inputs)
        check_repeatable(network, inputs, "loss" in about["rungs"])
        own = calls_of(network, inputs)
        parameters = network.parameters()
        rows = entries(
            network.weights(),
            parameters,
            network.aliases,
            orders_of(own["calls"]),
            feeds_of(own["calls"]),
        )
        found = match(ours, rows, given)
        theirs = [layer(path, c) for path, c in own["calls"].items() if "#" not in path]
        paths = match_layers(found.weights, layers, theirs, given.layers)
        facts = {
            "framework": target.framework,
            "match": dataclasses.asdict(found),
            "layers": paths,
            "calls": own["calls"],
            "outputs": own["outputs"],
            "tied": network.aliases,
            "stopped": stopped,
            "dropouts": network.dropouts,
            "parameters": parameters,
            "shapes": {e.name: list(e.shape) for e in rows},
            "version": side.framework.version,
            "own": {n: network.own(n) is not None for n in ("optimizer", "loss")},
        }
        asked, rungs = side.job["rungs"], list(about["rungs"])  # no others were traced
        trained = [n for n in about["plan"]["parameters"] if found.weights.get(n) in parameters]
        if about["framework"] not in MODULES:
            facts["left_out"] = why("no_gradients", framework=about["framework"])
        elif not trained and any(r not in UNTRAINED for r in asked):
            rungs = [r for r in rungs if r in UNTRAINED]
            key = "untrained_both" if about["plan"]["parameters"] else "untrained"
            left = ", ".join(r for r in asked if r not in UNTRAINED)
            facts["left_out"] = why(key, rungs=left)
        for name in ("optimizer", "loss"):
            if about["own"].get(name, False) != facts["own"][name] and len(rungs) > len(FORWARD):
                whose = "reference" if about["own"].get(name, False) else "port"
                rungs = [
                    r
                    for r in rungs
                    if r in FORWARD or (name == "optimizer" and r in ("loss", "gradients"))
                ]
                facts["left_out"] = why("one_has", whose=whose, name=name)
        plan = Plan(**about["plan"])
        names = Names(found.weights, paths, found.rules)
        trace(
            side,
            target,
            seed,
            weights,
            inputs,
            names,
            plan,
            out,
            out.parent / "reference-float64",
            rungs,
        )
        facts["rungs"] = rungs
    write_json(out / "subject.json", facts)


def main() -> int:
    """Run the process; return its exit code."""
    end_with_parent()
    show_notices()
    try:
        job = read_json(Path(sys.argv[1]))["spec"]
        (reference if job["role"] == "reference" else subject)(job)
    except (UserError, MachineError) as error:
        say(error=str(error), kind=type(error).__name__)
        return error.exit_code
    except (Exception, SystemExit) as error:
        traceback.print_exc()
        say(error=raised(error), kind="UserError")
        return UserError.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
