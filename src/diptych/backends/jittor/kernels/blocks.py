"""Keyed normals and dropout masks: one C++ body for CPUs and GPUs; the formula of `diptych.rng`.

It computes in integers up to the last line, so neither -Ofast nor a fused multiply-add can change a
bit. Jittor has no 64-bit arrays: words come and go as pairs of int32.
"""

from __future__ import annotations

import functools

import jittor as jt
import numpy as np
from jittor import Var

from diptych.backends.jittor.kernels.code import DEVICES
from diptych.rng import Blocks, normal_table

# A stream's block of four words (Salmon et al. 2011): Philox-4x64-10, and what is made of one.
HEADER = """
typedef unsigned long long u64;
namespace jittor {
BOTH u64 upper(u64 x, u64 y) {
#ifdef __CUDA_ARCH__
    return __umul64hi(x, y);
#else
    return (u64)(((unsigned __int128)x * y) >> 64);
#endif
}
// begin: seed, purpose, b, first block, limit of a mask, rows ...
BOTH void words_of(const u64* begin, u64 block, u64 row, u64* out) {
    u64 k0 = begin[0], k1 = begin[1];
    u64 c0 = begin[3] + block + 1, c1 = 0, c2 = begin[2], c3 = begin[5 + row];
    const u64 m0 = 0xD2E7470EE14C6C93ull, m1 = 0xCA5A826395121157ull;
    for (int turn = 0; turn < 10; turn++) {
        const u64 h0 = upper(m0, c0), l0 = m0 * c0, h1 = upper(m1, c2), l1 = m1 * c2;
        c0 = h1 ^ c1 ^ k0; c1 = l1; c2 = h0 ^ c3 ^ k1; c3 = l0;
        k0 += 0x9E3779B97F4A7C15ull; k1 += 0xBB67AE8584CAA73Bull;
    }
    out[0] = c0; out[1] = c1; out[2] = c2; out[3] = c3;
}
BOTH float normal_of(unsigned half, const int* table) {
    const unsigned s = half | 1u;
#ifdef __CUDA_ARCH__
    const int octave = 31 - __clz(s);
#else
    const int octave = 31 - __builtin_clz(s);
#endif
    const unsigned below = (s << (31 - octave)) & 0x7fffffffu;
    const int part = (octave << 8) + (int)(below >> 23);
    const long long slope = table[2 * part + 1], place = below & 0x7fffffu;
    const int z = (int)(table[2 * part] - ((slope * place + (1 << 22)) >> 23));
    return (float)(half & 1u ? -z : z) * 3.7252902984619140625e-09f;  // 2^-28
}
BOTH void one_block(const int* begin, const int* table, float* out, long long k, long long blocks) {
    u64 word[4];
    words_of((const u64*)begin, k % blocks, k / blocks, word);
    for (int j = 0; j < 8; j++)
        out[8 * k + j] = normal_of((unsigned)(word[j / 2] >> (32 * (j % 2))), table);
}
BOTH void one_block(
    const int* begin, const int*, unsigned char* out, long long k, long long blocks
) {
    u64 word[4];
    words_of((const u64*)begin, k % blocks, k / blocks, word);
    const u64 limit = ((const u64*)begin)[4];
    for (int j = 0; j < 16; j++)
        out[16 * k + j] = ((word[j / 4] >> (16 * (j % 4))) & 0xffff) >= limit;
}
template <class T> struct Draw {
    const int *begin, *table;
    T* out;
    long long blocks;
    BOTH void operator()(long long k) const { one_block(begin, table, out, k, blocks); }
};
}
"""
BODY = """
const long long rows = out0_shape0, blocks = out0_shape1 / PER_BLOCK;
each(rows * blocks, Draw<out0_type>{in0_p, in1_p, out0_p, blocks});
"""


def block_normals(begin: Blocks, rows: list[int], blocks: int) -> Var:
    """The normals of whole blocks, (len(rows), 8 blocks) float32."""
    return _draw(begin.integers(0, *rows), len(rows), blocks, 8, "float32")


def block_masks(begin: Blocks, row: int, blocks: int, limit: int) -> Var:
    """Keep masks of whole blocks, (16 blocks,) uint8: 1 if a 16-bit draw is not below `limit`."""
    return _draw(begin.integers(limit, row), 1, blocks, 16, "uint8").reshape((-1,))


def _draw(words: np.ndarray, rows: int, blocks: int, per_block: int, dtype: str) -> Var:  # type: ignore[type-arg]
    drawn: Var = jt.code(
        [rows, per_block * blocks],
        dtype,
        [jt.array(words.view(np.int32)).stop_grad(), _table()],
        cpu_src=BODY.replace("PER_BLOCK", str(per_block)),
        cpu_header=DEVICES + HEADER,
        cuda_src=BODY.replace("PER_BLOCK", str(per_block)),
        cuda_header=DEVICES + HEADER,
    )
    return drawn.stop_grad()


@functools.cache
def _table() -> Var:
    return jt.array(normal_table().reshape(-1)).stop_grad()
