"""A user's network of modules, in PyTorch or Jittor: its weights, its calls, its gradients.

Modules are watched by replacing their `forward` (`execute`) on the instance, so nothing of the
user's code is changed.
Dropout is switched off, in modules and in functions: its bits cannot be equal.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from diptych import rng
from diptych.align.ports.framework import Framework, leaves, refilled
from diptych.align.ports.targets import Target, function_of, load_module
from diptych.align.ports.ways import Way, one_number, way_of
from diptych.errors import UserError
from diptych.types import Array

ATTENTION = "scaled_dot_product_attention"
FUNCTIONAL = (
    "dropout", "dropout1d", "dropout2d", "dropout3d", "droppath", "alpha_dropout",
    "feature_alpha_dropout", ATTENTION,
)  # fmt: skip


@dataclass(frozen=True)
class Call:
    """One call of a module: its arguments as given, and the arrays in them and in its result."""

    path: str
    given: tuple[tuple[Any, ...], dict[str, Any]]
    taken: list[Any]  # on the host, as they were before the call
    made: list[Any]  # on the host, or on the device if gradients are wanted of them
    order: int  # of its start; a container starts before its layers


class Live(Mapping[str, Any]):
    """Arrays by name as they are now: code may put another array into a buffer's place."""

    def __init__(self, places: Mapping[str, tuple[dict[str, Any], Any]]) -> None:
        self.places = places

    def __getitem__(self, name: str) -> Any:
        held, key = self.places[name]
        return held[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self.places)

    def __len__(self) -> int:
        return len(self.places)


