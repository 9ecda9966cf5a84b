"""The Jittor panel's CUDA bodies without a GPU, in Jittor's process.

Inside `cuda_bodies` the panel's operators take the path that they take on CUDA. Where they call
`jt.code`, the CUDA body that they hand over is run on a CPU by `cuda_on_host.h`, thread by thread;
convolutions and products are Jittor's own operators, as on CUDA.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import re
import subprocess
import sysconfig
import tempfile
import types
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import keyed_jobs
import layer_jobs
from diptych.types import Array

HERE = Path(__file__).parent
FLAGS = ("-std=c++14", "-O1", "-U_FORTIFY_SOURCE", "-w", "-fPIC", "-shared")
GUARD = 256  # elements before and after an output, which must keep their bytes
Edit = tuple[str, str]  # a text of the bodies, and what to put in its place


class Bodies:
    """The CUDA bodies that were asked for, by number, and what runs them."""

    def __init__(self, edits: Sequence[Edit] = ()) -> None:
        self.edits, self.used = list(edits), set[str]()
        self.known: dict[tuple[Any, ...], int] = {}
        self.library: ctypes.CDLL | None = None
        self.falling, self.faults, self.inside = False, 0, True

    def code(
        self, shapes: Any, dtypes: Any, inputs: Any, *, cuda_src: str, cuda_header: str,
        data: dict[str, float] | None = None, **_: Any,
    ) -> Any:  # fmt: skip
        """`jt.code` on CUDA: zeros while bodies are collected, their outputs once compiled."""
        jt = importlib.import_module("jittor")
        one = isinstance(dtypes, str)
        shapes, dtypes = ([shapes], [dtypes]) if one else (shapes, dtypes)
        given = [np.ascontiguousarray(v.numpy()) for v in inputs]
        padded = [_padded(tuple(s), d) for s, d in zip(shapes, dtypes, strict=True)]
        made = [_inside(x, tuple(s)) for x, s in zip(padded, shapes, strict=True)]
        key = (
            cuda_header,
            cuda_src,
            *((str(x.dtype), x.ndim) for x in (*given, *made)),
            len(given),
        )
        number = self.known.setdefault(key, len(self.known))
        if self.library is None:
            made = [np.zeros_like(x) for x in made]
        else:
            self._run(number, given, made, data or {})
            edges = [x[part] for x in padded for part in (slice(GUARD), slice(-GUARD, None))]
            self.inside &= all((x.view(np.uint8) == 0xFF).all() for x in edges)
        found = [jt.array(x.copy()) for x in made]
        return found[0] if one else found

    def _run(
        self, number: int, given: list[Array], made: list[Array], data: dict[str, float]
    ) -> None:
        everything = [*given, *made]
        memory = (ctypes.c_void_p * len(everything))(*(x.ctypes.data for x in everything))
        sizes = [n for x in everything for n in (x.ndim, *x.shape)]
        names = (ctypes.c_char_p * len(data))(*(name.encode() for name in data))
        self.faults += getattr(self.library, f"body_{number}")(
            len(given), len(made), memory, (ctypes.c_longlong * len(sizes))(*sizes),
            len(data), names, (ctypes.c_double * len(data))(*data.values()), int(self.falling),
        )  # fmt: skip

    def source(self, prelude: str) -> str:
        """All bodies as one file; those below the same header share a namespace."""
        parts = [prelude, *sorted({
            line for header, *_ in self.known for line in header.splitlines()
            if line.startswith("#include")
        })]  # fmt: skip
        for header in dict.fromkeys(key[0] for key in self.known):
            bodies = [(n, *key[1:]) for key, n in self.known.items() if key[0] == header]
            parts.append(_wrapped(header, bodies))
        text = "\n".join(parts)
        for old, new in self.edits:
            assert old in text, f"no body has {old!r}"
            text = text.replace(old, new)
        return text

    def compile(self) -> None:
        """Make a library of all bodies known so far, by g++."""
        text = self.source('#include "cuda_on_host.h"')
        text = re.sub(r"(\w+)<<<(.*?)>>>\(", r"ON_HOST(\1, \2)(", text)
        for number in self.known.values():
            text += f"""extern "C" int body_{number}(
                int inputs, int outputs, void** memory, const long long* shapes, int numbers,
                const char** names, const double* values, int falling
            ) {{ return jittor::call<in_{number}::jittor::Body{number}>(
                inputs, outputs, memory, shapes, numbers, names, values, falling); }}\n"""
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "bodies.cc").write_text(text)
            command = ["g++", *FLAGS, f"-I{HERE}"]
            subprocess.run([*command, "-o", "bodies.so", "bodies.cc"], cwd=folder, check=True)
            self.library = ctypes.CDLL(str(Path(folder) / "bodies.so"))


def _padded(shape: tuple[int, ...], dtype: str) -> Array:
    """An output and its guards, all bytes 255: NaN in any float."""
    room = int(np.prod(shape)) + 2 * GUARD
    return np.full(room * np.dtype(dtype).itemsize, 0xFF, np.uint8).view(dtype)


def _inside(padded: Array, shape: tuple[int, ...]) -> Array:
    return padded[GUARD:-GUARD].reshape(shape)


def _wrapped(header: str, bodies: list[tuple[Any, ...]]) -> str:
    """A header and its bodies as classes Body0, Body1 ... in namespaces in_0, in_1 ..."""
    first = bodies[0][0]
    header = "\n".join(s for s in header.splitlines() if not s.startswith("#include"))
    lines = [f"namespace in_{first} {{ namespace jittor {{ using namespace ::jittor; }}", header]
    lines += [line for body in bodies for line in _class(*body)]
    lines += ["}", *(f"#undef {name}" for name in re.findall(r"#define (\w+)", header))]
    others = [f"namespace in_{n} = in_{first};" for n, *_ in bodies[1:]]
    return "\n".join([*lines, *others, ""])


def _class(number: int, body: str, *arrays: Any) -> list[str]:
    """A body in what Jittor puts around it; see its src/ops/code_op.cc."""
    *arrays, inputs = arrays
    defines, lines = {"out": "out0"}, []
    for k, (dtype, dims) in enumerate(arrays):
        name, group = (f"in{k}", "_inputs") if k < inputs else (f"out{k - inputs}", "_outputs")
        from_group = f"{group}[{k if k < inputs else k - inputs}]"
        defines[f"{name}_type"] = dtype
        lines.append(f"auto {name} = {from_group};")
        lines.append(f"auto* __restrict__ {name}_p = {from_group}->ptr<{dtype}>();")
        lines += [f"int {name}_shape{j} = {from_group}->shape[{j}];" for j in range(dims)]
    return [
        *(f"#define {name} {value}" for name, value in defines.items()),
        f"namespace jittor {{ struct Body{number} : CodeOp {{ void run() {{",
        *lines, body, "} }; }", *(f"#undef {name}" for name in defines),
    ]  # fmt: skip


@contextlib.contextmanager
def cuda_bodies(bodies: Bodies) -> Iterator[None]:
    """Let the panel's operators take their CUDA path, with `bodies.code` for `jt.code`."""
    modules = [
        importlib.import_module(f"diptych.backends.jittor.kernels.{name}")
        for name in ("code", "blocks")
    ]
    jt = modules[0].jt
    flags = types.SimpleNamespace(use_cuda=1)
    given = {"flags": flags, "flag_scope": jt.flag_scope, "array": jt.array, "code": bodies.code}
    for module in modules:
        module.jt = types.SimpleNamespace(**given)
    try:
        yield
    finally:
        for module in modules:
            module.jt = jt


