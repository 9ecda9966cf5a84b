"""The sections of a config: every key with its type, its range and its default. See `config`."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

# What may change when a run is resumed, and what two comparable runs may differ in:
# none of it reaches the numbers of a step.
_DURATIONS = ("epochs", "steps", "log_every", "checkpoint_every", "keep_checkpoints", "grid_every")
DURATION_KEYS = frozenset(f"train.{key}" for key in _DURATIONS)

# Keys that came after the first release. At these values a run's numbers, and so its identity, are
# those that it had without them.
LATER_KEYS: dict[str, Any] = {
    "data.crop": None,
    "data.skip_bad": False,
    "data.rescaled": True,
    "data.logit_transform": False,
    "data.dequantization": "none",
    "model.num_classes": 0,
    "model.norm_eps": 1e-6,
    "diffusion.objective": "eps",
    "diffusion.zero_terminal_snr": False,
    "train.label_dropout": 0.1,
    "train.weighting": "none",
    "train.min_snr_gamma": 5.0,
}


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class DataConfig(Section):
    """Which images, at which size."""

    source: str = "mnist"
    split: Literal["train", "test"] = "train"
    image_size: int = Field(28, ge=4, le=1024)  # height and width in pixels
    channels: int = Field(1, ge=1, le=4)
    random_flip: bool = False  # half of the images are mirrored
    crop: str | None = None  # a name of `diptych.data.crops`; null: the source's own
    skip_bad: bool = False  # leave out pictures that cannot be used, instead of refusing them
    rescaled: bool = True  # to [-1, 1]; the transforms are those of `diptych.data.preprocess`
    logit_transform: bool = False
    dequantization: Literal["none", "uniform", "gaussian"] = "none"

    @model_validator(mode="after")
    def _transforms(self) -> DataConfig:
        if self.logit_transform and self.rescaled:
            raise ValueError(
                "rescaled and logit_transform exclude each other; set data.rescaled=false"
            )
        if self.logit_transform and self.dequantization == "gaussian":
            raise ValueError(
                "gaussian dequantization leaves [0, 1], where the logit has no value; "
                "use uniform with logit_transform"
            )
        return self


class ModelConfig(Section):
    """The official DDIM U-Net: names as in its `model` section."""

    ch: int = Field(32, ge=32, le=1024, multiple_of=32)
    ch_mult: tuple[int, ...] = Field((1, 2, 2), min_length=1, max_length=8)  # one a resolution
    num_res_blocks: int = Field(1, ge=1, le=8)
    attn_resolutions: tuple[int, ...] = (7,)  # heights in pixels at which there is attention
    dropout: float = Field(0.0, ge=0.0, lt=1.0)
    resamp_with_conv: bool = True
    num_classes: int = Field(0, ge=0, le=10_000)  # 0: the network is told no class
    norm_eps: float = Field(1e-6, gt=0.0, lt=1.0)  # GroupNorm's; other libraries have 1e-5

    @model_validator(mode="after")
    def _multipliers(self) -> ModelConfig:
        if any(mult < 1 for mult in self.ch_mult):
            raise ValueError("ch_mult must hold whole numbers of 1 or more")
        return self


class DiffusionConfig(Section):
    """The forward process; betas as in `diptych.diffusion.schedule`."""

    schedule: Literal["linear", "quad", "const", "jsd", "sigmoid", "cosine"] = "linear"
    beta_start: float = Field(1e-4, gt=0.0, lt=1.0)
    beta_end: float = Field(0.02, gt=0.0, lt=1.0)
    timesteps: int = Field(1000, ge=2, le=100_000)
    objective: Literal["eps", "x0", "v"] = "eps"  # what the network predicts
    zero_terminal_snr: bool = False  # rescaled so that the last timestep is noise alone

    @model_validator(mode="after")
    def _last_timestep(self) -> DiffusionConfig:
        if self.zero_terminal_snr and self.objective == "eps":
            raise ValueError(
                "zero_terminal_snr leaves nothing of the image at the last timestep, where the "
                "noise says nothing of it; use diffusion.objective v or x0"
            )
        return self


class TrainConfig(Section):
    """Optimisation, and how often something is written."""

    batch_size: int = Field(64, ge=1)
    epochs: int = Field(10, ge=1)
    steps: int | None = Field(None, ge=1)  # where given, it stands in place of epochs
    lr: float = Field(2e-4, gt=0.0)
    warmup_steps: int = Field(0, ge=0)  # over which the rate rises from 0 to lr
    beta1: float = Field(0.9, ge=0.0, lt=1.0)
    beta2: float = Field(0.999, ge=0.0, lt=1.0)
    eps: float = Field(1e-8, gt=0.0)
    grad_clip: float | None = Field(1.0, gt=0.0)  # null: gradients are not clipped
    ema_rate: float = Field(0.999, ge=0.0, lt=1.0)  # a window of 1 / (1 - rate) steps
    loss: Literal["sum", "mean"] = "mean"  # over the pixels; always the mean over the batch
    noise: Literal["host", "device"] = "host"  # host: the same bits in both panels
    label_dropout: float = Field(0.1, ge=0.0, le=1.0)  # share of images trained without class
    weighting: Literal["none", "min-snr"] = "none"  # of the loss, by timestep
    min_snr_gamma: float = Field(5.0, gt=0.0)
    log_every: int = Field(20, ge=1)  # in steps, as are the next ones
    checkpoint_every: int = Field(500, ge=1)
    keep_checkpoints: int = Field(2, ge=1)  # the newest ones
    grid_every: int = Field(0, ge=0)  # 64 samples; 0: only at the end