class Network:
    """A network made by the user's function, and the ways to look into it."""

    def __init__(self, framework: Framework, target: Target, seed: int, wide: bool = False) -> None:
        self.framework, self.target, self.wide = framework, target, wide
        self.file = load_module(target)
        with self.precision():
            framework.seed(seed)
            self.made = function_of(self.file, target)
            self.module = self.made()
        if isinstance(self.module, type) or not hasattr(self.module, "named_modules"):
            kind = type(self.module).__name__
            raise UserError(f"{target.text}: gave a {kind}, expected a network of modules")
        if wide:
            self.module.double()
        # Before any mode is set here: a stop that the user's code left behind is a finding.
        self.stopped = self._stopped()
        self.modules = dict(self.module.named_modules())
        self.vars, self.aliases = self._named()
        self.way: Way | None = None
        self.usual: list[str] | None = None  # of a port: the inputs that the reference takes
        self.dropouts = self._without_dropout()

    @contextmanager
    def precision(self) -> Iterator[None]:
        """Floats that the code makes itself are float64 inside, if this network is wide."""
        if not self.wide:
            yield
            return
        lib = self.framework.lib
        before = lib.get_default_dtype()
        lib.set_default_dtype(lib.float64)
        try:
            yield
        finally:
            lib.set_default_dtype(before)

    def _owned(self) -> Iterator[tuple[str, Any, dict[str, Any]]]:
        """Every array of every module: its name, key and the dictionary that holds it.

        An array of two modules comes twice; PyTorch's parameters come before its buffers.
        """
        if not self.framework.is_jittor:
            modules = list(self.module.named_modules(remove_duplicate=False))
            for kind in ("_parameters", "_buffers"):
                for path, module in modules:
                    yield from self._of(path, getattr(module, kind))
            return
        for path, module in self.modules.items():
            listed = type(module).__name__ == "ParameterList"
            yield from self._of(path, module.params if listed else module.__dict__)

    def _of(self, path: str, held: dict[str, Any]) -> Iterator[tuple[str, Any, dict[str, Any]]]:
        for key, value in list(held.items()):
            hidden = self.framework.is_jittor and str(key).startswith("_")
            if self.framework.is_array(value) and not hidden:
                yield f"{path}.{key}" if path else str(key), key, held

    def _named(self) -> tuple[Live, dict[str, list[str]]]:
        """Arrays by their first name, and the further names of tied ones."""
        first: dict[int, str] = {}
        places: dict[str, tuple[dict[str, Any], Any]] = {}
        aliases: dict[str, list[str]] = {}
        for name, key, held in self._owned():
            value = held[key]
            if id(value) in first:
                aliases.setdefault(first[id(value)], []).append(name)
            else:
                first[id(value)], places[name] = name, (held, key)
        return Live(places), aliases

    def _stopped(self) -> list[str]:
        if not self.framework.is_jittor:
            return [n for n, p in self.module.named_parameters() if not p.requires_grad]
        held = {id(p) for p in self.module.parameters()}
        trained = getattr(self.module, "backup_grad_state", {})
        return ["all"] if held and trained and any(trained.get(i) for i in held) else []

    def _without_dropout(self) -> int:
        """Switch dropout off; return the number of its modules."""
        count = 0
        for module in self.modules.values():
            name = type(module).__name__
            if name.startswith(("Dropout", "DropPath", "AlphaDropout", "FeatureAlpha")):
                for key in ("p", "drop_prob"):
                    if isinstance(getattr(module, key, None), float | int) and getattr(module, key):
                        setattr(module, key, 0.0)
                        count += 1
            elif isinstance(getattr(module, "dropout", None), float) and module.dropout:
                module.dropout = 0.0  # recurrent layers and attention hold a number
                count += 1
        return count

    # weights

    def parameters(self) -> list[str]:
        """Names of the trained arrays."""
        self.train(True)
        if self.framework.is_jittor:
            return [n for n, v in self.vars.items() if self.framework.flows(v)]
        held = {id(p) for p in self.module.parameters()}
        return [n for n, v in self.vars.items() if id(v) in held and v.requires_grad]

    def weights(self) -> dict[str, Array]:
        """All arrays by name, on the host, in order of definition."""
        return {name: self.framework.read(v) for name, v in self.vars.items()}

    def load(self, weights: Mapping[str, Array]) -> None:
        """Overwrite the arrays that are named."""
        for name, array in weights.items():
            self.framework.assign(self.vars[name], array)
        self.framework.sync()

    def train(self, on: bool) -> None:
        """Set the mode of all modules."""
        if on:
            self.module.train()
        elif self.framework.is_jittor:
            # Its eval() also stops every gradient; only the mode is wanted.
            for module in self.modules.values():
                module.is_train = False
        else:
            self.module.eval()

    # calls

    @contextmanager
    def still(self) -> Iterator[None]:
        """No graph, and no functional dropout."""
        with self.framework.lib.no_grad(), self.quiet():
            yield

    @contextmanager
    def quiet(self) -> Iterator[None]:
        """Functional dropout gives back its input inside, and attention drops nothing."""
        owner = self.framework.lib.nn
        owner = owner if self.framework.is_jittor else owner.functional
        before = {n: getattr(owner, n) for n in FUNCTIONAL if hasattr(owner, n)}
        try:
            for n, function in before.items():
                setattr(owner, n, _undropped(function) if n == ATTENTION else _passed)
            with self.precision():
                yield
        finally:
            for n, function in before.items():
                setattr(owner, n, function)

    @contextmanager
    def watched(self, seen: Callable[[Call], None], host: bool = True) -> Iterator[None]:
        """Report each call of each module; later calls of one module have `#2` and so on.

        Args:
            host: copy arrays to the host at once (code may change them in place later).
        """
        read = self.framework.read if host else (lambda value: value)
        key, counts, started = self.framework.call, dict[str, int](), [0]
        watched = [(path, module) for path, module in self.modules.items() if path]

        def around(path: str, call: Callable[..., Any]) -> Callable[..., Any]:
            def observed(*args: Any, **named: Any) -> Any:
                counts[path] = counts.get(path, 0) + 1
                started[0] += 1
                order = started[0]
                shown = path if counts[path] == 1 else f"{path}#{counts[path]}"
                taken = [read(v) for v in leaves(self.framework, [args, named])]
                result = call(*args, **named)
                made = [read(v) for v in leaves(self.framework, result)]
                seen(Call(shown, (args, named), taken, made, order))
                return result

            return observed

        try:
            for path, module in watched:
                setattr(module, key, around(path, getattr(module, key)))
            yield
        finally:
            for _, module in watched:
                module.__dict__.pop(key, None)

    def output(self, inputs: Mapping[str, Array]) -> list[Any]:
        """The network's outputs on the device, from inputs in order.

        Raises:
            UserError: there is none, or the model cannot take the inputs.
        """
        way = self.way_of(inputs)
        args, named = way.filled(lambda name: self.framework.put(inputs[name], self.wide))
        made = self.module(*args, **named)
        found = list(leaves(self.framework, made))
        if not found:
            raise UserError(
                f"{self.target.text}: the model returned a {type(made).__name__}, expected an "
                "array, or arrays in a tuple, list or dictionary"
            )
        return found

    def put(self, inputs: Mapping[str, Array]) -> list[Any]:
        """All inputs on the device, in order."""
        return [self.framework.put(a, self.wide) for a in inputs.values()]

    def way_of(self, inputs: Mapping[str, Array]) -> Way:
        """The way to call the model; asked before a rung, for it may run the loss once."""
        if self.way is None:
            self.way = way_of(self, inputs)
        return self.way

    def taken(self, inputs: Mapping[str, Array]) -> list[str]:
        """The inputs that the model itself takes; the others are for `loss` alone."""
        return self.way_of(inputs).names

    def again(self, call: Call, arrays: Sequence[Array], leaf: bool = False) -> tuple[Any, Any]:
        """Call one module again with other arrays in its arguments: (arrays, outputs)."""
        put = [
            self.framework.leaf(a, self.wide)
            if leaf and a.dtype.kind == "f"
            else self.framework.put(a, self.wide)
            for a in arrays
        ]
        # PyTorch lets no leaf be changed in place, as `ReLU(inplace=True)` does.
        given = [a.clone() for a in put] if leaf and not self.framework.is_jittor else put
        args, named = refilled(self.framework, call.given, iter(given))
        module = self.modules[call.path.partition("#")[0]]
        return put, list(leaves(self.framework, module(*args, **named)))

    # training

    def own(self, name: str) -> Any:
        """The `loss` or `optimizer` of the maker (as its attribute), or of its file."""
        return getattr(self.made, name, None) or getattr(self.file, name, None)

    def loss(self, inputs: Mapping[str, Array]) -> Any:
        """The user's loss, or the mean squared distance of the outputs from keyed numbers."""
        own = self.own("loss")
        if own is not None:
            return one_number(self, own(self.module, *self.put(inputs)))
        total: Any = None
        for i, each in enumerate(self.output(inputs)):
            if not self._is_float(each):
                continue
            goal = rng.normal(0, "initial_noise", tuple(each.shape), (1 << 23) + 512 + i)
            apart = each - self.framework.put(goal, self.wide)
            term = (apart * apart).mean()
            total = term if total is None else total + term
        if total is None:
            raise UserError(f"{self.target.text}: gives no output of floats; write a loss()")
        return total

    def _is_float(self, value: Any) -> bool:
        return "float" in self.framework.dtype(value)

    def optimizer(self) -> Any:
        """The user's optimizer; None if the file has none."""
        own = self.own("optimizer")
        return None if own is None else own(self.module)

    def optimizer_about(self) -> dict[str, Any]:
        """Kind and plain settings of the user's PyTorch optimizer; empty if there is none."""
        if self.framework.is_jittor:
            return {}
        made = self.optimizer()
        groups = getattr(made, "param_groups", [])
        if len(groups) != 1:  # groups of several settings: no one rule
            return {}
        kept = {k: v for k, v in groups[0].items() if isinstance(v, bool | int | float | tuple)}
        return {"kind": type(made).__name__, "settings": kept}

    def step(self, optimizer: Any, loss: Any, names: Sequence[str], rate: float) -> None:
        """One step of the optimizer; without one, of plain gradient descent."""
        if optimizer is None:
            found = self.framework.grads(loss, [self.vars[n] for n in names])
            for name, g in zip(names, found, strict=True):
                now = self.framework.read(self.vars[name])
                self.framework.assign(self.vars[name], now - np.asarray(rate * g, now.dtype))
        elif self.framework.is_jittor:
            optimizer.step(loss)
        else:
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        self.framework.sync()


