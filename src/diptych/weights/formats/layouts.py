"""Translate weight names between other libraries and the official DDIM code, whose names we use.

    official              down.0.block.0.conv1     up.1.attn.2.q          (C, C, 1, 1)
    diffusers             down_blocks.0.resnets.0.conv1    up_blocks.K-2.attentions.2.to_q   (C, C)
    diffusers, to 0.16    the same with query, key, value, proj_attn
    tqch/ddpm-torch       downsamples.level_0.0.conv1      upsamples.level_1.2.1.project_in

diffusers counts the upward levels from the lowest resolution (K levels); its attention uses linear
layers, ours and the official one 1x1 convolutions; ddpm-torch stores q, k and v as one weight. All
compute the same function, so a translation renames and reshapes but changes no number.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from diptych.errors import UserError
from diptych.types import Weights
from diptych.weights.pickle.ops import show

OFFICIAL, DIFFUSERS, DDPM_TORCH = "official", "diffusers", "ddpm-torch"

# (official, diffusers); # stands for a number.
_MODULES = (
    ("temb.dense.0", "time_embedding.linear_1"),
    ("temb.dense.1", "time_embedding.linear_2"),
    ("norm_out", "conv_norm_out"),
    ("mid.block_1", "mid_block.resnets.0"),
    ("mid.block_2", "mid_block.resnets.1"),
    ("mid.attn_1", "mid_block.attentions.0"),
    ("down.#.block.#", "down_blocks.#.resnets.#"),
    ("down.#.attn.#", "down_blocks.#.attentions.#"),
    ("down.#.downsample.conv", "down_blocks.#.downsamplers.0.conv"),
    ("up.#.block.#", "up_blocks.#.resnets.#"),
    ("up.#.attn.#", "up_blocks.#.attentions.#"),
    ("up.#.upsample.conv", "up_blocks.#.upsamplers.0.conv"),
)
_ATTENTION = (("norm", "group_norm"), ("q", "to_q"), ("k", "to_k"), ("v", "to_v"),
              ("proj_out", "to_out.0"))  # fmt: skip
_LEAVES = (("temb_proj", "time_emb_proj"), ("nin_shortcut", "conv_shortcut"))
_OLD = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
_PROJECTIONS = re.compile(r"\battn(?:_1|\.\d+)\.(?:q|k|v|proj_out)\.weight$")
_DDPM_TORCH = (
    (r"^embed\.0\.", "temb.dense.0."),
    (r"^embed\.2\.", "temb.dense.1."),
    (r"^in_conv\.", "conv_in."),
    (r"^out_conv\.0\.", "norm_out."),
    (r"^out_conv\.2\.", "conv_out."),
    (r"^middle\.0\.", "mid.block_1."),
    (r"^middle\.1\.", "mid.attn_1."),
    (r"^middle\.2\.", "mid.block_2."),
    (r"^(down|up)samples\.level_(\d+)\.(\d+)\.(?:0\.)?(?=norm1|conv1|fc|norm2|conv2|skip)",
     r"\1.\2.block.\3."),
    (r"^(down|up)samples\.level_(\d+)\.(\d+)\.1\.(?=norm\.|project_)", r"\1.\2.attn.\3."),
    (r"^(down|up)samples\.level_(\d+)\.\d+\.1\.(?=weight$|bias$)", r"\1.\2.\1sample.conv."),
    (r"\.fc\.", ".temb_proj."),
    (r"\.skip\.", ".nin_shortcut."),
    (r"\.project_out\.", ".proj_out."),
)  # fmt: skip


# (layout, a name that each of its networks has)
MARKS = (
    (OFFICIAL, "temb.dense.0.weight"),
    (DIFFUSERS, "time_embedding.linear_1.weight"),
    (DDPM_TORCH, "downsamples.level_0.0.conv1.weight"),
    (DDPM_TORCH, "downsamples.level_0.0.0.conv1.weight"),
)


_OTHERS = (  # a name that only this library's networks have, the library
    (r"(^|\.)downs\.\d+\.\d+\.", "lucidrains/denoising-diffusion-pytorch"),
    (r"diffusion_model\.input_blocks\.", "CompVis latent-diffusion or stable-diffusion"),
    (r"(^|\.)input_blocks\.\d+\.", "openai/improved-diffusion or guided-diffusion"),
    (r"(^|\.)all_modules\.\d+\.", "yang-song/score_sde_pytorch"),
    (r"(^|\.)(enc|dec)\.\d+x\d+_", "NVlabs/edm"),
    (r"(^|\.)add_embedding\.|\.transformer_blocks\.", "a text-to-image model of diffusers"),
    (r"(^|\.)(double|single)_blocks\.\d+\.|(^|\.)x_embedder\.", "a diffusion transformer"),
)


def layout_of(names: Mapping[str, object]) -> str | None:
    """The layout that uses these names; None if unknown."""
    for layout, mark in MARKS:
        if mark in names:
            return layout
    return None


def whose(weights: Weights) -> str | None:
    """The library of another network's weights, recognised by their names, or None."""
    for pattern, library in _OTHERS:
        if any(re.search(pattern, name) for name in weights):
            return library
    return None


