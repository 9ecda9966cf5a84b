"""C++ bodies of the CPU kernels, one string an operator, each under its formula.

Jittor compiles a body into a function where `in0_p`, `in0_shape0`, `out0_p` ... are the
pointers and sizes of the inputs and outputs, and `data["name"]` a number given at the call
(not part of what is compiled). All arrays are contiguous float32, images (B, C, H, W).

Reasons: Jittor's generated loops run on one thread, its convolution rebuilds and reorders more
than it needs, and its batched matrix product is naive. Sums run in double, so that a result
does not depend on the number of threads. Jittor compiles with -Ofast, under which a division by
infinity may give NaN: `expf` is kept finite.
"""

from __future__ import annotations

# y = x * sigmoid(x), and dy/dx, safe under -Ofast. NaN stays NaN: it multiplies.
SILU_HEADER = """
#include <cmath>
static inline float sigmoid(float z) { return 1.f / (1.f + std::exp(std::min(-z, 80.f))); }
static inline float silu(float z) { return z * sigmoid(z); }
static inline float silu_slope(float z) { float s = sigmoid(z); return s * (1.f + z * (1.f - s)); }
"""

# Plain arrays as oneDNN memory; a copy in the layout that a primitive prefers, in a buffer of
# Jittor's caching allocator (oneDNN's own would be mapped and unmapped at every call).
DNNL_HEADER = """
#include <dnnl.hpp>
#include <list>
#include "executor.h"
namespace jittor { EXTERN_LIB Executor exe; }
using dnnl::memory;
using Dims = memory::dims;
static dnnl::engine& cpu() { static dnnl::engine e(dnnl::engine::kind::cpu, 0); return e; }
static dnnl::stream& queue() { static dnnl::stream s(cpu()); return s; }

struct Buffer {
    void* p; size_t size, handle;
    Buffer(size_t size) : size(size) { p = jittor::exe.allocator->alloc(this->size, handle); }
    ~Buffer() { jittor::exe.allocator->free(p, size, handle); }
};
struct Buffers {
    std::list<Buffer> all;
    memory make(const memory::desc& d) {
        all.emplace_back(d.get_size());
        return memory(d, cpu(), all.back().p);
    }
};
static memory::desc desc(const Dims& d, memory::format_tag tag) {
    return memory::desc(d, memory::data_type::f32, tag);
}
static memory::desc any(const Dims& d) { return desc(d, memory::format_tag::any); }
static memory plain(const Dims& d, float* p) {
    auto tag = d.size() == 1 ? memory::format_tag::a : memory::format_tag::abcd;
    return memory(desc(d, tag), cpu(), p);
}
static void reformat(memory from, memory to) { dnnl::reorder(from, to).execute(queue(), from, to); }
static memory as(memory m, const memory::desc& wanted, Buffers& buffers) {
    if (m.get_desc() == wanted) return m;
    memory copy = buffers.make(wanted);
    reformat(m, copy);
    return copy;
}
static memory target(memory m, const memory::desc& wanted, Buffers& buffers) {
    return m.get_desc() == wanted ? m : buffers.make(wanted);
}
struct Conv {  // data: stride, before, after
    Dims x, w, b, y, stride, before, after;
    dnnl::convolution_forward::primitive_desc forward(dnnl::prop_kind kind) const {
        return {dnnl::convolution_forward::desc(kind, dnnl::algorithm::convolution_direct,
                any(x), any(w), any(b), any(y), stride, before, after), cpu()};
    }
};
#define CONV(X, W, B, Y) Conv conv{ \\
    {X##_shape0, X##_shape1, X##_shape2, X##_shape3}, \\
    {W##_shape0, W##_shape1, W##_shape2, W##_shape3}, {B##_shape0}, \\
    {Y##_shape0, Y##_shape1, Y##_shape2, Y##_shape3}, \\
    {long(data["stride"]), long(data["stride"])}, {long(data["before"]), long(data["before"])}, \\
    {long(data["after"]), long(data["after"])}}
"""

# y = conv(x, w) + b; inputs x, w, b.
CONV_FORWARD = """
CONV(in0, in1, in2, out0);
auto pd = conv.forward(dnnl::prop_kind::forward_training);
Buffers buffers;
memory y = plain(conv.y, out0_p), y2 = target(y, pd.dst_desc(), buffers);
dnnl::convolution_forward(pd).execute(queue(), {
    {DNNL_ARG_SRC, as(plain(conv.x, in0_p), pd.src_desc(), buffers)},
    {DNNL_ARG_WEIGHTS, as(plain(conv.w, in1_p), pd.weights_desc(), buffers)},
    {DNNL_ARG_BIAS, plain(conv.b, in2_p)}, {DNNL_ARG_DST, y2}});
if (y2 != y) reformat(y2, y);
"""

