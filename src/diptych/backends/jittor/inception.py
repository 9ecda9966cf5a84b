"""InceptionV3 for FID, Jittor backend; its mirror is `diptych.backends.torch.inception`.

Names and sizes come from `diptych.network.features.inception`, which also lists the differences
from torchvision's network. Logits omit the last bias, as in the Inception Score of the 2015 graph.
Nothing here is trained, so no gradients are kept.
"""

from __future__ import annotations

from collections.abc import Mapping

import jittor as jt

from diptych.backends.jittor.arrays import put
from diptych.backends.jittor.feature_layers import (
    avg_pool,
    conv_relu,
    corner,
    dense,
    join,
    max_pool,
    pixel_mean,
    place,
    place_weight,
    resize,
)
from diptych.backends.jittor.precision import Arithmetic
from diptych.network.features.inception import CONVS
from diptych.types import Float32

Outputs = tuple[jt.Var, jt.Var, jt.Var | None]


class Inception:
    """(B, 3, 299, 299) -> features (B, 2048), logits (B, 1008), spatial features (B, 2023)."""

    def __init__(self, arrays: Mapping[str, Float32], arithmetic: Arithmetic) -> None:
        self.arithmetic = arithmetic
        device = arithmetic.device
        self.arrays = {name: place_weight(put(array, device)) for name, array in arrays.items()}
        self.no_bias = self.arrays["fc.bias"] * 0

    @jt.no_grad()
    def __call__(self, x: jt.Var) -> Outputs:
        self.arithmetic.apply()
        return self.features(place(x))

    @jt.no_grad()
    def resized(
        self,
        images: jt.Var,
        rows: jt.Var,
        columns: jt.Var,
        scale: float,
        shift: float,
        limits: tuple[float, float],
    ) -> Outputs:
        """Features of uint8 images (B, H, W, 1 or 3), resized by two matrices; see `resize`."""
        self.arithmetic.apply()
        return self.features(resize(images, rows, columns, scale, shift, limits))

    def features(self, x: jt.Var) -> Outputs:
        x = self.chain(x, "Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3")
        x = self.chain(max_pool(x, 2, 0), "Conv2d_3b_1x1", "Conv2d_4a_3x3")
        x = max_pool(x, 2, 0)
        for name in ("5b", "5c", "5d"):
            x = self.block_a(x, f"Mixed_{name}.")
        x = self.block_b(x, "Mixed_6a.")
        for name in ("6b", "6c"):
            x = join(self.block_c(x, f"Mixed_{name}."))
        parts = self.block_c(x, "Mixed_6d.")
        spatial = corner(parts[0], 7)
        x = join(self.block_c(join(parts), "Mixed_6e."))
        x = self.block_d(x, "Mixed_7a.")
        x = self.block_e(x, avg_pool(x), "Mixed_7b.")
        pool = pixel_mean(self.block_e(x, max_pool(x, 1, 1), "Mixed_7c."))
        return pool, dense(pool, self.arrays["fc.weight"], self.no_bias), spatial

    def chain(self, x: jt.Var, *names: str) -> jt.Var:
        """Apply convolutions in sequence."""
        for name in names:
            weight, bias = self.arrays[f"{name}.weight"], self.arrays[f"{name}.bias"]
            x = conv_relu(x, CONVS[name], weight, bias)
        return x

    def branch(self, x: jt.Var, stem: str, *ends: str) -> jt.Var:
        """`chain` of the names `stem` + `end`."""
        return self.chain(x, *(stem + end for end in ends))

    def block_a(self, x: jt.Var, at: str) -> jt.Var:
        one = self.chain(x, f"{at}branch1x1")
        five = self.branch(x, f"{at}branch5x5", "_1", "_2")
        double = self.branch(x, f"{at}branch3x3dbl", "_1", "_2", "_3")
        return join([one, five, double, self.chain(avg_pool(x), f"{at}branch_pool")])

    def block_b(self, x: jt.Var, at: str) -> jt.Var:
        three = self.chain(x, f"{at}branch3x3")
        double = self.branch(x, f"{at}branch3x3dbl", "_1", "_2", "_3")
        return join([three, double, max_pool(x, 2, 0)])

    def block_c(self, x: jt.Var, at: str) -> list[jt.Var]:
        one = self.chain(x, f"{at}branch1x1")
        seven = self.branch(x, f"{at}branch7x7", "_1", "_2", "_3")
        double = self.branch(x, f"{at}branch7x7dbl", "_1", "_2", "_3", "_4", "_5")
        return [one, seven, double, self.chain(avg_pool(x), f"{at}branch_pool")]

    def block_d(self, x: jt.Var, at: str) -> jt.Var:
        three = self.branch(x, f"{at}branch3x3", "_1", "_2")
        seven = self.branch(x, f"{at}branch7x7x3", "_1", "_2", "_3", "_4")
        return join([three, seven, max_pool(x, 2, 0)])

    def block_e(self, x: jt.Var, pooled: jt.Var, at: str) -> jt.Var:
        one = self.chain(x, f"{at}branch1x1")
        three = self.chain(x, f"{at}branch3x3_1")
        double = self.branch(x, f"{at}branch3x3dbl", "_1", "_2")
        ends = [self.chain(three, f"{at}branch3x3_2{side}") for side in "ab"]
        ends += [self.chain(double, f"{at}branch3x3dbl_3{side}") for side in "ab"]
        return join([one, *ends, self.chain(pooled, f"{at}branch_pool")])
