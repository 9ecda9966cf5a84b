"""Convolution with bias on oneDNN, forward and backward.

A 1x1 convolution is a matrix product on the arrays in their own layout; oneDNN's 1x1 kernels need
another layout, and the copies there and back cost more than the products.
"""

from __future__ import annotations

import jittor as jt
from jittor import Var

from diptych.backends.jittor.kernels.code import Function, check, code, onednn

# Plain arrays as oneDNN memory, and copies in the layout that a primitive prefers. Buffers come
# from Jittor's caching allocator (oneDNN's own would be mapped and unmapped at every call).
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

# 1x1: y_n = w x_n + b for every image n; inputs x, w, b.
POINT_FORWARD = """
const int64 I = in1_shape1, O = in1_shape0, P = in0_shape2 * in0_shape3;
#pragma omp parallel for if (in0_shape0 > 1)
for (int64 n = 0; n < in0_shape0; n++) {
    float* y = out0_p + n * O * P;
    for (int64 o = 0; o < O; o++) std::fill(y + o * P, y + o * P + P, in2_p[o]);
    dnnl_sgemm('N', 'N', O, P, I, 1.f, in1_p, I, in0_p + n * I * P, P, 1.f, y, P);
}
"""

# dw = sum of dy_n x_n^T, db = sum of dy, dx_n = w^T dy_n; inputs and outputs as CONV_BACKWARD.
# Partial sums over 8 images each, added in one order: the same for any number of threads.
POINT_BACKWARD = """
const int64 I = in1_shape1, O = in1_shape0, P = in0_shape2 * in0_shape3, N = in0_shape0;
const int64 parts = (N + 7) / 8;
std::vector<float> dw(parts * O * I);
std::vector<double> db(parts * O);
#pragma omp parallel for if (parts > 1)
for (int64 k = 0; k < parts; k++)
    for (int64 n = 8 * k; n < std::min(N, 8 * k + 8); n++) {
        const float *x = in0_p + n * I * P, *dy = in3_p + n * O * P;
        dnnl_sgemm('N', 'T', O, I, P, 1.f, dy, P, x, P, 1.f, &dw[k * O * I], I);
        for (int64 o = 0; o < O; o++) {
            double sum = 0;
            for (int64 j = 0; j < P; j++) sum += dy[o * P + j];
            db[k * O + o] += sum;
        }
#if DX
        dnnl_sgemm('T', 'N', I, P, O, 1.f, in1_p, I, dy, P, 0.f, out2_p + n * I * P, P);
#endif
    }
auto add_parts = [&](auto& part, float* to, int64 size) {
    for (int64 i = 0; i < size; i++) {
        double sum = 0;
        for (int64 k = 0; k < parts; k++) sum += part[k * size + i];
        to[i] = sum;
    }
};
add_parts(dw, out0_p, O * I);
add_parts(db, out1_p, O);
"""


class _Conv(Function):  # type: ignore[misc]
    def execute(self, x: Var, w: Var, b: Var, stride: int, pad: tuple[int, int]) -> Var:
        self.saved, self.wanted = (x, w, b), not x.is_stop_grad()  # in `grad`, all Vars are stopped
        self.point = w.shape[2] == 1 and stride == 1 and pad == (0, 0)
        self.data = {"stride": stride, "before": pad[0], "after": pad[1]}
        size = [(n + sum(pad) - w.shape[2]) // stride + 1 for n in x.shape[2:]]
        body = POINT_FORWARD if self.point else CONV_FORWARD
        shape = [x.shape[0], w.shape[0], *size]
        return code([shape], self.saved, body, DNNL_HEADER, **self.data)[0]

    def grad(self, dy: Var) -> tuple[Var | None, ...]:
        x, w, b = self.saved
        shapes = [w.shape, b.shape] + [x.shape] * self.wanted
        body = POINT_BACKWARD if self.point else CONV_BACKWARD
        header = f"#define DX {int(self.wanted)}\n" + DNNL_HEADER
        dw, db, *dx = code(shapes, [x, w, b, dy], body, header, **self.data)
        return dx[0] if dx else None, dw, db, None, None


def conv2d(x: Var, w: Var, b: Var, stride: int, pad: tuple[int, int]) -> Var:
    """Convolution with bias; `pad` pixels (before, after) on both axes; w is (O, I, k, k)."""
    check(
        x.ndim == 4 and x.shape[1] == w.shape[1],
        f"conv2d: input {tuple(x.shape)} does not fit weight {tuple(w.shape)}",
    )
    if onednn():
        return _Conv.apply(x, w, b, stride, pad)
    if pad[0] != pad[1]:
        x, pad = jt.nn.pad(x, [*pad, *pad]), (0, 0)
    return jt.nn.conv2d(x, w, b, stride, pad[0])
