"""A user's own network on the rungs: weights, layers, loss, gradients.

A port may split its layers differently: a norm before or after swish, the time shift within it or
before it. So the reference records two outputs of each norm, `PATH` as in our backends and
`PATH~plain` (the norm alone, on the shifted input); a port has to match one of them.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from diptych.align.ladder.rungs import layers, training
from diptych.align.ports import names as namemap
from diptych.align.process.panels import REFERENCE
from diptych.align.process.workbench import Workbench
from diptych.backends.protocol import Batch, State
from diptych.diffusion.objective import target
from diptych.errors import UserError
from diptych.network.embedding import time_embedding
from diptych.network.parameters import parameter_table
from diptych.types import Array

PLAIN = "~plain"


class PortBench(Workbench):
    """A bench for the user's network, loaded with the reference's weights."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        port = self.spec.port
        self.network = build(port["target"], self.config)
        own = dict(self.network.named_parameters())
        table = parameter_table(self.plan)
        shapes = {name: tuple(array.shape) for name, array in own.items()}
        wanted = {name: parameter.shape for name, parameter in table.items()}
        self.names = namemap.matched(wanted, shapes, port["names"], port["target"])
        self.own = {name: own[theirs] for name, theirs in self.names.items()}
        assign = self.panel.part("arrays").assign
        for name, array in self.own.items():
            assign(array, self.weights[name])
        self.paths = namemap.module_paths(self.names)
        self.takes = port["takes"]
        if self.takes == "auto":
            self.takes = second_argument(self.network, self.panel.is_jittor)

    def predict(self, x: Any, batch_t: Array) -> Any:
        """The port's output, with its graph."""
        embedding = time_embedding(batch_t, self.plan.ch)
        second = embedding if self.takes == "embedding" else batch_t.astype(np.int64)
        return self.network(x, self.panel.put(second))

    def learner(self, settings: Any = None) -> Any:
        return PortLearner(self)


class PortLearner:
    """Loss and gradients of a port; see `diptych.backends.protocol.Learner`."""

    def __init__(self, bench: PortBench) -> None:
        self.bench = bench

    def loss(self, batch: Batch) -> Any:
        put = self.bench.panel.put
        assert batch.eps is not None
        x0, eps, alpha, sigma = (put(a) for a in (batch.x0, batch.eps, batch.alpha, batch.sigma))
        wanted = target(self.bench.plan.objective, x0, eps, alpha, sigma)
        error = wanted - self.bench.predict(alpha * x0 + sigma * eps, batch.t)
        square = error * error if batch.weight is None else put(batch.weight) * error * error
        pixels = batch.x0[0].size if self.bench.config.train.loss == "mean" else 1
        return square.sum(3).sum(2).sum() / (len(batch.x0) * pixels)

    def gradients(self, batch: Batch) -> tuple[float, dict[str, Array]]:
        bench, loss = self.bench, self.loss(batch)
        found = bench.panel.gradients(loss, list(bench.own.values()), np.array(1, dtype=np.float32))
        return 0.0, dict(zip(bench.own, found, strict=True))

    def state(self) -> State:
        raw = {name: self.bench.panel.read(array) for name, array in self.bench.own.items()}
        return State(0, raw, raw, raw, raw)


def build(target: str, config: Any) -> Any:
    """Build the network from `package.module:function`, which may take the config.

    Raises:
        UserError: if the module or function is missing, or it returns no network.
    """
    module_name, _, function_name = target.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise UserError(
            f"--subject {target}: module '{error.name}' is not found; run from the folder that "
            f"holds it, or set PYTHONPATH"
        ) from error
    function = getattr(module, function_name, None)
    if not callable(function):
        raise UserError(f"--subject {target}: {module_name} has no function '{function_name}'")
    network = function(config) if inspect.signature(function).parameters else function()
    if not hasattr(network, "named_parameters"):
        kind = type(network).__name__
        raise UserError(f"--subject {target}: gave a {kind}, expected a network with parameters")
    if hasattr(network, "eval") and not type(network).__module__.startswith("jittor"):
        import sys

        if "torch" in sys.modules:  # Jittor's eval() would stop the gradients
            network.eval()
    return network


def second_argument(network: Any, is_jittor: bool) -> str:
    """`t` or `embedding`, the network's second input as inferred from its argument's name."""
    call = network.execute if is_jittor else network.forward
    given = list(inspect.signature(call).parameters)
    return "embedding" if len(given) > 1 and "emb" in given[1] else "t"


def trace_weights(bench: Workbench) -> None:
    """Trace all weights, read back after loading."""
    raw = bench.learner().state().raw
    for name in parameter_table(bench.plan):
        bench.add(name, raw[name].astype(np.float32))


