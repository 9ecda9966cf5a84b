"""`train.compile` only applies to PyTorch; Jittor compiles all that it computes. Mirrors
`torch/compiler.py`."""

from __future__ import annotations

from diptych.backends.jittor.own import Own
from diptych.backends.jittor.unet import UNet
from diptych.errors import UserError


def compile_network(network: UNet | Own) -> None:
    """Refuse: Jittor always compiles.

    Raises:
        UserError: always.
    """
    raise UserError(
        "train.compile: only applies to PyTorch; Jittor compiles all that it computes; set "
        "train.compile=false, or use --backend torch"
    )
