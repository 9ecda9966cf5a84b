"""GroupNorm fused with the per-channel shift before it and the silu after it."""

from __future__ import annotations

import math

import jittor as jt
from jittor import Var

from diptych.backends.jittor.kernels.code import Function, check, code, native

# y = x * sigmoid(x), and dy/dx, safe under -Ofast. NaN stays NaN: it multiplies.
SILU_HEADER = """
#include <cmath>
static inline float sigmoid(float z) { return 1.f / (1.f + std::exp(std::min(-z, 80.f))); }
static inline float silu(float z) { return z * sigmoid(z); }
static inline float silu_slope(float z) { float s = sigmoid(z); return s * (1.f + z * (1.f - s)); }
"""

# y = silu(x);  and, with inputs x, dy: dx = dy silu'(x).
SILU_FORWARD = """
#pragma omp parallel for if (in0->num > 4096)
for (int64 i = 0; i < in0->num; i++) out0_p[i] = silu(in0_p[i]);
"""
SILU_BACKWARD = """
#pragma omp parallel for if (in0->num > 4096)
for (int64 i = 0; i < in0->num; i++) out0_p[i] = in1_p[i] * silu_slope(in0_p[i]);
"""

# y = f((x + shift - mean) * rstd * w + b), f = silu with SILU, else identity. Mean and variance,
# in two passes, over the channels and pixels of a group. Inputs x, w, b and, with SHIFT, shift
# (B or 1, C); outputs y, mean (B, G), rstd (B, G). A group's pixels are contiguous. Squares whose
# sum is beyond float32 make the group NaN: it would be all bias, as if nothing had gone wrong.
NORM_HEADER = """
#include <cstring>
#include <limits>
static inline double not_a_number() {
    const unsigned long long bits = 0x7ff8000000000000ull;
    double value;
    std::memcpy(&value, &bits, 8);
    return value;
}
"""
NORM_FORWARD = """
const int64 C = in0_shape1, P = in0_shape2 * in0_shape3, G = out1_shape1, K = C / G;
#pragma omp parallel for
for (int64 i = 0; i < in0_shape0 * G; i++) {
    const int64 b = i / G, c0 = i % G * K;
    const float* x = in0_p + i * K * P;
    float* y = out0_p + i * K * P;
    double mean = 0, var = 0;
    for (int64 k = 0; k < K; k++) {
        double sum = 0;
        for (int64 j = 0; j < P; j++) sum += x[k * P + j];
        mean += sum + P * double(SHIFTED(b, c0 + k));
    }
    mean /= K * P;
    for (int64 k = 0; k < K; k++) {
        const float centre = mean - SHIFTED(b, c0 + k);
        for (int64 j = 0; j < P; j++) {
            const float d = x[k * P + j] - centre;
            var += d * d;
        }
    }
    const bool whole = var <= double(std::numeric_limits<float>::max());
    const double rstd = whole ? 1. / std::sqrt(var / (K * P) + data["eps"]) : not_a_number();
    for (int64 k = 0; k < K; k++) {
        const float centre = mean - SHIFTED(b, c0 + k), scale = rstd * in1_p[c0 + k];
        const float bias = in2_p[c0 + k];
        for (int64 j = 0; j < P; j++)
            y[k * P + j] = ACTIVATE((x[k * P + j] - centre) * scale + bias);
    }
    out1_p[i] = mean;
    out2_p[i] = rstd;
}
"""

# With h = (x + shift - mean) * rstd and g = dL/d(h w + b), sums over a group of n values:
# dx = rstd (w g - mean(w g) - h mean(w g h)); dw = sum g h, db = sum g, dshift = sum dx.
# Inputs x, w, b, mean, rstd, dy and, with SHIFT, shift; outputs dx, dw, db, dshift.
NORM_BACKWARD = """
const int64 B = in0_shape0, C = in0_shape1, P = in0_shape2 * in0_shape3;
const int64 G = in3_shape1, K = C / G;
std::vector<double> sum_g(B * C), sum_gh(B * C), sum_dx(SHIFT ? B * C : 0);
#pragma omp parallel for
for (int64 i = 0; i < B * G; i++) {
    const int64 b = i / G, c0 = i % G * K;
    const float rstd = in4_p[i];
    const float* x = in0_p + i * K * P;
    const float* dy = in5_p + i * K * P;
    float* dx = out0_p + i * K * P;
    double wg = 0, wgh = 0;
    for (int64 k = 0; k < K; k++) {
        const float w = in1_p[c0 + k], bias = in2_p[c0 + k];
        const float centre = in3_p[i] - SHIFTED(b, c0 + k);
        double g_ = 0, gh = 0;
        for (int64 j = 0; j < P; j++) {
            const float h = (x[k * P + j] - centre) * rstd;
            const float g = dy[k * P + j] * SLOPE(h * w + bias);
            dx[k * P + j] = g;
            g_ += g;
            gh += g * h;
        }
        sum_g[b * C + c0 + k] = g_;
        sum_gh[b * C + c0 + k] = gh;
        wg += w * g_;
        wgh += w * gh;
    }
    const float m1 = wg / (K * P), m2 = wgh / (K * P);
    for (int64 k = 0; k < K; k++) {
        const float w = in1_p[c0 + k], centre = in3_p[i] - SHIFTED(b, c0 + k);
        double total = 0;
        for (int64 j = 0; j < P; j++) {
            const float h = (x[k * P + j] - centre) * rstd;
            const float d = rstd * (w * dx[k * P + j] - m1 - h * m2);
            dx[k * P + j] = d;
            if (SHIFT) total += d;
        }
        if (SHIFT) sum_dx[b * C + c0 + k] = total;
    }
}
auto over_batch = [&](const std::vector<double>& part, float* to, int64 rows) {
    for (int64 i = 0; i < rows * C; i++) {
        double total = 0;
        for (int64 j = i; j < B * C; j += rows * C) total += part[j];
        to[i] = total;
    }
};
over_batch(sum_gh, out1_p, 1);
over_batch(sum_g, out2_p, 1);
#if SHIFT
over_batch(sum_dx, out3_p, out3_shape0);
#endif
"""


