"""Operators on elements and pixels: sum, clip, dropout, concatenation, resampling."""

from __future__ import annotations

from collections.abc import Sequence

from jittor import Var

from diptych.backends.jittor.kernels.code import Function, check, code

HEADER = """
#include <cstring>
namespace jittor {
struct Add {
    const float *a, *b;
    float* y;
    BOTH void operator()(int64 i) const { y[i] = a[i] + b[i]; }
};
struct Clip {  // the bits of a NaN are looked at: -Ofast takes x != x for false
    const float* x;
    float* y;
    BOTH void operator()(int64 i) const {
        unsigned bits;
        memcpy(&bits, x + i, 4);
        const float cut = x[i] < -1.f ? -1.f : x[i] > 1.f ? 1.f : x[i];
        y[i] = (bits & 0x7fffffffu) > 0x7f800000u ? x[i] : cut;
    }
};
struct Dropout {
    const float* x;
    const unsigned char* mask;
    float *y, scale;
    BOTH void operator()(int64 i) const { y[i] = x[i] * (scale * mask[i]); }
};
BOTH float square(const float* x, const float* below, int64 j, float scale) {  // 2x2 pixels
    return scale * ((x[2 * j] + x[2 * j + 1]) + (below[2 * j] + below[2 * j + 1]));
}
#ifdef __CUDACC__
// The place of [a, b][i], of rows of n and of m.
template <class T> BOTH T& part(T* a, T* b, int64 n, int64 m, int64 i) {
    const int64 row = i / (n + m), j = i % (n + m);
    return j < n ? a[row * n + j] : b[row * m + (j - n)];
}
struct Concat {
    const float *a, *b;
    float* y;
    int64 n, m;
    BOTH void operator()(int64 i) const { y[i] = part(a, b, n, m, i); }
};
struct Split {
    const float* dy;
    float *da, *db;
    int64 n, m;
    BOTH void operator()(int64 i) const { part(da, db, n, m, i) = dy[i]; }
};
struct Spread {
    const float* x;
    float* y;
    int64 W;
    float scale;
    BOTH void operator()(int64 i) const {
        y[i] = scale * x[i / (2 * W) / 2 * W + i % (2 * W) / 2];
    }
};
struct Gather {
    const float* x;
    float* y;
    int64 W;
    float scale;
    BOTH void operator()(int64 i) const {
        const float* row = x + i / W * 4 * W;
        y[i] = square(row, row + 2 * W, i % W, scale);
    }
};
#endif
}
"""

# y = a + b.
ADD = "each(in0->num, Add{in0_p, in1_p, out0_p});"

# y = x cut to [-1, 1]; a NaN stays one.
CLIP = "each(in0->num, Clip{in0_p, out0_p});"

# y = data["scale"] * x where mask is 1, 0 elsewhere; inputs x, mask (uint8). Also dx from dy.
DROPOUT = 'each(in0->num, Dropout{in0_p, in1_p, out0_p, float(data["scale"])});'

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
CONCAT_CUDA = """
const int64 a = in0->num / in0_shape0, b = in1->num / in0_shape0;
each(out0->num, Concat{in0_p, in1_p, out0_p, a, b});
"""
SPLIT_CUDA = """
const int64 a = out0->num / in0_shape0, b = out1->num / in0_shape0;
each(in0->num, Split{in0_p, out0_p, out1_p, a, b});
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
    for (int64 j = 0; j < W; j++) out0_p[i * W + j] = square(x, below, j, scale);
}
"""
SPREAD_CUDA = 'each(out0->num, Spread{in0_p, out0_p, in0_shape3, float(data["scale"])});'
GATHER_CUDA = 'each(out0->num, Gather{in0_p, out0_p, out0_shape3, float(data["scale"])});'


class _Add(Function):  # type: ignore[misc]
    def execute(self, a: Var, b: Var) -> Var:
        return code([a.shape], [a, b], ADD, HEADER, ADD)[0]

    def grad(self, dy: Var) -> tuple[Var, Var]:
        return dy, dy


def add(a: Var, b: Var) -> Var:
    """a + b, of the same shape: the residual sum."""
    check(a.shape == b.shape, f"add: {tuple(a.shape)} and {tuple(b.shape)}")
    return _Add.apply(a, b)


def clip(x: Var) -> Var:
    """x cut to [-1, 1]; has no gradient. A NaN stays one, as in PyTorch: `clamp` makes it 1."""
    return code([x.shape], [x], CLIP, HEADER, CLIP)[0]


class _Dropout(Function):  # type: ignore[misc]
    def execute(self, x: Var, mask: Var, scale: float) -> Var:
        self.mask, self.scale = mask, scale
        return code([x.shape], [x, mask], DROPOUT, HEADER, DROPOUT, scale=scale)[0]

    def grad(self, dy: Var) -> tuple[Var | None, ...]:
        given, body = [dy, self.mask], DROPOUT
        return code([dy.shape], given, body, HEADER, body, scale=self.scale)[0], None, None


def dropout(x: Var, mask: Var, rate: float) -> Var:
    """x * mask / (1 - rate) for a uint8 mask of zeros and ones, of x's shape."""
    check(x.shape == mask.shape, f"dropout: x {tuple(x.shape)}, mask {tuple(mask.shape)}")
    check(str(mask.dtype) == "uint8", f"dropout: mask is {mask.dtype}, expected uint8")
    return _Dropout.apply(x, mask, 1 / (1 - rate))


class _Concat(Function):  # type: ignore[misc]
    def execute(self, a: Var, b: Var) -> Var:
        self.shapes = a.shape, b.shape
        shape = [a.shape[0], a.shape[1] + b.shape[1], *a.shape[2:]]
        return code([shape], [a, b], CONCAT, HEADER, CONCAT_CUDA)[0]

    def grad(self, dy: Var) -> tuple[Var, ...]:
        return tuple(code(list(self.shapes), [dy], SPLIT, HEADER, SPLIT_CUDA))


def concat(a: Var, b: Var) -> Var:
    """[a, b] along the channels."""
    check(
        a.ndim == b.ndim == 4 and a.shape[0] == b.shape[0] and a.shape[2:] == b.shape[2:],
        f"concat: {tuple(a.shape)} and {tuple(b.shape)}",
    )
    return _Concat.apply(a, b)


class _Resample(Function):  # type: ignore[misc]
    def execute(self, x: Var, up: bool) -> Var:
        self.shape, self.up = x.shape, up
        size = [n * 2 if up else n // 2 for n in x.shape[2:]]
        return _resampled([*x.shape[:2], *size], x, up, 1.0 if up else 0.25)

    def grad(self, dy: Var) -> tuple[Var, None]:
        return _resampled(self.shape, dy, not self.up, 1.0 if self.up else 0.25), None


def _resampled(shape: Sequence[int], x: Var, up: bool, scale: float) -> Var:
    body, cuda = (SPREAD, SPREAD_CUDA) if up else (GATHER, GATHER_CUDA)
    return code([shape], [x], body, HEADER, cuda, scale=scale)[0]


def upsample(x: Var) -> Var:
    """Upsample to twice the height and width by repeating each pixel."""
    check(x.ndim == 4, f"upsample: input {tuple(x.shape)}, expected (B, C, H, W)")
    return _Resample.apply(x, True)


def avg_pool(x: Var) -> Var:
    """Means of 2x2 pixels, half the height and width; both must be even."""
    check(
        x.ndim == 4 and x.shape[2] % 2 == 0 == x.shape[3] % 2,
        f"avg_pool: input {tuple(x.shape)}, expected (B, C, H, W) with H and W even",
    )
    return _Resample.apply(x, False)
