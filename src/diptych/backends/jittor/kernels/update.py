"""The update from gradients: their total norm, and clipping, Adam and EMA in one kernel."""

from __future__ import annotations

from jittor import Var

from diptych.backends.jittor.kernels.code import code

TENSORS = 32  # per kernel: Jittor's compile time grows with the square of their number
BLOCKS = 64  # of threads for the sum of squares of one tensor, on CUDA

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

# On CUDA a sum for each of BLOCKS blocks of threads of each tensor, in the scratch array out1.
SQUARES_HEADER = """
#ifdef __CUDACC__
namespace jittor {
struct Gradients { const float* g[TENSORS]; int64 size[TENSORS]; };
static __global__ void sums_of_squares(Gradients all, double* part) {
    const float* g = all.g[blockIdx.y];
    const int64 size = all.size[blockIdx.y], step = gridDim.x * int64(blockDim.x);
    double sum = 0;
    for (int64 i = blockIdx.x * int64(blockDim.x) + threadIdx.x; i < size; i += step)
        sum += double(g[i]) * g[i];
    sum = total(sum);
    if (threadIdx.x == 0) part[blockIdx.y * gridDim.x + blockIdx.x] = sum;
}
static __global__ void root_of_sum(const double* part, int64 size, float* norm) {
    double sum = 0;
    for (int64 i = threadIdx.x; i < size; i += blockDim.x) sum += part[i];
    sum = total(sum);
    if (threadIdx.x == 0) norm[0] = std::sqrt(sum);
}
}
#endif
""".replace("TENSORS", str(TENSORS))
GRADIENT_NORM_CUDA = """
const int64 N = _inputs.size();
for (int64 first = 0; first < N; first += TENSORS) {
    Gradients all;
    const unsigned count = std::min<int64>(TENSORS, N - first);
    for (unsigned k = 0; k < count; k++) {
        all.g[k] = _inputs[first + k]->ptr<float>();
        all.size[k] = _inputs[first + k]->num;
    }
    sums_of_squares<<<dim3(BLOCKS, count), 256>>>(all, out1_p + first * BLOCKS);
}
root_of_sum<<<1, 256>>>(out1_p, N * BLOCKS, out0_p);
""".replace("TENSORS", str(TENSORS)).replace("BLOCKS", str(BLOCKS))

