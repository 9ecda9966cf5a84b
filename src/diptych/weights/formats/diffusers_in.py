"""A `UNet2DModel` or pipeline folder of Hugging Face diffusers, read into our config and names.

    FOLDER/config.json, diffusion_pytorch_model.safetensors or .bin        a network alone
    FOLDER/model_index.json, unet/..., scheduler/scheduler_config.json     a pipeline
    FOLDER/model_index.json, config.json, scheduler_config.json, ...       the same, all in one

Every key of the network is honoured, or refused by name where it is another function than the
official DDIM U-Net. Of a scheduler the noise is honoured or refused; a DDPM or DDIM scheduler's
way of sampling becomes the recommended sampler, or is refused. diffusers itself is not needed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diptych.config.load import Config, validate
from diptych.errors import UserError
from diptych.files import read_json
from diptych.weights.pickle.ops import show

Tree = dict[str, Any]
WEIGHTS = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin")
SCHEDULES = {"linear": "linear", "scaled_linear": "quad", "squaredcos_cap_v2": "cosine",
             "sigmoid": "sigmoid"}  # fmt: skip
OBJECTIVES = {"epsilon": "eps", "sample": "x0", "v_prediction": "v"}
_SPACINGS = {"leading": "uniform", "trailing": "trailing"}
_VARIANCES = {"fixed_small": "ddpm", "fixed_small_log": "ddpm", "fixed_large": "ddpm-large",
              "fixed_large_log": "ddpm-large"}  # fmt: skip

# Their key -> (their default, the values that are the official network).
_ONLY: dict[str, tuple[object, tuple[object, ...]]] = {
    "center_input_sample": (False, (False,)),
    "time_embedding_type": ("positional", ("positional",)),
    "freq_shift": (0, (1,)),
    "flip_sin_to_cos": (True, (False,)),
    "mid_block_type": ("UNetMidBlock2D", ("UNetMidBlock2D",)),
    "mid_block_scale_factor": (1, (1,)),
    "downsample_padding": (1, (0,)),
    "downsample_type": ("conv", ("conv",)),
    "upsample_type": ("conv", ("conv",)),
    "act_fn": ("silu", ("silu", "swish")),
    "resnet_time_scale_shift": ("default", ("default",)),
    "add_attention": (True, (True,)),
    "class_embed_type": (None, (None,)),
    "num_class_embeds": (None, (None,)),
}
_HONOURED = ("sample_size", "in_channels", "out_channels", "block_out_channels", "norm_eps",
             "norm_num_groups", "attn_norm_num_groups", "layers_per_block", "down_block_types",
             "up_block_types", "dropout", "attention_head_dim", "time_embedding_dim",
             "num_train_timesteps")  # fmt: skip
# Of the schedulers: their key -> (their default, the values that we have).
_NOISE: dict[str, tuple[object, tuple[object, ...]]] = {
    "trained_betas": (None, (None,)),
    "prediction_type": ("epsilon", tuple(OBJECTIVES)),
    "rescale_betas_zero_snr": (False, (False,)),
}
_SAMPLING: dict[str, tuple[object, tuple[object, ...]]] = {
    "clip_sample_range": (1.0, (1.0,)),
    "thresholding": (False, (False,)),
    "steps_offset": (0, (0,)),
    "set_alpha_to_one": (True, (True,)),
    "variance_type": ("fixed_small", tuple(_VARIANCES)),
    "timestep_spacing": ("leading", tuple(_SPACINGS)),
}


@dataclass(frozen=True)
class Folder:
    """What a diffusers folder says, besides its weights."""

    kind: str  # "diffusers UNet2DModel" or "diffusers DDPMPipeline" ...
    weights: Path
    config: Config
    sampler: dict[str, Any] | None  # of a DDPM or DDIM scheduler


def is_diffusers(path: Path) -> bool:
    """Whether a folder is of diffusers: by its JSON, not by its name."""
    if (path / "model_index.json").is_file():
        return True
    config = path / "config.json"
    return config.is_file() and "_class_name" in read_json(config)


def read_folder(path: Path) -> Folder:
    """The config, the recommended sampler and the weights file of a diffusers folder.

    A network without a scheduler has DDPM's noise: linear, 1e-4 to 0.02, 1000 timesteps.

    Raises:
        UserError: another kind of model, a key that cannot be honoured, or a missing file.
    """
    index, unet, kind = path / "model_index.json", path, "UNet2DModel"
    noise: Tree = {}
    sampler = None
    if index.is_file():
        kind = str(read_json(index).get("_class_name"))
        unet = path / "unet" if (path / "unet").is_dir() else path
        nested = path / "scheduler" / "scheduler_config.json"
        file = nested if nested.is_file() else path / "scheduler_config.json"
        noise, sampler = _scheduler(read_json(file), file)
    file = unet / "config.json"
    ours = _network(read_json(file), file)
    config = validate({**ours, "diffusion": noise}, str(file))
    found = [unet / name for name in WEIGHTS if (unet / name).is_file()]
    if not found:
        raise UserError(f"{unet}: holds none of {', '.join(WEIGHTS)}; put the weights there")
    return Folder(f"diffusers {kind}", found[0], config, sampler)


def _network(tree: Tree, file: Path) -> Tree:
    if tree.get("_class_name", "UNet2DModel") != "UNet2DModel":
        raise UserError(f"{file}: is a {show(tree['_class_name'])}; expected a UNet2DModel")
    for key in tree:
        if not key.startswith("_") and key not in _ONLY and key not in _HONOURED:
            raise UserError(f"{file}: key '{key}' is not of a UNet2DModel that is known here")
    _refuse(tree, _ONLY, file, "the network here is the official DDIM U-Net")
    try:
        channels = [int(ch) for ch in tree["block_out_channels"]]
        kinds, ups = list(tree["down_block_types"]), list(tree["up_block_types"])
        sizes = tree["sample_size"]
        size = int(sizes[0] if isinstance(sizes, list) and len(set(sizes)) == 1 else sizes)
        blocks = int(tree.get("layers_per_block", 2))
        colours = {int(tree.get("in_channels", 3)), int(tree.get("out_channels", 3))}
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise UserError(f"{file}: a size is missing or no number ({error})") from error
    attends = _attention(kinds, ups, file)
    if len(colours) != 1:
        raise UserError(f"{file}: in_channels and out_channels differ; expected the same")
    if len(kinds) != len(channels) or any(ch % channels[0] for ch in channels):
        raise UserError(f"{file}: block_out_channels {channels} do not fit {len(kinds)} blocks")
    _check_heads(tree, channels, attends, file)
    groups = _groups(tree, channels, file)
    return {
        "data": {"source": "unknown", "image_size": size, "channels": colours.pop()},
        "model": {
            "ch": channels[0],
            "ch_mult": [ch // channels[0] for ch in channels],
            "num_res_blocks": blocks,
            "attn_resolutions": [size // 2**i for i, yes in enumerate(attends) if yes],
            "dropout": tree.get("dropout", 0.0),
            "norm_eps": tree.get("norm_eps", 1e-5),
            "norm_groups": groups,
        },
    }


def _attention(downs: list[object], ups: list[object], file: Path) -> list[bool]:
    """Which levels have attention, the highest resolution first."""
    for kind in (*downs, *ups):
        if kind not in ("DownBlock2D", "AttnDownBlock2D", "UpBlock2D", "AttnUpBlock2D"):
            raise UserError(f"{file}: block {show(kind)} is not of the official DDIM U-Net")
    found = [kind == "AttnDownBlock2D" for kind in downs]
    if [kind == "AttnUpBlock2D" for kind in reversed(ups)] != found:
        raise UserError(f"{file}: up_block_types do not mirror down_block_types")
    return found


def _check_heads(tree: Tree, channels: list[int], attends: list[bool], file: Path) -> None:
    head, ch = tree.get("attention_head_dim", 8), channels[0]
    widths = {c for c, yes in zip(channels, attends, strict=True) if yes} | {channels[-1]}
    if head is not None and widths != {head}:
        raise UserError(
            f"{file}: attention_head_dim is {show(head)}: several heads, which the official DDIM "
            "U-Net has not (expected null, which is one head)"
        )
    if tree.get("time_embedding_dim") not in (None, 4 * ch):
        raise UserError(f"{file}: time_embedding_dim is not 4 x {ch}, as the official U-Net has it")


def _groups(tree: Tree, channels: list[int], file: Path) -> int:
    """The number of groups of all norms; those of attention may not differ."""
    groups = tree.get("norm_num_groups", 32)
    if not isinstance(groups, int) or isinstance(groups, bool) or groups < 1:
        raise UserError(f"{file}: norm_num_groups is {show(groups)}; expected a whole number")
    if channels[0] % groups:
        raise UserError(
            f"{file}: norm_num_groups {groups} does not divide block_out_channels {channels}"
        )
    if (own := tree.get("attn_norm_num_groups")) not in (None, groups):
        raise UserError(
            f"{file}: attn_norm_num_groups is {show(own)}, which cannot be honoured, only null or "
            f"{groups}: here all norms have norm_num_groups"
        )
    return groups


def _scheduler(tree: Tree, file: Path) -> tuple[Tree, dict[str, Any] | None]:
    """(our diffusion section, the sampler that it recommends)."""
    kind = str(tree.get("_class_name"))
    _refuse(tree, _NOISE, file, "the noise here has a fixed schedule")
    schedule = tree.get("beta_schedule", "linear")
    if schedule not in SCHEDULES:
        raise UserError(f"{file}: beta_schedule {show(schedule)} is not known here")
    noise = {
        "schedule": SCHEDULES[schedule],
        "beta_start": tree.get("beta_start", 1e-4),
        "beta_end": tree.get("beta_end", 0.02),
        "timesteps": tree.get("num_train_timesteps", 1000),
        "objective": OBJECTIVES[tree.get("prediction_type", "epsilon")],
    }
    if kind not in ("DDPMScheduler", "DDIMScheduler"):
        return noise, None
    _refuse(
        tree, _SAMPLING, file,
        "give the network's own folder with --config, and choose a sampler of Diptych",
    )  # fmt: skip
    sampler: dict[str, Any] = {"clip": bool(tree.get("clip_sample", True))}
    sampler["spacing"] = _SPACINGS[tree.get("timestep_spacing", "leading")]
    ancestral = _VARIANCES[tree.get("variance_type", "fixed_small")]
    sampler["solver"] = ancestral if kind == "DDPMScheduler" else "ddim"
    return noise, sampler


def _refuse(
    tree: Tree, only: Mapping[str, tuple[object, tuple[object, ...]]], file: Path, why: str
) -> None:
    for key, (default, known) in only.items():
        value = tree.get(key, default)
        if not any(value == k and isinstance(value, bool) == isinstance(k, bool) for k in known):
            given = show(value) if value is not None else "null"
            said = "" if key in tree else " (diffusers' default)"
            wanted = " or ".join("null" if k is None else str(k) for k in known)
            raise UserError(
                f"{file}: {key} is {given}{said}, which cannot be honoured, only {wanted}: {why}"
            )
