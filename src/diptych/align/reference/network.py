"""The third implementation: the network, its loss and its update in float64, written plainly.

    GroupNorm  (x - mean) / sqrt(var + eps) * w + b over each group      silu  x / (1 + exp(-x))
    attention  softmax(q^T k / sqrt(C)) applied to v                      loss  mean of (eps - f)**2
    Adam       as in `diptych.backends.torch.optim`, from the formula, without a fused kernel

PyTorch on the CPU supplies convolution and differentiation. No code of either backend is used, so
that a backend's fault cannot be in its own reference. Modules and weights have the backends' names.
It is slow, and nothing trains with it.

With `round_products` it is the measure of a lower precision: the operands of every product
(convolution, dense layer, attention) are rounded as that precision rounds them, forward and
backward, and in bfloat16 the result, and what is made of results alone, too. All else is float64.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from diptych.align.ladder.nudges import BITS
from diptych.network.plan import Block, Plan, Stage

_products = ["fp32"]


def round_products(precision: str) -> None:
    """Set the process's precision of products: "bf16", "tf32", or "fp32" for no rounding."""
    _products[0] = precision


class _Rounding(torch.autograd.Function):
    """Rounding to nearest of a value, of its gradient, or of both."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, value: int | None, gradient: int | None) -> Tensor:
        ctx.bits = gradient
        return x.clone() if value is None else _to_bits(x, value)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        return g if ctx.bits is None else _to_bits(g, ctx.bits), None, None


def _to_bits(x: Tensor, bits: int) -> Tensor:
    mantissa, exponent = torch.frexp(x)
    return torch.ldexp(torch.round(mantissa * 2.0 ** (bits + 1)), exponent - bits - 1)


def _rounded(x: Tensor, value: int | None, gradient: int | None) -> Tensor:
    found: Tensor = _Rounding.apply(x, value, gradient)  # type: ignore[no-untyped-call]
    return found


def product(f: Callable[..., Tensor], *operands: Tensor) -> Tensor:
    """f(*operands) in the process's precision of products.

    bfloat16 stores operands, results and all their gradients in 8 digits; TF32 only reads operands
    and results' gradients so.
    """
    bits = BITS.get(_products[0])
    if bits is None:
        return f(*operands)
    stored = bits if _products[0] == "bf16" else None
    return _rounded(f(*(_rounded(x, bits, stored) for x in operands)), stored, bits)


def stored(x: Tensor, *parts: Tensor) -> Tensor:
    """x rounded to bfloat16 if that is the precision of products, and of all the parts of x."""
    if _products[0] != "bf16":
        return x
    bits = BITS["bf16"]
    if not all(bool((_to_bits(part.detach(), bits) == part).all()) for part in parts):
        return x
    return _rounded(x, bits, bits)


class Conv2d(nn.Module):
    """Convolution of an image padded with zeros; weight (O, I, k, k)."""

    def __init__(
        self, in_ch: int, out_ch: int, kernel: int, stride: int = 1, pad: tuple[int, int] = (1, 1)
    ) -> None:
        super().__init__()
        self.stride, self.pad = stride, pad
        self.weight = nn.Parameter(torch.zeros(out_ch, in_ch, kernel, kernel, dtype=torch.float64))
        self.bias = nn.Parameter(torch.zeros(out_ch, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        first, last = self.pad
        padded = F.pad(x, (first, last, first, last))
        conv = partial(F.conv2d, stride=self.stride)
        return product(conv, padded, self.weight, self.bias)


class GroupNorm(nn.Module):
    """Group norm of x + shift, then silu if set; the official 32 groups and eps until changed."""

    def __init__(self, ch: int, silu: bool = False) -> None:
        super().__init__()
        self.silu, self.groups, self.eps = silu, 32, 1e-6
        self.weight = nn.Parameter(torch.ones(ch, dtype=torch.float64))
        self.bias = nn.Parameter(torch.zeros(ch, dtype=torch.float64))

    def plain(self, x: Tensor) -> Tensor:
        """Apply the norm alone."""
        grouped = x.reshape(len(x), self.groups, -1)
        centred = grouped - grouped.mean(dim=2, keepdim=True)
        scaled = centred / torch.sqrt((centred * centred).mean(dim=2, keepdim=True) + self.eps)
        weight, bias = stored(self.weight, x), stored(self.bias, x)
        return scaled.reshape(x.shape) * weight[:, None, None] + bias[:, None, None]

    def forward(self, x: Tensor, shift: Tensor | None = None) -> Tensor:
        if shift is not None:
            x = stored(x + shift[:, :, None, None], x, shift)
        y = stored(self.plain(x), x)
        return silu(y) if self.silu else y


class Linear(nn.Module):
    """x w^T + b, weight (out, in)."""

    def __init__(self, in_ch: int, out_ch: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(out_ch, in_ch, dtype=torch.float64))
        self.bias = nn.Parameter(torch.zeros(out_ch, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return product(lambda x, w, b: x @ w.T + b, x, self.weight, self.bias)


class Embedding(nn.Module):
    """x w: the sum of the weight's rows, weighted by x (B, rows); weight (rows, out)."""

    def __init__(self, rows: int, out_ch: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(rows, out_ch, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return product(partial(torch.einsum, "br,ro->bo"), x, self.weight)


def silu(x: Tensor) -> Tensor:
    """x / (1 + exp(-x))."""
    return stored(x * torch.sigmoid(x), x)


def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Each pixel's mean of v, weighted by softmax of q . k / sqrt(C); all (B, C, H, W)."""
    channels = q.shape[1]
    flat = [x.reshape(len(x), channels, -1) for x in (q, k, v)]
    scores = product(partial(torch.einsum, "bci,bcj->bij"), flat[0], flat[1])
    scaled = stored(scores / channels**0.5, scores)
    weights = stored(scaled.softmax(dim=2), scaled)
    mean = product(partial(torch.einsum, "bij,bcj->bci"), weights, flat[2])
    return mean.reshape(q.shape)


def upsample(x: Tensor) -> Tensor:
    """Nearest upsampling by 2: each pixel four times."""
    return x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)


def avg_pool(x: Tensor) -> Tensor:
    """Means of 2x2 pixels."""
    means = x.reshape(*x.shape[:2], x.shape[2] // 2, 2, x.shape[3] // 2, 2).mean(dim=(3, 5))
    return stored(means, x)


def concat(a: Tensor, b: Tensor) -> Tensor:
    """a, then b, along the channels."""
    return torch.cat([a, b], dim=1)


def add(a: Tensor, b: Tensor) -> Tensor:
    """The sum."""
    return stored(a + b, a, b)


def dropout(x: Tensor, mask: Tensor, rate: float) -> Tensor:
    """Zero the dropped values and scale the kept ones by 1 / (1 - rate)."""
    return torch.where(mask.bool(), x / (1 - rate), torch.zeros_like(x))


class Residual(nn.Module):
    """x + conv2(drop(norm2(conv1(norm1(x)) + dense(temb)))), with x widened if channels differ."""

    def __init__(self, block: Block, plan: Plan) -> None:
        super().__init__()
        self.rate = plan.dropout
        self.norm1 = GroupNorm(block.in_ch, silu=True)
        self.conv1 = Conv2d(block.in_ch, block.out_ch, 3)
        self.temb_proj = Linear(4 * plan.ch, block.out_ch)
        self.norm2 = GroupNorm(block.out_ch, silu=True)
        self.conv2 = Conv2d(block.out_ch, block.out_ch, 3)
        if block.in_ch != block.out_ch:
            self.nin_shortcut = Conv2d(block.in_ch, block.out_ch, 1, pad=(0, 0))

    def forward(self, x: Tensor, temb: Tensor, mask: Tensor | None) -> Tensor:
        h = self.norm2(self.conv1(self.norm1(x)), self.temb_proj(temb))
        if mask is not None:
            h = dropout(h, mask, self.rate)
        shortcut = self.nin_shortcut(x) if hasattr(self, "nin_shortcut") else x
        return add(shortcut, self.conv2(h))


class Attention(nn.Module):
    """x + projection of attention over norm(x)."""

    def __init__(self, ch: int) -> None:
        super().__init__()
        self.norm = GroupNorm(ch)
        self.q, self.k, self.v, self.proj_out = (Conv2d(ch, ch, 1, 1, (0, 0)) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(x)
        return add(x, self.proj_out(attention(self.q(h), self.k(h), self.v(h))))


class Resample(nn.Module):
    """Resampling to half or twice the size."""

    def __init__(self, ch: int, with_conv: bool, up: bool) -> None:
        super().__init__()
        self.up = up
        if with_conv:
            self.conv = Conv2d(ch, ch, 3) if up else Conv2d(ch, ch, 3, 2, (0, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = upsample(x) if self.up else x
        return self.conv(x) if hasattr(self, "conv") else x if self.up else avg_pool(x)


class Time(nn.Module):
    """silu(dense_1(silu(dense_0(embedding))) + the class's vector)."""

    def __init__(self, ch: int) -> None:
        super().__init__()
        self.dense = nn.ModuleList([Linear(ch, 4 * ch), Linear(4 * ch, 4 * ch)])

    def forward(self, embedding: Tensor, vector: Tensor | None = None) -> Tensor:
        temb: Tensor = self.dense[1](silu(self.dense[0](embedding)))
        return silu(temb if vector is None else temb + vector)


class Level(nn.Module):
    """The modules of one resolution; `UNet` calls them."""

    def __init__(self, plan: Plan, stage: Stage, up: bool) -> None:
        super().__init__()
        self.block = nn.ModuleList([Residual(block, plan) for block in stage.blocks])
        self.attn = nn.ModuleList([Attention(b.out_ch) for b in stage.blocks if b.attention])
        if stage.resample:
            resample = Resample(stage.out_ch, plan.resamp_with_conv, up)
            self.add_module("upsample" if up else "downsample", resample)


class Middle(nn.Module):
    """The modules of the lowest resolution; `UNet` calls them."""

    def __init__(self, plan: Plan) -> None:
        super().__init__()
        self.block_1 = Residual(plan.mid[0], plan)
        self.attn_1 = Attention(plan.mid[0].out_ch)
        self.block_2 = Residual(plan.mid[1], plan)


class UNet(nn.Module):
    """Images (B, C, H, W), embeddings (B or 1, ch), classes (B or 1, K + 1) -> (B, C, H, W)."""

    def __init__(self, plan: Plan) -> None:
        super().__init__()
        self.temb = Time(plan.ch)
        self.conv_in = Conv2d(plan.channels, plan.ch, 3)
        self.down = nn.ModuleList([Level(plan, stage, up=False) for stage in plan.down])
        self.mid = Middle(plan)
        self.up = nn.ModuleList([Level(plan, stage, up=True) for stage in reversed(plan.up)])
        self.norm_out = GroupNorm(plan.out_ch, silu=True)
        self.conv_out = Conv2d(plan.out_ch, plan.channels, 3)
        if plan.num_classes:
            self.class_embed = Embedding(plan.num_classes + 1, 4 * plan.ch)
        for norm in self.modules():
            if isinstance(norm, GroupNorm):
                norm.groups, norm.eps = plan.norm_groups, plan.norm_eps

    def forward(
        self,
        x: Tensor,
        embedding: Tensor,
        masks: Sequence[Tensor] | None = None,
        classes: Tensor | None = None,
    ) -> Any:
        vector = None if classes is None else self.class_embed(classes)
        temb, left = self.temb(embedding, vector), list(masks or [])
        h = self.conv_in(x)
        skips = [h]
        for level in self.down:
            for i, block in enumerate(_parts(level, "block")):
                h = block(h, temb, left.pop(0) if left else None)
                h = _parts(level, "attn")[i](h) if _parts(level, "attn") else h
                skips.append(h)
            if hasattr(level, "downsample"):
                h = _parts(level, "downsample")(h)
                skips.append(h)
        h = self.mid.attn_1(self.mid.block_1(h, temb, left.pop(0) if left else None))
        h = self.mid.block_2(h, temb, left.pop(0) if left else None)
        for level in list(self.up)[::-1]:
            for i, block in enumerate(_parts(level, "block")):
                h = block(concat(h, skips.pop()), temb, left.pop(0) if left else None)
                h = _parts(level, "attn")[i](h) if _parts(level, "attn") else h
            h = _parts(level, "upsample")(h) if hasattr(level, "upsample") else h
        return self.conv_out(self.norm_out(h))


def _parts(level: nn.Module, name: str) -> Any:
    """A level's own module or list of modules."""
    return getattr(level, name)
