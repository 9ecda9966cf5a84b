"""The U-Net's plan: which blocks, in which order, with which weights; no framework.

Both panels build from this plan, so a name, a shape or an initial value exists once. Names,
order and structure are those of the official DDIM network (ermongroup/ddim, models/diffusion.py),
so that its checkpoints load without a map.

    temb:  sinusoid(ch) -> dense 4ch -> swish -> dense 4ch (+ the class's row of class_embed)
    down:  per level: blocks (+ attention), then a strided convolution
    mid:   block, attention, block
    up:    per level: blocks + 1 on [h, skip] (+ attention), then nearest upsampling + convolution
    out:   norm, swish, convolution
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from diptych.config.load import Config
from diptych.errors import UserError
from diptych.rng import stream
from diptych.types import Float32, Weights

_OTHER = "give the config that it was trained with"
NORM_GROUPS, NORM_EPS = 32, 1e-6  # GroupNorm's in the official network


@dataclass(frozen=True)
class Block:
    """One residual block, `in_ch` to `out_ch` at `size` x `size` pixels; attention may follow."""

    name: str
    in_ch: int
    out_ch: int
    size: int
    attention: str = ""  # its name, or none


@dataclass(frozen=True)
class Stage:
    """One resolution of the downward or upward path."""

    name: str
    blocks: tuple[Block, ...]
    resample: str  # the name of the down- or upsampling after the blocks, or none
    out_ch: int


@dataclass(frozen=True)
class Plan:
    """A whole U-Net; images are (B, channels, size, size)."""

    channels: int
    size: int
    ch: int
    dropout: float
    resamp_with_conv: bool
    down: tuple[Stage, ...]
    mid: tuple[Block, ...]
    up: tuple[Stage, ...]  # in the order of computation: the lowest resolution first
    num_classes: int = 0  # 0: no class embedding
    objective: str = "eps"  # what it predicts: eps, x0 or v
    norm_groups: int = NORM_GROUPS  # of every GroupNorm
    norm_eps: float = NORM_EPS

    @property
    def blocks(self) -> tuple[Block, ...]:
        """All residual blocks in the order of computation; dropout layer k belongs to block k."""
        down = tuple(block for stage in self.down for block in stage.blocks)
        return down + self.mid + tuple(block for stage in self.up for block in stage.blocks)

    @property
    def out_ch(self) -> int:
        """Channels before the last convolution."""
        return self.up[-1].out_ch

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one image."""
        return (self.channels, self.size, self.size)

    def times(self, t: npt.ArrayLike) -> Float32:
        """What the network is given for timesteps (B,): their sinusoidal embedding, (B, ch)."""
        return time_embedding(t, self.ch)


def make_plan(config: Config) -> Plan:
    """The plan of the official network with the config's sizes."""
    model, size = config.model, config.data.image_size
    skips = [model.ch]
    down: list[Stage] = []
    channels = model.ch
    last = len(model.ch_mult) - 1
    for i, mult in enumerate(model.ch_mult):
        blocks = []
        for j in range(model.num_res_blocks):
            blocks.append(_block(config, f"down.{i}", j, channels, model.ch * mult, size))
            channels = model.ch * mult
            skips.append(channels)
        down.append(
            Stage(f"down.{i}", tuple(blocks), "" if i == last else f"down.{i}.downsample", channels)
        )
        if i != last:
            skips.append(channels)
            size //= 2
    mid = (
        Block("mid.block_1", channels, channels, size, "mid.attn_1"),
        Block("mid.block_2", channels, channels, size),
    )
    up: list[Stage] = []
    for i in reversed(range(len(model.ch_mult))):
        blocks = []
        for j in range(model.num_res_blocks + 1):
            out_ch = model.ch * model.ch_mult[i]
            blocks.append(_block(config, f"up.{i}", j, channels + skips.pop(), out_ch, size))
            channels = out_ch
        up.append(Stage(f"up.{i}", tuple(blocks), f"up.{i}.upsample" if i else "", channels))
        size *= 2 if i else 1
    return Plan(
        config.data.channels, config.data.image_size, model.ch, model.dropout,
        model.resamp_with_conv, tuple(down), mid, tuple(up), model.num_classes,
        config.diffusion.objective, model.norm_groups, model.norm_eps,
    )  # fmt: skip


def _block(config: Config, stage: str, j: int, in_ch: int, out_ch: int, size: int) -> Block:
    attention = f"{stage}.attn.{j}" if size in config.model.attn_resolutions else ""
    return Block(f"{stage}.block.{j}", in_ch, out_ch, size, attention)


@dataclass(frozen=True)
class Parameter:
    """Shape of one weight array, and the bound of its uniform initial values (or a constant)."""

    shape: tuple[int, ...]
    bound: float = 0.0
    constant: float = 0.0


def parameter_table(plan: Plan) -> dict[str, Parameter]:
    """Name -> shape and initialisation, in the official network's order."""
    return dict(_parameters(plan))


