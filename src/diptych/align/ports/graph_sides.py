"""Both sides of a port's ladder for networks without modules: weights, and values in one run."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from diptych.align.ladder.nudges import nudged
from diptych.align.ladder.trace import Tracer
from diptych.align.ports import graphs
from diptych.align.ports.arrays import fit, narrow, nudge_number, refuse_nan, suffix
from diptych.align.ports.describe import entries, inputs_of, save_arrays, worked
from diptych.align.ports.folds import Folds, find_folds
from diptych.align.ports.layers import check_layers
from diptych.align.ports.layouts import RULES, Rule, moved_back, moved_over, relaid
from diptych.align.ports.matching import BY_ORDER, Entry, Given, Match, match
from diptych.align.ports.plan import OUTPUT, Plan
from diptych.align.ports.reasons import why
from diptych.align.ports.targets import Target
from diptych.align.process.lines import say
from diptych.files import write_json
from diptych.types import Array

TRACED = ("weights", "layers")  # the rungs of a side without modules


def graph_reference(side: Any, folder: Path, seed: int) -> None:
    """A reference of NumPy (in float64 too), ONNX or OpenVINO: forward only."""
    job, target = side.job, side.targets[0]
    model = side.network(target, seed)
    file = getattr(model, "file", None)
    inputs = inputs_of(job, file, seed, target.text)
    weights = model.weights()
    if model.movable and job["perturb"]:
        weights = worked({n: narrow(a) for n, a in weights.items()}, seed)
        model.load(weights)
    outputs, values = model.run(inputs)
    for array in outputs:
        refuse_nan(array, "output")
    save_arrays(weights, folder / "weights.safetensors")
    save_arrays(inputs, folder / "inputs.safetensors")
    calls = {
        n: {
            "kind": "",
            "order": i,
            "shapes": [list(a.shape)],
            "settings": {},
            "source": "",
            "leaf": True,
        }
        for i, (n, a) in enumerate(values)
    }
    wide = target.framework == "numpy"
    for nudge, name in ((0, "float64"), (0, "float32"), (1, "nudge-1"), (2, "nudge-2")):
        again = side.network(target, seed, wide and name == "float64")
        graph_trace(
            again,
            weights,
            inputs,
            {n: n for n in weights},
            {n: n for n in calls},
            {},
            folder / f"reference-{name}",
            "reference",
            nudge,
        )
    rows = [dataclasses.asdict(e) for e in entries(weights, list(weights), {}, {})]
    facts = {
        "framework": target.framework,
        "version": model.version,
        "calls": calls,
        "outputs": [list(o.shape) for o in outputs],
        "plan": dataclasses.asdict(Plan()),
        "entries": rows,
        "inputs": list(inputs),
        "taken": list(inputs),
        "tied": {},
        "own": {},
        "dropouts": 0,
        "stopped": [],
        "truth": "float64" if wide else "float32",
        "note": "",
        "order": list(weights),
        "rungs": list(TRACED),
    }
    write_json(folder / "reference.json", facts)


def graph_trace(
    model: Any,
    weights: Mapping[str, Array],
    inputs: Mapping[str, Array],
    pairs: Mapping[str, str],
    paths: Mapping[str, str],
    rules: Mapping[str, Rule],
    out: Path,
    label: str,
    nudge: int = 0,
) -> None:
    """Weights and free-running layers of a network without modules."""
    with Tracer(out, label) as tracer:
        began = time.perf_counter()
        if model.movable:
            moved = {n: nudged(a, nudge, nudge_number(f"w/{n}")) for n, a in weights.items()}
            load(model, moved, pairs, rules)
        held = model.weights()
        tracer.begin("weights")
        for name in weights:
            if name in pairs:
                own = moved_back(np.asarray(held[pairs[name]]), rules.get(name))
                own = own.reshape(weights[name].shape)  # a graph stores (1, C, 1, 1) for (C,)
                tracer.add("weights", name, narrow(own))
        say(rung="weights", panel=label, nudge=nudge, mutation=None, seconds=0.0)
        tracer.begin("layers")
        moved = {n: nudged(a, nudge, nudge_number(f"x/{n}")) for n, a in inputs.items()}
        outputs, values = model.run(moved)
        found = dict(values)
        for path, theirs in paths.items():
            if theirs in found:
                tracer.add("layers", f"free/{path}", found[theirs])
        for i, array in enumerate(outputs):
            tracer.add("layers", f"free/{OUTPUT}{suffix(i)}", array)
        seconds = time.perf_counter() - began
        tracer.timed(seconds)
        say(rung="layers", panel=label, nudge=nudge, mutation=None, seconds=seconds)


def graph_subject(
    side: Any,
    target: Target,
    seed: int,
    about: dict[str, Any],
    weights: dict[str, Array],
    inputs: dict[str, Array],
    given: Given,
    out: Path,
    ours: list[Entry],
) -> dict[str, Any]:
    """A subject of NumPy, ONNX or OpenVINO."""
    model = side.network(target, seed)
    held = model.weights()
    rows = entries(held, list(held), {}, {})
    folds = Folds() if model.movable else find_folds(ours, weights, held, about["calls"])
    if not folds.ours.isdisjoint(given.weights):
        folds = Folds()
    found: Match = match(
        [e for e in ours if e.name not in folds.ours],
        [e for e in rows if e.name not in folds.pairs.values()],
        given,
    )
    if model.movable:
        load(model, weights, found.weights, found.rules)
    else:
        unpair_numbers(found, weights, held)
        guessed = unpair_guesses(found, weights, held)
        by_turn(found, weights, held)
        for name, (other, how) in guessed.items():
            if name in found.left_reference and other in found.left_subject:
                found.weights[name], found.how[name] = other, how
                del found.left_reference[name], found.left_subject[other]
    _, values = model.run(inputs)
    calls = about["calls"]
    check_layers(given.layers, [p for p in calls if "#" not in p], [n for n, _ in values])
    shapes = {p: tuple(c["shapes"][0]) for p, c in calls.items() if c["shapes"]}

    def fits(path: str, array: Array) -> bool:
        return path in shapes and fit(array, shapes[path]) is not None

    paths = graphs.layers_of(
        values,
        model.layer_weights(),
        found.weights | folds.pairs,
        [p for p in calls if "#" not in p],
        given.layers,
        fits,
        model.scopes() if hasattr(model, "scopes") else {},
    )
    for norm, before in folds.norms.items():
        if before in paths:
            paths.setdefault(norm, paths.pop(before))
    graph_trace(model, weights, inputs, found.weights, paths, found.rules, out, "subject")
    return {
        "framework": target.framework,
        "match": dataclasses.asdict(found),
        "layers": paths,
        "calls": {
            n: {
                "kind": "",
                "order": i,
                "leaf": True,
                "shapes": [list(a.shape)],
                "settings": {},
                "source": "",
            }
            for i, (n, a) in enumerate(values)
        },
        "folded": folds.norms,
        "misfolded": folds.wrong,
        "outputs": [],
        "tied": {},
        "stopped": [],
        "dropouts": 0,
        "parameters": [],
        "version": model.version,
        "own": {},
        "rungs": list(TRACED),
        "left_out": why("forward_only", framework=target.framework),
    }


def load(
    model: Any, weights: Mapping[str, Array], pairs: Mapping[str, str], rules: Mapping[str, Rule]
) -> None:
    """Put the reference's weights into a model, in its layout."""
    held = model.weights()
    model.load(
        {
            pairs[n]: relaid(moved_over(a, rules.get(n)), held[pairs[n]].shape)
            for n, a in weights.items()
            if n in pairs
        }
    )