# With g' = g min(1, max_norm / (norm + 1e-6)):
# m += (1 - beta1)(g' - m);  v = beta2 v + (1 - beta2) g'^2;  e += (1 - ema_rate)(p - e), after
# p -= lr / (1 - beta1^n) * m / (sqrt(v) / sqrt(1 - beta2^n) + eps).
# Inputs norm, g..., p..., m..., v..., e...; outputs p..., m..., v..., e... .
# -Ofast takes square roots as v * rsqrt(v), which is NaN where v is subnormal: of gradients of
# 1e-18 in the first step. There the root is that of the least normal number, far below eps.
ADAM_HEADER = """
#include <cmath>
namespace jittor {
BOTH float clip_of(double norm, double max_norm) {
    const double clip = max_norm / (norm + 1e-6);
    return clip < 1. ? clip : 1.;
}
struct Rates { float size, root, eps, b1, b2, c2, ema; };
struct Weight { float p, m, v, e; };
BOTH Weight updated(const Rates& r, float g, const Weight& old) {
    const float LEAST = 1.1754944e-38f;
    Weight x;
    x.m = old.m + r.b1 * (g - old.m);
    x.v = r.b2 * old.v + r.c2 * g * g;
    x.p = old.p - r.size * x.m / (std::sqrt(x.v < LEAST ? LEAST : x.v) / r.root + r.eps);
    x.e = old.e + r.ema * (x.p - old.e);
    return x;
}
#ifdef __CUDACC__
struct Arrays {  // g, p, m, v, e; p, m, v, e
    const float* from[5][TENSORS];
    float* to[4][TENSORS];
    int64 size[TENSORS];
};
static __global__ void adam(Arrays all, Rates rates, const float* norm, double max_norm) {
    const int k = blockIdx.y;
    const float *g = all.from[0][k], *p = all.from[1][k], *m = all.from[2][k];
    const float *v = all.from[3][k], *e = all.from[4][k], clip = clip_of(norm[0], max_norm);
    const int64 size = all.size[k], step = gridDim.x * int64(blockDim.x);
    for (int64 i = blockIdx.x * int64(blockDim.x) + threadIdx.x; i < size; i += step) {
        const Weight x = updated(rates, clip * g[i], {p[i], m[i], v[i], e[i]});
        all.to[0][k][i] = x.p;
        all.to[1][k][i] = x.m;
        all.to[2][k][i] = x.v;
        all.to[3][k][i] = x.e;
    }
}
#endif
}
""".replace("TENSORS", str(TENSORS))
RATES = """
const int N = _outputs.size() / 4;
Rates rates;
rates.size = data["step_size"], rates.root = data["root"], rates.eps = data["eps"];
rates.b1 = 1. - data["beta1"], rates.b2 = data["beta2"], rates.c2 = 1. - data["beta2"];
rates.ema = 1. - data["ema_rate"];
"""
ADAM = """
const float clip = clip_of(in0_p[0], data["max_norm"]);
const auto all = chunks(N, _inputs, 1);
#pragma omp parallel for firstprivate(rates)
for (size_t k = 0; k < all.size(); k++) {
    const float* in[5];
    float* __restrict__ out[4];
    for (int s = 0; s < 5; s++) in[s] = _inputs[1 + s * N + all[k].tensor]->ptr<float>();
    for (int s = 0; s < 4; s++) out[s] = _outputs[s * N + all[k].tensor]->ptr<float>();
    #pragma omp simd
    for (int64 i = all[k].begin; i < all[k].end; i++) {
        const Weight old{in[1][i], in[2][i], in[3][i], in[4][i]};
        const Weight x = updated(rates, clip * in[0][i], old);
        out[0][i] = x.p;
        out[1][i] = x.m;
        out[2][i] = x.v;
        out[3][i] = x.e;
    }
}
"""
ADAM_CUDA = """
Arrays all;
int64 most = 0;
for (int k = 0; k < N; k++) {
    for (int s = 0; s < 5; s++) all.from[s][k] = _inputs[1 + s * N + k]->ptr<float>();
    for (int s = 0; s < 4; s++) all.to[s][k] = _outputs[s * N + k]->ptr<float>();
    all.size[k] = _outputs[k]->num;
    most = std::max<int64>(most, all.size[k]);
}
const unsigned blocks = std::min<int64>(512, (most + 255) / 256);
adam<<<dim3(blocks, N), 256>>>(all, rates, in0_p, data["max_norm"]);
"""


def gradient_norm(grads: list[Var]) -> Var:
    """Square root of the sum of squares over all arrays; one element."""
    body, sums = GRADIENT_NORM_CUDA, [[BLOCKS * len(grads)]]
    return code([[1]], grads, GRADIENT_NORM, CHUNKS_HEADER + SQUARES_HEADER, body, sums)[0]


def adam(norm: Var, grads: list[Var], *state: list[Var], **numbers: float) -> None:
    """One step on state = params, m, v, ema; see `optim.adam_step`.

    New arrays replace the old ones. The old memory is not written to, because `clone` and `detach`
    share it, so writing would change copies held elsewhere.
    """
    for i in range(0, len(grads), TENSORS):
        part = [group[i : i + TENSORS] for group in state]
        old = [x for group in part for x in group]
        inputs = [norm, *grads[i : i + TENSORS], *old]
        shapes, header = [x.shape for x in old], CHUNKS_HEADER + ADAM_HEADER
        new = code(shapes, inputs, RATES + ADAM, header, RATES + ADAM_CUDA, **numbers)
        for x, y in zip(old, new, strict=True):
            x.update(y.stop_grad() if x.is_stop_grad() else y)