def outcome(run: Callable[[], Any], edits: Sequence[Edit] = ()) -> tuple[dict[str, Any], Bodies]:
    """Results of `run` on CUDA bodies, by threads from first to last and from last to first.

    Returns:
        A dictionary, and the bodies:
        `rising`, `falling`: what `run` returned; `faults`: refused launches and lost barriers;
        `inside`: True if nothing was written beside an output.
    """
    bodies, found = Bodies(edits), dict[str, Any]()
    with cuda_bodies(bodies):
        run()
        bodies.compile()
        for name in ("rising", "falling"):
            bodies.falling = name == "falling"
            found[name] = run()
    return {**found, "faults": bodies.faults, "inside": bodies.inside}, bodies


def layers(cases: list[tuple[Any, ...]], edits: Sequence[Edit] = ()) -> dict[str, Any]:
    """`layer_jobs.evaluate` of each (name, init, weights, inputs, g, attributes)."""
    layer_jobs.framework("jittor")

    return outcome(lambda: [_layer(case) for case in cases], edits)[0]


def _layer(case: tuple[Any, ...]) -> Any:
    return layer_jobs.evaluate("jittor", *case[:5], **(case[5] if len(case) > 5 else {}))


def to_clip() -> Array:
    """Numbers within and beyond [-1, 1], infinities and NaN; not a multiple of a block."""
    x = np.linspace(-2, 2, 1001, dtype=np.float32)
    x[[3, 500, 1000]] = np.nan
    x[[7, 8]] = np.inf, -np.inf
    return x


def everything(layer_cases: list[tuple[Any, ...]], updates: Any) -> dict[str, Any]:
    """`outcome` of layers, keyed draws, clipping and updates; and all bodies as `source`.

    `source` stands on Jittor's own headers, which are in the folders `includes`.
    """
    _, put, _ = layer_jobs.framework("jittor")
    kernels = importlib.import_module("diptych.backends.jittor.kernels")
    gradients, true_norm = layer_jobs.drawn([(512, 1024, 3, 3), (512,)])
    least = [np.full((40, 30), size, np.float32) for size in (1e-15, 1e-18, 1e-21, 0.0)]

    def run() -> dict[str, Any]:
        return {
            "layers": [_layer(case) for case in layer_cases],
            "clip": np.array(kernels.clip(put(to_clip())).numpy()),
            "updates": layer_jobs.update("jittor", *updates),
            "least": [layer_jobs.update("jittor", [[g * 0] * 1] * 4, [[g]])[0] for g in least],
            "norm": float(kernels.gradient_norm([put(g) for g in gradients]).item()),
            "keyed": keyed_jobs.blocks("jittor", "panel"),
        }

    found, bodies = outcome(run)
    jt = importlib.import_module("jittor")
    home = Path(jt.__file__).parent
    folders = [home / "src", home / "extern", home / "extern" / "cuda" / "inc"]
    includes = (*map(str, folders), sysconfig.get_paths()["include"])
    headers = ("var.h", "ops/code_op.h", "misc/cuda_flags.h")
    prelude = "#define HAS_CUDA\n#define IS_CUDA\n" + "".join(f'#include "{h}"\n' for h in headers)
    found["true_norm"] = true_norm
    return {**found, "source": bodies.source(prelude), "includes": includes}
