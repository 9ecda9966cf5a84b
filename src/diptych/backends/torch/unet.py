"""The official DDIM U-Net, PyTorch backend; its mirror is `diptych.backends.jittor.unet`.

Structure and names come from `diptych.network.plan`. The network takes the sinusoidal embedding of
t, not t itself: the host computes it, so both backends start from the same bits. A sampler, whose
rows share one t, passes a single row.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import repeat

import torch
from torch import nn

from diptych.backends.torch.layers import (
    Conv2d,
    Embedding,
    GroupNorm,
    Linear,
    add,
    attention,
    avg_pool,
    concat,
    dropout,
    silu,
    unless_overflown,
    upsample,
)
from diptych.network.plan import Block, Plan, Stage

Masks = Iterator["torch.Tensor | None"]  # dropout keep masks, in the order of the plan's blocks


class ResnetBlock(nn.Module):
    """norm, swish, conv, + time, norm, swish, dropout, conv, + input."""

    def __init__(self, block: Block, temb_ch: int, rate: float) -> None:
        super().__init__()
        self.rate = rate
        self.norm1 = GroupNorm(block.in_ch, silu=True)
        self.conv1 = Conv2d(block.in_ch, block.out_ch, 3)
        self.temb_proj = Linear(temb_ch, block.out_ch)
        self.norm2 = GroupNorm(block.out_ch, silu=True)
        self.conv2 = Conv2d(block.out_ch, block.out_ch, 3)
        self.widens = block.in_ch != block.out_ch
        if self.widens:
            self.nin_shortcut = Conv2d(block.in_ch, block.out_ch, 1, pad=(0, 0))

    def forward(
        self, x: torch.Tensor, temb: torch.Tensor, mask: torch.Tensor | None
    ) -> torch.Tensor:
        h = self.branch(x, temb, mask)
        if self.widens:
            x = self.nin_shortcut(x)
        return add(x, h)

    def branch(
        self, x: torch.Tensor, temb: torch.Tensor, mask: torch.Tensor | None
    ) -> torch.Tensor:
        """The residual branch, added to the input."""
        h = self.conv1(self.norm1(x))
        h = self.norm2(h, self.temb_proj(temb))
        if mask is not None:
            h = dropout(h, mask, self.rate)
        return self.conv2(h)


class AttnBlock(nn.Module):
    """Self-attention over all pixels, one head, with a residual connection."""

    def __init__(self, ch: int) -> None:
        super().__init__()
        self.norm = GroupNorm(ch)
        self.q = Conv2d(ch, ch, 1, pad=(0, 0))
        self.k = Conv2d(ch, ch, 1, pad=(0, 0))
        self.v = Conv2d(ch, ch, 1, pad=(0, 0))
        self.proj_out = Conv2d(ch, ch, 1, pad=(0, 0))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return add(x, self.branch(x))

    def branch(self, x: torch.Tensor) -> torch.Tensor:
        """The residual branch, added to the input."""
        h = self.norm(x)
        return self.proj_out(attention(self.q(h), self.k(h), self.v(h)))


class Downsample(nn.Module):
    """Halve the size: a strided convolution padded below and to the right, or 2x2 averaging."""

    def __init__(self, ch: int, with_conv: bool) -> None:
        super().__init__()
        self.with_conv = with_conv
        if with_conv:
            self.conv = Conv2d(ch, ch, 3, stride=2, pad=(0, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x) if self.with_conv else avg_pool(x)


class Upsample(nn.Module):
    """Double the size: nearest neighbours, then a convolution if the plan has one."""

    def __init__(self, ch: int, with_conv: bool) -> None:
        super().__init__()
        self.with_conv = with_conv
        if with_conv:
            self.conv = Conv2d(ch, ch, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x, True) if self.with_conv else upsample(x)


class TimeEmbedding(nn.Module):
    """Two dense layers, + class; returns swish of the sum, the only form that the blocks use."""

    def __init__(self, ch: int) -> None:
        super().__init__()
        self.dense = nn.ModuleList([Linear(ch, 4 * ch), Linear(4 * ch, 4 * ch)])

    def forward(self, embedding: torch.Tensor, vector: torch.Tensor | None = None) -> torch.Tensor:
        temb = self.dense[1](silu(self.dense[0](embedding)))
        return silu(temb if vector is None else temb + vector)


class DownLevel(nn.Module):
    """One resolution of the downward path: blocks, attention after each or none, maybe halving."""

    def __init__(self, plan: Plan, stage: Stage) -> None:
        super().__init__()
        self.block = nn.ModuleList(
            [ResnetBlock(b, 4 * plan.ch, plan.dropout) for b in stage.blocks]
        )
        self.attn = nn.ModuleList([AttnBlock(b.out_ch) for b in stage.blocks if b.attention])
        self.resamples = bool(stage.resample)
        if self.resamples:
            self.downsample = Downsample(stage.out_ch, plan.resamp_with_conv)

    def forward(
        self, h: torch.Tensor, temb: torch.Tensor, masks: Masks, skips: list[torch.Tensor]
    ) -> torch.Tensor:
        for i, block in enumerate(self.block):
            h = block(h, temb, next(masks))
            if len(self.attn):
                h = self.attn[i](h)
            skips.append(h)
        if self.resamples:
            h = self.downsample(h)
            skips.append(h)
        return h


class Middle(nn.Module):
    """The lowest resolution: block, attention, block."""

    def __init__(self, plan: Plan) -> None:
        super().__init__()
        first, second = plan.mid
        self.block_1 = ResnetBlock(first, 4 * plan.ch, plan.dropout)
        self.attn_1 = AttnBlock(first.out_ch)
        self.block_2 = ResnetBlock(second, 4 * plan.ch, plan.dropout)

    def forward(self, h: torch.Tensor, temb: torch.Tensor, masks: Masks) -> torch.Tensor:
        h = self.attn_1(self.block_1(h, temb, next(masks)))
        return self.block_2(h, temb, next(masks))


class UpLevel(nn.Module):
    """One resolution of the upward path: blocks on [h, skip], attention or none, maybe doubling."""

    def __init__(self, plan: Plan, stage: Stage) -> None:
        super().__init__()
        self.block = nn.ModuleList(
            [ResnetBlock(b, 4 * plan.ch, plan.dropout) for b in stage.blocks]
        )
        self.attn = nn.ModuleList([AttnBlock(b.out_ch) for b in stage.blocks if b.attention])
        self.resamples = bool(stage.resample)
        if self.resamples:
            self.upsample = Upsample(stage.out_ch, plan.resamp_with_conv)

    def forward(
        self, h: torch.Tensor, temb: torch.Tensor, masks: Masks, skips: list[torch.Tensor]
    ) -> torch.Tensor:
        for i, block in enumerate(self.block):
            h = block(concat(h, skips.pop()), temb, next(masks))
            if len(self.attn):
                h = self.attn[i](h)
        return self.upsample(h) if self.resamples else h


class UNet(nn.Module):
    """Images (B, C, H, W), embeddings (B or 1, ch) and, for a plan with K classes, class rows
    (B or 1, K + 1) -> predictions (B, C, H, W) of the plan's objective: eps, x0 or v."""

    def __init__(self, plan: Plan) -> None:
        super().__init__()
        self.temb = TimeEmbedding(plan.ch)
        self.conv_in = Conv2d(plan.channels, plan.ch, 3)
        self.down = nn.ModuleList([DownLevel(plan, stage) for stage in plan.down])
        self.mid = Middle(plan)
        # The official list orders the upward levels from the highest resolution.
        self.up = nn.ModuleList([UpLevel(plan, stage) for stage in reversed(plan.up)])
        self.norm_out = GroupNorm(plan.out_ch, silu=True)
        self.conv_out = Conv2d(plan.out_ch, plan.channels, 3)
        self.conditional = plan.num_classes > 0
        if self.conditional:
            self.class_embed = Embedding(plan.num_classes + 1, 4 * plan.ch)
        for norm in self.modules():
            if isinstance(norm, GroupNorm):
                norm.groups, norm.eps = plan.norm_groups, plan.norm_eps
        self.norms = tuple(m for m in self.modules() if isinstance(m, GroupNorm))

    def forward(
        self,
        x: torch.Tensor,
        embedding: torch.Tensor,
        masks: Sequence[torch.Tensor] | None = None,
        classes: torch.Tensor | None = None,
    ) -> torch.Tensor:
        if self.conditional != (classes is not None):
            raise ValueError("a network with classes needs them, and one without takes none")
        temb = self.temb(embedding, None if classes is None else self.class_embed(classes))
        mask = repeat(None) if masks is None else iter(masks)
        h = self.conv_in(x)
        skips = [h]
        for level in self.down:
            h = level(h, temb, mask, skips)
        h = self.mid(h, temb, mask)
        for i in reversed(range(len(self.up))):
            h = self.up[i](h, temb, mask, skips)
        return unless_overflown(self.conv_out(self.norm_out(h)), self.norms)
