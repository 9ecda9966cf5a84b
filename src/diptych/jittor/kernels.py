"""The Jittor panel's operators, forward and backward, on any device.

On a CPU with oneDNN each is one `jt.code` kernel from `cpp.py`. Elsewhere (CUDA, or no oneDNN)
each is a few ordinary Jittor operators, correct but not tuned; `native()` is the only switch.
Every function takes and gives float32 arrays, images as (B, C, H, W), and raises ValueError
where shapes do not fit, before Jittor meets them: it would stop with an empty message.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jittor as jt
from jittor import compile_extern

from diptych.jittor import cpp

Var = jt.Var


def _onednn_flags() -> str | None:
    """Compiler flags that find oneDNN, or None where Jittor has none on this machine."""
    if compile_extern.mkl_ops is None:
        return None
    home = Path(jt.compiler.jit_utils.home()) / ".cache" / "jittor" / "mkl"
    for folder in sorted(home.glob("dnnl*/include")):
        return f' -I"{folder}" -L"{folder.parent / "lib"}" -lmkldnn '
    return None


TENSORS = 32  # in one update: the time that Jittor takes to compile it grows with the square
_FLAGS = _onednn_flags()
_OPTIONS = {f"FLAGS:{_FLAGS}": 1}


def native() -> bool:
    """Whether the C++ kernels run: on a CPU, with oneDNN."""
    return _FLAGS is not None and not jt.flags.use_cuda


def _check(fits: bool, message: str) -> None:
    if not fits:
        raise ValueError(message)


def _code(
    shapes: list[Any], inputs: list[Var], body: str, header: str = "", **data: float
) -> list[Var]:
    """Float32 outputs of the given shapes, from one C++ body."""
    with jt.flag_scope(compile_options=_OPTIONS):
        return list(
            jt.code(
                [list(s) for s in shapes],
                ["float32"] * len(shapes),
                inputs,
                cpu_src=body,
                cpu_header=header,
                data=data,
            )
        )


class _Conv(jt.Function):  # type: ignore[misc]
    def execute(self, x: Var, w: Var, b: Var, stride: int, pad: tuple[int, int]) -> Var:
        size = [(n + sum(pad) - w.shape[2]) // stride + 1 for n in x.shape[2:]]
        self.data = {"stride": stride, "before": pad[0], "after": pad[1]}
        self.saved, self.wanted = (x, w, b), not x.is_stop_grad()  # in `grad` all are stopped
        shape = [x.shape[0], w.shape[0], *size]
        return _code([shape], [x, w, b], cpp.CONV_FORWARD, cpp.DNNL_HEADER, **self.data)[0]

    def grad(self, dy: Var) -> tuple[Var | None, ...]:
        x, w, b = self.saved
        shapes = [w.shape, b.shape] + [x.shape] * self.wanted
        header = f"#define DX {int(self.wanted)}\n" + cpp.DNNL_HEADER
        dw, db, *dx = _code(shapes, [x, w, b, dy], cpp.CONV_BACKWARD, header, **self.data)
        return dx[0] if dx else None, dw, db, None, None


def conv2d(x: Var, w: Var, b: Var, stride: int, pad: tuple[int, int]) -> Var:
    """Convolution with bias; `pad` pixels (before, after) on both axes; w is (O, I, k, k)."""
    _check(
        x.ndim == 4 and x.shape[1] == w.shape[1],
        f"conv2d: input {tuple(x.shape)} does not fit weight {tuple(w.shape)}",
    )
    if native():
        return _Conv.apply(x, w, b, stride, pad)
    if pad[0] != pad[1]:
        x, pad = jt.nn.pad(x, [*pad, *pad]), (0, 0)
    return jt.nn.conv2d(x, w, b, stride, pad[0])


class _Linear(jt.Function):  # type: ignore[misc]
    def execute(self, x: Var, w: Var, b: Var) -> Var:
        self.saved = x, w, b
        shape = [x.shape[0], w.shape[0]]
        return _code([shape], [x, w, b], cpp.LINEAR_FORWARD, cpp.DNNL_HEADER)[0]

    def grad(self, dy: Var) -> tuple[Var, ...]:
        x, w, b = self.saved
        shapes = [x.shape, w.shape, b.shape]
        return tuple(_code(shapes, [x, w, dy], cpp.LINEAR_BACKWARD, cpp.DNNL_HEADER))


def linear(x: Var, w: Var, b: Var) -> Var:
    """x w^T + b for x (B, I), w (O, I), b (O,)."""
    _check(
        x.ndim == 2 and x.shape[1] == w.shape[1],
        f"linear: input {tuple(x.shape)} does not fit weight {tuple(w.shape)}",
    )
    return _Linear.apply(x, w, b) if native() else jt.nn.matmul_transpose(x, w) + b


def _norm_header(act: bool, shift: str, rows: int) -> str:
    """Macros of the norm's body: its activation, and where the shift is, if there is one."""
    at = f"{shift}_p[{'b * C +' if rows > 1 else ''} c]" if rows else "0.f"
    return (
        cpp.SILU_HEADER
        + f"#define ACTIVATE(z) {'silu(z)' if act else 'z'}\n"
        + f"#define SLOPE(z) {'silu_slope(z)' if act else '1.f'}\n"
        + f"#define SHIFT {int(rows > 0)}\n#define SHIFTED(b, c) {at}\n"
    )


