"""The settings of a run: typed, frozen, strict, and the same for both panels.

A config is a preset (`presets/NAME.yaml`) or a file of the same form, changed by `--set
section.key=value`. Every key is known or refused; every number has a range. The run folder keeps
the whole resolved config, so that a run never depends on a default that changed later.
"""

from __future__ import annotations

import hashlib
import json
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from diptych.errors import UserError, nearest
from diptych.yamltext import FAULTS, read_yaml

# What may change when a run is resumed, and what two comparable runs may differ in:
# none of it reaches the numbers of a step.
_DURATIONS = ("epochs", "steps", "log_every", "checkpoint_every", "keep_checkpoints", "grid_every")
DURATION_KEYS = frozenset(f"train.{key}" for key in _DURATIONS)

# Keys that came after the first release. At these values a run's numbers, and so its identity, are
# those that it had without them.
LATER_KEYS: dict[str, Any] = {
    "data.crop": None,
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


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class DataConfig(_Section):
    """Which images, at which size."""

    source: str = "mnist"
    split: Literal["train", "test"] = "train"
    image_size: int = Field(28, ge=4, le=1024)
    channels: int = Field(1, ge=1, le=4)
    random_flip: bool = False
    crop: str | None = None  # a name of `diptych.data.crops`; null: the source's own
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


class ModelConfig(_Section):
    """The official DDIM U-Net: names as in its `model` section."""

    ch: int = Field(32, ge=32, le=1024, multiple_of=32)
    ch_mult: tuple[int, ...] = Field((1, 2, 2), min_length=1, max_length=8)
    num_res_blocks: int = Field(1, ge=1, le=8)
    attn_resolutions: tuple[int, ...] = (7,)
    dropout: float = Field(0.0, ge=0.0, lt=1.0)
    resamp_with_conv: bool = True
    num_classes: int = Field(0, ge=0, le=10_000)  # 0: the network is told no class
    norm_eps: float = Field(1e-6, gt=0.0, lt=1.0)  # GroupNorm's; other libraries have 1e-5

    @model_validator(mode="after")
    def _multipliers(self) -> ModelConfig:
        if any(mult < 1 for mult in self.ch_mult):
            raise ValueError("ch_mult must hold whole numbers of 1 or more")
        return self


class DiffusionConfig(_Section):
    """The forward process; betas as in `diptych.schedule`."""

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


class TrainConfig(_Section):
    """Optimisation, and how often something is written."""

    batch_size: int = Field(64, ge=1)
    epochs: int = Field(10, ge=1)
    steps: int | None = Field(None, ge=1)  # where given, it stands in place of epochs
    lr: float = Field(2e-4, gt=0.0)
    warmup_steps: int = Field(0, ge=0)
    beta1: float = Field(0.9, ge=0.0, lt=1.0)
    beta2: float = Field(0.999, ge=0.0, lt=1.0)
    eps: float = Field(1e-8, gt=0.0)
    grad_clip: float | None = Field(1.0, gt=0.0)  # null: gradients are not clipped
    ema_rate: float = Field(0.999, ge=0.0, lt=1.0)
    loss: Literal["sum", "mean"] = "mean"  # over the pixels; always the mean over the batch
    noise: Literal["host", "device"] = "host"
    label_dropout: float = Field(0.1, ge=0.0, le=1.0)  # share of images trained without class
    weighting: Literal["none", "min-snr"] = "none"  # of the loss, by timestep
    min_snr_gamma: float = Field(5.0, gt=0.0)
    log_every: int = Field(20, ge=1)
    checkpoint_every: int = Field(500, ge=1)
    keep_checkpoints: int = Field(2, ge=1)
    grid_every: int = Field(0, ge=0)  # 0: only at the end


class Config(_Section):
    """Everything that determines a run's numbers, and how often it writes them down."""

    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    diffusion: DiffusionConfig = DiffusionConfig()
    train: TrainConfig = TrainConfig()
    seed: int = Field(0, ge=0, lt=2**63)

    @model_validator(mode="after")
    def _fit(self) -> Config:
        halvings = len(self.model.ch_mult) - 1
        if self.data.image_size % 2**halvings:
            raise ValueError(
                f"image_size {self.data.image_size} cannot be halved {halvings} times "
                f"(ch_mult has {halvings + 1} levels); use a multiple of {2**halvings}"
            )
        if self.diffusion.zero_terminal_snr and self.train.weighting == "min-snr":
            raise ValueError(
                "train.weighting min-snr gives the last timestep of zero_terminal_snr no weight, "
                "so that it would never be trained; use one of the two"
            )
        return self

    def identity(self) -> str:
        """Sha256 of all that determines a run's numbers: durations and cadences are left out."""
        flat = {
            key: value
            for key, value in flatten(self).items()
            if key not in DURATION_KEYS and LATER_KEYS.get(key, ...) != value
        }
        return hashlib.sha256(json.dumps(flat, sort_keys=True).encode()).hexdigest()


def flatten(config: Config) -> dict[str, Any]:
    """The config as {"train.lr": 0.0002, ...}, with JSON values."""
    tree = config.model_dump(mode="json")
    flat = {"seed": tree.pop("seed")}
    for section, values in tree.items():
        flat.update({f"{section}.{key}": value for key, value in values.items()})
    return flat


def to_yaml(config: Config) -> str:
    """The whole config as YAML; `parse(to_yaml(c)) == c`."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, default_flow_style=None)


def preset_names() -> list[str]:
    """The presets that come with the package."""
    folder = resources.files("diptych") / "presets"
    return sorted(
        p.name.removesuffix(".yaml") for p in folder.iterdir() if p.name.endswith(".yaml")
    )


def load_config(name_or_path: str, overrides: list[str] | None = None) -> Config:
    """A preset by name, or a YAML file by path, with `section.key=value` overrides applied.

    Raises:
        UserError: an unknown preset, an unreadable file, an unknown key, or a value out of range.
    """
    path = Path(name_or_path)
    if name_or_path in preset_names():
        text = (resources.files("diptych") / "presets" / f"{name_or_path}.yaml").read_text("utf-8")
    elif path.suffix in (".yaml", ".yml") or path.is_file():
        text = _read(path)
    else:
        raise UserError(
            f"preset '{name_or_path}' is not known{nearest(name_or_path, preset_names())}"
        )
    tree = parse_tree(text, name_or_path)
    for override in overrides or []:
        apply_override(tree, override)
    return validate(tree, name_or_path)


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: the config cannot be read ({error}); give a YAML file") from error


def parse_tree(text: str, where: str) -> dict[str, Any]:
    """YAML text as a plain dict. Raises UserError where it is not a mapping."""
    try:
        tree = read_yaml(text)
    except FAULTS as error:
        line = " ".join(str(error).split())
        raise UserError(f"{where}: not valid YAML: {line}") from error
    if not isinstance(tree, dict):
        raise UserError(f"{where}: expected a mapping with data, model, diffusion, train")
    return tree


def apply_override(tree: dict[str, Any], override: str) -> None:
    """Set one `section.key=value` in a config's tree. Raises UserError."""
    key, equals, text = override.partition("=")
    parts = key.strip().split(".")
    if not equals or not all(parts) or len(parts) > 2:
        raise UserError(f"--set {override}: expected section.key=value, for example train.lr=1e-4")
    try:
        value = read_yaml(text)
    except FAULTS as error:
        raise UserError(f"--set {override}: '{text}' is not a YAML value") from error
    node = tree
    if len(parts) == 2:
        node = tree.setdefault(parts[0], {})
        if not isinstance(node, dict):
            raise UserError(f"--set {override}: '{parts[0]}' is not a section")
    node[parts[-1]] = value


def validate(tree: dict[str, Any], where: str) -> Config:
    """A checked config from a plain dict. Raises UserError: one line for the first fault."""
    try:
        # Through JSON, because strict mode takes a list for a tuple only there.
        return Config.model_validate_json(json.dumps(tree, default=str), strict=True)
    except ValidationError as error:
        raise UserError(f"{where}: {_first_fault(error)}") from error
    except (TypeError, ValueError, RecursionError) as error:  # a date as a key, an alias of itself
        raise UserError(f"{where}: holds what no config can ({error})") from error


def _first_fault(error: ValidationError) -> str:
    fault = error.errors()[0]
    key = ".".join(str(part) for part in fault["loc"])
    if fault["type"] == "extra_forbidden":
        section: Any = Config
        for part in fault["loc"][:-1]:
            section = section.model_fields[str(part)].annotation
        last = str(fault["loc"][-1])
        return f"key '{key}' is not known{nearest(last, list(section.model_fields))}"
    message = fault["msg"].removeprefix("Value error, ")
    given = f" (given: {fault['input']!r})" if key and not isinstance(fault["input"], dict) else ""
    return f"{key}: {message}{given}" if key else message
