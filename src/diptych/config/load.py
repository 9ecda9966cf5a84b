"""The settings of a run: typed, frozen, strict, and the same for both backends.

A config is a preset (`presets/NAME.yaml`) or a file of the same form, changed by `--set
section.key=value`. Unknown keys are refused; every number has a range. The run folder keeps the
whole resolved config, so a run never depends on a default that changes later.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field, ValidationError, model_validator

from diptych.config.schema import DURATION_KEYS as DURATION_KEYS
from diptych.config.schema import LATER_KEYS as LATER_KEYS
from diptych.config.schema import LENGTH_KEYS as LENGTH_KEYS
from diptych.config.schema import PLACED_SOURCES, Section
from diptych.config.schema import DataConfig as DataConfig
from diptych.config.schema import DiffusionConfig as DiffusionConfig
from diptych.config.schema import ModelConfig as ModelConfig
from diptych.config.schema import TrainConfig as TrainConfig
from diptych.config.yaml import FAULTS, MOST_BYTES, read_yaml
from diptych.errors import MachineError, UserError, nearest, path_text, refused, several
from diptych.files import read_bytes


class Config(Section):
    """All settings that determine a run's numbers, and how often it records them."""

    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    diffusion: DiffusionConfig = DiffusionConfig()
    train: TrainConfig = TrainConfig()
    seed: int = Field(0, ge=0, lt=2**63)

    @model_validator(mode="after")
    def _fit(self) -> Config:
        halvings = len(self.model.ch_mult) - 1
        for name, side in zip(("height", "width"), self.data.sides, strict=True):
            if side % 2**halvings:
                square = side == self.data.image_size
                named = f"image_size {side}" if square else f"image_size: the {name} {side}"
                raise ValueError(
                    f"{named} cannot be halved {halvings} times (ch_mult has {halvings + 1} "
                    f"levels); use a multiple of {2**halvings}"
                )
        if self.train.validate_every and not self.data.held_out:
            raise ValueError(
                "train.validate_every needs pictures that are not trained on; set data.held_out, "
                "for example to 0.1"
            )
        noise = self.diffusion
        if self.train.weighting == "min-snr" and noise.ends_in_noise and noise.objective != "eps":
            name = "zero_terminal_snr" if noise.zero_terminal_snr else f"schedule {noise.schedule}"
            raise ValueError(
                f"train.weighting min-snr gives the last timestep of {name} no weight, so that it "
                f"would never be trained; set train.weighting to none"
            )
        return self

    @property
    def duration_keys(self) -> frozenset[str]:
        """Keys that do not affect the numbers of a step: durations and cadences.

        If the learning rate decays, the run's length is not one of them: every rate depends on it.
        """
        decays = self.train.lr_decay != "none"
        return DURATION_KEYS - LENGTH_KEYS if decays else DURATION_KEYS

    def identity(self, placed: bool = False) -> str:
        """Sha256 of all that determines a run's numbers: `duration_keys` are left out.

        Args:
            placed: hash the place of `folder:PATH` and its like too, as the first release did.
        """
        flat = {
            key: value
            for key, value in flatten(self).items()
            if key not in self.duration_keys and LATER_KEYS.get(key, ...) != value
        }
        kind, colon, _ = self.data.source.partition(":")
        if kind in PLACED_SOURCES and not placed:
            flat["data.source"] = kind + colon
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
    """Names of the presets that come with the package."""
    folder = resources.files("diptych.config") / "presets"
    return sorted(
        p.name.removesuffix(".yaml") for p in folder.iterdir() if p.name.endswith(".yaml")
    )


def load_config(name_or_path: str, overrides: list[str] | None = None) -> Config:
    """Load a preset by name, or a YAML file by path, and apply `section.key=value` overrides.

    Raises:
        UserError: an unknown preset, an unreadable file, an unknown key, or a value out of range.
    """
    name_or_path = path_text("config", name_or_path, "a preset's name or a path")
    path = Path(name_or_path)
    if name_or_path in preset_names():
        text = (resources.files("diptych.config") / "presets" / f"{name_or_path}.yaml").read_text(
            "utf-8"
        )
    elif path.suffix in (".yaml", ".yml") or is_there(path):
        text = _read(path)
    else:
        raise UserError(
            f"preset '{name_or_path}' is not known{nearest(name_or_path, preset_names())}"
        )
    tree = parse_tree(text, name_or_path)
    expected = "a list such as ['train.steps=500']"
    if isinstance(overrides, Mapping):
        raise refused("overrides", overrides, expected)
    for override in several("overrides", overrides or [], expected):
        apply_override(tree, str(override))
    return validate(tree, name_or_path)


