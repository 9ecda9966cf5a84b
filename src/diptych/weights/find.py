"""Find weights in runs, checkpoints, the zoo, published files and other libraries' formats."""

from __future__ import annotations

from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any

from diptych.config.load import Config, flatten, load_config
from diptych.errors import MachineError, UserError, nearest
from diptych.files import check_path, read_json
from diptych.network.parameters import check_weights
from diptych.network.plan import make_plan
from diptych.runs import checkpoint
from diptych.types import Weights
from diptych.weights import pretrained
from diptych.weights.formats import is_diffusers, read_config, read_foreign

# What a network computes depends on these settings of the data.
GUIDE = "guide"  # a zoo model's folder may hold the model that guides it
PIXELS = ("data.image_size", "data.channels", "data.rescaled", "data.logit_transform")


@dataclass(frozen=True)
class Source:
    """Weights with their place, their kind and the config of their network."""

    path: Path
    config: Config
    weights: Weights
    kind: str  # "ema", "raw", or "file" if the file does not say
    sampler: dict[str, Any] | None = None  # recommended by a manifest or a scheduler
    note: str | None = None  # settings ignored or assumed, for people

    def facts(self) -> dict[str, Any]:
        """The entries of a manifest that describe the weights."""
        return {
            "weights": self.kind,
            "weights_sha256": checkpoint.weights_sha256(self.weights),
            "weights_from": self.path.name,
        }


def zoo_names() -> list[str]:
    """The names of the trained models in the package."""
    return sorted(p.name for p in zoo_folder().iterdir() if (p / "manifest.json").is_file())


def zoo_folder() -> Path:
    """The folder of the trained models in the package."""
    return Path(str(resources.files("diptych.weights") / "zoo"))


def trained_by(source: str | Path) -> str | None:
    """The backend that trained a run, checkpoint, saved or zoo model; None if no record says."""
    text = str(source)
    try:
        path = zoo_model(text) if text.startswith("zoo:") else Path(text)
        if not (path / "manifest.json").is_file():
            if not (path / "config.yaml").is_file():
                return None
            path = checkpoint.latest(path)
        manifest = read_json(path / "manifest.json")
    except (UserError, MachineError, OSError, ValueError):  # reported where the model is loaded
        return None
    found = manifest.get("backend")
    return found if isinstance(found, str) and "files" in manifest else None  # else: of samples


def find_weights(
    source: str, config: Config | None = None, raw: bool = False, own_network: bool = False
) -> Source:
    """Load weights from a run, a checkpoint folder, `zoo:NAME`, `pretrained:NAME`, a weights file
    or a diffusers folder.

    Args:
        source: the place of the weights. A run gives its newest checkpoint.
        config: the network's config; required if `source` is a file without one.
        raw: load the weights as trained instead of their moving average.
        own_network: the weights belong to a user-defined network, which checks them later.

    Raises:
        UserError: not found, damaged, containing code, or of another network.
    """
    if own_network and not Path(source).is_dir():
        raise UserError(f"{source}: no run, checkpoint or saved model of a network of one's own")
    if source.startswith("pretrained:"):
        return _pretrained(source.removeprefix("pretrained:"), config, raw)
    path = zoo_model(source) if source.startswith("zoo:") else Path(source)
    check_path(path)
    if (path / "config.yaml").is_file() and not (path / "manifest.json").is_file():
        own, folder = path / "config.yaml", checkpoint.latest(path)
    elif (path / "manifest.json").is_file():
        folder = path
        places = [p / "config.yaml" for p in (path, path.parent.parent)]
        own = next((place for place in places if place.is_file()), path)
    elif (path.exists() and not path.is_dir()) or (path.is_dir() and is_diffusers(path)):
        return _from_file(path, config, raw)
    elif path.exists():
        raise UserError(
            f"{path}: is not a run, a checkpoint or a folder of diffusers (no config.yaml, "
            f"manifest.json, model_index.json or config.json of a UNet2DModel){_inside(path)}"
        )
    else:
        raise UserError(f"{path}: not found; give a run, a checkpoint, a weights file or zoo:NAME")
    kept = None  # a config found beside the checkpoint must be the one it was trained with
    if config is None:
        if not own.is_file():
            raise UserError(
                f"{path}: no config.yaml beside this checkpoint; give one with --config"
            )
        kept = config = load_config(str(own))
    elif own.is_file() and not own_network:
        _check_alike(config, own)
    manifest = checkpoint.read_manifest(folder, kept)
    group = "raw" if raw else "ema"
    held = list(manifest.get("files", {}))
    if held == ["raw.safetensors"]:
        group = "raw"  # `Model.save` had no EMA weights
    if raw and held == ["ema.safetensors"]:
        raise UserError(f"{source}: holds moving averages alone; leave out --raw")
    plan = None if own_network else make_plan(config)
    weights = checkpoint.load_weights(folder, group, plan, kept)
    kind = "file" if manifest.get("weights") == "file" else group
    return Source(folder, config, weights, kind, manifest.get("sampler"))


