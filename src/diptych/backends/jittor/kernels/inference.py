"""Operators of the feature networks: forward only, images channels-last (B, H, W, C).

oneDNN's convolutions take and return this layout without a copy, so only the weights are reordered
(2 % of Inception's time at 32 images). Relu runs on the result while it is in cache, and the
branches of a block are joined by copying runs of channels.
"""

from __future__ import annotations

from collections.abc import Sequence

import jittor as jt
from jittor import Var

from diptych.backends.jittor.kernels.code import check, code, onednn

HEADER = """
#include <dnnl.hpp>
#include <algorithm>
#include <cstring>
#include <limits>
using dnnl::memory;
using Dims = memory::dims;
static dnnl::engine& cpu() { static dnnl::engine e(dnnl::engine::kind::cpu, 0); return e; }
static dnnl::stream& queue() { static dnnl::stream s(cpu()); return s; }
static memory::desc desc(const Dims& d, memory::format_tag tag) {
    return memory::desc(d, memory::data_type::f32, tag);
}
"""

# y = relu(conv(x, w) + b); inputs x (B, H, W, I), w (O, I, kh, kw), b; data: stride, top, left.
CONV_RELU = """
using tag = memory::format_tag;
const Dims b{in2_shape0}, stride{long(data["stride"]), long(data["stride"])};
const Dims pad{long(data["top"]), long(data["left"])};
const auto xd = desc({in0_shape0, in0_shape3, in0_shape1, in0_shape2}, tag::nhwc);
const auto yd = desc({out0_shape0, out0_shape3, out0_shape1, out0_shape2}, tag::nhwc);
const Dims ws{in1_shape0, in1_shape1, in1_shape2, in1_shape3};
dnnl::post_ops after;
after.append_eltwise(1.f, dnnl::algorithm::eltwise_relu, 0.f, 0.f);
dnnl::primitive_attr attr;
attr.set_post_ops(after);
dnnl::convolution_forward::primitive_desc pd({dnnl::prop_kind::forward_inference,
    dnnl::algorithm::convolution_direct, xd, desc(ws, tag::any), desc(b, tag::a), yd,
    stride, pad, pad}, attr, cpu());
memory w(desc(ws, tag::oihw), cpu(), in1_p), w2 = w;
if (pd.weights_desc() != w.get_desc()) {
    w2 = memory(pd.weights_desc(), cpu());
    dnnl::reorder(w, w2).execute(queue(), w, w2);
}
dnnl::convolution_forward(pd).execute(queue(), {
    {DNNL_ARG_SRC, memory(xd, cpu(), in0_p)}, {DNNL_ARG_WEIGHTS, w2},
    {DNNL_ARG_BIAS, memory(desc(b, tag::a), cpu(), in2_p)},
    {DNNL_ARG_DST, memory(yd, cpu(), out0_p)}});
queue().wait();
"""

# 3x3 windows of x (B, H, W, C); data: stride, pad. MEAN: over the pixels inside; else maximum.
POOL = """
const int64 H = in0_shape1, W = in0_shape2, C = in0_shape3, OH = out0_shape1, OW = out0_shape2;
const int64 stride = data["stride"], pad = data["pad"];
#pragma omp parallel for
for (int64 row = 0; row < in0_shape0 * OH; row++)
    for (int64 j = 0; j < OW; j++) {
        const int64 n = row / OH, top = row % OH * stride - pad, left = j * stride - pad;
        const int64 u0 = std::max<int64>(top, 0), u1 = std::min(top + 3, H);
        const int64 v0 = std::max<int64>(left, 0), v1 = std::min(left + 3, W);
        float* y = out0_p + (row * OW + j) * C;
        std::copy_n(in0_p + ((n * H + u0) * W + v0) * C, C, y);
        for (int64 u = u0; u < u1; u++)
            for (int64 v = v0 + (u == u0); v < v1; v++) {
                const float* x = in0_p + ((n * H + u) * W + v) * C;
                if (MEAN) for (int64 c = 0; c < C; c++) y[c] += x[c];
                else for (int64 c = 0; c < C; c++) y[c] = x[c] > y[c] ? x[c] : y[c];
            }
        const float share = 1.f / ((u1 - u0) * (v1 - v0));
        if (MEAN) for (int64 c = 0; c < C; c++) y[c] *= share;
    }
"""

# mean over the pixels of x (B, H, W, C).
PIXEL_MEAN = """
const int64 P = in0_shape1 * in0_shape2, C = in0_shape3;
#pragma omp parallel for
for (int64 n = 0; n < in0_shape0; n++) {
    std::vector<double> sum(C, 0.);
    for (int64 p = 0; p < P; p++)
        for (int64 c = 0; c < C; c++) sum[c] += in0_p[(n * P + p) * C + c];
    for (int64 c = 0; c < C; c++) out0_p[n * C + c] = sum[c] / P;
}
"""

