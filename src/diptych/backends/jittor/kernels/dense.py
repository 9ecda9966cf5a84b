"""Dense layers and attention on oneDNN's matrix product, forward and backward."""

from __future__ import annotations

import jittor as jt
from jittor import Var

from diptych.backends.jittor.kernels.code import Function, check, code, onednn

HEADER = "#include <dnnl.h>\n#include <algorithm>\n#include <cmath>\n"

# y = x w^T + b; inputs x (B, I), w (O, I), b (O,).
LINEAR_FORWARD = """
for (int64 i = 0; i < out0_shape0; i++)
    std::copy(in2_p, in2_p + in2_shape0, out0_p + i * in2_shape0);
dnnl_sgemm('N', 'T', in0_shape0, in1_shape0, in1_shape1, 1.f,
           in0_p, in1_shape1, in1_p, in1_shape1, 1.f, out0_p, in1_shape0);
"""

# dx = dy w, dw = dy^T x, db = sum of dy over the batch; inputs x, w, dy; outputs dx, dw, db.
LINEAR_BACKWARD = """
const int64 B = in0_shape0, I = in1_shape1, O = in1_shape0;
dnnl_sgemm('N', 'N', B, I, O, 1.f, in2_p, O, in1_p, I, 0.f, out0_p, I);
dnnl_sgemm('T', 'N', O, I, B, 1.f, in2_p, O, in0_p, I, 0.f, out1_p, I);
std::vector<double> sum(O, 0.);
for (int64 b = 0; b < B; b++)
    for (int64 o = 0; o < O; o++) sum[o] += in2_p[b * O + o];
std::copy(sum.begin(), sum.end(), out2_p);
"""

# a[i, j] = softmax over j of scale * sum_c q[c, i] k[c, j];  y[c, i] = sum_j v[c, j] a[i, j].
# Inputs q, k, v (B, C, H, W); outputs y (B, C, H, W), a (B, HW, HW).
ATTENTION_FORWARD = """
const int64 C = in0_shape1, N = in0_shape2 * in0_shape3;
#pragma omp parallel for if (in0_shape0 > 1)
for (int64 b = 0; b < in0_shape0; b++) {
    float* a = out1_p + b * N * N;
    dnnl_sgemm('T', 'N', N, N, C, data["scale"], in0_p + b * C * N, N, in1_p + b * C * N, N,
               0.f, a, N);
    for (float* row = a; row < a + N * N; row += N) {
        const float top = *std::max_element(row, row + N);
        float sum = 0;
        for (int64 j = 0; j < N; j++) sum += row[j] = std::exp(row[j] - top);
        for (int64 j = 0; j < N; j++) row[j] /= sum;
    }
    dnnl_sgemm('N', 'T', C, N, N, 1.f, in2_p + b * C * N, N, a, N, 0.f, out0_p + b * C * N, N);
}
"""

# dv = dy a;  da = dy^T v;  ds = a (da - sum_j a da);  dq = scale k ds^T;  dk = scale q ds.
# Inputs q, k, v, a, dy; outputs dq, dk, dv.
ATTENTION_BACKWARD = """
const int64 C = in0_shape1, N = in0_shape2 * in0_shape3, S = C * N;
const float scale = data["scale"];
#pragma omp parallel for if (in0_shape0 > 1)
for (int64 b = 0; b < in0_shape0; b++) {
    const float *q = in0_p + b * S, *k = in1_p + b * S, *v = in2_p + b * S, *dy = in4_p + b * S;
    const float* a = in3_p + b * N * N;
    std::vector<float> ds(N * N);
    dnnl_sgemm('N', 'N', C, N, N, 1.f, dy, N, a, N, 0.f, out2_p + b * S, N);
    dnnl_sgemm('T', 'N', N, N, C, 1.f, dy, N, v, N, 0.f, ds.data(), N);
    for (int64 i = 0; i < N; i++) {
        float dot = 0;
        for (int64 j = 0; j < N; j++) dot += a[i * N + j] * ds[i * N + j];
        for (int64 j = 0; j < N; j++) ds[i * N + j] = a[i * N + j] * (ds[i * N + j] - dot);
    }
    dnnl_sgemm('N', 'T', C, N, N, scale, k, N, ds.data(), N, 0.f, out0_p + b * S, N);
    dnnl_sgemm('N', 'N', C, N, N, scale, q, N, ds.data(), N, 0.f, out1_p + b * S, N);
}
"""


class _Linear(Function):  # type: ignore[misc]
    def execute(self, x: Var, w: Var, b: Var) -> Var:
        self.saved = x, w, b
        shape = [x.shape[0], w.shape[0]]
        return code([shape], [x, w, b], LINEAR_FORWARD, HEADER)[0]

    def grad(self, dy: Var) -> tuple[Var, ...]:
        x, w, b = self.saved
        shapes = [x.shape, w.shape, b.shape]
        return tuple(code(shapes, [x, w, dy], LINEAR_BACKWARD, HEADER))


def linear(x: Var, w: Var, b: Var) -> Var:
    """x w^T + b for x (B, I), w (O, I), b (O,)."""
    check(
        x.ndim == 2 and x.shape[1] == w.shape[1],
        f"linear: input {tuple(x.shape)} does not fit weight {tuple(w.shape)}",
    )
    return _Linear.apply(x, w, b) if onednn() else jt.nn.matmul_transpose(x, w) + b


class _Attention(Function):  # type: ignore[misc]
    def execute(self, q: Var, k: Var, v: Var) -> Var:
        batch, channels, height, width = q.shape
        shapes = [q.shape, [batch, height * width, height * width]]
        self.scale = channels**-0.5
        header = HEADER
        y, a = code(shapes, [q, k, v], ATTENTION_FORWARD, header, scale=self.scale)
        self.saved = q, k, v, a
        return y

    def grad(self, dy: Var) -> tuple[Var, ...]:
        shapes, inputs = [dy.shape] * 3, [*self.saved, dy]
        body, header = ATTENTION_BACKWARD, HEADER
        return tuple(code(shapes, inputs, body, header, scale=self.scale))


def attention(q: Var, k: Var, v: Var) -> Var:
    """One head over the pixels: softmax over keys of q^T k / sqrt(C), applied to v."""
    check(
        q.ndim == 4 and q.shape == k.shape == v.shape,
        f"attention: q {tuple(q.shape)}, k {tuple(k.shape)}, v {tuple(v.shape)}",
    )
    if onednn():
        return _Attention.apply(q, k, v)
    flat_q, flat_k, flat_v = (x.reshape(*x.shape[:2], -1) for x in (q, k, v))
    scores = jt.bmm(flat_q.transpose(0, 2, 1), flat_k) * q.shape[1] ** -0.5
    return jt.bmm(flat_v, jt.nn.softmax(scores, dim=2).transpose(0, 2, 1)).reshape(q.shape)
