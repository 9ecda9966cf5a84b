"""The arithmetic of a network: float32, TF32 or bfloat16. Mirrors `jittor/precision.py`.

    fp32    float32 everywhere, with TF32 switched off
    tf32    products and convolutions of float32 with 10 bits of mantissa, on a GPU from Ampere on
    bf16    the network alone, under autocast; weights, loss, sums and updates stay float32

The framework's own default is never relied on: PyTorch's is TF32 for convolutions and float32 for
products. The settings are of the process, so they are applied at every call of a network.
"""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from typing import Any

import torch

from diptych.errors import UserError

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Arithmetic:
    """A precision on a device; `deterministic`: the same bits in every run on that device."""

    precision: str
    deterministic: bool
    device: str

    def check(self) -> None:
        """Raise UserError if the device cannot compute so; note what is slow."""
        if self.precision == "tf32" and not self.has_tf32():
            raise UserError(
                f"precision tf32: needs an NVIDIA GPU, Ampere or later, not '{self.device}'; "
                f"use fp32 or bf16"
            )
        if self.precision == "bf16" and not self.has_bf16():
            log.warning("bf16: '%s' has no instructions for it; fp32 is faster here", self.device)
        if self.deterministic and self.device != "cpu":
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when CUDA starts

    def has_tf32(self) -> bool:
        """True for a GPU that has TF32."""
        return self.device != "cpu" and torch.cuda.get_device_capability() >= (8, 0)

    def has_bf16(self) -> bool:
        """True if the device has instructions for bfloat16."""
        if self.device != "cpu":
            return torch.cuda.get_device_capability() >= (8, 0)
        asked = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
        return any(bool(getattr(torch.cpu, name, bool)()) for name in asked)

    def apply(self, training: bool = False) -> None:
        """Make the process's settings those of this arithmetic.

        In training cuDNN tries its kernels, 11 to 19 seconds for a large network, and keeps the
        fastest of each size; which one wins can differ from run to run.
        """
        tf32 = self.precision == "tf32"
        torch.set_float32_matmul_precision("high" if tf32 else "highest")
        torch.backends.cudnn.allow_tf32 = tf32
        tries = training and self.device != "cpu" and not self.deterministic
        torch.backends.cudnn.benchmark = tries
        torch.backends.cudnn.deterministic = self.deterministic
        if self.device != "cpu":  # a CPU's operators are deterministic without it
            torch.use_deterministic_algorithms(self.deterministic)

    def call(self, network: Any, *given: Any) -> torch.Tensor:
        """The network's output in float32."""
        self.apply(training=torch.is_grad_enabled())
        if self.precision != "bf16":
            return network(*given)
        kind = "cpu" if self.device == "cpu" else "cuda"
        with torch.autocast(kind, torch.bfloat16):
            return network(*given).float()


def choose(precision: str, deterministic: bool, device: str) -> Arithmetic:
    """A checked arithmetic, applied. Raises UserError if the device cannot compute so."""
    made = Arithmetic(precision, deterministic, device)
    made.check()
    made.apply()
    return made