def is_there(path: Path) -> bool:
    """True if a path holds anything but a folder; False for a name that is too long."""
    try:
        return path.exists() and not path.is_dir()
    except (OSError, ValueError):
        return False


def read_tree(path: Path) -> dict[str, Any]:
    """A YAML file as a plain dict. Raises UserError: not there, no text, or no mapping."""
    return parse_tree(_read(path), str(path))


def _read(path: Path) -> str:
    try:
        return read_bytes(path, "a YAML file", MOST_BYTES).decode("utf-8")
    except (UserError, MachineError, UnicodeDecodeError) as error:
        reason = str(error).removeprefix(f"{path}: ")
        raise UserError(f"{path}: the config cannot be read ({reason})") from error


def parse_tree(text: str, where: str) -> dict[str, Any]:
    """Parse YAML text into a plain dict. Raises UserError if it is not a mapping."""
    try:
        tree = read_yaml(text)
    except FAULTS as error:
        line = " ".join(str(error).split())[:300]
        raise UserError(f"{where}: not valid YAML: {line}") from error
    if not isinstance(tree, dict):
        raise UserError(f"{where}: expected a mapping with data, model, diffusion, train")
    return tree


def apply_override(tree: dict[str, Any], override: str) -> None:
    """Set one `section.key=value` in a config's tree. Raises UserError if malformed."""
    key, equals, text = override.partition("=")
    parts = key.strip().split(".")
    if not equals or not all(parts) or len(parts) > 2:
        raise UserError(f"--set {override}: expected section.key=value, for example train.lr=1e-4")
    try:
        value = read_yaml(text)
    except FAULTS as error:
        raise UserError(f"--set {override}: '{text}' is not a YAML value") from error
    node = tree
    if len(parts) == 1 and isinstance(tree.get(parts[0]), dict):
        raise UserError(f"--set {override}: '{parts[0]}' is a section; set its keys one by one")
    if len(parts) == 2:
        node = tree.setdefault(parts[0], {})
        if not isinstance(node, dict):
            raise UserError(f"--set {override}: '{parts[0]}' is not a section")
    node[parts[-1]] = value


def validate(tree: dict[str, Any], where: str, names: Mapping[str, str] | None = None) -> Config:
    """Make a checked config from a plain dict. Raises UserError: one line for the first fault.

    Args:
        tree: sections of keys.
        where: where they are from, for messages.
        names: what a message calls a key `section.key`, where it is from a file of another form.
    """
    try:
        # Through JSON: only there does strict mode accept a list for a tuple.
        return Config.model_validate_json(json.dumps(tree, default=str), strict=True)
    except ValidationError as error:
        raise UserError(f"{where}: {_first_fault(error, names or {})}") from error
    except (TypeError, ValueError, RecursionError) as error:  # a date as a key, an alias of itself
        raise UserError(f"{where}: holds what no config can ({str(error)[:200]})") from error


def _first_fault(error: ValidationError, names: Mapping[str, str]) -> str:
    fault = error.errors()[0]
    parts = [str(part) for part in fault["loc"]]
    known = names.get(".".join(parts[:2]))
    key = ".".join(parts if known is None else [known, *parts[2:]])
    if fault["type"] == "extra_forbidden":
        section: Any = Config
        for part in fault["loc"][:-1]:
            section = section.model_fields[str(part)].annotation
        last = str(fault["loc"][-1])
        return f"key '{key}' is not known{nearest(last, list(section.model_fields))}"
    message = fault["msg"].removeprefix("Value error, ")
    value = repr(fault["input"])
    shown = value if len(value) <= 100 else f"{value[:97]}..."
    given = f" (given: {shown})" if key and not isinstance(fault["input"], dict) else ""
    return f"{key}: {message}{given}" if key else message
