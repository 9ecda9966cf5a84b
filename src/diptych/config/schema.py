"""The sections of a config: every key with its type, range and default. See `config.load`."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from diptych.config.size import Size, checked_size, sides_of, size_text

# Keys that may change when a run is resumed, and that may differ between two comparable runs:
# none of them affects the numbers of a step.
_DURATIONS = ("epochs", "steps", "log_every", "checkpoint_every", "keep_checkpoints", "grid_every",
              "validate_every", "checkpoint_activations")  # fmt: skip
DURATION_KEYS = frozenset(f"train.{key}" for key in _DURATIONS)
LENGTH_KEYS = frozenset({"train.epochs", "train.steps"})  # these do if the rate decays

# Keys added after the first release. With these values a run's numbers, and so its identity, are
# the same as without the keys.
LATER_KEYS: dict[str, Any] = {
    "data.crop": None,
    "data.skip_bad": False,
    "data.rescaled": True,
    "data.logit_transform": False,
    "data.dequantization": "none",
    "data.held_out": 0,
    "model.num_classes": 0,
    "model.norm_eps": 1e-6,
    "model.norm_groups": 32,
    "diffusion.objective": "eps",
    "diffusion.zero_terminal_snr": False,
    "train.label_dropout": 0.1,
    "train.weighting": "none",
    "train.min_snr_gamma": 5.0,
    "train.lr_decay": "none",
    "train.lr_final": 0.0,
    "train.ema_warmup": False,
    "train.precision": "fp32",
    "train.accumulate": 1,
    "train.compile": False,
}

PRECISIONS = ["fp32", "tf32", "bf16"]


# Sources that name a place, as `folder:/pictures`. A place is no part of a config's identity: the
# pictures themselves have a hash of their own.
PLACED_SOURCES = ("folder", "npz", "packed", "hf")


MOST = 2**63 - 1  # of a whole number: JSON with a larger one would not be read again


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    @model_validator(mode="after")
    def _readable(self) -> Section:
        for key, value in self:
            if isinstance(value, int) and value > MOST:
                raise ValueError(f"{key} is {value}; whole numbers are {MOST:,} or less")
        return self


class DataConfig(Section):
    """The training images: source, size and transforms."""

    source: str = "mnist"
    split: Literal["train", "test"] = "train"
    # The side of a square, or [height, width], also as 48x64; in pixels.
    image_size: Annotated[Size, BeforeValidator(checked_size)] = 28
    channels: int = Field(1, ge=1, le=4)
    random_flip: bool = False  # half of the images are mirrored
    crop: str | None = None  # a name in `diptych.data.crops`; null: the source's own
    skip_bad: bool = False  # leave out pictures that cannot be used, instead of refusing them
    rescaled: bool = True  # to [-1, 1]; the transforms are those of `diptych.data.preprocess`
    logit_transform: bool = False
    dequantization: Literal["none", "uniform", "gaussian"] = "none"
    held_out: float = Field(0.0, ge=0.0)  # pictures kept for validation; below 1: a share

    @property
    def sides(self) -> tuple[int, int]:
        """Height and width of an image in pixels."""
        return sides_of(self.image_size)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of an image."""
        return (self.channels, *self.sides)

    @property
    def size_text(self) -> str:
        """HEIGHTxWIDTH."""
        return size_text(self.image_size)

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
        if self.held_out > 1 and self.held_out != int(self.held_out):
            raise ValueError(
                f"held_out is {self.held_out}; expected a whole number of pictures, or a share "
                "below 1"
            )
        return self


class ModelConfig(Section):
    """The official DDIM U-Net; the names are those of its `model` section."""

    ch: int = Field(32, ge=8, le=1024, multiple_of=8)  # a multiple of norm_groups
    ch_mult: tuple[int, ...] = Field((1, 2, 2), min_length=1, max_length=8)  # one per resolution
    num_res_blocks: int = Field(1, ge=1, le=8)
    attn_resolutions: tuple[int, ...] = (7,)  # shorter sides in pixels with attention
    dropout: float = Field(0.0, ge=0.0, lt=1.0)
    resamp_with_conv: bool = True
    num_classes: int = Field(0, ge=0, le=10_000)  # 0: not conditioned on a class
    norm_eps: float = Field(1e-6, gt=0.0, lt=1.0)  # of GroupNorm; other libraries use 1e-5
    norm_groups: int = Field(32, ge=1, le=1024)  # of GroupNorm; the official network has 32

    @model_validator(mode="after")
    def _multipliers(self) -> ModelConfig:
        if any(mult < 1 for mult in self.ch_mult):
            raise ValueError("ch_mult must hold whole numbers of 1 or more")
        return self

    @model_validator(mode="after")
    def _groups(self) -> ModelConfig:
        if self.ch % self.norm_groups:  # all widths are multiples of ch, and ch is one of them
            raise ValueError(
                f"norm_groups {self.norm_groups} does not divide ch {self.ch}; use for example "
                f"{max(8, math.gcd(self.ch, self.norm_groups))} groups, or another ch"
            )
        return self