def trace_layers(bench: Workbench) -> None:
    """Trace free-running and fed outputs of every layer that both sides have."""
    if isinstance(bench, PortBench):
        _trace_port(bench)
    else:
        _trace_ours(bench)


def _trace_ours(bench: Workbench) -> None:
    panel = bench.panel
    network = panel.backend.network(bench.plan, bench.weights)
    x, embedding = layers.inputs(bench)
    calls: dict[str, list[Any]] = {}

    def seen(path: str, arguments: Sequence[Any], result: Any) -> None:
        if not layers.is_array(result) or path == "temb":
            return
        bench.add(f"free/{path}", panel.read(result))
        if all(a is None or layers.is_array(a) for a in arguments):
            calls[path] = [a for a in arguments if a is not None]

    with panel.watch(network, seen), panel.no_grad():
        output = network(panel.put(x), panel.put(embedding))
    bench.add("free/output", panel.read(output))
    modules = panel.modules(network)
    with panel.no_grad():
        for path in [p for p, m in modules.items() if hasattr(m, "silu") and p in calls]:
            given = [panel.read(a) for a in calls[path]]
            shifted = given[0] if len(given) == 1 else given[0] + given[1][:, :, None, None]
            calls[path + PLAIN] = [panel.put(shifted)]
            bench.add(f"free/{path}{PLAIN}", _plain(panel, modules[path], calls[path + PLAIN]))
    _feed_ours(bench, modules, calls)


def _feed_ours(bench: Workbench, modules: Mapping[str, Any], calls: dict[str, list[Any]]) -> None:
    panel = bench.panel
    if panel.name == REFERENCE:
        given = {
            f"in/{path}/{i}": panel.read(a).astype(np.float32)
            for path, arguments in calls.items()
            for i, a in enumerate(arguments)
            if not hasattr(modules[path.removesuffix(PLAIN)], "conv2")
        }
        for name, array in given.items():
            bench.add(name, array)
    else:
        given = bench.feed("layers")
    for path, arrays in grouped(given).items():
        moved = [panel.put(bench.moved(a, f"{path}/{i}")) for i, a in enumerate(arrays)]
        module = modules[path.removesuffix(PLAIN)]
        with panel.no_grad():
            if path.endswith(PLAIN):
                bench.add(f"fed/{path}", _plain(panel, module, moved))
            else:
                bench.add(f"fed/{path}", panel.read(module(*moved)))


def _plain(panel: Any, module: Any, arguments: Sequence[Any]) -> Array:
    """A norm's output before its swish."""
    silu, module.silu = module.silu, False
    try:
        return np.asarray(panel.read(module(*arguments)))
    finally:
        module.silu = silu


def grouped(given: Mapping[str, Array]) -> dict[str, list[Array]]:
    """Group `in/PATH/i` arrays as PATH -> [array, ...]."""
    found: dict[str, list[Array]] = {}
    for name, array in given.items():
        found.setdefault(name.removeprefix("in/").rpartition("/")[0], []).append(array)
    return found


def _trace_port(bench: PortBench) -> None:
    panel = bench.panel
    ours = {theirs: path for path, theirs in bench.paths.items()}
    shapes: dict[str, list[tuple[int, ...]]] = {}

    def seen(path: str, arguments: Sequence[Any], result: Any) -> None:
        if path in ours and layers.is_array(result) and ours[path] not in shapes:
            bench.add(f"free/{ours[path]}", panel.read(result))
            arrays = [a for a in arguments if layers.is_array(a)]
            whole = len(arrays) == len([a for a in arguments if a is not None])
            shapes[ours[path]] = [tuple(a.shape) for a in arrays] if whole else []

    x, _ = layers.inputs(bench)
    last = bench.config.diffusion.timesteps - 1
    t = np.linspace(0, last, len(x)).astype(np.int64)
    with panel.watch(bench.network, seen), panel.no_grad():
        output = bench.predict(panel.put(x), t)
    if tuple(output.shape) != x.shape:
        raise UserError(f"the port gives {tuple(output.shape)} for images of {x.shape}")
    bench.add("free/output", panel.read(output))
    modules, given = panel.modules(bench.network), grouped(bench.feed("layers"))
    for path, taken in shapes.items():
        for name in (path, path + PLAIN):
            arrays = given.get(name, [])
            if arrays and [a.shape for a in arrays] == taken:
                with panel.no_grad():
                    y = modules[bench.paths[path]](*[panel.put(a) for a in arrays])
                bench.add(f"fed/{name}", panel.read(y))


def trace_loss(bench: Workbench) -> None:
    """Trace the losses of the batch, each image and single timesteps."""
    training.trace_plain_loss(bench)


TRACES: dict[str, Callable[[Any], None]] = {
    "weights": trace_weights,
    "layers": trace_layers,
    "loss": trace_loss,
    "gradients": training.trace_plain_gradients,
}
