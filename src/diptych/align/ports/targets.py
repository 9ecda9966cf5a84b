"""Sources of a model: a Python file or module, an ONNX file, an OpenVINO file.

    net.py            net.py:make         package.module:make         (default function: build)
    model.onnx        model.xml           openvino:model.onnx

A Python file says its framework with `FRAMEWORK = "torch"` (or jittor, numpy); if it does not, its
imports decide. It may also hold:

    INPUTS = {"x": {"shape": [2, 3, 32, 32], "low": -1, "high": 1},        # normal without a range
              "tokens": {"shape": [2, 7], "low": 0, "high": 50, "dtype": "int64"}}
    def loss(model, *inputs): ...       # a scalar; default: squared distance from keyed numbers.
                                        # It gets all inputs, the model those that it takes
    def optimizer(model): ...           # the framework's own; default: plain gradient descent

Nothing of a file is executed here: the process of its framework does that.
"""

from __future__ import annotations

import ast
import contextlib
import importlib.util
import inspect
import sys
import sysconfig
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from diptych import rng
from diptych.errors import UserError, nearest
from diptych.types import Array

FRAMEWORKS = ("torch", "jittor", "onnx", "openvino", "numpy")
MODULES = ("torch", "jittor")  # networks of modules; the others compute forward only
GRAPHS = {".onnx": "onnx", ".xml": "openvino"}
KEYS = ("shape", "low", "high", "dtype")


@dataclass(frozen=True)
class Target:
    """One model: its framework, its file or module, and the function that makes it."""

    text: str
    framework: str
    place: str
    function: str = "build"


def target_of(text: str) -> Target:
    """The target that a text names.

    Raises:
        UserError: no such file, or a framework that is not known.
    """
    head, _, rest = text.partition(":")
    forced, given = (head, rest) if head in FRAMEWORKS and rest else ("", text)
    suffix = Path(given).suffix
    if suffix in GRAPHS:
        if not Path(given).is_file():
            raise UserError(f"{given}: there is no such file")
        return Target(text, forced or GRAPHS[suffix], str(Path(given).absolute()), "")
    place, function = _split(given)
    source = _source(place, text)
    framework = forced or _framework(source, place)
    if framework not in FRAMEWORKS:
        raise UserError(
            f"{place}: framework '{framework}' is not known{nearest(framework, list(FRAMEWORKS))}; "
            f'write FRAMEWORK = "torch" (or {", ".join(FRAMEWORKS[1:])}) into the file'
        )
    if framework in ("onnx", "openvino"):
        raise UserError(f"{text}: a model of {framework} is a file; give model.onnx or model.xml")
    return Target(text, framework, place, function)


def _split(given: str) -> tuple[str, str]:
    """(absolute file or dotted module, function)."""
    place, colon, function = given.rpartition(":")
    if not colon:
        place, function = given, "build"
    if place.endswith(".py"):
        if not Path(place).is_file():
            raise UserError(
                f"{place}: there is no such file; begin with `diptych align port --init FOLDER`"
            )
        return str(Path(place).absolute()), function
    if Path(place).is_file() or not (colon or "." in place):
        raise UserError(
            f"'{given}': give file.py, file.py:function, package.module:function, "
            f"model.onnx or model.xml"
        )
    return place, function


def _source(place: str, text: str) -> str:
    if place.endswith(".py"):
        path = Path(place)
    else:
        found = found_module(place)
        if found is None or not found.origin:
            raise UserError(
                f"{text}: module '{place}' is not found; give a file, run from the folder that "
                f"holds it, or set PYTHONPATH"
            )
        path = Path(found.origin)
    return path.read_text("utf-8", errors="replace")


def found_module(name: str) -> ModuleSpec | None:
    """The place of a module, also in the working directory; None if there is none.

    An installed command has its own folder first on the path, `python -m` the working directory,
    as the workers have.
    """
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        importlib.invalidate_caches()
        return importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return None
    finally:
        sys.path.remove(here)


def _framework(source: str, place: str) -> str:
    """The framework that a source names, or else the first that it imports."""
    try:
        tree = ast.parse(source)
    except SyntaxError as error:
        raise UserError(f"{place}, line {error.lineno}: not Python ({error.msg})") from error
    imported: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and any(
            isinstance(t, ast.Name) and t.id == "FRAMEWORK" for t in node.targets
        ):
            return str(getattr(node.value, "value", ""))
        if isinstance(node, ast.Import):
            imported |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            imported.add(node.module.partition(".")[0])
    framework = next((name for name in ("jittor", "torch", "numpy") if name in imported), "")
    if not framework:
        raise UserError(
            f'{place}: imports no framework itself; write FRAMEWORK = "torch" (or jittor, numpy) '
            "into the file, or torch: before its name"
        )
    return framework