class _Norm(jt.Function):  # type: ignore[misc]
    def execute(
        self, x: Var, w: Var, b: Var, shift: Var | None, groups: int, eps: float, act: bool
    ) -> Var:
        self.act, self.shifts = act, [] if shift is None else [shift]
        self.rows = 0 if shift is None else shift.shape[0]
        stats = [x.shape[0], groups]
        shapes, inputs = [x.shape, stats, stats], [x, w, b, *self.shifts]
        header = _norm_header(act, "in3", self.rows)
        y, mean, rstd = _code(shapes, inputs, cpp.NORM_FORWARD, header, eps=eps)
        self.saved = x, w, b, mean, rstd
        return y

    def grad(self, dy: Var) -> tuple[Var | None, ...]:
        inputs = [*self.saved, dy, *self.shifts]
        shapes = [v.shape for v in (*self.saved[:3], *self.shifts)]
        header = _norm_header(self.act, "in6", self.rows)
        dx, dw, db, *ds = _code(shapes, inputs, cpp.NORM_BACKWARD, header)
        return dx, dw, db, ds[0] if ds else None, None, None, None


def group_norm(
    x: Var, w: Var, b: Var, shift: Var | None, groups: int, eps: float, act: bool
) -> Var:
    """GroupNorm of x + shift, then silu if `act`; shift is (B or 1, C), or None for nothing."""
    _check(
        x.ndim == 4 and x.shape[1] == w.shape[0] and x.shape[1] % groups == 0,
        f"group_norm: input {tuple(x.shape)}, weight {tuple(w.shape)}, {groups} groups",
    )
    if shift is not None:
        _check(
            shift.shape[0] in (1, x.shape[0]) and tuple(shift.shape[1:]) == (x.shape[1],),
            f"group_norm: shift {tuple(shift.shape)} for input {tuple(x.shape)}",
        )
    if native():
        return _Norm.apply(x, w, b, shift, groups, eps, act)
    x = x if shift is None else x + shift.unsqueeze(2).unsqueeze(3)
    h = x.reshape(x.shape[0], groups, -1)
    h = h - h.mean(2, keepdims=True)
    h = (h / ((h * h).mean(2, keepdims=True) + eps).sqrt()).reshape(x.shape)
    h = h * w.reshape(1, -1, 1, 1) + b.reshape(1, -1, 1, 1)
    return h * h.sigmoid() if act else h


