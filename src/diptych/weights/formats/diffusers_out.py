"""Write our network as a diffusers pipeline folder, which `DDPMPipeline` and `DDIMPipeline` load.

    FOLDER/model_index.json
    FOLDER/unet/config.json, diffusion_pytorch_model.safetensors
    FOLDER/scheduler/scheduler_config.json        our noise; x0 is not clipped, as in our samplers

The function is the same, so `DDIMPipeline` generates our images from our noise, up to rounding.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safetensors.numpy import save as to_bytes

from diptych.config.load import Config
from diptych.errors import UserError
from diptych.files import write_json
from diptych.network.plan import Plan, make_plan
from diptych.types import Weights
from diptych.weights.formats.diffusers_in import WEIGHTS
from diptych.weights.formats.layouts import to_diffusers
from diptych.weights.formats.schedulers import OBJECTIVES, SCHEDULES

VERSION = "0.30.0"  # the oldest version whose file format this is tested to match


def write_folder(folder: Path, config: Config, weights: Weights) -> None:
    """Write a pipeline into an existing, empty folder.

    Raises:
        UserError: diffusers' classes cannot express the network or the noise.
        MachineError: the disk is full, or the like.
    """
    unet, scheduler = network_config(config), scheduler_config(config)
    for name in ("unet", "scheduler"):
        (folder / name).mkdir()
    head = {"_diffusers_version": VERSION}
    write_json(folder / "unet" / "config.json", {"_class_name": "UNet2DModel", **head, **unet})
    content = to_bytes(to_diffusers(weights), metadata={"format": "pt"})
    (folder / "unet" / WEIGHTS[0]).write_bytes(content)
    write_json(
        folder / "scheduler" / "scheduler_config.json",
        {"_class_name": "DDPMScheduler", **head, **scheduler},
    )
    parts = {"unet": ["diffusers", "UNet2DModel"], "scheduler": ["diffusers", "DDPMScheduler"]}
    write_json(folder / "model_index.json", {"_class_name": "DDPMPipeline", **head, **parts})


def network_config(config: Config) -> dict[str, Any]:
    """Our network as keys of `UNet2DModel`. Raises UserError if it cannot be expressed."""
    plan, model = make_plan(config), config.model
    if model.ch_mult[0] != 1:
        raise UserError(
            f"to diffusers: ch_mult begins with {model.ch_mult[0]}; UNet2DModel has as many "
            "channels after its first convolution as on its first level (1)"
        )
    if not model.resamp_with_conv:
        raise UserError("to diffusers: resamp_with_conv is false; UNet2DModel always has them")
    _check_known(config)
    kinds = [
        "AttnDownBlock2D" if stage.blocks[0].attention else "DownBlock2D" for stage in plan.down
    ]
    return {
        "sample_size": config.data.image_size,
        "in_channels": plan.channels,
        "out_channels": plan.channels,
        "block_out_channels": _channels(plan),
        "layers_per_block": model.num_res_blocks,
        "down_block_types": kinds,
        "up_block_types": [kind.replace("Down", "Up") for kind in reversed(kinds)],
        "attention_head_dim": None,
        "downsample_padding": 0,
        "dropout": plan.dropout,
        "flip_sin_to_cos": False,
        "freq_shift": 1,
        "norm_eps": model.norm_eps,
        "norm_num_groups": model.norm_groups,
        "act_fn": "silu",
        "center_input_sample": False,
        "time_embedding_type": "positional",
        "mid_block_scale_factor": 1,
        "downsample_type": "conv",
        "upsample_type": "conv",
        "resnet_time_scale_shift": "default",
        "add_attention": True,
    }


def scheduler_config(config: Config) -> dict[str, Any]:
    """Our noise as keys of `DDPMScheduler`. Raises UserError if it cannot be expressed."""
    noise = config.diffusion
    names = {ours: theirs for theirs, ours in SCHEDULES.items()}
    predicts = {ours: theirs for theirs, ours in OBJECTIVES.items()}
    if noise.schedule not in names:
        raise UserError(
            f"to diffusers: its schedulers have no schedule '{noise.schedule}', only "
            f"{', '.join(names)}"
        )
    return {
        "num_train_timesteps": noise.timesteps,
        "beta_start": noise.beta_start,
        "beta_end": noise.beta_end,
        "beta_schedule": names[noise.schedule],
        "trained_betas": None,
        "prediction_type": predicts[noise.objective],
        "variance_type": "fixed_small",
        "clip_sample": False,
        # As our sampler's default: with zero terminal SNR, a trajectory must begin at pure noise.
        "timestep_spacing": "trailing" if noise.zero_terminal_snr else "leading",
        "steps_offset": 0,
        "rescale_betas_zero_snr": noise.zero_terminal_snr,
    }


def _check_known(config: Config) -> None:
    """Refuse settings that the diffusers files would silently lose."""
    data = config.data
    for key, value, plain in (
        ("data.rescaled", data.rescaled, True),
        ("data.dequantization", data.dequantization == "uniform", False),
        ("model.num_classes", config.model.num_classes, 0),
    ):
        if value != plain:
            raise UserError(f"to diffusers: {key} is set, which cannot be expressed there")


def _channels(plan: Plan) -> list[int]:
    return [stage.out_ch for stage in plan.down]
