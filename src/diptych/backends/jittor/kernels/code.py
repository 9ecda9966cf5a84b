"""Jittor operators from C++ bodies, and the switch between them and Jittor's own operators.

Jittor compiles a body into a function in which `in0_p`, `in0_shape0`, `out0_p` ... are the pointers
and sizes of inputs and outputs. `data["name"]` is a number passed at the call; changing it needs no
new compile. Arrays are contiguous float32; images are (B, C, H, W).

We have our own bodies because Jittor's generated loops run on one thread, and its batched matrix
product is naive. Sums run in double, in an order that does not depend on the number of threads.
Jittor compiles with -Ofast, under which a division by infinity may give NaN and a comparison may
lose one, so exponentials are kept finite and NaN is carried by a product.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jittor as jt
from jittor import Var, compile_extern


def _onednn_flags() -> str | None:
    """Compiler flags for oneDNN, or None if Jittor has no oneDNN on this machine."""
    if compile_extern.mkl_ops is None:
        return None
    home = Path(jt.compiler.jit_utils.home()) / ".cache" / "jittor" / "mkl"
    for include in sorted(home.glob("dnnl*/include")):
        return f' -I"{include}" -L"{include.parent / "lib"}" -lmkldnn '
    return None


_FLAGS = _onednn_flags()
_OPTIONS = {f"FLAGS:{_FLAGS}": 1}


def native() -> bool:
    """True if our C++ bodies are used: on a CPU with oneDNN. If not, Jittor's operators are."""
    return _FLAGS is not None and not jt.flags.use_cuda


class Function(jt.Function):  # type: ignore[misc]
    """An operator with its own gradient, which can be asked for once.

    Then it forgets all that it holds. Jittor drops an operator no earlier than at the end of a
    run, and a run is a whole step: until then the arrays that it needs would all stay in memory.
    """

    def _grad(self, *given: Var | None) -> Any:
        found = super()._grad(*given)
        self.__dict__.clear()
        return found


def check(fits: bool, message: str) -> None:
    """Raise ValueError unless `fits`; Jittor itself would stop with an empty message."""
    if not fits:
        raise ValueError(message)


def code(
    shapes: Sequence[Any], inputs: Sequence[Var], body: str, header: str = "", **data: float
) -> list[Var]:
    """Float32 outputs of the given shapes, computed from the inputs by one C++ body."""
    with jt.flag_scope(compile_options=_OPTIONS):
        outputs = jt.code(
            [list(shape) for shape in shapes],
            ["float32"] * len(shapes),
            list(inputs),
            cpu_src=body,
            cpu_header=header,
            data=data,
        )
    return list(outputs)
