"""Work that both sides of a port's ladder share: progress, arrays to match, weights, inputs."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from diptych import rng
from diptych.align.ports.layers import Layer
from diptych.align.ports.matching import Entry
from diptych.align.ports.targets import made_inputs
from diptych.align.process.lines import say
from diptych.types import Array

SPREAD = 0.1  # of constants: norms of weight 1 and bias 0 look alike when they are swapped


def progress(panel: str, nudge: int = 0) -> Any:
    """A function that reports a finished rung."""

    def told(rung: str, seconds: float) -> None:
        say(rung=rung, panel=panel, nudge=nudge, mutation=None, seconds=seconds)

    return told


def save_arrays(arrays: Mapping[str, Array], path: Path) -> None:
    """Write arrays as a safetensors file; np.ascontiguousarray would make (1,) of shape ()."""
    save_file({name: np.array(array, order="C") for name, array in arrays.items()}, path)


def entries(
    weights: Mapping[str, Array],
    parameters: Sequence[str],
    aliases: Mapping[str, list[str]],
    orders: Mapping[str, int],
    feeds: Mapping[str, str] | None = None,
) -> list[Entry]:
    """Describe arrays for the match."""
    found = []
    for i, (name, array) in enumerate(weights.items()):
        wide = array.astype(np.float64)
        constant = array.size > 0 and bool((array == array.flat[0]).all())
        digest = "" if constant else hashlib.sha256(array.tobytes()).hexdigest()
        module = name.rpartition(".")[0]
        order = float(orders.get(module, len(orders) + i))
        found.append(
            Entry(
                name,
                array.shape or (1,),  # Jittor has no array without axes
                float(wide.mean()) if array.size else 0.0,
                float(wide.std()) if array.size else 0.0,
                digest,
                name in parameters,
                order,
                list(aliases.get(name, [])),
                (feeds or {}).get(module, ""),
            )
        )
    return found


def worked(weights: Mapping[str, Array], seed: int) -> dict[str, Array]:
    """The weights with every constant array perturbed, by a share of it; its sign stays."""
    found = {}
    for i, (name, array) in enumerate(weights.items()):
        if array.dtype.kind == "f" and array.size and (array == array.flat[0]).all():
            draws = rng.stream(seed, "weights", i, 7).uniform(-1.7, 1.7, array.shape)
            size = abs(float(array.flat[0])) or 1.0
            array = np.asarray(array + SPREAD * size * draws, dtype=np.float32)
        found[name] = array
    return found


def inputs_of(job: dict[str, Any], file: Any, seed: int, where: str) -> dict[str, Array]:
    """The inputs given, or made from the job's or the file's declaration."""
    if job["inputs"]:
        whole = load_file(job["inputs"])
        return {name: whole[name] for name in job["order"]}
    declared = job["declared"] or getattr(file, "INPUTS", {})
    return made_inputs(declared, seed, where)


def calls_of(network: Any, inputs: Mapping[str, Array]) -> dict[str, Any]:
    """Calls of a network of modules: path -> kind, shapes, order, settings."""
    from diptych.align.ports.modules import settings_of, source_line

    calls: dict[str, Any] = {}
    makers: dict[bytes, str] = {}  # of a leaf's output

    def seen(call: Any) -> None:
        module = network.modules[call.path.partition("#")[0]]
        leaf = not any(m is not module for m in network.modules.values() if m in _children(module))
        before = next((makers[b] for b in map(_bits, call.taken) if b in makers), "")
        if leaf:
            makers.update((_bits(m), call.path.partition("#")[0]) for m in call.made if m.size > 1)
        calls[call.path] = {
            "kind": type(module).__name__,
            "order": call.order,
            "shapes": [list(m.shape) for m in call.made],
            "settings": settings_of(module),
            "source": source_line(module),
            "leaf": leaf,
            "after": before,
        }

    network.train(False)
    with network.still(), network.watched(seen):
        outputs = network.output(inputs)
        shapes = [list(network.framework.read(o).shape) for o in outputs]
    return {
        "calls": dict(sorted(calls.items(), key=lambda c: c[1]["order"])),
        "outputs": shapes,
    }


def _children(module: Any) -> list[Any]:
    """The modules directly inside one."""
    held = getattr(module, "_modules", {})
    layers = getattr(module, "layers", {})
    found = list(held.values() if isinstance(held, dict) else [])
    found += list(layers.values()) if isinstance(layers, dict) else []
    return [m for m in found if m is not None]


def _bits(array: Array) -> bytes:
    """A digest of an array's values, whatever its shape."""
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).digest()


def feeds_of(calls: Mapping[str, Any]) -> dict[str, str]:
    """The module whose output is each module's input, where there is one."""
    return {path: each["after"] for path, each in calls.items() if "#" not in path}


def orders_of(calls: Mapping[str, Any]) -> dict[str, int]:
    """The order of each module's first call."""
    return {path: each["order"] for path, each in calls.items() if "#" not in path}


def layer(path: str, call: Mapping[str, Any]) -> Layer:
    """A described call as a layer to match."""
    shapes = tuple(tuple(s) for s in call["shapes"])
    return Layer(path, call["kind"], shapes, call["order"], call["leaf"])
