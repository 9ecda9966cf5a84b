"""Operators on elements and pixels: sum, clip, dropout, concatenation, resampling."""

from __future__ import annotations

import jittor as jt
from jittor import Var

from diptych.backends.jittor.kernels.code import Function, check, code, native

# y = a + b.
ADD = """
#pragma omp parallel for
for (int64 i = 0; i < in0->num; i++) out0_p[i] = in0_p[i] + in1_p[i];
"""

# y = x cut to [-1, 1]; a NaN stays one. Its bits are looked at: -Ofast takes x != x for false.
CLIP_HEADER = "#include <cstring>"
CLIP = """
#pragma omp parallel for if (in0->num > 4096)
for (int64 i = 0; i < in0->num; i++) {
    unsigned bits;
    std::memcpy(&bits, in0_p + i, 4);
    const float x = in0_p[i];
    out0_p[i] = (bits & 0x7fffffffu) > 0x7f800000u ? x : std::min(1.f, std::max(-1.f, x));
}
"""

# y = data["scale"] * x where mask is 1, 0 elsewhere; inputs x, mask (uint8). Also dx from dy.
DROPOUT = """
const float scale = data["scale"];
#pragma omp parallel for
for (int64 i = 0; i < in0->num; i++) out0_p[i] = in0_p[i] * (scale * in1_p[i]);
"""

# y = [a, b] along the channels; and its gradient: input dy, outputs da, db.
CONCAT = """
const int64 a = in0->num / in0_shape0, b = in1->num / in0_shape0;
#pragma omp parallel for
for (int64 i = 0; i < in0_shape0; i++) {
    std::copy(in0_p + i * a, in0_p + i * a + a, out0_p + i * (a + b));
    std::copy(in1_p + i * b, in1_p + i * b + b, out0_p + i * (a + b) + a);
}
"""
SPLIT = """
const int64 a = out0->num / in0_shape0, b = out1->num / in0_shape0;
#pragma omp parallel for
for (int64 i = 0; i < in0_shape0; i++) {
    const float* dy = in0_p + i * (a + b);
    std::copy(dy, dy + a, out0_p + i * a);
    std::copy(dy + a, dy + a + b, out1_p + i * b);
}
"""

# With data["scale"]: SPREAD y[2i + r, 2j + s] = scale * x[i, j] for r, s in {0, 1};
# GATHER y[i, j] = scale * (sum over r, s of x[2i + r, 2j + s]). Each is the other's gradient.
SPREAD = """
const int64 W = in0_shape3;
const float scale = data["scale"];
#pragma omp parallel for
for (int64 i = 0; i < in0->num / W; i++) {
    float* y = out0_p + i * 4 * W;
    for (int64 j = 0; j < W; j++) y[2 * j] = y[2 * j + 1] = scale * in0_p[i * W + j];
    std::copy(y, y + 2 * W, y + 2 * W);
}
"""
GATHER = """
const int64 W = out0_shape3;
const float scale = data["scale"];
#pragma omp parallel for
for (int64 i = 0; i < out0->num / W; i++) {
    const float *x = in0_p + i * 4 * W, *below = x + 2 * W;
    for (int64 j = 0; j < W; j++)
        out0_p[i * W + j] =
            scale * ((x[2 * j] + x[2 * j + 1]) + (below[2 * j] + below[2 * j + 1]));
}
"""


class _Add(Function):  # type: ignore[misc]
    def execute(self, a: Var, b: Var) -> Var:
        return code([a.shape], [a, b], ADD)[0]

    def grad(self, dy: Var) -> tuple[Var, Var]:
        return dy, dy


def add(a: Var, b: Var) -> Var:
    """a + b, of the same shape: the residual sum."""
    check(a.shape == b.shape, f"add: {tuple(a.shape)} and {tuple(b.shape)}")
    return _Add.apply(a, b) if native() else a + b


def clip(x: Var) -> Var:
    """x cut to [-1, 1]; has no gradient. A NaN stays one, as in PyTorch: `clamp` makes it 1."""
    if native():
        return code([x.shape], [x], CLIP, CLIP_HEADER)[0]
    return jt.ternary(x == x, x.clamp(-1, 1), x)


class _Dropout(Function):  # type: ignore[misc]
    def execute(self, x: Var, mask: Var, scale: float) -> Var:
        self.mask, self.scale = mask, scale
        return code([x.shape], [x, mask], DROPOUT, scale=scale)[0]

    def grad(self, dy: Var) -> tuple[Var | None, ...]:
        return code([dy.shape], [dy, self.mask], DROPOUT, scale=self.scale)[0], None, None


def dropout(x: Var, mask: Var, rate: float) -> Var:
    """x * mask / (1 - rate) for a uint8 mask of zeros and ones, of x's shape."""
    check(x.shape == mask.shape, f"dropout: x {tuple(x.shape)}, mask {tuple(mask.shape)}")
    check(str(mask.dtype) == "uint8", f"dropout: mask is {mask.dtype}, expected uint8")
    scale = 1 / (1 - rate)
    return _Dropout.apply(x, mask, scale) if native() else x * (mask.float32() * scale)


class _Concat(Function):  # type: ignore[misc]
    def execute(self, a: Var, b: Var) -> Var:
        self.shapes = a.shape, b.shape
        shape = [a.shape[0], a.shape[1] + b.shape[1], *a.shape[2:]]
        return code([shape], [a, b], CONCAT)[0]

    def grad(self, dy: Var) -> tuple[Var, ...]:
        return tuple(code(list(self.shapes), [dy], SPLIT))


def concat(a: Var, b: Var) -> Var:
    """[a, b] along the channels."""
    check(
        a.ndim == b.ndim == 4 and a.shape[0] == b.shape[0] and a.shape[2:] == b.shape[2:],
        f"concat: {tuple(a.shape)} and {tuple(b.shape)}",
    )
    return _Concat.apply(a, b) if native() else jt.concat([a, b], dim=1)


class _Resample(Function):  # type: ignore[misc]
    def execute(self, x: Var, up: bool) -> Var:
        self.shape, self.up = x.shape, up
        size = [n * 2 if up else n // 2 for n in x.shape[2:]]
        body, scale = (SPREAD, 1.0) if up else (GATHER, 0.25)
        return code([[*x.shape[:2], *size]], [x], body, scale=scale)[0]

    def grad(self, dy: Var) -> tuple[Var, None]:
        body, scale = (GATHER, 1.0) if self.up else (SPREAD, 0.25)
        return code([self.shape], [dy], body, scale=scale)[0], None


def upsample(x: Var) -> Var:
    """Upsample to twice the height and width by repeating each pixel."""
    check(x.ndim == 4, f"upsample: input {tuple(x.shape)}, expected (B, C, H, W)")
    if native():
        return _Resample.apply(x, True)
    return jt.nn.interpolate(x, scale_factor=2, mode="nearest")


def avg_pool(x: Var) -> Var:
    """Means of 2x2 pixels, half the height and width; both must be even."""
    check(
        x.ndim == 4 and x.shape[2] % 2 == 0 == x.shape[3] % 2,
        f"avg_pool: input {tuple(x.shape)}, expected (B, C, H, W) with H and W even",
    )
    return _Resample.apply(x, False) if native() else jt.nn.avg_pool2d(x, 2, 2)