class DiffusionConfig(Section):
    """The forward process; betas as in `diptych.diffusion.schedule`."""

    schedule: Literal["linear", "quad", "const", "jsd", "sigmoid", "cosine"] = "linear"
    beta_start: float = Field(1e-4, gt=0.0, lt=1.0)
    beta_end: float = Field(0.02, gt=0.0, lt=1.0)
    timesteps: int = Field(1000, ge=2, le=100_000)
    objective: Literal["eps", "x0", "v"] = "eps"  # what the network predicts
    zero_terminal_snr: bool = False  # rescale so that the last timestep is pure noise

    @property
    def ends_in_noise(self) -> bool:
        """True if nothing of the image is left at the last timestep."""
        return self.zero_terminal_snr or self.schedule == "jsd"

    @model_validator(mode="after")
    def _last_timestep(self) -> DiffusionConfig:
        if self.zero_terminal_snr and self.objective == "eps":
            raise ValueError(
                "zero_terminal_snr leaves nothing of the image at the last timestep, so the image "
                "cannot be found from eps there; use diffusion.objective v or x0"
            )
        return self


class TrainConfig(Section):
    """Optimisation, and how often logs, checkpoints and grids are written."""

    batch_size: int = Field(64, ge=1)
    # A step sums the gradients of so many micro-batches: less memory, the same numbers up to the
    # order of summation.
    accumulate: int = Field(1, ge=1)
    # The backward pass computes the activations of the U-Net's blocks again: less memory, more
    # time, the same numbers.
    checkpoint_activations: bool = False
    epochs: int = Field(10, ge=1)
    steps: int | None = Field(None, ge=1)  # if given, replaces epochs
    lr: float = Field(2e-4, gt=0.0)
    warmup_steps: int = Field(0, ge=0)  # the rate rises from 0 to lr over these
    lr_decay: Literal["none", "linear", "cosine"] = "none"  # after the warm-up, to the last step
    lr_final: float = Field(0.0, ge=0.0, le=1.0)  # rate at the last step, as a share of lr
    beta1: float = Field(0.9, ge=0.0, lt=1.0)
    beta2: float = Field(0.999, ge=0.0, lt=1.0)
    eps: float = Field(1e-8, gt=0.0)
    grad_clip: float | None = Field(1.0, gt=0.0)  # null: gradients are not clipped
    ema_rate: float = Field(0.999, ge=0.0, lt=1.0)  # averages over 1 / (1 - rate) steps
    ema_warmup: bool = False  # shorter windows at first, see `ema_rate_at`
    loss: Literal["sum", "mean"] = "mean"  # over the pixels; the batch is always averaged
    # host, keyed: the same bits in both backends, drawn by NumPy or by the device itself;
    # device: each framework's own generator.
    noise: Literal["host", "keyed", "device"] = "host"
    precision: Literal["fp32", "tf32", "bf16"] = "fp32"  # of the network; all else is float32
    compile: bool = False  # PyTorch alone: the network by torch.compile, whose rounding is its own
    label_dropout: float = Field(0.1, ge=0.0, le=1.0)  # share of images trained without a class
    weighting: Literal["none", "min-snr"] = "none"  # of the loss, per timestep
    min_snr_gamma: float = Field(5.0, gt=0.0)
    log_every: int = Field(20, ge=1)  # in steps, like the other *_every
    checkpoint_every: int = Field(500, ge=1)
    keep_checkpoints: int = Field(2, ge=1)  # the newest ones
    grid_every: int = Field(0, ge=0)  # a grid of 64 samples; 0: only at the end
    validate_every: int = Field(0, ge=0)  # the loss of the held-out pictures; 0: never

    @model_validator(mode="after")
    def _micro_batches(self) -> TrainConfig:
        if self.accumulate > self.batch_size:
            raise ValueError(
                f"accumulate is {self.accumulate}, but a batch has {self.batch_size} images; set "
                f"train.accumulate to {self.batch_size} or less"
            )
        return self

    @model_validator(mode="after")
    def _recomputed(self) -> TrainConfig:
        if self.checkpoint_activations and self.compile:
            raise ValueError(
                "compile and checkpoint_activations exclude each other, as PyTorch's compiler "
                "decides by itself what is computed again; set one of them to false"
            )
        return self

    @model_validator(mode="after")
    def _decay(self) -> TrainConfig:
        if self.lr_final and self.lr_decay == "none":
            raise ValueError(
                "lr_final is the final rate of a decay; set train.lr_decay to linear or cosine"
            )
        return self

    def last_step(self, steps_per_epoch: int) -> int:
        """A run's number of steps: `steps`, else that of `epochs`."""
        return self.steps or self.epochs * steps_per_epoch

    def ema_rate_at(self, step: int) -> float:
        """The EMA rate at a 1-based step, a host float.

        With `ema_warmup` it is at most (1 + step) / (10 + step), as in TensorFlow's
        ExponentialMovingAverage, so the first averages are not dominated by untrained weights.
        """
        return min(self.ema_rate, (1 + step) / (10 + step)) if self.ema_warmup else self.ema_rate
