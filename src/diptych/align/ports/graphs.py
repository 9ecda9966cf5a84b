"""Networks without modules: NumPy code, ONNX files, OpenVINO files. They compute forward only.

A NumPy model is a callable `model(*inputs)` or `model(*inputs, tap=tap)` with `model.weights`, a
dictionary of arrays; `tap(name, array)` reports a layer's output under the port's name. Its weights
are replaced by the reference's. Graphs keep their own weights, which are compared by value: export
them from a reference whose `build` loads the very same weights.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from diptych.align.ports.targets import Target, function_of, load_module
from diptych.errors import UserError
from diptych.machine.packages import require
from diptych.types import Array

Values = list[tuple[str, Array]]


@contextmanager
def running(target: Target, runtime: str) -> Iterator[None]:
    """Inside, an error is the file's, or of inputs that do not fit it."""
    try:
        yield
    except Exception as error:  # each runtime raises classes of its own
        text = " ".join(str(error).split())[:300]
        raise UserError(f"{target.text}: {runtime} cannot run it: {text}") from error


def check_count(target: Target, names: Sequence[str], inputs: Mapping[str, Array]) -> None:
    """Refuse a graph that takes more or fewer inputs than there are.

    Raises:
        UserError: names both.
    """
    if len(names) != len(inputs):
        raise UserError(
            f"{target.text}: takes ({', '.join(names)}), but the inputs are "
            f"({', '.join(inputs)}); give as many with --input or --inputs"
        )


class NumpyModel:
    """A user's function of arrays."""

    movable = True

    def __init__(self, target: Target, seed: int, wide: bool = False) -> None:
        file = load_module(target)
        np.random.seed(seed % 2**32)
        self.file, self.model, self.wide = file, function_of(file, target)(), wide
        held = getattr(self.model, "weights", None)
        if not callable(self.model) or not isinstance(held, dict):
            raise UserError(
                f"{target.text}: gave a {type(self.model).__name__}, expected a callable model of "
                "NumPy with `weights`, a dictionary; for a model of PyTorch write "
                f'FRAMEWORK = "torch" into the file, or give torch:{target.text}'
            )
        self.held = held
        self.version = np.__version__
        self.taps = "tap" in inspect.signature(self.model).parameters

    def weights(self) -> dict[str, Array]:
        return {name: np.asarray(a) for name, a in self.held.items()}

    def load(self, weights: Mapping[str, Array]) -> None:
        for name, array in weights.items():
            self.held[name] = self._cast(array)

    def _cast(self, array: Array) -> Array:
        return array.astype(np.float64) if self.wide and array.dtype.kind == "f" else array

    def run(self, inputs: Mapping[str, Array]) -> tuple[list[Array], Values]:
        """The outputs, and the layers' outputs in the order of their taps."""
        seen: Values = []
        given = [self._cast(a) for a in inputs.values()]
        named = {"tap": lambda n, a: seen.append((str(n), np.array(a)))} if self.taps else {}
        made = self.model(*given, **named)
        rows = list(made.values()) if isinstance(made, dict) else made
        rows = list(rows) if isinstance(rows, list | tuple) else [rows]
        return [np.asarray(r) for r in rows], seen

    def layer_weights(self) -> dict[str, list[str]]:
        return {}


class OnnxModel:
    """An ONNX file, run by ONNX Runtime with every value as an output."""

    movable = False

    def __init__(self, target: Target, seed: int, wide: bool = False) -> None:
        onnx, runtime = require("onnx", "port"), require("onnxruntime", "port")
        self.target = target
        with running(target, "ONNX Runtime"):
            self.proto = onnx.load(target.place)
        graph = self.proto.graph
        self.held = {t.name: onnx.numpy_helper.to_array(t) for t in graph.initializer}
        for node in graph.node:
            if node.op_type == "Constant":
                for a in node.attribute:
                    if a.name == "value":
                        self.held[node.output[0]] = onnx.numpy_helper.to_array(a.t)
        self.version = runtime.__version__
        self.nodes = list(graph.node)
        self.first = [o.name for o in graph.output]
        constants = set(self.held)
        self.middle = [
            o
            for n in self.nodes
            for o in n.output
            if o and o not in self.first and o not in constants
        ]
        for name in self.middle:
            graph.output.append(onnx.helper.make_empty_tensor_value_info(name))
        options = runtime.SessionOptions()
        options.log_severity_level = 3
        options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_DISABLE_ALL
        with running(target, "ONNX Runtime"):
            self.session = runtime.InferenceSession(
                self.proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
            )

    def weights(self) -> dict[str, Array]:
        return {n: a for n, a in self.held.items() if a.dtype.kind == "f"}

    def run(self, inputs: Mapping[str, Array]) -> tuple[list[Array], Values]:
        names = [i.name for i in self.session.get_inputs()]
        check_count(self.target, names, inputs)
        given = dict(zip(names, inputs.values(), strict=True))
        with running(self.target, "ONNX Runtime"):
            rows = self.session.run([*self.first, *self.middle], given)
        found = dict(zip([*self.first, *self.middle], rows, strict=True))
        values = [(o, np.asarray(found[o])) for n in self.nodes for o in n.output if o in found]
        return [np.asarray(found[n]) for n in self.first], values

    def scopes(self) -> dict[str, str]:
        """Value -> the name of the node behind it."""
        return {o: node.name for node in self.nodes for o in node.output}

    def layer_weights(self) -> dict[str, list[str]]:
        """Value -> the weights that the node behind it reads (through reshapes of weights)."""
        alias: dict[str, str] = {n: n for n in self.held}
        found: dict[str, list[str]] = {}
        for node in self.nodes:
            read = [alias[i] for i in node.input if i in alias]
            if len(node.input) == len(read) == 1 and node.output:
                alias[node.output[0]] = read[0]
            elif read and node.output:
                found[node.output[0]] = read
        return found


