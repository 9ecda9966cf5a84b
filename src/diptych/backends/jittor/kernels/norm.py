"""GroupNorm fused with the per-channel shift before it and the silu after it."""

from __future__ import annotations

from jittor import Var

from diptych.backends.jittor.kernels.code import Function, check, code

# y = x * sigmoid(x), and dy/dx, safe under -Ofast. NaN stays NaN: it multiplies.
SILU_HEADER = """
#include <cmath>
BOTH float sigmoid(float z) { return 1.f / (1.f + std::exp(80.f < -z ? 80.f : -z)); }
BOTH float silu(float z) { return z * sigmoid(z); }
BOTH float silu_slope(float z) { float s = sigmoid(z); return s * (1.f + z * (1.f - s)); }
namespace jittor {
struct Silu {
    const float* x;
    float* y;
    BOTH void operator()(int64 i) const { y[i] = silu(x[i]); }
};
struct SiluSlope {
    const float *x, *dy;
    float* dx;
    BOTH void operator()(int64 i) const { dx[i] = dy[i] * silu_slope(x[i]); }
};
}
"""

# y = silu(x);  and, with inputs x, dy: dx = dy silu'(x).
SILU_FORWARD = "each(in0->num, Silu{in0_p, out0_p});"
SILU_BACKWARD = "each(in0->num, SiluSlope{in0_p, in1_p, out0_p});"

# y = f((x + shift - mean) * rstd * w + b), f = silu with SILU, else identity. Mean and variance,
# in two passes, over the channels and pixels of a group. Inputs x, w, b and, with SHIFT, shift
# (B or 1, C); outputs y, mean (B, G), rstd (B, G). A group's pixels are contiguous. Squares whose
# sum is beyond float32 make the group NaN: it would be all bias, as if nothing had gone wrong.
NORM_HEADER = """
#include <cfloat>
#include <cstring>
BOTH double not_a_number() {
    const unsigned long long bits = 0x7ff8000000000000ull;
    double value;
    memcpy(&value, &bits, 8);
    return value;
}
BOTH double inverse_root(double squares, jittor::int64 n, double eps) {
    return squares <= double(FLT_MAX) ? 1. / std::sqrt(squares / n + eps) : not_a_number();
}
BOTH float normed(float x, float centre, float scale, float bias) {
    return ACTIVATE((x - centre) * scale + bias);
}
BOTH float slope(float dy, float h, float w, float bias) { return dy * SLOPE(h * w + bias); }
BOTH float input_slope(float g, float h, float w, float rstd, float m1, float m2) {
    return rstd * (w * g - m1 - h * m2);
}
"""
NORM_FORWARD = """
const int64 C = in0_shape1, P = in0_shape2 * in0_shape3, G = out1_shape1, K = C / G;
const float* shift = SHIFT_P;
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
    const double rstd = inverse_root(var, K * P, data["eps"]);
    for (int64 k = 0; k < K; k++) {
        const float centre = mean - SHIFTED(b, c0 + k), scale = rstd * in1_p[c0 + k];
        const float bias = in2_p[c0 + k];
        for (int64 j = 0; j < P; j++) y[k * P + j] = normed(x[k * P + j], centre, scale, bias);
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
const float* shift = SHIFT_P;
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
            const float g = slope(dy[k * P + j], h, w, bias);
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
            const float d = input_slope(dx[k * P + j], h, w, rstd, m1, m2);
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

# The same on CUDA. Forward, a block of threads is a group; backward, a channel of an image, and
# each finds its group's two means anew from the sums of its channels. Scratch of the backward
# pass: sums of g, g h and dx, (3, B, C).
NORM_CUDA_HEADER = """
#ifdef __CUDACC__
namespace jittor {
static __global__ void norm_forward(
    const float* x, const float* w, const float* bias, const float* shift,
    float* y, float* means, float* rstds, int64 C, int64 P, int64 G, double eps
) {
    const int64 i = blockIdx.x, K = C / G, n = K * P, b = i / G, c0 = i % G * K;
    x += i * n;
    y += i * n;
    double sum = 0, squares = 0;
    for (int64 j = threadIdx.x; j < n; j += blockDim.x) sum += x[j];
    for (int64 k = threadIdx.x; k < K; k += blockDim.x) sum += P * double(SHIFTED(b, c0 + k));
    const double mean = total(sum) / n;
    share(n, P, [&](int64 j, int64 k) {
        const float centre = mean - SHIFTED(b, c0 + k), d = x[j] - centre;
        squares += d * d;
    });
    const double rstd = inverse_root(total(squares), n, eps);
    share(n, P, [&](int64 j, int64 k) {
        const float centre = mean - SHIFTED(b, c0 + k), scale = rstd * w[c0 + k];
        y[j] = normed(x[j], centre, scale, bias[c0 + k]);
    });
    if (threadIdx.x == 0) {
        means[i] = mean;
        rstds[i] = rstd;
    }
}
struct Channel {  // of an image: pointers to its pixels, and what its norm needs
    const float *x, *dy;
    float w, bias, centre, rstd;
    BOTH float h(int64 j) const { return (x[j] - centre) * rstd; }
    BOTH float g(int64 j) const { return slope(dy[j], h(j), w, bias); }
};
struct Norms {  // the inputs
    const float *x, *w, *bias, *means, *rstds, *dy, *shift;
    int64 C, P, G;
    BOTH Channel channel(int64 k) const {
        const int64 b = k / C, c = k % C, i = b * G + c / (C / G);
        return {x + k * P, dy + k * P, w[c], bias[c], means[i] - SHIFTED(b, c), rstds[i]};
    }
};
static __global__ void norm_sums(Norms norms, double* sum_g, double* sum_gh) {
    const Channel channel = norms.channel(blockIdx.x);
    double g_ = 0, gh = 0;
    for (int64 j = threadIdx.x; j < norms.P; j += blockDim.x) {
        const float g = channel.g(j);
        g_ += g;
        gh += g * channel.h(j);
    }
    g_ = total(g_);
    gh = total(gh);
    if (threadIdx.x == 0) {
        sum_g[blockIdx.x] = g_;
        sum_gh[blockIdx.x] = gh;
    }
}
static __global__ void norm_backward(
    Norms norms, const double* sum_g, const double* sum_gh, float* dx, double* sum_dx
) {
    const Channel channel = norms.channel(blockIdx.x);
    const int64 P = norms.P, K = norms.C / norms.G, c0 = blockIdx.x % norms.C / K * K;
    const int64 first = blockIdx.x / norms.C * norms.C + c0;
    double wg = 0, wgh = 0, sum = 0;
    for (int64 k = threadIdx.x; k < K; k += blockDim.x) {
        wg += norms.w[c0 + k] * sum_g[first + k];
        wgh += norms.w[c0 + k] * sum_gh[first + k];
    }
    const float m1 = total(wg) / (K * P), m2 = total(wgh) / (K * P);
    for (int64 j = threadIdx.x; j < P; j += blockDim.x) {
        const float d = input_slope(
            channel.g(j), channel.h(j), channel.w, channel.rstd, m1, m2);
        dx[blockIdx.x * P + j] = d;
        sum += d;
    }
    sum = total(sum);
    if (threadIdx.x == 0) sum_dx[blockIdx.x] = sum;
}
// to[i] = sum of part[j] over j = i, i + step, ...; a block is an i.
static __global__ void over_batch(const double* part, float* to, int64 size, int64 step) {
    double sum = 0;
    for (int64 j = blockIdx.x + threadIdx.x * step; j < size; j += blockDim.x * step)
        sum += part[j];
    sum = total(sum);
    if (threadIdx.x == 0) to[blockIdx.x] = sum;
}
}
#endif
"""
NORM_FORWARD_CUDA = """
const int64 C = in0_shape1, P = in0_shape2 * in0_shape3, G = out1_shape1;
norm_forward<<<in0_shape0 * G, threads(C / G * P)>>>(
    in0_p, in1_p, in2_p, SHIFT_P, out0_p, out1_p, out2_p, C, P, G, data["eps"]);