def _norm_header(act: bool, shift: str, rows: int) -> str:
    """Macros of the norm's C++ body: its activation, and the location of the shift, if any."""
    at = f"{shift}_p[{'b * C +' if rows > 1 else ''} c]" if rows else "0.f"
    return (
        SILU_HEADER
        + NORM_HEADER
        + f"#define ACTIVATE(z) {'silu(z)' if act else 'z'}\n"
        + f"#define SLOPE(z) {'silu_slope(z)' if act else '1.f'}\n"
        + f"#define SHIFT {int(rows > 0)}\n#define SHIFTED(b, c) {at}\n"
    )


class _Norm(Function):  # type: ignore[misc]
    def execute(
        self, x: Var, w: Var, b: Var, shift: Var | None, groups: int, eps: float, act: bool
    ) -> Var:
        self.act, self.shifts = act, [] if shift is None else [shift]
        self.rows = 0 if shift is None else shift.shape[0]
        stats = [x.shape[0], groups]
        shapes, inputs = [x.shape, stats, stats], [x, w, b, *self.shifts]
        header = _norm_header(act, "in3", self.rows)
        y, mean, rstd = code(shapes, inputs, NORM_FORWARD, header, eps=eps)
        self.saved = x, w, b, mean, rstd
        return y

    def grad(self, dy: Var) -> tuple[Var | None, ...]:
        inputs = [*self.saved, dy, *self.shifts]
        shapes = [v.shape for v in (*self.saved[:3], *self.shifts)]
        header = _norm_header(self.act, "in6", self.rows)
        dx, dw, db, *ds = code(shapes, inputs, NORM_BACKWARD, header)
        return dx, dw, db, ds[0] if ds else None, None, None, None


def group_norm(
    x: Var, w: Var, b: Var, shift: Var | None, groups: int, eps: float, act: bool
) -> Var:
    """GroupNorm of x + shift, then silu if `act`; shift is (B or 1, C), or None for no shift."""
    check(
        x.ndim == 4 and x.shape[1] == w.shape[0] and x.shape[1] % groups == 0,
        f"group_norm: input {tuple(x.shape)}, weight {tuple(w.shape)}, {groups} groups",
    )
    if shift is not None:
        check(
            shift.shape[0] in (1, x.shape[0]) and tuple(shift.shape[1:]) == (x.shape[1],),
            f"group_norm: shift {tuple(shift.shape)} for input {tuple(x.shape)}",
        )
    if native():
        return _Norm.apply(x, w, b, shift, groups, eps, act)
    x = x if shift is None else x + shift.unsqueeze(2).unsqueeze(3)
    h = x.reshape(x.shape[0], groups, -1)
    h = h - h.mean(2, keepdims=True)
    var = (h * h).mean(2, keepdims=True)
    var = jt.ternary(jt.isfinite(var), var, jt.full_like(var, math.nan))
    h = (h / (var + eps).sqrt()).reshape(x.shape)
    h = h * w.reshape(1, -1, 1, 1) + b.reshape(1, -1, 1, 1)
    return h * h.sigmoid() if act else h


class _Silu(Function):  # type: ignore[misc]
    def execute(self, x: Var) -> Var:
        self.x = x
        return code([x.shape], [x], SILU_FORWARD, SILU_HEADER)[0]

    def grad(self, dy: Var) -> Var:
        return code([dy.shape], [self.x, dy], SILU_BACKWARD, SILU_HEADER)[0]


def silu(x: Var) -> Var:
    """x * sigmoid(x), any shape."""
    return _Silu.apply(x) if native() else x * x.sigmoid()
