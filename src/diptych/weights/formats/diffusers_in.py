"""Read a `UNet2DModel` or pipeline folder of Hugging Face diffusers into our config.

    FOLDER/config.json, diffusion_pytorch_model.safetensors or .bin        a network alone
    FOLDER/model_index.json, unet/..., scheduler/scheduler_config.json     a pipeline
    FOLDER/model_index.json, config.json, scheduler_config.json, ...       the same in one folder
    FOLDER/checkpoint-N/unet, unet_ema                                     a training checkpoint

Every key of the network is honoured, or refused by name if it makes another function than the
official DDIM U-Net. `schedulers` reads the scheduler's file. diffusers itself is not needed.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diptych.config.load import Config, validate
from diptych.config.size import checked_size, sides_of
from diptych.errors import UserError, nearest
from diptych.files import read_json
from diptych.weights.formats.schedulers import Found, read_scheduler, refuse_unknown
from diptych.weights.pickle.ops import show

Tree = dict[str, Any]
_STEM, _SUFFIXES = "diffusion_pytorch_model", (
    ".safetensors", ".safetensors.index.json", ".bin", ".bin.index.json",
)  # fmt: skip
WEIGHTS = (f"{_STEM}.safetensors", f"{_STEM}.bin")
# Their key -> (their default, the values that give the official network).
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
             "up_block_types", "dropout",
             "attention_head_dim", "time_embedding_dim", "num_train_timesteps")  # fmt: skip
# Keys that EMAModel adds to the config of `unet_ema`: they describe the average, not the network.
_OF_EMA = frozenset({"decay", "min_decay", "optimization_step", "update_after_step",
                     "use_ema_warmup", "inv_gamma", "power"})  # fmt: skip


@dataclass(frozen=True)
class Folder:
    """The content of a diffusers folder, with the path of its weights."""

    kind: str  # "diffusers UNet2DModel" or "diffusers DDPMPipeline" ...
    weights: Path
    config: Config
    sampler: dict[str, Any] | None  # recommended by a DDPM or DDIM scheduler
    note: str | None  # the scheduler's settings that were ignored, or a missing scheduler
    ema: bool | None = None  # only known for a training checkpoint that holds raw and EMA


def is_diffusers(path: Path) -> bool:
    """True if a folder is from diffusers: by its JSON, not by its name."""
    if (path / "model_index.json").is_file() or _checkpoint(path, raw=True):
        return True
    config = path / "config.json"
    return config.is_file() and "_class_name" in read_json(config)


def _checkpoint(path: Path, raw: bool) -> Path | None:
    """The network in a `checkpoint-N` folder that diffusers' training script wrote."""
    for name in ("unet", "unet_ema") if raw else ("unet_ema", "unet"):
        if (path / name / "config.json").is_file():
            return path / name
    return None


def read_folder(path: Path, raw: bool = False) -> Folder:
    """Read the config and recommended sampler of a diffusers folder, and locate its weights file.

    A network without a scheduler gets DDPM's noise: linear, 1e-4 to 0.02, 1000 timesteps. For a
    training checkpoint, the scheduler is searched in the folder above.

    Args:
        path: a pipeline, a network alone, or `checkpoint-N` of a training.
        raw: choose the weights as trained if a checkpoint also has their moving average.

    Raises:
        UserError: another kind of model, a key that cannot be honoured, or a missing file.
    """
    index, unet, kind = path / "model_index.json", path, "UNet2DModel"
    ema, file = None, None
    if index.is_file():
        kind = str(read_json(index).get("_class_name"))
        alone = (path / "config.json").is_file() and not (path / "unet").is_dir()
        unet = path if alone else path / "unet"
        file = (path if alone else path / "scheduler") / "scheduler_config.json"
    elif network := _checkpoint(path, raw):
        unet, kind = network, "training checkpoint"
        ema = network.name == "unet_ema" if (path / "unet_ema").is_dir() else None
        above = path.absolute().parent / "scheduler" / "scheduler_config.json"
        file = above if above.is_file() else None
    scheduler = None
    if file is not None:
        tree = read_json(file, finite=False)  # diffusers writes "lambda_min_clipped": -Infinity
        scheduler = read_scheduler(tree, file)
        _check_noise(scheduler, file)
    file = unet / "config.json"
    ours = _network(read_json(file), file)
    config = validate({**ours, "diffusion": scheduler.noise if scheduler else {}}, str(file))
    sampler = scheduler.sampler if scheduler else None
    assumed = (
        f"{path} holds no scheduler: the noise is taken to be DDPM's, linear from 1e-4 to 0.02 in "
        "1000 timesteps, and the network to predict it"
    )
    note = scheduler.note if scheduler else assumed
    return Folder(f"diffusers {kind}", _weights_file(unet), config, sampler, note, ema)


def _weights_file(unet: Path) -> Path:
    """The file of all weights in a folder: plain before a variant (`.fp16.`), whole before parts.

    Raises:
        UserError: no file, or several variants and no plain file.
    """
    found: dict[str, Path] = {}
    for suffix in _SUFFIXES:
        for path in sorted(unet.glob(f"{_STEM}*{suffix}")):
            variant = path.name.removeprefix(_STEM).removesuffix(suffix)
            if "-of-" not in variant:
                found.setdefault(variant.strip("."), path)
    if "" in found or len(found) == 1:
        return found.get("", next(iter(found.values())))
    if found:
        raise UserError(
            f"{unet}: holds {', '.join(found)} weights and no plain ones; give one of the files, "
            "with --config"
        )
    names = ", ".join(WEIGHTS)
    raise UserError(f"{unet}: holds none of {names}, nor a variant; put the weights there")


def _check_noise(scheduler: Found, file: Path) -> None:
    """Validate the noise; errors use the key names of the scheduler's file."""
    try:
        validate({"diffusion": scheduler.noise}, str(file))
    except UserError as error:
        message = str(error)
        for key in scheduler.noise:
            theirs = scheduler.names.get(key, key)
            message = message.replace(f"{file}: diffusion.{key}:", f"{file}: {theirs}:")
        raise UserError(message) from error


def _network(tree: Tree, file: Path) -> Tree:
    if tree.get("_class_name", "UNet2DModel") != "UNet2DModel":
        raise UserError(f"{file}: is a {show(tree['_class_name'])}; expected a UNet2DModel")
    for key in tree:
        if not key.startswith("_") and not any(key in keys for keys in (_ONLY, _HONOURED, _OF_EMA)):
            near = nearest(key, [*_ONLY, *_HONOURED])
            hint = near if near.startswith("; did") else ""
            raise UserError(f"{file}: key {show(key)} is not of a UNet2DModel known here{hint}")
    for key, (default, known) in _ONLY.items():
        why = "the network here is the official DDIM U-Net"
        refuse_unknown(key, tree.get(key, default), known, key in tree, file, why)
    try:
        channels = [int(ch) for ch in tree["block_out_channels"]]
        kinds, ups = list(tree["down_block_types"]), list(tree["up_block_types"])
        size = checked_size(tree["sample_size"])
        shorter = min(sides_of(size))
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
            "attn_resolutions": [shorter // 2**i for i, yes in enumerate(attends) if yes],
            "dropout": tree.get("dropout", 0.0),
            "norm_eps": tree.get("norm_eps", 1e-5),
            "norm_groups": groups,
        },
    }


def _attention(downs: list[object], ups: list[object], file: Path) -> list[bool]:
    """A flag per level, True with attention; the highest resolution first."""
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
    """The number of groups of all norms; attention norms must have the same."""
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
