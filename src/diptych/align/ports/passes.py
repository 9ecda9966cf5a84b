"""One pass of one network over all rungs of a port; its results go into a trace.

weights, operators, layers    see `forward`
loss        the loss in training mode
gradients   of each weight, act/PATH of each layer's output, their total norm
update      two steps of the optimizer on given gradients: step 1/NAME, step 2/NAME
lockstep    losses of N steps, weights after them
resume      saved after two steps and restored into a new network, against going on
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from diptych.align.ports.arrays import given_gradient, refuse_nan
from diptych.align.ports.forward import Forward
from diptych.align.ports.framework import copied
from diptych.align.ports.layouts import moved_back, moved_over
from diptych.align.ports.modules import Call, Network

RATE = 0.01  # of plain gradient descent, where no optimizer is given


class Pass(Forward):
    """One network on all rungs."""

    def trace_loss(self) -> None:
        self.network.train(True)
        with self.network.quiet():
            loss = self.network.loss(self.inputs)
        value = self.framework.read(loss).reshape(())
        if self.truth:
            refuse_nan(value, "loss")
        self.add("loss", value)

    def trace_gradients(self) -> None:
        self.network.train(True)
        wanted = {self.path(p): p for p in self.listed()} if not self.truth else None
        found: list[tuple[str, list[Any], list[int]]] = []

        def seen(call: Call) -> None:
            path = call.path if wanted is None else wanted.get(call.path)
            values = [value for value in call.made if "float" in self.framework.dtype(value)]
            if path is not None and values:
                found.append((path, values, [version(value) for value in values]))

        with self.network.quiet(), self.network.watched(seen, host=False):
            loss = self.network.loss(self.inputs)
        names = [n for n in self.plan.parameters if self.theirs(n)]
        weights = [self.network.vars[self.theirs(n) or ""] for n in names]
        # An output that was changed in place afterwards has no gradient of its own.
        alive = {n: vs for n, vs, was in found if [version(v) for v in vs] == was}
        outputs = [value for values in alive.values() for value in values]
        with self.network.precision():
            rows = self.framework.grads(loss, [*weights, *outputs])
        rules = self.names.rules
        grads = {n: moved_back(g, rules.get(n)) for n, g in zip(names, rows, strict=False)}
        total = math.sqrt(sum(float(np.sum(g.astype(np.float64) ** 2)) for g in grads.values()))
        self.add("total norm", np.float64(total))
        for n, g in grads.items():
            self.add(n, g)
        rest = iter(rows[len(names) :])
        for n, values in alive.items():
            first, *others = [next(rest) for _ in values]
            # A state beside the first output may be one array with its last step, and be used in
            # its place: then neither gradient can be compared with the reference's.
            if not any(map(np.any, others)):
                self.add(f"act/{n}", first)

    def trace_update(self) -> None:
        """Two steps on the same gradients everywhere, of many sizes, so that an eps shows."""
        self.network.train(True)
        optimizer = self.network.optimizer()
        names = [n for n in self.plan.parameters if self.theirs(n)]
        for step in (1, 2):
            before = {n: a.astype(np.float64) for n, a in self.values().items() if n in names}
            total: Any = None
            for n in names:
                var = self.network.vars[self.theirs(n) or ""]
                g = given_gradient(n, before[n].shape, step)
                g = moved_over(self.moved(g, f"g{step}/{n}"), self.names.rules.get(n))
                term = (var * self.framework.put(g, self.network.wide)).sum()
                total = term if total is None else total + term
            own = [self.theirs(n) or "" for n in names]
            self.network.step(optimizer, total, own, RATE)
            after = self.values()
            for n in names:
                self.add(f"step {step}/{n}", after[n].astype(np.float64) - before[n])

    def trace_lockstep(self) -> None:
        self.network.train(True)
        optimizer = self.network.optimizer()
        self.go(self.network, optimizer, range(1, self.steps + 1), "loss/")
        after = self.values()
        for n in (n for n in self.plan.parameters if n in after):
            self.add(f"raw/{n}", after[n])

    def go(self, network: Network, optimizer: Any, steps: range, name: str) -> None:
        """Train for some steps and record the losses."""
        own = [self.theirs(n) or "" for n in self.plan.parameters if self.theirs(n)]
        for step in steps:
            with network.quiet():
                loss = network.loss(self.inputs)
                value = self.framework.read(loss).reshape(())
                network.step(optimizer, loss, own, RATE)
            if name:
                self.add(f"{name}{step:04}", value)

    def trace_resume(self) -> None:
        """Two steps, saved, restored into a new network, two more; and the same without a stop."""
        self.network.train(True)
        optimizer = self.network.optimizer()
        self.go(self.network, optimizer, range(1, 3), "")
        weights = {n: a.copy() for n, a in self.network.weights().items()}
        state = None
        if hasattr(optimizer, "state_dict"):
            state = copied(self.framework, optimizer.state_dict())
        self.go(self.network, optimizer, range(3, 5), "straight/loss/")
        straight = self.values()
        again = self.make()
        again.train(True)
        again.load(weights)
        optimizer = again.optimizer()
        if state is not None:
            optimizer.load_state_dict(state)
        self.go(again, optimizer, range(3, 5), "resumed/loss/")
        for n, a in straight.items():
            self.add(f"straight/raw/{n}", a)
        for n, a in self.values(again).items():
            self.add(f"resumed/raw/{n}", a)


def version(value: Any) -> int:
    """The number of in-place changes of a PyTorch tensor; 0 for Jittor."""
    return int(getattr(value, "_version", 0))