def to_official(weights: Weights, path: Path) -> tuple[str, Weights]:
    """Return (layout, weights by official name and in official shapes); no number is changed.

    Raises:
        UserError: names of an unknown layout, or two names for the same weight.
    """
    layout = layout_of(weights)
    if layout is None:
        if library := whose(weights):
            raise UserError(
                f"{path}: weights of {library}, another network than the official DDIM U-Net; "
                "sample it there, or give weights of the official code, of diffusers' UNet2DModel "
                "or of ddpm-torch"
            )
        first = show(next(iter(weights), "none"))
        raise UserError(
            f"{path}: its weights are not named as in the official DDIM code, diffusers' "
            f"UNet2DModel or ddpm-torch (the first is {first}); another network?"
        )
    if layout == OFFICIAL:
        return layout, weights
    found: Weights = {}
    rename = _diffusers_reader(weights) if layout == DIFFUSERS else _from_ddpm_torch
    for name, array in weights.items():
        for ours, part in _parts(rename(name), array):
            if ours in found:
                raise UserError(f"{path}: two of its weights are {ours}; {show(name)} is one")
            wide = array.ndim == 2 and _PROJECTIONS.search(ours)
            found[ours] = part[:, :, None, None] if wide else part
    return layout, found


def to_diffusers(weights: Weights) -> Weights:
    """The same arrays under diffusers' names and in its shapes, as views if C-contiguous."""
    levels = _count(weights, r"^down\.(\d+)\.")
    modules, leaves = _MODULES, (*_LEAVES, *_ATTENTION)
    found: Weights = {}
    for name, array in weights.items():
        theirs = _rename(_mirror(name, levels, "up"), modules, leaves)
        found[theirs] = array.reshape(array.shape[:2]) if _PROJECTIONS.search(name) else array
    return found


def _diffusers_reader(weights: Mapping[str, object]) -> Callable[[str], str]:
    levels = _count(weights, r"^down_blocks\.(\d+)\.")
    modules = tuple((theirs, ours) for ours, theirs in _MODULES)
    leaves = tuple((theirs, ours) for ours, theirs in (*_LEAVES, *_ATTENTION))

    def rename(name: str) -> str:
        head, _, leaf = name.rpartition(".attentions.")
        if head:
            index, _, rest = leaf.partition(".")
            part, _, kind = rest.rpartition(".")
            name = f"{head}.attentions.{index}.{_OLD.get(part, part)}.{kind}"
        return _rename(_mirror(name, levels, "up_blocks"), modules, leaves)

    return rename


def _rename(
    name: str, modules: tuple[tuple[str, str], ...], leaves: tuple[tuple[str, str], ...]
) -> str:
    """Translate a name's module path and leaf; unknown parts stay."""
    for theirs, ours in modules:
        pattern = re.escape(theirs).replace(r"\#", "#").replace("#", r"(\d+)")
        match = re.match(rf"{pattern}\.", name)
        if match:
            numbers = iter(match.groups())
            head = re.sub("#", lambda _, n=numbers: next(n), ours)  # type: ignore[misc]
            rest = name[match.end() :]
            part, dot, kind = rest.rpartition(".")
            return f"{head}.{dict(leaves).get(part, part)}{dot}{kind}"
    return name


def _mirror(name: str, levels: int, section: str) -> str:
    """Count the level of the upward path from the other end."""
    return re.sub(
        rf"^{section}\.(\d+)\.", lambda m: f"{section}.{levels - 1 - int(m[1])}.", name, count=1
    )


def _count(names: Mapping[str, object], pattern: str) -> int:
    found = [int(match[1]) for name in names if (match := re.match(pattern, name))]
    return max(found, default=-1) + 1


def _from_ddpm_torch(name: str) -> str:
    for pattern, ours in _DDPM_TORCH:
        name = re.sub(pattern, ours, name)
    return name


def _parts(name: str, array: np.ndarray) -> list[tuple[str, np.ndarray]]:  # type: ignore[type-arg]
    """One weight, or the three that ddpm-torch stores as one."""
    if ".project_in." not in name or len(array) % 3:
        return [(name, array)]
    thirds = np.split(array, 3)
    return [
        (name.replace("project_in", part), third) for part, third in zip("qkv", thirds, strict=True)
    ]