# y = clip(rows x columns^T) * scale + shift for uint8 x (B, H, W, K), K = 1 or 3; y (B, R, S, 3).
RESIZE = """
const int64 H = in0_shape1, W = in0_shape2, K = in0_shape3, R = out0_shape1, S = out0_shape2;
const float scale = data["scale"], shift = data["shift"], low = data["low"], high = data["high"];
#pragma omp parallel for if (in0_shape0 > 1)
for (int64 n = 0; n < in0_shape0; n++) {
    std::vector<float> x(H * W), half(R * W), y(R * S);
    for (int64 k = 0; k < K; k++) {
        for (int64 p = 0; p < H * W; p++) x[p] = in0_p[(n * H * W + p) * K + k];
        dnnl_sgemm('N', 'N', R, W, H, 1.f, in1_p, H, x.data(), W, 0.f, half.data(), W);
        dnnl_sgemm('N', 'T', R, S, W, 1.f, half.data(), W, in2_p, W, 0.f, y.data(), S);
        for (int64 p = 0; p < R * S; p++) {
            const float value = std::min(std::max(y[p], low), high) * scale + shift;
            float* to = out0_p + (n * R * S + p) * 3;
            for (int64 c = K == 1 ? 0 : k; c < (K == 1 ? 3 : k + 1); c++) to[c] = value;
        }
    }
}
"""


def conv_relu(x: Var, w: Var, b: Var, stride: int, pad: tuple[int, int]) -> Var:
    """relu(conv(x, w) + b) for x (B, H, W, I), w (O, I, kh, kw); pad is (height, width)."""
    check(
        x.ndim == 4 and x.shape[3] == w.shape[1],
        f"conv_relu: input {tuple(x.shape)} does not fit weight {tuple(w.shape)}",
    )
    if not onednn():
        y = jt.nn.conv2d(x.transpose(0, 3, 1, 2), w, b, stride, pad)
        return jt.nn.relu(y).transpose(0, 2, 3, 1)
    size = [(x.shape[1 + i] + 2 * pad[i] - w.shape[2 + i]) // stride + 1 for i in range(2)]
    shape = [x.shape[0], *size, w.shape[0]]
    return code([shape], [x, w, b], CONV_RELU, HEADER, stride=stride, top=pad[0], left=pad[1])[0]


def max_pool(x: Var, stride: int, pad: int) -> Var:
    """Maximum over 3x3 windows of x (B, H, W, C); padding never wins."""
    return _pool(x, stride, pad, False)


def avg_pool_inside(x: Var) -> Var:
    """Mean over the pixels of a 3x3 window that are inside x (B, H, W, C); the size stays."""
    return _pool(x, 1, 1, True)


def _pool(x: Var, stride: int, pad: int, mean: bool) -> Var:
    check(x.ndim == 4 and min(x.shape[1:3]) >= 3, f"pool: input {tuple(x.shape)}")
    if not onednn():
        pool = jt.nn.Pool(3, stride, pad, op="mean" if mean else "maximum")
        planes = x.transpose(0, 3, 1, 2)
        # Jittor's mean ignores `count_include_pad` and counts the padding: undone by division.
        y = pool(planes) / pool(jt.ones_like(planes)) if mean else pool(planes)
        return y.transpose(0, 2, 3, 1)
    size = [(n + 2 * pad - 3) // stride + 1 for n in x.shape[1:3]]
    header = f"#define MEAN {int(mean)}\n" + HEADER
    return code([[x.shape[0], *size, x.shape[3]]], [x], POOL, header, stride=stride, pad=pad)[0]


def join(parts: Sequence[Var]) -> Var:
    """Concatenate parts (B, H, W, C_i) along the channels."""
    check(
        all(p.ndim == 4 and p.shape[:3] == parts[0].shape[:3] for p in parts),
        f"join: {[tuple(p.shape) for p in parts]}",
    )
    if not onednn():
        return jt.concat(list(parts), dim=3)
    body = "const int64 P = out0_shape0 * out0_shape1 * out0_shape2, C = out0_shape3;\n"
    body += "#pragma omp parallel for\nfor (int64 p = 0; p < P; p++) {\nfloat* y = out0_p + p * C;"
    for i in range(len(parts)):
        body += f"y = std::copy_n(in{i}_p + p * in{i}_shape3, in{i}_shape3, y);\n"
    shape = [*parts[0].shape[:3], sum(p.shape[3] for p in parts)]
    return code([shape], list(parts), body + "}\n", HEADER)[0]


def pixel_mean(x: Var) -> Var:
    """(B, C): the mean over the pixels of x (B, H, W, C)."""
    check(x.ndim == 4, f"pixel_mean: input {tuple(x.shape)}, expected (B, H, W, C)")
    return code([[x.shape[0], x.shape[3]]], [x], PIXEL_MEAN)[0] if onednn() else x.mean((1, 2))


def resize(
    x: Var, rows: Var, columns: Var, scale: float, shift: float, limits: tuple[float, float]
) -> Var:
    """clip(rows x columns^T) * scale + shift of uint8 (B, H, W, 1 or 3), as (B, R, S, 3)."""
    check(
        x.ndim == 4
        and x.shape[3] in (1, 3)
        and x.shape[1] == rows.shape[1]
        and x.shape[2] == columns.shape[1],
        f"resize: {tuple(x.shape)} by {tuple(rows.shape)} and {tuple(columns.shape)}",
    )
    low, high = limits
    if onednn():
        shape = [x.shape[0], rows.shape[0], columns.shape[0], 3]
        numbers = {"scale": scale, "shift": shift, "low": low, "high": high}
        return code([shape], [x, rows, columns], RESIZE, HEADER, **numbers)[0]
    planes = x.float32().transpose(0, 3, 1, 2)
    y = jt.matmul(jt.matmul(rows, planes), columns.transpose(1, 0)).clamp(low, high)
    y = (y * scale + shift).transpose(0, 2, 3, 1)
    return jt.concat([y] * 3, dim=3) if x.shape[3] == 1 else y