class _Silu(jt.Function):  # type: ignore[misc]
    def execute(self, x: Var) -> Var:
        self.x = x
        return _code([x.shape], [x], cpp.SILU_FORWARD, cpp.SILU_HEADER)[0]

    def grad(self, dy: Var) -> Var:
        return _code([dy.shape], [self.x, dy], cpp.SILU_BACKWARD, cpp.SILU_HEADER)[0]


def silu(x: Var) -> Var:
    """x * sigmoid(x), any shape."""
    return _Silu.apply(x) if native() else x * x.sigmoid()


class _Attention(jt.Function):  # type: ignore[misc]
    def execute(self, q: Var, k: Var, v: Var) -> Var:
        batch, channels, height, width = q.shape
        shapes = [q.shape, [batch, height * width, height * width]]
        self.scale = channels**-0.5
        header = cpp.DNNL_HEADER
        y, a = _code(shapes, [q, k, v], cpp.ATTENTION_FORWARD, header, scale=self.scale)
        self.saved = q, k, v, a
        return y

    def grad(self, dy: Var) -> tuple[Var, ...]:
        shapes, inputs = [dy.shape] * 3, [*self.saved, dy]
        body, header = cpp.ATTENTION_BACKWARD, cpp.DNNL_HEADER
        return tuple(_code(shapes, inputs, body, header, scale=self.scale))


def attention(q: Var, k: Var, v: Var) -> Var:
    """One head over the pixels: softmax over keys of q^T k / sqrt(C), applied to v."""
    _check(
        q.ndim == 4 and q.shape == k.shape == v.shape,
        f"attention: q {tuple(q.shape)}, k {tuple(k.shape)}, v {tuple(v.shape)}",
    )
    if native():
        return _Attention.apply(q, k, v)
    flat_q, flat_k, flat_v = (x.reshape(*x.shape[:2], -1) for x in (q, k, v))
    scores = jt.bmm(flat_q.transpose(0, 2, 1), flat_k) * q.shape[1] ** -0.5
    return jt.bmm(flat_v, jt.nn.softmax(scores, dim=2).transpose(0, 2, 1)).reshape(q.shape)


class _Dropout(jt.Function):  # type: ignore[misc]
    def execute(self, x: Var, mask: Var, scale: float) -> Var:
        self.mask, self.scale = mask, scale
        return _code([x.shape], [x, mask], cpp.DROPOUT, scale=scale)[0]

    def grad(self, dy: Var) -> tuple[Var | None, ...]:
        return _code([dy.shape], [dy, self.mask], cpp.DROPOUT, scale=self.scale)[0], None, None


def dropout(x: Var, mask: Var, rate: float) -> Var:
    """x * mask / (1 - rate) for a uint8 mask of zeros and ones, of x's shape."""
    _check(x.shape == mask.shape, f"dropout: x {tuple(x.shape)}, mask {tuple(mask.shape)}")
    _check(str(mask.dtype) == "uint8", f"dropout: mask is {mask.dtype}, expected uint8")
    scale = 1 / (1 - rate)
    return _Dropout.apply(x, mask, scale) if native() else x * (mask.float32() * scale)


class _Add(jt.Function):  # type: ignore[misc]
    def execute(self, a: Var, b: Var) -> Var:
        return _code([a.shape], [a, b], cpp.ADD)[0]

    def grad(self, dy: Var) -> tuple[Var, Var]:
        return dy, dy


def add(a: Var, b: Var) -> Var:
    """a + b of one shape: the residual sum."""
    _check(a.shape == b.shape, f"add: {tuple(a.shape)} and {tuple(b.shape)}")
    return _Add.apply(a, b) if native() else a + b