# dw = dL/dw, db = sum of dy; inputs x, w, b, dy; outputs dw, db and, with DX, dx = dL/dx.
CONV_BACKWARD = """
CONV(in0, in1, in2, in3);
auto forward = conv.forward(dnnl::prop_kind::forward_training);
Buffers buffers;
memory dy = plain(conv.y, in3_p);
{
    dnnl::convolution_backward_weights::primitive_desc pd({
        dnnl::algorithm::convolution_direct, any(conv.x), any(conv.w), any(conv.b), any(conv.y),
        conv.stride, conv.before, conv.after}, cpu(), forward);
    memory dw = plain(conv.w, out0_p), dw2 = target(dw, pd.diff_weights_desc(), buffers);
    dy = as(dy, pd.diff_dst_desc(), buffers);
    dnnl::convolution_backward_weights(pd).execute(queue(), {
        {DNNL_ARG_SRC, as(plain(conv.x, in0_p), pd.src_desc(), buffers)},
        {DNNL_ARG_DIFF_DST, dy}, {DNNL_ARG_DIFF_WEIGHTS, dw2},
        {DNNL_ARG_DIFF_BIAS, plain(conv.b, out1_p)}});
    if (dw2 != dw) reformat(dw2, dw);
}
#if DX
{
    dnnl::convolution_backward_data::primitive_desc pd({
        dnnl::algorithm::convolution_direct, any(conv.x), any(conv.w), any(conv.y),
        conv.stride, conv.before, conv.after}, cpu(), forward);
    memory dx = plain(conv.x, out2_p), dx2 = target(dx, pd.diff_src_desc(), buffers);
    dnnl::convolution_backward_data(pd).execute(queue(), {
        {DNNL_ARG_DIFF_DST, as(dy, pd.diff_dst_desc(), buffers)},
        {DNNL_ARG_WEIGHTS, as(plain(conv.w, in1_p), pd.weights_desc(), buffers)},
        {DNNL_ARG_DIFF_SRC, dx2}});
    if (dx2 != dx) reformat(dx2, dx);
}
#endif
"""

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

# y = f((x + shift - mean) * rstd * w + b), f = silu with SILU, else identity. Mean and variance,
# in two passes, over the channels and pixels of a group. Inputs x, w, b and, with SHIFT, shift
# (B or 1, C); outputs y, mean (B, G), rstd (B, G). A group's pixels are contiguous.
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
    const double rstd = 1. / std::sqrt(var / (K * P) + data["eps"]);
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

# y = silu(x);  and, with inputs x, dy: dx = dy silu'(x).
SILU_FORWARD = """
#pragma omp parallel for if (in0->num > 4096)
for (int64 i = 0; i < in0->num; i++) out0_p[i] = silu(in0_p[i]);
"""
SILU_BACKWARD = """
#pragma omp parallel for if (in0->num > 4096)
for (int64 i = 0; i < in0->num; i++) out0_p[i] = in1_p[i] * silu_slope(in0_p[i]);
"""

# y = x where mask is 1, 0 elsewhere, times data["scale"]; inputs x, mask (uint8). Also dx of dy.
DROPOUT = """
const float scale = data["scale"];
#pragma omp parallel for
for (int64 i = 0; i < in0->num; i++) out0_p[i] = in0_p[i] * (scale * in1_p[i]);
"""

# y = a + b.
ADD = """
#pragma omp parallel for
for (int64 i = 0; i < in0->num; i++) out0_p[i] = in0_p[i] + in1_p[i];
"""

# y = [a, b] along the channels; and back: inputs dy; outputs da, db.
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

# norm = sqrt(sum of squares over all inputs), in double, in chunks of fixed size and order.
CHUNKS_HEADER = """
#include <vector>
namespace jittor {
struct Chunk { int tensor; int64 begin, end; };
static std::vector<Chunk> chunks(int tensors, const std::vector<Var*>& inputs, int first) {
    std::vector<Chunk> all;
    for (int k = 0; k < tensors; k++)
        for (int64 i = 0, n = inputs[first + k]->num; i < n; i += 16384)
            all.push_back({k, i, std::min<int64>(n, i + 16384)});
    return all;
}
}
"""
GRADIENT_NORM = """
const auto all = chunks(_inputs.size(), _inputs, 0);
std::vector<double> part(all.size());
#pragma omp parallel for
for (size_t k = 0; k < all.size(); k++) {
    const float* g = _inputs[all[k].tensor]->ptr<float>();
    double sum = 0;
    for (int64 i = all[k].begin; i < all[k].end; i++) sum += double(g[i]) * g[i];
    part[k] = sum;
}
double total = 0;
for (double sum : part) total += sum;
out0_p[0] = std::sqrt(total);
"""

# With g' = g min(1, max_norm / (norm + 1e-6)):
# m += (1 - beta1)(g' - m);  v = beta2 v + (1 - beta2) g'^2;  e += (1 - ema_rate)(p - e), after
# p -= lr / (1 - beta1^n) * m / (sqrt(v) / sqrt(1 - beta2^n) + eps).
# Inputs norm, g..., p..., m..., v..., e...; outputs p..., m..., v..., e... .
ADAM = """
const int N = _outputs.size() / 4;
const float clip = std::min(1., data["max_norm"] / (double(in0_p[0]) + 1e-6));
const float size = data["step_size"], root = data["root"], eps = data["eps"];
const float b1 = 1. - data["beta1"], b2 = data["beta2"], c2 = 1. - data["beta2"];
const float rate = 1. - data["ema_rate"];
const auto all = chunks(N, _inputs, 1);
#pragma omp parallel for
for (size_t k = 0; k < all.size(); k++) {
    const float* in[5];
    float* __restrict__ out[4];
    for (int s = 0; s < 5; s++) in[s] = _inputs[1 + s * N + all[k].tensor]->ptr<float>();
    for (int s = 0; s < 4; s++) out[s] = _outputs[s * N + all[k].tensor]->ptr<float>();
    #pragma omp simd
    for (int64 i = all[k].begin; i < all[k].end; i++) {
        const float g = clip * in[0][i];
        const float m = in[2][i] + b1 * (g - in[2][i]);
        const float v = b2 * in[3][i] + c2 * g * g;
        const float p = in[1][i] - size * m / (std::sqrt(v) / root + eps);
        out[0][i] = p;
        out[1][i] = m;
        out[2][i] = v;
        out[3][i] = in[4][i] + rate * (p - in[4][i]);
    }
}
"""