def _check_alike(config: Config, own: Path) -> None:
    """Refuse a given config with which these weights compute something else than was trained."""
    there = flatten(load_config(str(own)))
    for key, value in flatten(config).items():
        means = key.startswith(("model.", "diffusion.")) or key in PIXELS
        if means and key != "model.dropout" and there[key] != value:
            raise UserError(
                f"{own}: the weights were trained with {key}={there[key]}, and the given config "
                f"has {value}; leave it out, as that file is taken then"
            )


def _inside(path: Path) -> str:
    """A hint, for a message, at the content of a folder that can be given instead."""
    steps = [p for p in path.glob("checkpoint-*") if p.is_dir() and is_diffusers(p)]
    if steps:
        newest = max(steps, key=lambda p: (len(p.name), p.name))
        return f"; it holds checkpoints of a training with diffusers: give {newest}"
    endings = (".safetensors", ".index.json", ".bin", ".ckpt", ".pth", ".pt", ".pkl")
    files = sorted(p for p in path.glob("*") if p.name.endswith(endings) and p.is_file())
    indices = [p for p in files if p.name.endswith(".index.json")]
    return f"; give {(indices or files)[0]}, with --config" if files else ""


def zoo_model(source: str) -> Path:
    """The folder of a model of the zoo, `zoo:NAME`, or of its guide, `zoo:NAME/guide`.

    Raises:
        UserError: there is no such model, or it has no guide.
    """
    name, slash, rest = source.removeprefix("zoo:").partition("/")
    if name not in zoo_names():
        raise UserError(f"zoo model '{name}' is not known{nearest(name, zoo_names())}")
    folder = zoo_folder() / name / rest
    if slash and not (rest == GUIDE and (folder / "manifest.json").is_file()):
        raise UserError(f"{source}: zoo:{name} holds no such model; leave out /{rest}")
    return folder


def _pretrained(name: str, config: Config | None, raw: bool) -> Source:
    """Load published weights, with the matching official config; their name says EMA or raw."""
    model = pretrained.known(name)
    if raw and model.ema:
        other = name.removeprefix("ema_")
        raise UserError(f"pretrained:{name}: are moving averages; the raw are pretrained:{other}")
    if config is None:
        own = pretrained.official_config(model.config)
        config = read_config(str(own), for_training=False)
    found = _from_file(pretrained.fetch(name), config, raw=False)
    return replace(found, kind="ema" if model.ema else "raw")


def _from_file(path: Path, config: Config | None, raw: bool) -> Source:
    found = read_foreign(path, raw)
    config = found.fitted(config, path)
    check_weights(make_plan(config), found.weights, str(path))
    kind = "file" if found.ema is None else "ema" if found.ema else "raw"
    return Source(path, config, found.weights, kind, found.sampler, found.note)
