"""The weights of a plan: their names and shapes, the values they start from, and their check."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from diptych.errors import UserError
from diptych.network.plan import Block, Plan, Stage
from diptych.rng import stream
from diptych.types import Float32, Weights

_OTHER = "give the config that it was trained with"


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
