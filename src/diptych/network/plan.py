"""The U-Net's plan: which blocks, in which order; no framework.

Both panels build from this plan, so a name or a size exists once; its weights are in
`diptych.network.parameters`. Names, order and structure are those of the official DDIM network
(ermongroup/ddim, models/diffusion.py), so that its checkpoints load without a map.

    temb:  sinusoid(ch) -> dense 4ch -> swish -> dense 4ch (+ the class's row of class_embed)
    down:  per level: blocks (+ attention), then a strided convolution
    mid:   block, attention, block
    up:    per level: blocks + 1 on [h, skip] (+ attention), then nearest upsampling + convolution
    out:   norm, swish, convolution
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy.typing as npt

from diptych.config.load import Config
from diptych.network.embedding import time_embedding
from diptych.types import Float32

NORM_GROUPS, NORM_EPS = 32, 1e-6  # GroupNorm's in the official network


@dataclass(frozen=True)
class Block:
    """One residual block, `in_ch` to `out_ch` at a height and width; attention may follow."""

    name: str
    in_ch: int
    out_ch: int
    height: int
    width: int
    attention: str = ""  # its name; empty: none

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one image after the block."""
        return (self.out_ch, self.height, self.width)


@dataclass(frozen=True)
class Stage:
    """One resolution of the downward or upward path."""

    name: str
    blocks: tuple[Block, ...]
    resample: str  # name of the down- or upsampling after the blocks; empty: none
    out_ch: int


@dataclass(frozen=True)
class Plan:
    """A whole U-Net; images are (B, channels, height, width)."""

    channels: int
    height: int
    width: int
    ch: int
    dropout: float
    resamp_with_conv: bool
    down: tuple[Stage, ...]
    mid: tuple[Block, ...]
    up: tuple[Stage, ...]  # in order of computation: the lowest resolution first
    num_classes: int = 0  # 0: no class embedding
    objective: str = "eps"  # prediction type: eps, x0 or v
    norm_groups: int = NORM_GROUPS  # of every GroupNorm
    norm_eps: float = NORM_EPS

    @property
    def blocks(self) -> tuple[Block, ...]:
        """All residual blocks in order of computation; dropout layer k belongs to block k."""
        down = tuple(block for stage in self.down for block in stage.blocks)
        return down + self.mid + tuple(block for stage in self.up for block in stage.blocks)

    @property
    def out_ch(self) -> int:
        """Channels before the last convolution."""
        return self.up[-1].out_ch

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one image."""
        return (self.channels, self.height, self.width)

    def times(self, t: npt.ArrayLike) -> Float32:
        """Input of the network for timesteps (B,): their sinusoidal embedding, (B, ch)."""
        return time_embedding(t, self.ch)


def make_plan(config: Config) -> Plan:
    """Make the plan of the official network with the config's sizes.

    Attention follows the blocks at which the shorter side is one of `attn_resolutions`.
    """
    model, (height, width) = config.model, config.data.sides
    skips = [model.ch]
    down: list[Stage] = []
    channels = model.ch
    last = len(model.ch_mult) - 1
    for i, mult in enumerate(model.ch_mult):
        blocks = []
        for j in range(model.num_res_blocks):
            blocks.append(_block(config, f"down.{i}", j, channels, model.ch * mult, height, width))
            channels = model.ch * mult
            skips.append(channels)
        down.append(
            Stage(f"down.{i}", tuple(blocks), "" if i == last else f"down.{i}.downsample", channels)
        )
        if i != last:
            skips.append(channels)
            height, width = height // 2, width // 2
    mid = (
        Block("mid.block_1", channels, channels, height, width, "mid.attn_1"),
        Block("mid.block_2", channels, channels, height, width),
    )
    up: list[Stage] = []
    for i in reversed(range(len(model.ch_mult))):
        blocks = []
        for j in range(model.num_res_blocks + 1):
            out_ch = model.ch * model.ch_mult[i]
            in_ch = channels + skips.pop()
            blocks.append(_block(config, f"up.{i}", j, in_ch, out_ch, height, width))
            channels = out_ch
        up.append(Stage(f"up.{i}", tuple(blocks), f"up.{i}.upsample" if i else "", channels))
        height, width = (2 * height, 2 * width) if i else (height, width)
    return Plan(
        *config.data.shape,
        model.ch,
        model.dropout,
        model.resamp_with_conv,
        tuple(down),
        mid,
        tuple(up),
        model.num_classes,
        config.diffusion.objective,
        model.norm_groups,
        model.norm_eps,
    )


def _block(
    config: Config, stage: str, j: int, in_ch: int, out_ch: int, height: int, width: int
) -> Block:
    attends = min(height, width) in config.model.attn_resolutions
    attention = f"{stage}.attn.{j}" if attends else ""
    return Block(f"{stage}.block.{j}", in_ch, out_ch, height, width, attention)