class _Concat(jt.Function):  # type: ignore[misc]
    def execute(self, a: Var, b: Var) -> Var:
        self.shapes = a.shape, b.shape
        shape = [a.shape[0], a.shape[1] + b.shape[1], *a.shape[2:]]
        return _code([shape], [a, b], cpp.CONCAT)[0]

    def grad(self, dy: Var) -> tuple[Var, ...]:
        return tuple(_code(list(self.shapes), [dy], cpp.SPLIT))


def concat(a: Var, b: Var) -> Var:
    """[a, b] along the channels."""
    _check(
        a.ndim == b.ndim == 4 and a.shape[0] == b.shape[0] and a.shape[2:] == b.shape[2:],
        f"concat: {tuple(a.shape)} and {tuple(b.shape)}",
    )
    return _Concat.apply(a, b) if native() else jt.concat([a, b], dim=1)


class _Resample(jt.Function):  # type: ignore[misc]
    def execute(self, x: Var, up: bool) -> Var:
        self.shape, self.up = x.shape, up
        size = [n * 2 if up else n // 2 for n in x.shape[2:]]
        body, scale = (cpp.SPREAD, 1.0) if up else (cpp.GATHER, 0.25)
        return _code([[*x.shape[:2], *size]], [x], body, scale=scale)[0]

    def grad(self, dy: Var) -> tuple[Var, None]:
        body, scale = (cpp.GATHER, 1.0) if self.up else (cpp.SPREAD, 0.25)
        return _code([self.shape], [dy], body, scale=scale)[0], None


def upsample(x: Var) -> Var:
    """Twice the height and width, each pixel repeated."""
    _check(x.ndim == 4, f"upsample: input {tuple(x.shape)}, expected (B, C, H, W)")
    if native():
        return _Resample.apply(x, True)
    return jt.nn.interpolate(x, scale_factor=2, mode="nearest")


def avg_pool(x: Var) -> Var:
    """Half the height and width, each pixel the mean of 2x2; both must be even."""
    _check(
        x.ndim == 4 and x.shape[2] % 2 == 0 == x.shape[3] % 2,
        f"avg_pool: input {tuple(x.shape)}, expected (B, C, H, W) with H and W even",
    )
    return _Resample.apply(x, False) if native() else jt.nn.avg_pool2d(x, 2, 2)


def gradient_norm(grads: list[Var]) -> Var:
    """Square root of the sum of squares over all arrays, one element."""
    if native():
        return _code([[1]], grads, cpp.GRADIENT_NORM, cpp.CHUNKS_HEADER)[0]
    return sum((g * g).sum() for g in grads).sqrt()


def adam(norm: Var, grads: list[Var], *state: list[Var], **numbers: float) -> None:
    """One step on state = params, m, v, ema; see `optim.adam_step`.

    New arrays take the places of the old ones, whose memory is not written to: `clone` and
    `detach` share it, so that writing would change a copy that someone holds.
    """
    for i in range(0, len(grads), TENSORS):
        part = [group[i : i + TENSORS] for group in state]
        if not native():
            _plain_adam(norm, grads[i : i + TENSORS], *part, **numbers)
            continue
        old = [x for group in part for x in group]
        inputs = [norm, *grads[i : i + TENSORS], *old]
        new = _code([x.shape for x in old], inputs, cpp.ADAM, cpp.CHUNKS_HEADER, **numbers)
        for x, y in zip(old, new, strict=True):
            x.update(y.stop_grad() if x.is_stop_grad() else y)


def _plain_adam(
    norm: Var, grads: list[Var], *state: list[Var], **n: float
) -> None:
    clip = jt.minimum(n["max_norm"] / (norm + 1e-6), jt.ones_like(norm))
    for g, p, m, v, e in zip(grads, *state, strict=True):
        g = g * clip
        m.update(m + (1 - n["beta1"]) * (g - m))
        v.update(n["beta2"] * v + (1 - n["beta2"]) * g * g)
        p.update(p - n["step_size"] * m / (v.sqrt() / n["root"] + n["eps"]))
        e.update(e + (1 - n["ema_rate"]) * (p - e))