def unpair_numbers(found: Match, weights: Mapping[str, Array], held: Mapping[str, Array]) -> None:
    """Part single numbers that were paired by their order but differ in value.

    A graph holds constants of its code (an eps, a scale) besides its weights. Those that are left
    over are not listed: they are no weights.
    """
    for name, other in list(found.weights.items()):
        a, b = weights[name], held[other]
        if a.size == b.size == 1 and a.item() != b.item() and found.how[name] in BY_ORDER:
            found.left_reference[name] = "value", why("no_value")
            del found.weights[name], found.how[name]
    for other in list(found.left_subject):
        if held[other].size == 1:
            del found.left_subject[other]


def unpair_guesses(
    found: Match, weights: Mapping[str, Array], held: Mapping[str, Array]
) -> dict[str, tuple[str, str]]:
    """Part what was paired by its order but differs: the same values may be there, turned."""
    guessed = {}
    for name, other in list(found.weights.items()):
        equal = np.array_equal(weights[name].ravel(), held[other].ravel())
        if found.how[name] in BY_ORDER and name not in found.rules and not equal:
            guessed[name] = other, found.how.pop(name)
            del found.weights[name]
            shape = list(weights[name].shape)
            found.left_reference[name] = "", why("no_shape", whose="port", shape=shape)
            found.left_subject[other] = "", why("no_shape", whose="reference", shape=shape)
    return guessed


def by_turn(found: Match, weights: Mapping[str, Array], held: Mapping[str, Array]) -> None:
    """Pair what a graph holds in another layout or shape with the very same values."""
    for name in list(found.left_reference):
        array = weights[name]
        for other, theirs in held.items():  # exporters store equal arrays once
            rule = next(
                (
                    r
                    for r, axes in RULES.items()
                    if len(axes) == array.ndim and np.array_equal(array.transpose(axes), theirs)
                ),
                None,
            )
            same = theirs.size == array.size and np.array_equal(theirs.ravel(), array.ravel())
            if not rule and not same:
                continue
            found.weights[name], found.how[name] = other, "values"
            if rule and not (same and theirs.shape == array.shape):
                found.rules[name] = rule
            del found.left_reference[name]
            found.left_subject.pop(other, None)
            break
