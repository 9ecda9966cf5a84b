"""The classifier of 28x28 greyscale images, PyTorch backend; mirror: `jittor/classifier.py`."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from diptych.backends.torch.arrays import put
from diptych.backends.torch.feature_layers import conv_relu, dense, pixel_mean, place
from diptych.backends.torch.precision import Arithmetic
from diptych.network.features.classifier import CONVS
from diptych.types import Float32

Outputs = tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]


class Classifier:
    """(B, 1, 28, 28) in [0, 1] -> features (B, 96), logits (B, 10), None."""

    def __init__(self, arrays: Mapping[str, Float32], arithmetic: Arithmetic) -> None:
        self.arithmetic = arithmetic
        self.arrays = {name: put(array, arithmetic.device) for name, array in arrays.items()}

    @torch.inference_mode()
    def __call__(self, x: torch.Tensor) -> Outputs:
        self.arithmetic.apply()
        x = place(x * 2 - 1)
        for conv in CONVS:
            weight, bias = self.arrays[f"{conv.name}.weight"], self.arrays[f"{conv.name}.bias"]
            x = conv_relu(x, conv, weight, bias)
        pool = pixel_mean(x)
        return pool, dense(pool, self.arrays["fc.weight"], self.arrays["fc.bias"]), None