def _passed(*args: Any, **named: Any) -> Any:
    """The input of a dropout function, given by its place or by its name."""
    return next(iter((*args, *(named[n] for n in ("input", "x") if n in named))))


def _undropped(attention: Callable[..., Any]) -> Callable[..., Any]:
    """Attention without dropout, which is its fifth argument."""

    def attend(*args: Any, **named: Any) -> Any:
        args = (*args[:4], 0.0, *args[5:]) if len(args) > 4 else args
        return attention(*args, **(named | {"dropout_p": 0.0} if "dropout_p" in named else named))

    return attend


def settings_of(module: Any) -> dict[str, Any]:
    """A module's plain settings (eps, stride, ...), for the page and the hints."""
    kept = {}
    for key, value in vars(module).items():
        if key.startswith("_") or key in ("training", "is_train"):
            continue
        if isinstance(value, bool | int | float | str) or (
            isinstance(value, tuple) and all(isinstance(v, int | float) for v in value)
        ):
            kept[key] = list(value) if isinstance(value, tuple) else value
    return kept


def source_line(module: Any) -> str:
    """`file:line` of a module's class, or '' for one of the framework."""
    try:
        path = inspect.getsourcefile(type(module)) or ""
        line = inspect.getsourcelines(type(module))[1]
    except (OSError, TypeError):
        return ""
    return "" if "site-packages" in path else f"{path}:{line}"
