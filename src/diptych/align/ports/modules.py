"""A user's network of modules, in PyTorch or Jittor: its weights, its calls, its gradients.

Both frameworks are reached through `Framework`, a few functions each. Modules are watched by
replacing their `forward` (`execute`) on the instance, so nothing of the user's code is changed.
Dropout is switched off, in modules and in functions: its bits cannot be equal.

Above 400 lines: one network seen from all sides.
"""

from __future__ import annotations

import importlib
import inspect
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from diptych import backends, rng
from diptych.align.ports.targets import Target, function_of, load_module
from diptych.errors import UserError
from diptych.types import Array


class Framework:
    """PyTorch or Jittor: arrays in and out, gradients, modes."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.version = backends.load(name, "cpu").describe()["framework_version"]
        self.lib: Any = importlib.import_module(name)
        self.is_jittor = name == "jittor"
        self.call = "execute" if self.is_jittor else "forward"

    def seed(self, seed: int) -> None:
        """Seed everything that a build may draw from."""
        random.seed(seed)
        np.random.seed(seed % 2**32)
        if self.is_jittor:
            self.lib.set_global_seed(seed)
        else:
            self.lib.manual_seed(seed)

    def is_array(self, value: Any) -> bool:
        """True if `value` is an array of the framework."""
        return isinstance(value, self.lib.Var if self.is_jittor else self.lib.Tensor)

    def put(self, values: Array, wide: bool = False) -> Any:
        """Copy a host array to the device; floats become float64 if `wide`."""
        if self.is_jittor:
            return self.lib.array(np.ascontiguousarray(values)).stop_grad()
        array = np.array(values, order="C")
        if array.dtype.kind == "f":
            array = array.astype(np.float64 if wide else np.float32)
        return self.lib.from_numpy(array)

    def read(self, value: Any) -> Array:
        """Copy a device array to the host; half precisions become float32."""
        if self.is_jittor:
            found = np.array(value.numpy(), order="C")
        else:
            value = value.detach()
            if value.dtype in (self.lib.bfloat16, self.lib.float16):
                value = value.float()
            found = np.array(value.cpu().numpy(), order="C")
        return found.astype(np.float32) if found.dtype == np.float16 else found

    def dtype(self, value: Any) -> str:
        """The array's own dtype."""
        return str(value.dtype).rpartition(".")[2]

    def assign(self, target: Any, values: Array) -> None:
        """Overwrite a weight in place."""
        if tuple(target.shape) != values.shape:
            raise ValueError(f"cannot assign {values.shape} to {tuple(target.shape)}")
        if self.is_jittor:
            target.assign(self.lib.array(np.ascontiguousarray(values)).cast(target.dtype))
            return
        with self.lib.no_grad():
            target.copy_(self.lib.from_numpy(np.array(values, order="C")))

    def grads(self, loss: Any, wanted: Sequence[Any]) -> list[Array]:
        """d loss / d wanted on the host; zeros where nothing flows."""
        if self.is_jittor:
            # Of an array that is asked for twice (a layer's and its container's output), Jittor
            # gives the gradient once, and then zeros.
            once = {id(w): w for w in wanted if self.flows(w)} if self.flows(loss) else {}
            rows = self.lib.grad(loss, list(once.values())) if once else []
            by_id = dict(zip(once, [self.read(g) for g in rows], strict=True))
            return [by_id.get(id(w), np.zeros(tuple(w.shape))) for w in wanted]
        if not loss.requires_grad:
            return [np.zeros(tuple(w.shape)) for w in wanted]
        alive = [w for w in wanted if w.requires_grad]
        rest = iter(self.lib.autograd.grad(loss, alive, allow_unused=True, retain_graph=True))
        found = [next(rest) if w.requires_grad else None for w in wanted]
        return [
            np.zeros(tuple(w.shape)) if g is None else self.read(g)
            for g, w in zip(found, wanted, strict=True)
        ]

    def leaf(self, values: Array, wide: bool) -> Any:
        """An input with a gradient."""
        if self.is_jittor:
            return self.lib.array(np.ascontiguousarray(values))
        return self.put(values, wide).requires_grad_(True)

    def flows(self, value: Any) -> bool:
        """True if a gradient may reach this value."""
        if self.is_jittor:
            return "float" in str(value.dtype) and not value.is_stop_grad()
        return bool(value.requires_grad)

    def sync(self) -> None:
        """Finish pending work; in Jittor operators pile up otherwise."""
        if self.is_jittor:
            self.lib.sync_all()