def load_module(target: Target) -> ModuleType:
    """Execute a target's file in this process; its folder comes first on the path."""
    if not target.place.endswith(".py"):
        sys.path.insert(0, str(Path.cwd()))
        return importlib.import_module(target.place)
    path = Path(target.place)
    if str(path.parent) not in sys.path:
        sys.path.insert(0, str(path.parent))
    name = path.stem
    if name in sys.stdlib_module_names:  # the framework needs its own `time`
        name = f"{name}_of_port"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def function_of(module: ModuleType, target: Target) -> Any:
    """The function that makes the model."""
    made = getattr(module, target.function, None)
    if not callable(made):
        names = [n for n in vars(module) if callable(getattr(module, n)) and n[0] != "_"]
        raise UserError(
            f"{target.text}: has no function '{target.function}'{nearest(target.function, names)}"
        )
    with contextlib.suppress(ValueError):  # a function of C, which shows no arguments
        try:
            inspect.signature(made).bind()
        except TypeError as error:
            raise UserError(
                f"{target.text}: '{target.function}' must take no arguments ({error}); write a "
                "function that calls it with them, and name that one"
            ) from None
    return made


def raised(error: BaseException) -> str:
    """An error in one line: `FILE.py:LINE` of a user's own code (if it passed any), kind, text."""
    paths = sysconfig.get_paths()
    others = (paths["stdlib"], paths["purelib"], paths["platlib"], str(Path(__file__).parents[2]))
    frames = traceback.extract_tb(error.__traceback__)
    own = [f"{f.filename}:{f.lineno}" for f in frames if not f.filename.startswith((*others, "<"))]
    return ": ".join([*own[-1:], type(error).__name__, " ".join(str(error).split())[:300]])


def made_inputs(declared: Mapping[str, Any], seed: int, where: str) -> dict[str, Array]:
    """Keyed inputs of the declared shapes and ranges.

    Raises:
        UserError: a declaration that cannot be understood.
    """
    if not isinstance(declared, Mapping) or not declared:
        raise UserError(
            f'{where}: which inputs? Write INPUTS = {{"x": {{"shape": [2, 3, 32, '
            f"32]}}}} into the reference's file, or give --inputs or --input"
        )
    return {
        name: _made(name, each, seed, i, where) for i, (name, each) in enumerate(declared.items())
    }


def _made(name: str, each: Any, seed: int, index: int, where: str) -> Array:
    if not isinstance(each, Mapping) or "shape" not in each:
        raise UserError(f"{where}: input '{name}' needs a shape, such as {{\"shape\": [2, 3]}}")
    for key in each:
        if key not in KEYS:
            raise UserError(
                f"{where}: input '{name}': '{key}' is not known{nearest(key, list(KEYS))}"
            )
    try:
        shape = tuple(int(n) for n in each["shape"])
        dtype = np.dtype(each.get("dtype", "float32"))
        low, high = (float(each[k]) if k in each else None for k in ("low", "high"))
    except (TypeError, ValueError) as error:
        raise UserError(f"{where}: input '{name}': {error}") from error
    if any(n < 1 for n in shape):
        raise UserError(f"{where}: input '{name}': shape {shape} holds no values")
    if dtype != np.float32 and dtype.kind not in "iub":
        raise UserError(
            f"{where}: input '{name}': dtype {dtype}: expected float32, bool or integers (the "
            "reference's float64 pass widens floats by itself)"
        )
    if dtype.kind in "iub" and high is None:
        raise UserError(f"{where}: input '{name}' is of integers: give its high (exclusive)")
    least, most = 0.0 if low is None else low, 1.0 if high is None else high
    if not (np.isfinite([least, most]).all() and least < most):
        raise UserError(
            f"{where}: input '{name}': low {least:g} and high {most:g}: expected low below high"
        )
    stream = rng.stream(seed, "initial_noise", (1 << 23) + index)
    if dtype.kind in "iub":
        return stream.integers(int(least), int(most), shape).astype(dtype)
    if low is None and high is None:
        return rng.normal(seed, "initial_noise", shape, (1 << 23) + index).astype(np.float32)
    return (least + (most - least) * stream.random(shape)).astype(np.float32)


def declared_input(text: str) -> tuple[str, dict[str, Any]]:
    """`x=2,3,32,32`, `x=2,3:-1..1`, `t=2:0..1000:int64` as (name, declaration)."""
    name, _, rest = text.partition("=")
    shape, *more = rest.split(":")
    found: dict[str, Any] = {}
    try:
        found["shape"] = [int(n) for n in shape.split(",")]
        for each in more:
            if ".." in each:
                found["low"], found["high"] = (float(n) for n in each.split(".."))
            elif each:
                found["dtype"] = str(np.dtype(each))
    except (TypeError, ValueError) as error:
        raise UserError(
            f"--input {text}: expected NAME=SHAPE[:LOW..HIGH][:DTYPE], such as "
            f"x=2,3,32,32:-1..1 or t=2:0..1000:int64 ({error})"
        ) from error
    if not name:
        raise UserError(f"--input {text}: expected NAME=SHAPE[:LOW..HIGH][:DTYPE]")
    return name, found
