"""The network layer by layer, in two modes.

    free/PATH   the output of a module in one forward pass: holds all error up to there
    fed/PATH    its output when it is fed the reference's own inputs: holds its error alone
    faint/PATH  the same for inputs a hundredth as large, which show a norm's eps
    other ...   the network's output with another norm eps or groups, resampling or dropout

A module that is wrong by itself fails in `fed`; if only `free` fails, the modules are right but
connected wrongly. A module is fed if all its arguments are arrays. Masks are left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from diptych.align.process.workbench import Workbench
from diptych.diffusion.classes import class_rows
from diptych.network.embedding import time_embedding
from diptych.network.plan import make_plan
from diptych.types import Array

FAINT = np.float32(0.01)
LEAVES = ("conv", "norm", "dense", "q", "k", "v", "proj", "temb_proj", "nin")


def trace_layers(bench: Workbench) -> None:
    """Trace free-running activations, each module on the reference's inputs, and other settings."""
    panel = bench.panel
    network = panel.backend.network(bench.plan, bench.weights)
    if panel.only_predicts:  # its layers are its own
        x, embedding = inputs(bench)
        output = panel.compute(network, panel.put(x), panel.put(embedding), *told(bench))
        bench.add("free/output", panel.read(output))
        add_others(bench, x, embedding)
        return
    calls: dict[str, list[Any]] = {}

    def seen(path: str, arguments: Sequence[Any], result: Any) -> None:
        if is_array(result):
            bench.add(f"free/{path}", panel.read(result))
            calls.setdefault(path, list(arguments))

    x, embedding = inputs(bench)
    with panel.watch(network, seen), panel.no_grad():
        output = panel.compute(network, panel.put(x), panel.put(embedding), *told(bench))
    bench.add("free/output", panel.read(output))
    fed = {path: a for path, a in calls.items() if all(x is None or is_array(x) for x in a)}
    given = recorded(bench, fed) if bench.spec.feed is None else bench.feed("layers")
    feed(bench, network, given)
    add_others(bench, x, embedding)


def add_others(bench: Workbench, x: Array, embedding: Array) -> None:
    """Add the outputs of networks that differ from the config's in one setting."""
    model = bench.config.model
    changes: dict[str, dict[str, Any]] = {
        "other eps of norms": {"model__norm_eps": 1e-2 if model.norm_eps != 1e-2 else 1e-3},
        "other groups of norms": {"model__norm_groups": 8 if model.norm_groups != 8 else 4},
        "other resampling": {"model__resamp_with_conv": not model.resamp_with_conv},
        "another dropout": {"model__dropout": 0.0 if model.dropout else 0.25},
    }
    panel = bench.panel
    for name, change in changes.items():
        plan = make_plan(bench.settings(**change))
        network = panel.backend.network(plan, bench.weights_for(plan))
        with panel.no_grad():
            output = panel.compute(network, panel.put(x), panel.put(embedding), *told(bench))
        bench.add(f"{name}/output", panel.read(output))


def inputs(bench: Workbench) -> tuple[Array, Array]:
    """Noise images, and the embeddings of timesteps over the whole range."""
    batch = bench.spec.batch
    last = bench.config.diffusion.timesteps - 1
    t = np.linspace(0, last, batch).astype(np.int64)
    x = bench.normal("layers", (batch, *bench.plan.shape))
    return x, time_embedding(t, bench.plan.ch)


def told(bench: Workbench) -> tuple[Any, ...]:
    """Further network arguments: no masks and each image's class in turn, 'no class' included.

    Empty for a network without classes.
    """
    classes = bench.plan.num_classes
    if not classes:
        return ()
    labels = np.arange(bench.spec.batch) % (classes + 1)
    return None, bench.panel.put(class_rows(labels[::-1], classes))


def recorded(bench: Workbench, calls: dict[str, list[Any]]) -> dict[str, Array]:
    """The reference's inputs of each module, rounded to float32 and recorded as `in/PATH/i`."""
    found = {}
    for path, arguments in calls.items():
        for i, value in enumerate(arguments):
            if value is not None:
                found[f"in/{path}/{i}"] = bench.panel.read(value).astype(np.float32)
    for name, array in found.items():
        bench.add(name, array)
    return found


def feed(bench: Workbench, network: Any, given: dict[str, Array]) -> None:
    """Run each module by itself on the given inputs."""
    modules = bench.panel.modules(network)
    grouped: dict[str, dict[int, Array]] = {}
    for name, array in given.items():
        path, _, i = name.removeprefix("in/").rpartition("/")
        grouped.setdefault(path, {})[int(i)] = array
    for path, arguments in grouped.items():
        if path in modules:
            bench.add(f"fed/{path}", call(bench, modules[path], path, arguments))
            if path.rpartition(".")[2].startswith(LEAVES):
                faint = {i: FAINT * a for i, a in arguments.items()}
                bench.add(f"faint/{path}", call(bench, modules[path], path, faint))


def call(bench: Workbench, module: Any, path: str, arguments: dict[int, Array]) -> Array:
    """One module's output on host arrays; missing arguments are None."""
    row: list[Any] = [None] * (max(arguments) + 1)
    for i, array in arguments.items():
        row[i] = bench.panel.put(bench.moved(array, f"{path}/{i}"))
    if hasattr(module, "conv2") and len(row) == 2:
        row.append(None)  # a residual block without its mask
    with bench.panel.no_grad():
        return bench.panel.read(bench.panel.compute(module, *row))


def is_array(value: Any) -> bool:
    """True if `value` is a device array."""
    return hasattr(value, "shape") and hasattr(value, "dtype")
