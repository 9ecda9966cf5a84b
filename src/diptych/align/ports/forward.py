"""One pass of one network over the rungs without a loss: weights, operators, layers.

    weights     every array, read back after loading; which names share one array
    operators   each kind of layer that occurs, once: plain and faint inputs, gradients
    layers      free/PATH, fed/PATH, faint/PATH (fed, a hundredth as large), into/PATH (what it was
                given); with `training: ` the same in training mode, and buffers after it

Every name is the reference's. Inputs, weights and what layers are fed with are moved to
neighbouring float32 values in a nudged pass.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from diptych import rng
from diptych.align.ladder.nudges import nudged
from diptych.align.ladder.trace import Tracer, read_trace
from diptych.align.ports.arrays import (
    drawn_input,
    fit,
    narrow,
    nudge_number,
    refuse_nan,
    suffix,
)
from diptych.align.ports.layouts import moved_back, moved_over, relaid
from diptych.align.ports.modules import Call, Network
from diptych.align.ports.plan import OUTPUT, Names, Plan
from diptych.types import Array

FAINT = np.float32(0.01)


class Forward:
    """One network, the reference's names for its parts, and a trace to fill."""

    def __init__(
        self,
        make: Callable[[], Network],
        weights: Mapping[str, Array],
        inputs: Mapping[str, Array],
        names: Names,
        plan: Plan,
        tracer: Tracer,
        feed: Path | None,
        nudge: int = 0,
        steps: int = 5,
        say: Callable[[str, float], None] = lambda *_: None,
    ) -> None:
        self.make, self.names, self.plan, self.tracer = make, names, plan, tracer
        self.nudge, self.steps, self.say = nudge, steps, say
        self.network = make()
        self.framework = self.network.framework
        self.truth = feed is None
        self.feed = {} if feed is None else read_trace(feed).rung("layers").arrays
        self.given = {n: self.moved(a, f"w/{n}") for n, a in weights.items()}
        self.inputs = {n: self.moved(a, f"x/{n}") for n, a in inputs.items()}
        self.network.way_of(self.inputs)
        self.calls: dict[str, Call] = {}
        self.rung = ""

    def run(self, rungs: Sequence[str]) -> None:
        """Trace the rungs in order."""
        for name in rungs:
            began = time.perf_counter()
            self.rung = name
            self.tracer.begin(name)
            self.load()
            getattr(self, f"trace_{name}")()
            self.framework.sync()
            self.tracer.timed(time.perf_counter() - began)
            self.say(name, time.perf_counter() - began)

    def add(self, name: str, array: Any) -> None:
        """Record an array; floats of a float32 network stay float32."""
        self.tracer.add(self.rung, name, np.asarray(array))

    def moved(self, values: Array, key: str) -> Array:
        """The values, each moved to a neighbouring float32 if this pass is nudged."""
        return nudged(values, self.nudge, nudge_number(key))

    def load(self, network: Network | None = None) -> None:
        """Put the reference's weights into the network."""
        network = network or self.network
        own = {}
        for name, array in self.given.items():
            theirs = name if self.names.own else self.names.weights.get(name)
            if theirs is not None and theirs in network.vars:
                moved = moved_over(array, self.names.rules.get(name))
                own[theirs] = relaid(moved, tuple(network.vars[theirs].shape))
        network.load(own)

    def theirs(self, name: str) -> str | None:
        """This network's name of a weight, if it has it."""
        own = name if self.names.own else self.names.weights.get(name)
        return own if own in self.network.vars else None

    def path(self, path: str) -> str | None:
        """This network's path of a module."""
        if self.names.own:
            return path
        base, mark, count = path.partition("#")
        own = self.names.paths.get(base)
        return None if own is None else own + mark + count

    def values(self, network: Network | None = None) -> dict[str, Array]:
        """All weights under the reference's names and in its layout."""
        network = network or self.network
        found = {}
        for name in self.given:
            theirs = self.theirs(name)
            if theirs is not None:
                read = self.framework.read(network.vars[theirs])
                moved = moved_back(read, self.names.rules.get(name))
                found[name] = relaid(moved, self.given[name].shape)
        return found

    # rungs

    def trace_weights(self) -> None:
        for name, array in self.values().items():
            self.add(name, array)

    def trace_operators(self) -> None:
        network = self.network
        network.train(True)
        if not self.calls:
            network.train(False)
            self.record_calls()
            network.train(True)
        for path in self.plan.operators:
            call = self.calls.get(self.path(path) or "")
            given = self.fed_arrays(path)
            if call is None or given is None or len(given) != len(call.taken):
                continue
            fitted = [fit(a, np.shape(t)) for a, t in zip(given, call.taken, strict=True)]
            if any(f is None for f in fitted):
                continue
            for variant, factor in (("", 1.0), ("faint/", 0.01)):
                arrays = [
                    self.drawn(f"{path}/{i}", f, factor)
                    for i, f in enumerate(fitted)
                    if f is not None
                ]
                self.load()
                try:
                    self.operate(path, variant, call, arrays)
                except Exception as error:
                    if self.truth or self.names.own:
                        raise
                    text = " ".join(str(error).split())[:200]
                    self.tracer.fact("operators", f"raised/{path}", text)
        self.load()

    def drawn(self, key: str, like: Array, factor: float) -> Array:
        """Keyed normal numbers of an input's shape; integers stay what they are."""
        if like.dtype.kind != "f":
            return like
        return self.moved(drawn_input(key, like.shape, factor), key)

    def operate(self, path: str, variant: str, call: Call, arrays: list[Array]) -> None:
        """A layer's outputs and gradients on given arrays."""
        with self.network.quiet():
            put, made = self.network.again(call, arrays, leaf=True)
            made = [m for m in made if "float" in self.framework.dtype(m)]
            for i, each in enumerate(made):
                self.add(f"{variant}{path}/y{i or ''}", self.framework.read(each))
            if variant or not made:
                return
            total: Any = None
            for i, each in enumerate(made):
                like = self.feed.get(f"free/{path}{suffix(i)}", each)  # the port may lay it out
                g = rng.normal(0, "initial_noise", tuple(like.shape), (1 << 26) + i)
                laid = fit(g, tuple(each.shape))
                g = g if laid is None else laid
                term = (each * self.framework.put(g, self.network.wide)).sum()
                total = term if total is None else total + term
            base = path.partition("#")[0]
            weights = [n for n in self.plan.parameters if n.rpartition(".")[0] == base]
            weights = [n for n in weights if self.theirs(n)]
            inputs = [
                (i, p)
                for i, (p, a) in enumerate(zip(put, arrays, strict=True))
                if a.dtype.kind == "f"
            ]
            wanted = [p for _, p in inputs]
            wanted += [self.network.vars[self.theirs(n) or ""] for n in weights]
            found = self.framework.grads(total, wanted)
            for (i, _), g in zip(inputs, found, strict=False):
                self.add(f"{path}/dx{i or ''}", g)
            for n, g in zip(weights, found[len(inputs) :], strict=True):
                own = moved_back(g, self.names.rules.get(n))
                self.add(f"{path}/d{n.rpartition('.')[2]}", own)

    def record_calls(self) -> None:
        """One forward pass that keeps every call."""

        def seen(call: Call) -> None:
            self.calls[call.path] = call

        with self.network.still(), self.network.watched(seen):
            self.network.output(self.inputs)

    def fed_arrays(self, path: str) -> list[Array] | None:
        """The reference's inputs of a layer."""
        if self.truth and f"in/{path}/0" not in self.feed:
            call = self.calls.get(path)
            return None if call is None else [narrow(a) for a in call.taken]
        found, i = [], 0
        while f"in/{path}/{i}" in self.feed:
            found.append(self.feed[f"in/{path}/{i}"])
            i += 1
        return found or None

    def trace_layers(self) -> None:
        self.network.train(False)
        self.free("")
        self.fed("", list(self.paths_fed()))
        if not self.plan.training:
            return
        self.network.train(True)
        self.load()
        self.free("training: ")
        for name in self.plan.buffers:
            theirs = self.theirs(name)
            if theirs is not None:
                got = self.framework.read(self.network.vars[theirs])
                got = moved_back(got, self.names.rules.get(name))
                if got.dtype.kind == "f":
                    self.add(f"training: buffer/{name}", got)
        fed = [p for p in self.paths_fed() if p.partition("#")[0] in self.plan.buffered]
        self.fed("training: ", fed)
        self.network.train(False)
        self.load()

    def paths_fed(self) -> list[str]:
        if self.truth:
            return [p for p, c in self.calls.items() if c.taken]
        return list(
            dict.fromkeys(n[3:].rpartition("/")[0] for n in self.feed if n.startswith("in/"))
        )

    def free(self, mode: str) -> None:
        """Every layer's inputs and outputs in one run of the whole network."""
        wanted = {self.path(p): p for p in self.listed()} if not self.truth else None
        self.calls = {}
        found: list[Call] = []

        def seen(call: Call) -> None:
            if wanted is None or call.path in wanted:
                found.append(call)
                self.calls[call.path] = call

        with self.network.still(), self.network.watched(seen):
            outputs = self.network.output(self.inputs)
            outputs = [self.framework.read(o) for o in outputs]
        for call in found:
            path = call.path if wanted is None else wanted[call.path]
            for i, array in enumerate(call.taken):
                if array.dtype.kind in "fiu":
                    self.add(f"{mode}into/{path}/{i}", array)
            for i, array in enumerate(call.made):
                self.add(f"{mode}free/{path}{suffix(i)}", array)
        for i, array in enumerate(outputs):
            if self.truth:
                refuse_nan(array, "output")
            self.add(f"{mode}free/{OUTPUT}{suffix(i)}", array)
        if self.truth and not mode:
            for call in found:
                for i, array in enumerate(call.taken):
                    self.feed[f"in/{call.path}/{i}"] = narrow(array)
                    self.add(f"in/{call.path}/{i}", narrow(array))

    def listed(self) -> list[str]:
        """The reference's calls, from what it recorded."""
        found = [n[5:] for n in self.feed if n.startswith("free/")]
        return list(dict.fromkeys(n.partition("~")[0] for n in found))

    def fed(self, mode: str, paths: Sequence[str]) -> None:
        """Every layer by itself, on the reference's inputs."""
        for path in paths:
            call, given = self.calls.get(self.path(path) or ""), self.fed_arrays(path)
            if call is None or given is None or len(given) != len(call.taken):
                continue
            fitted = [fit(a, t.shape) for a, t in zip(given, call.taken, strict=True)]
            if any(f is None for f in fitted):
                continue
            arrays = [self.moved(f, f"{path}/{i}") for i, f in enumerate(fitted) if f is not None]
            self.feed_one(f"{mode}fed/{path}", call, arrays)
            if path.partition("#")[0] in self.plan.faint and not mode:
                faint = [a * FAINT if a.dtype.kind == "f" else a for a in arrays]
                self.feed_one(f"{mode}faint/{path}", call, faint)

    def feed_one(self, name: str, call: Call, arrays: Sequence[Array]) -> None:
        try:
            with self.network.still():
                _, made = self.network.again(call, arrays)
                read = [self.framework.read(m) for m in made]
        except Exception as error:
            if self.names.own:
                raise
            self.tracer.fact("layers", f"raised/{name}", " ".join(str(error).split())[:200])
            return
        for i, array in enumerate(read):
            self.add(f"{name}{suffix(i)}", array)