"""
NORM_BACKWARD_CUDA = """
const int64 B = in0_shape0, C = in0_shape1, P = in0_shape2 * in0_shape3, G = in3_shape1;
const Norms norms{in0_p, in1_p, in2_p, in3_p, in4_p, in5_p, SHIFT_P, C, P, G};
double *sum_g = SCRATCH, *sum_gh = sum_g + B * C, *sum_dx = sum_gh + B * C;
norm_sums<<<B * C, threads(P)>>>(norms, sum_g, sum_gh);
norm_backward<<<B * C, threads(P)>>>(norms, sum_g, sum_gh, out0_p, sum_dx);
over_batch<<<C, 32>>>(sum_gh, out1_p, B * C, C);
over_batch<<<C, 32>>>(sum_g, out2_p, B * C, C);
#if SHIFT
over_batch<<<out3_shape0 * C, 32>>>(sum_dx, out3_p, B * C, out3_shape0 * C);
#endif
"""


def _norm_header(act: bool, shift: str, rows: int) -> str:
    """Header of a norm's bodies: its activation, and the place of its shift, if any."""
    at = f"shift[{'b * C +' if rows > 1 else ''} c]"
    return (
        SILU_HEADER
        + f"#define ACTIVATE(z) {'silu(z)' if act else 'z'}\n"
        + f"#define SLOPE(z) {'silu_slope(z)' if act else '1.f'}\n"
        + f"#define SHIFT {int(rows > 0)}\n#define SHIFT_P {f'{shift}_p' if rows else 'nullptr'}\n"
        + f"#define SHIFTED(b, c) {at if rows else '0.f'}\n"
        + f"#define SCRATCH {'out4_p' if rows else 'out3_p'}\n"
        + NORM_HEADER
        + NORM_CUDA_HEADER
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
        y, mean, rstd = code(shapes, inputs, NORM_FORWARD, header, NORM_FORWARD_CUDA, eps=eps)
        self.saved = x, w, b, mean, rstd
        return y

    def grad(self, dy: Var) -> tuple[Var | None, ...]:
        inputs = [*self.saved, dy, *self.shifts]
        shapes = [v.shape for v in (*self.saved[:3], *self.shifts)]
        header = _norm_header(self.act, "in6", self.rows)
        sums = [[3, *self.saved[0].shape[:2]]]
        dx, dw, db, *ds = code(shapes, inputs, NORM_BACKWARD, header, NORM_BACKWARD_CUDA, sums)
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
    return _Norm.apply(x, w, b, shift, groups, eps, act)


class _Silu(Function):  # type: ignore[misc]
    def execute(self, x: Var) -> Var:
        self.x = x
        return code([x.shape], [x], SILU_FORWARD, SILU_HEADER, SILU_FORWARD)[0]

    def grad(self, dy: Var) -> Var:
        body = SILU_BACKWARD
        return code([dy.shape], [self.x, dy], body, SILU_HEADER, body)[0]


def silu(x: Var) -> Var:
    """x * sigmoid(x), any shape."""
    return _Silu.apply(x)
