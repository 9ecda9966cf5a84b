"""The update from gradients: their total norm, and clipping, Adam and EMA in one kernel."""

from __future__ import annotations

import jittor as jt
from jittor import Var

from diptych.backends.jittor.kernels.code import code, native

LEAST = 1.1754944e-38  # the least normal float32
TENSORS = 32  # per kernel: Jittor's compile time grows with the square of their number

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
# -Ofast takes square roots as v * rsqrt(v), which is NaN where v is subnormal: of gradients of
# 1e-18 in the first step. There the root is that of the least normal number, far below eps.
ADAM = """
const int N = _outputs.size() / 4;
const float clip = std::min(1., data["max_norm"] / (double(in0_p[0]) + 1e-6));
const float size = data["step_size"], root = data["root"], eps = data["eps"];
const float b1 = 1. - data["beta1"], b2 = data["beta2"], c2 = 1. - data["beta2"];
const float rate = 1. - data["ema_rate"], LEAST = 1.1754944e-38f;
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
        const float p = in[1][i] - size * m / (std::sqrt(std::max(v, LEAST)) / root + eps);
        out[0][i] = p;
        out[1][i] = m;
        out[2][i] = v;
        out[3][i] = in[4][i] + rate * (p - in[4][i]);
    }
}
"""


def gradient_norm(grads: list[Var]) -> Var:
    """Square root of the sum of squares over all arrays; one element."""
    if native():
        return code([[1]], grads, GRADIENT_NORM, CHUNKS_HEADER)[0]
    # In float32 the sum over 36 million elements was off by 1.5e-4; the cast costs no array.
    return sum((g.float64() * g.float64()).sum() for g in grads).sqrt().float32()


def adam(norm: Var, grads: list[Var], *state: list[Var], **numbers: float) -> None:
    """One step on state = params, m, v, ema; see `optim.adam_step`.

    New arrays replace the old ones. The old memory is not written to, because `clone` and `detach`
    share it, so writing would change copies held elsewhere.
    """
    for i in range(0, len(grads), TENSORS):
        part = [group[i : i + TENSORS] for group in state]
        if not native():
            _plain_adam(norm, grads[i : i + TENSORS], *part, **numbers)
            continue
        old = [x for group in part for x in group]
        inputs = [norm, *grads[i : i + TENSORS], *old]
        new = code([x.shape for x in old], inputs, ADAM, CHUNKS_HEADER, **numbers)
        for x, y in zip(old, new, strict=True):
            x.update(y.stop_grad() if x.is_stop_grad() else y)


def _plain_adam(norm: Var, grads: list[Var], *state: list[Var], **n: float) -> None:
    clip = jt.minimum(n["max_norm"] / (norm + 1e-6), jt.ones_like(norm))
    for g, p, m, v, e in zip(grads, *state, strict=True):
        g = g * clip
        m.update(m + (1 - n["beta1"]) * (g - m))
        v.update(n["beta2"] * v + (1 - n["beta2"]) * g * g)
        root = jt.maximum(v, jt.full_like(v, LEAST)).sqrt() / n["root"]
        p.update(p - n["step_size"] * m / (root + n["eps"]))
        e.update(e + (1 - n["ema_rate"]) * (p - e))