@dataclass(frozen=True)
class Call:
    """One call of a module: its arguments as given, and the arrays in them and in its result."""

    path: str
    given: tuple[tuple[Any, ...], dict[str, Any]]
    taken: list[Any]  # on the host, as they were before the call
    made: list[Any]  # on the host, or on the device if gradients are wanted of them
    order: int  # of its start; a container starts before its layers


def leaves(framework: Framework, value: Any) -> Iterator[Any]:
    """The arrays in nested tuples, lists and mappings, in order."""
    if framework.is_array(value):
        yield value
    elif isinstance(value, Mapping):
        for each in value.values():
            yield from leaves(framework, each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from leaves(framework, each)


def refilled(framework: Framework, value: Any, arrays: Iterator[Any]) -> Any:
    """The same structure with its arrays replaced in order."""
    if framework.is_array(value):
        return next(arrays)
    if isinstance(value, dict):
        return {k: refilled(framework, v, arrays) for k, v in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(refilled(framework, v, arrays) for v in value))
    if isinstance(value, list | tuple):
        return type(value)(refilled(framework, v, arrays) for v in value)
    return value


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

    def _owned(self) -> Iterator[tuple[str, Any]]:
        """Every array of every module by path, an array of two modules twice."""
        if not self.framework.is_jittor:
            yield from self.module.named_parameters(remove_duplicate=False)
            yield from self.module.named_buffers(remove_duplicate=False)
            return
        for path, module in self.modules.items():
            held = module.__dict__
            if type(module).__name__ == "ParameterList":
                held = module.params
            for key, value in held.items():
                if self.framework.is_array(value) and not str(key).startswith("_"):
                    yield f"{path}.{key}" if path else str(key), value

    def _named(self) -> tuple[dict[str, Any], dict[str, list[str]]]:
        """Arrays by their first name, and the further names of tied ones."""
        first: dict[int, str] = {}
        found: dict[str, Any] = {}
        aliases: dict[str, list[str]] = {}
        for name, value in self._owned():
            if id(value) in first:
                aliases.setdefault(first[id(value)], []).append(name)
            else:
                first[id(value)], found[name] = name, value
        return found, aliases

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
        """Functional dropout gives back its input inside."""
        lib = self.framework.lib
        owner = lib.nn if self.framework.is_jittor else lib.nn.functional
        names = [
            n
            for n in ("dropout", "dropout1d", "dropout2d", "dropout3d", "droppath")
            if hasattr(owner, n)
        ]
        before = {n: getattr(owner, n) for n in names}
        try:
            for n in names:
                setattr(owner, n, lambda x, *_, **__: x)
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

    def arguments(self, inputs: Mapping[str, Array]) -> list[Any]:
        """The inputs on the device, in order."""
        return [self.framework.put(a, self.wide) for a in inputs.values()]

    def output(self, arguments: Sequence[Any]) -> list[Any]:
        """The network's outputs.

        Raises:
            UserError: there is none.
        """
        made = self.module(*arguments)
        found = list(leaves(self.framework, made))
        if not found:
            raise UserError(
                f"{self.target.text}: the model returned a {type(made).__name__}, expected an "
                "array, or arrays in a tuple, list or dictionary"
            )
        return found

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

    def loss(self, arguments: Sequence[Any]) -> Any:
        """The user's loss, or the mean squared distance of the outputs from keyed numbers."""
        own = self.own("loss")
        if own is not None:
            return own(self.module, *arguments)
        total: Any = None
        for i, each in enumerate(self.output(arguments)):
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
