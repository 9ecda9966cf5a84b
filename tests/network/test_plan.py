"""The plan of the official network: its names, shapes, initial weights and time embedding."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from conftest import Panel
from diptych.config.load import Config, load_config, validate
from diptych.network.embedding import time_embedding
from diptych.network.parameters import parameter_table
from diptych.network.plan import Plan, make_plan
from properties import given, st


def plan_of(preset: str = "tiny", *changes: str) -> Plan:
    return make_plan(load_config(preset, list(changes)))


CIFAR10: dict[str, Any] = {
    "data": {"image_size": 32, "channels": 3},
    "model": {"ch": 128, "ch_mult": [1, 2, 2, 2], "num_res_blocks": 2, "attn_resolutions": [16]},
}

BLOCK = ["norm1", "conv1", "temb_proj", "norm2", "conv2"]
WIDER = [*BLOCK, "nin_shortcut"]
ATTENTION = ["norm", "q", "k", "v", "proj_out"]
# 14x14, ch 32, ch_mult (1, 2), one block, attention at 7: the module list of the official class,
# in the order in which it registers them, with the input and output channels of each block.
OFFICIAL: list[tuple[str, list[str]]] = [
    ("temb.dense", ["0", "1"]),
    ("", ["conv_in"]),
    ("down.0.block.0", BLOCK),
    ("down.0.downsample", ["conv"]),
    ("down.1.block.0", WIDER),
    ("down.1.attn.0", ATTENTION),
    ("mid.block_1", BLOCK),
    ("mid.attn_1", ATTENTION),
    ("mid.block_2", BLOCK),
    ("up.0.block.0", WIDER),
    ("up.0.block.1", WIDER),
    ("up.1.block.0", WIDER),
    ("up.1.block.1", WIDER),
    ("up.1.attn.0", ATTENTION),
    ("up.1.attn.1", ATTENTION),
    ("up.1.upsample", ["conv"]),
    ("", ["norm_out", "conv_out"]),
]
SHAPES = {
    "temb.dense.0.weight": (128, 32),
    "temb.dense.1.weight": (128, 128),
    "temb.dense.1.bias": (128,),
    "conv_in.weight": (32, 1, 3, 3),
    "down.0.downsample.conv.weight": (32, 32, 3, 3),
    "down.1.block.0.norm1.weight": (32,),
    "down.1.block.0.conv1.weight": (64, 32, 3, 3),
    "down.1.block.0.temb_proj.weight": (64, 128),
    "down.1.block.0.conv2.weight": (64, 64, 3, 3),
    "down.1.block.0.nin_shortcut.weight": (64, 32, 1, 1),
    "mid.attn_1.q.weight": (64, 64, 1, 1),
    "up.1.block.0.conv1.weight": (64, 128, 3, 3),
    "up.1.block.1.conv1.weight": (64, 96, 3, 3),
    "up.0.block.0.conv1.weight": (32, 96, 3, 3),
    "up.0.block.1.conv1.weight": (32, 64, 3, 3),
    "up.0.block.1.norm1.bias": (64,),
    "norm_out.weight": (32,),
    "conv_out.weight": (1, 32, 3, 3),
    "conv_out.bias": (1,),
}


def test_names_and_order_are_the_official_ones() -> None:
    modules = [f"{prefix}.{part}".lstrip(".") for prefix, parts in OFFICIAL for part in parts]
    names = [f"{module}.{kind}" for module in modules for kind in ("weight", "bias")]
    table = parameter_table(plan_of())
    assert list(table) == names
    assert {name: table[name].shape for name in SHAPES} == SHAPES


def test_the_official_cifar10_network_has_its_number_of_parameters() -> None:
    table = parameter_table(make_plan(validate(CIFAR10, "cifar10")))
    assert sum(math.prod(parameter.shape) for parameter in table.values()) == 35_746_307
    attention = [name for name in table if name.endswith("attn.0.q.weight")]
    assert attention == ["down.1.attn.0.q.weight", "up.1.attn.0.q.weight"]
    assert "up.1.attn.2.q.weight" in table and "up.1.attn.3.q.weight" not in table


def test_without_convolutions_between_levels_they_have_no_weights() -> None:
    with_conv, without = (
        parameter_table(plan_of("mnist", f"model.resamp_with_conv={value}"))
        for value in ("true", "false")
    )
    left_out = with_conv.keys() - without.keys()
    assert left_out == {
        f"{where}.conv.{kind}"
        for where in ("down.0.downsample", "down.1.downsample", "up.1.upsample", "up.2.upsample")
        for kind in ("weight", "bias")
    }


def random_config(
    mults: list[int], blocks: int, attention: list[int], channels: int, stretch: tuple[int, int]
) -> Config:
    size = max(4, 2 ** len(mults))
    return validate(
        {
            "data": {"image_size": [size * n for n in stretch], "channels": channels},
            "model": {"ch_mult": mults, "num_res_blocks": blocks, "attn_resolutions": attention},
        },
        "drawn",
    )


@given(
    st.lists(st.integers(1, 4), min_size=1, max_size=5),
    st.integers(1, 3),
    st.lists(st.sampled_from([2, 4, 8, 16, 32])),
    st.integers(1, 4),
    st.sampled_from([(1, 1), (1, 3), (2, 1)]),
)
def test_every_plan_fits_together(
    mults: list[int], blocks: int, attention: list[int], channels: int, stretch: tuple[int, int]
) -> None:
    """Channels and sizes flow from block to block, and every skip is used once."""
    config = random_config(mults, blocks, attention, channels, stretch)
    plan = make_plan(config)
    h, size, skips = plan.ch, (plan.height, plan.width), [plan.ch]
    for stage in plan.down:
        for block in stage.blocks:
            assert (block.in_ch, block.height, block.width) == (h, *size)
            assert bool(block.attention) == (min(size) in attention)
            h = block.out_ch
            skips.append(h)
        if stage.resample:
            size = size[0] // 2, size[1] // 2
            skips.append(h)
    assert all((block.in_ch, *block.shape) == (h, h, *size) for block in plan.mid)
    for stage in plan.up:
        for block in stage.blocks:
            assert (block.in_ch, block.height, block.width) == (h + skips.pop(), *size)
            h = block.out_ch
        size = (2 * size[0], 2 * size[1]) if stage.resample else size
    assert skips == [] and size == config.data.sides and h == plan.out_ch == plan.ch * mults[0]
    names = {block.name for block in plan.blocks}
    assert len(plan.blocks) == len(names) == 2 + (2 * blocks + 1) * len(mults)


# The time embedding


def official_embedding(t: list[int], ch: int) -> npt.NDArray[np.float32]:
    """The official formula, in float32 as there; runs in the process that holds torch."""
    import torch

    half = ch // 2
    step = math.log(10000) / (half - 1)
    frequency = torch.exp(torch.arange(half, dtype=torch.float32) * -step)
    angle = torch.tensor(t).float()[:, None] * frequency[None, :]
    out: npt.NDArray[np.float32] = torch.cat([torch.sin(angle), torch.cos(angle)], dim=1).numpy()
    return out


@pytest.mark.torch
@pytest.mark.parametrize("ch", [32, 64, 128])
def test_the_embedding_is_the_official_one(panels: dict[str, Panel], ch: int) -> None:
    """To one rounding of float32: the same roundings on the way in, a better sine at the end."""
    if "torch" not in panels:
        pytest.skip("torch is not installed")
    t = list(range(1000))
    expected = panels["torch"].call(official_embedding, t, ch)
    ours = time_embedding(t, ch)
    assert ours.dtype == np.float32 and ours.shape == (1000, ch) == expected.shape
    assert np.abs(ours - expected).max() <= 6e-8


def test_the_embedding_of_one_timestep_is_its_row() -> None:
    table = time_embedding(np.arange(1000), 32)
    assert np.array_equal(time_embedding([999], 32)[0], table[999])
    assert np.array_equal(table[0], [0.0] * 16 + [1.0] * 16)
    assert np.abs(table[:, :16] ** 2 + table[:, 16:] ** 2 - 1).max() < 2e-7
    assert len(np.unique(table, axis=0)) == 1000
