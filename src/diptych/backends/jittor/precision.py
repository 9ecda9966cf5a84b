"""The arithmetic of a network: float32. Mirrors `torch/precision.py`.

    fp32    float32 everywhere; `setup` switches TF32 off for NVIDIA's libraries

Jittor has no control over TF32 in its calls of cuDNN and cuBLAS, and no autocast whose casts are
those of PyTorch's, so the others are refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jittor as jt

from diptych.errors import UserError


@dataclass(frozen=True)
class Arithmetic:
    """A precision on a device; `deterministic`: the same bits in every run on that device."""

    precision: str
    deterministic: bool
    device: str

    def check(self) -> None:
        """Raise UserError if the device cannot compute so."""
        if self.precision != "fp32":
            raise UserError(
                f"precision {self.precision}: the Jittor panel computes in float32 alone; "
                f"use fp32, or --backend torch"
            )
        if self.deterministic and self.device != "cpu":
            raise UserError(
                f"deterministic: Jittor chooses cuDNN's algorithms by itself on '{self.device}'; "
                f"use --device cpu, or --backend torch"
            )

    def apply(self) -> None:
        """Do nothing: there is one precision."""

    def call(self, network: Any, *given: Any) -> jt.Var:
        """The network's output in float32."""
        return network(*given)


def choose(precision: str, deterministic: bool, device: str) -> Arithmetic:
    """A checked arithmetic, applied. Raises UserError if the device cannot compute so."""
    made = Arithmetic(precision, deterministic, device)
    made.check()
    return made