class OpenVinoModel:
    """An OpenVINO (or ONNX) file on the CPU in float32, with every value as an output."""

    movable = False

    def __init__(self, target: Target, seed: int, wide: bool = False) -> None:
        openvino = require("openvino", "port")
        core = openvino.Core()
        self.target = target
        with running(target, "OpenVINO"):
            model = core.read_model(target.place)
        self.version = openvino.__version__
        self.held: dict[str, Array] = {}
        self.reads: dict[str, list[str]] = {}
        names: list[str] = []
        count = len(model.outputs)
        constants: dict[str, str] = {}
        for op in model.get_ordered_ops():
            name, kind = op.get_friendly_name(), op.get_type_name()
            if kind == "Constant":
                data = np.array(op.data)
                constants[name] = name
                if data.dtype.kind == "f":
                    self.held[name] = data
            elif kind not in ("Parameter", "Result"):
                read = [
                    constants[i.get_node().get_friendly_name()]
                    for i in op.input_values()
                    if i.get_node().get_friendly_name() in constants
                ]
                if read and len(read) == len(op.input_values()):
                    held = [r for r in read if r in self.held]
                    constants[name] = max(held, key=lambda r: self.held[r].size, default=read[0])
                    continue
                self.reads[name] = [r for r in read if r in self.held]
                if op.get_output_size() == 1:
                    names.append(name)
                    ends = [
                        o.get_node().input_value(0).get_node().get_friendly_name()
                        for o in model.outputs
                    ]
                    if name not in ends:  # the model's own outputs are outputs already
                        model.add_outputs([(name, 0)])
        self.names = names
        ends = [o.get_node().input_value(0).get_node().get_friendly_name() for o in model.outputs]
        self.places = [ends.index(name) for name in names]
        with running(target, "OpenVINO"):
            compiled = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        self.compiled, self.count = compiled, count

    def weights(self) -> dict[str, Array]:
        return self.held

    def run(self, inputs: Mapping[str, Array]) -> tuple[list[Array], Values]:
        names = [each.get_node().get_friendly_name() for each in self.compiled.inputs]
        check_count(self.target, names, inputs)
        with running(self.target, "OpenVINO"):
            made = self.compiled(list(inputs.values()))
        rows = [np.array(made[i]) for i in range(len(self.compiled.outputs))]
        return rows[: self.count], [
            (n, rows[i]) for n, i in zip(self.names, self.places, strict=True)
        ]

    def layer_weights(self) -> dict[str, list[str]]:
        return self.reads


MODELS: dict[str, Any] = {"numpy": NumpyModel, "onnx": OnnxModel, "openvino": OpenVinoModel}


def layers_of(
    values: Values,
    reads: Mapping[str, list[str]],
    pairs: Mapping[str, str],
    paths: list[str],
    given: Mapping[str, str],
    fits: Callable[[str, Array], bool],
    scopes: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """Reference's path -> value of a graph.

    By the given map, by an equal name, by the scope in a name (`/block/conv/Conv`), and by the
    weights that a node reads; the last such value (the one with the bias) is the layer's output.
    `scopes` are the names of the nodes, for a graph's output bears a name of its own.
    """
    names = [n for n, _ in values]
    within = {n: (scopes or {}).get(n) or n for n in names}
    place = {n: i for i, n in enumerate(names)}
    made = dict(values)
    found = {p: v for p, v in given.items() if v in made}
    owners: dict[str, set[str]] = {}
    modules: dict[str, set[str]] = {}  # of the port, by the reference's
    for ours, theirs in pairs.items():
        own, other = ours.rpartition(".")[0], theirs.replace("/", ".").rpartition(".")[0]
        owners.setdefault(theirs, set()).add(own)
        modules.setdefault(own, set()).add(other)
    candidates: dict[str, list[str]] = {}
    for name in names:
        for weight in reads.get(name, []):
            if len(owners.get(weight, ())) == 1:  # equal arrays may be stored once for many layers
                candidates.setdefault(next(iter(owners[weight])), []).append(name)
    scopes_of = {n: _scope(within[n]) for n in names}
    for path in paths:
        if path in found:
            continue
        rows = [n for n in names if f"{scopes_of[n]}.".startswith(f"{path}.")]
        if not rows:
            inner = [p for p in paths if p.endswith(f".{path}")]  # layers of the same name
            rows = [
                n
                for n in names
                if _in_name(path, n, within[n])
                and not any(_in_name(p, n, within[n]) for p in inner)
            ]
        rows += [n for n in names if _module(n) in modules.get(path, ())]
        rows = [n for n in (*rows, *candidates.get(path, ())) if fits(path, made[n])]
        if rows:
            found[path] = max(rows, key=place.__getitem__)
    return found


def _scope(name: str) -> str:
    """The module's path in a name: `/layer1/layer1.0/conv1/Conv` is in `layer1.0.conv1.Conv`."""
    parts: list[str] = []
    for segment in name.strip("/").split("/"):
        pieces = segment.split(".")
        held = len(pieces) - 1
        if held and parts[-held:] == pieces[:-1]:
            del parts[-held:]
        parts += pieces
    return ".".join(parts)


def _in_name(path: str, name: str, scope: str) -> bool:
    """True if a path stands in a value's name or in its scope."""
    within = f"/{scope.replace('.', '/')}/"
    return path in name.split("/") or f"/{path.replace('.', '/')}/" in within


def _module(tap: str) -> str:
    """A tap's name as a module's: `encoder/conv` and `encoder.conv` are one."""
    return tap.replace("/", ".")