def _parameters(plan: Plan) -> Iterator[tuple[str, Parameter]]:
    temb = 4 * plan.ch
    yield from _dense("temb.dense.0", plan.ch, temb)
    yield from _dense("temb.dense.1", temb, temb)
    yield from _conv("conv_in", plan.channels, plan.ch)
    for stage in plan.down:
        yield from _stage(plan, stage, "downsample")
    for block in plan.mid:
        yield from _block_parameters(block, temb)
        if block.attention:
            yield from _attention(block.attention, block.out_ch)
    # The official module list holds the upward path from the highest resolution down.
    for stage in reversed(plan.up):
        yield from _stage(plan, stage, "upsample")
    yield from _norm("norm_out", plan.out_ch)
    yield from _conv("conv_out", plan.out_ch, plan.channels)
    if plan.num_classes:  # last, so that all others start as they do without classes
        rows = plan.num_classes + 1
        yield "class_embed.weight", Parameter((rows, temb), 1 / math.sqrt(rows))


def _stage(plan: Plan, stage: Stage, kind: str) -> Iterator[tuple[str, Parameter]]:
    for block in stage.blocks:
        yield from _block_parameters(block, 4 * plan.ch)
    for block in stage.blocks:
        if block.attention:
            yield from _attention(block.attention, block.out_ch)
    if stage.resample and plan.resamp_with_conv:
        yield from _conv(f"{stage.name}.{kind}.conv", stage.out_ch, stage.out_ch)


def _block_parameters(block: Block, temb: int) -> Iterator[tuple[str, Parameter]]:
    yield from _norm(f"{block.name}.norm1", block.in_ch)
    yield from _conv(f"{block.name}.conv1", block.in_ch, block.out_ch)
    yield from _dense(f"{block.name}.temb_proj", temb, block.out_ch)
    yield from _norm(f"{block.name}.norm2", block.out_ch)
    yield from _conv(f"{block.name}.conv2", block.out_ch, block.out_ch)
    if block.in_ch != block.out_ch:
        yield from _conv(f"{block.name}.nin_shortcut", block.in_ch, block.out_ch, 1)


def _attention(name: str, ch: int) -> Iterator[tuple[str, Parameter]]:
    yield from _norm(f"{name}.norm", ch)
    for part in ("q", "k", "v", "proj_out"):
        yield from _conv(f"{name}.{part}", ch, ch, 1)


def _norm(name: str, ch: int) -> Iterator[tuple[str, Parameter]]:
    yield f"{name}.weight", Parameter((ch,), constant=1.0)
    yield f"{name}.bias", Parameter((ch,))


def _dense(name: str, in_ch: int, out_ch: int) -> Iterator[tuple[str, Parameter]]:
    # PyTorch's default, which the official code relies on: uniform in +-1 / sqrt(fan_in).
    yield f"{name}.weight", Parameter((out_ch, in_ch), 1 / math.sqrt(in_ch))
    yield f"{name}.bias", Parameter((out_ch,), 1 / math.sqrt(in_ch))


def _conv(name: str, in_ch: int, out_ch: int, k: int = 3) -> Iterator[tuple[str, Parameter]]:
    bound = 1 / math.sqrt(in_ch * k * k)
    yield f"{name}.weight", Parameter((out_ch, in_ch, k, k), bound)
    yield f"{name}.bias", Parameter((out_ch,), bound)


def initial_weights(plan: Plan, seed: int) -> Weights:
    """Fresh weights, a pure function of (plan, seed); float32 arrays by official name."""
    weights: Weights = {}
    for index, (name, parameter) in enumerate(parameter_table(plan).items()):
        if parameter.bound:
            draws = stream(seed, "weights", index).random(parameter.shape)
            values = (2.0 * draws - 1.0) * parameter.bound
        else:
            values = np.full(parameter.shape, parameter.constant)
        weights[name] = values.astype(np.float32)
    return weights


def check_weights(plan: Plan, weights: Mapping[str, Float32], where: str) -> None:
    """Refuse weights that are not exactly the plan's: names and shapes, both ways.

    Raises:
        UserError: naming the first missing, extra or wrongly shaped array.
    """
    table = parameter_table(plan)
    for name, parameter in table.items():
        if name not in weights:
            raise UserError(
                f"{where}: weight '{name}' is missing; is this the config it was trained with?"
            )
        if (shape := tuple(weights[name].shape)) != parameter.shape:
            raise UserError(
                f"{where}: weight '{name}' is {shape}, this config needs "
                f"{parameter.shape}; {_OTHER}"
            )
    extra = [name for name in weights if name not in table]
    if extra:
        raise UserError(f"{where}: weight '{extra[0]}' is not in this config's network; {_OTHER}")


def time_embedding(t: npt.ArrayLike, ch: int) -> Float32:
    """Sinusoidal embedding of timesteps (B,) -> (B, ch): sines, then cosines, float32.

        frequency[k] = exp(-k log(10000) / (ch / 2 - 1))

    Each operation is rounded to float32, as in the official code: at t = 999 a frequency's last
    bit moves the angle by 6e-5, so roundings are part of the function.
    """
    half = ch // 2
    step = np.float32(math.log(10000) / (half - 1))
    angle_per_t = np.exp((np.arange(half, dtype=np.float32) * -step).astype(np.float64))
    angles = np.asarray(t, dtype=np.float32)[:, None] * angle_per_t.astype(np.float32)[None]
    wide = angles.astype(np.float64)
    embedding: Float32 = np.concatenate([np.sin(wide), np.cos(wide)], axis=1).astype(np.float32)
    return embedding
