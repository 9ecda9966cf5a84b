"""Jittor operators from C++ and CUDA bodies, and where Jittor's own operators run instead.

Jittor compiles a body into a function in which `in0_p`, `in0_shape0`, `out0_p` ... are the pointers
and sizes of inputs and outputs. `data["name"]` is a number passed at the call; changing it needs no
new compile. Arrays are contiguous float32; images are (B, C, H, W).

| operators | CPU | CUDA |
|---|---|---|
| norm, pixels, update; noise and masks (`blocks`) | our body | our body |
| conv, dense, inference | our body on oneDNN; without oneDNN Jittor's own | Jittor's own |

Convolutions, products and attention stay Jittor's own on CUDA, for they are cuDNN's and cuBLAS'.
A body may be the same text for both devices, and a formula for an element always is. We have our
own bodies because Jittor's generated loops run on one thread, its batched matrix product is naive,
and on CUDA a norm of its operators is a dozen kernels. Sums run in double, in an order that depends
neither on the number of threads nor on which of them is first: no atomic sums.

On a CPU, Jittor compiles with -Ofast, under which a division by infinity may give NaN and a
comparison may lose one, so exponentials are kept finite and NaN is carried by a product. On CUDA it
compiles with --use_fast_math: subnormal float32 count as 0, quotients, roots and exponentials are
off by a few roundings, comparisons see NaN, doubles are exact. It launches all its kernels on the
default stream, and so do we; it asks for launches that failed at the end of every run.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jittor as jt
from jittor import Var, compile_extern


def _onednn_flags() -> str | None:
    """Compiler flags for oneDNN, or None if Jittor has no oneDNN on this machine."""
    if compile_extern.mkl_ops is None:
        return None
    home = Path(jt.compiler.jit_utils.home()) / ".cache" / "jittor" / "mkl"
    for include in sorted(home.glob("dnnl*/include")):
        return f' -I"{include}" -L"{include.parent / "lib"}" -lmkldnn '
    return None


_FLAGS = _onednn_flags()

# What a header with a CUDA body may use: BOTH before a function of both devices; each(n, f), which
# runs f(i) for all i < n; and in CUDA code share and total, for the threads of a block together.
# A total is the same for every run: pairs of threads are added in one order.
DEVICES = """
#ifdef __CUDACC__
#define BOTH __host__ __device__ inline
#else
#define BOTH inline
#endif
namespace jittor {
#ifdef __CUDACC__
template <class F> __global__ void each_element(int64 n, F f) {
    const int64 i = blockIdx.x * int64(blockDim.x) + threadIdx.x;
    if (i < n) f(i);
}
template <class F> void each(int64 n, F f) {
    if (n > 0) each_element<<<(n + 255) / 256, 256>>>(n, f);
}
// This thread's j < n, as f(j, j / size), without a division for each.
template <class F> __device__ void share(int64 n, int64 size, F f) {
    int64 k = threadIdx.x / size, rest = threadIdx.x % size;
    const int64 more = blockDim.x / size, over = blockDim.x % size;
    for (int64 j = threadIdx.x; j < n; j += blockDim.x) {
        f(j, k);
        k += more;
        rest += over;
        if (rest >= size) { rest -= size; k++; }
    }
}
// The sum over a block of at most 256 threads, a power of two; every thread gets it.
static __device__ double total(double value) {
    __shared__ double part[256];
    __syncthreads();  // the last total has been read
    part[threadIdx.x] = value;
    __syncthreads();
    for (int half = blockDim.x / 2; half > 0; half /= 2) {
        if (threadIdx.x < half) part[threadIdx.x] += part[threadIdx.x + half];
        __syncthreads();
    }
    return part[0];
}
// Threads of a block that sums n numbers: one warp for few, so that most have work.
static int threads(int64 n) { return n <= 512 ? 32 : 256; }
#else
template <class F> inline void each(int64 n, F f) {
    #pragma omp parallel for firstprivate(f) if (n > 4096)
    for (int64 i = 0; i < n; i++) f(i);
}
#endif
}
"""


def onednn() -> bool:
    """True if the bodies on oneDNN are used: on a CPU that has it. If not, Jittor's operators."""
    return _FLAGS is not None and not jt.flags.use_cuda


class Function(jt.Function):  # type: ignore[misc]
    """An operator with its own gradient, which can be asked for once.

    Then it forgets all that it holds. Jittor drops an operator no earlier than at the end of a
    run, and a run is a whole step: until then the arrays that it needs would all stay in memory.
    """

    def _grad(self, *given: Var | None) -> Any:
        found = super()._grad(*given)
        self.__dict__.clear()
        return found


def check(fits: bool, message: str) -> None:
    """Raise ValueError unless `fits`; Jittor itself would stop with an empty message."""
    if not fits:
        raise ValueError(message)


def code(
    shapes: Sequence[Any],
    inputs: Sequence[Var],
    body: str,
    header: str = "",
    cuda: str = "",
    scratch: Sequence[Any] = (),
    /,
    **data: float,
) -> list[Var]:
    """Float32 outputs of the given shapes, computed from the inputs by one body.

    Args:
        body, cuda: the body for a CPU and the one for CUDA, "" if only the first is ever used.
        header: what stands before either; `DEVICES` stands before it if there is a CUDA body.
        scratch: shapes of float64 arrays, on CUDA only, which follow the outputs: for sums.
    """
    header = DEVICES + header if cuda else header
    if jt.flags.use_cuda:
        source, options = {"cuda_src": cuda, "cuda_header": header}, {}
    else:
        source, scratch = {"cpu_src": body, "cpu_header": header}, ()
        options = {f"FLAGS:{_FLAGS}": 1} if _FLAGS else {}
    with jt.flag_scope(compile_options=options):
        outputs = jt.code(
            [list(shape) for shape in (*shapes, *scratch)],
            ["float32"] * len(shapes) + ["float64"] * len(scratch),
            list(inputs),
            data=data,
            **source,
        )
    return list(outputs)[: len(shapes)]
