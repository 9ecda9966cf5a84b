"""Inspect a checkpoint: its format, network, config if known, EMA or raw, hash.

names and shapes -> ch, ch_mult, blocks per level, levels with attention, channels
Image size, norms, noise and training are not in weights: they come from a config beside or inside
the file, or stay open, with a list of the presets that fit.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from diptych.config.load import Config, flatten, load_config, preset_names
from diptych.errors import UserError
from diptych.files import check_path
from diptych.network.parameters import parameter_table
from diptych.network.plan import make_plan
from diptych.runs import checkpoint
from diptych.types import Weights
from diptych.weights.find import find_weights
from diptych.weights.formats import is_diffusers, load_weights, read_foreign
from diptych.weights.formats.layouts import layout_of, whose
from diptych.weights.formats.unwrap import unwrap


def inspect(source: str, raw: bool = False) -> dict[str, Any]:
    """Collect facts about a run, a checkpoint, a weights file or a diffusers folder, for JSON.

    Args:
        source: as in `diptych.weights.find.find_weights`.
        raw: inspect the raw weights if the source has raw and EMA weights.

    Raises:
        UserError: not found, damaged, hostile, or of an unknown format.
    """
    path = Path(source)
    facts: dict[str, Any] = {"source": source}
    check_path(path)
    loaded = load_weights(path, raw=raw) if path.is_file() else None
    if loaded and layout_of(unwrap(loaded.weights, raw, path)[0]) is None:
        library = whose(loaded.weights)
        facts |= {"what": loaded.kind, "layout": library, "weights": _kind(loaded.ema)}
        return facts | _counted(loaded.weights) | {"network": None, "config": None, "fits": []}
    if path.is_file() or (path.is_dir() and is_diffusers(path)):
        found = read_foreign(path, raw)
        facts |= {"what": found.kind, "layout": found.layout, "weights": _kind(found.ema)}
        weights, config, sampler = found.weights, found.config, found.sampler
        facts["note"] = found.note
    else:
        ours = find_weights(source, None, raw)
        what = "run" if (path / "config.yaml").is_file() else source.partition(":")[0]
        facts |= {"what": what if ":" in source or what == "run" else "checkpoint"}
        facts |= {"layout": "official", "weights": ours.kind}
        if (path / "config.yaml").is_file() and ours.path != path:
            facts["checkpoints"] = [p.name for p in checkpoint.all_checkpoints(path)]
        weights, config, sampler = ours.weights, ours.config, ours.sampler
    network = infer(weights)
    facts |= _counted(weights) | {"network": network}
    facts |= {"config": None if config is None else _told(config)}
    return facts | {"fits": fitting(weights) if config is None else [], "sampler": sampler}


def _told(config: Config) -> dict[str, Any]:
    """The known part of a config; if it names no data, its training settings are unknown."""
    flat = flatten(config)
    if config.data.source != "unknown":
        return flat
    keys = ("data.image_size", "data.channels")
    return {k: v for k, v in flat.items() if k in keys or k.startswith(("model.", "diffusion."))}


def _kind(ema: bool | None) -> str:
    return "not said" if ema is None else "ema" if ema else "raw"


def _counted(weights: Weights) -> dict[str, Any]:
    """Sizes and identity, the arrays with NaN or infinity, and the largest finite magnitude."""
    finite = {name: array[np.isfinite(array)] for name, array in weights.items()}
    largest = max(
        (float(np.abs(found).max()) for found in finite.values() if found.size), default=0
    )
    return {
        "not_finite": [name for name, found in finite.items() if found.size < weights[name].size],
        "largest": largest,
        "arrays": len(weights),
        "parameters": sum(array.size for array in weights.values()),
        "weights_sha256": checkpoint.weights_sha256(weights),
    }


def infer(weights: Weights) -> dict[str, Any]:
    """Infer the sizes of an official network from the names and shapes of its weights.

    Raises:
        UserError: the weights are incomplete.
    """
    try:
        ch, channels = weights["conv_in.weight"].shape[:2]
        levels = _numbers(weights, r"down\.(\d+)\.block\.")
        blocks = _numbers(weights, r"down\.0\.block\.(\d+)\.")
        widths = [weights[f"down.{i}.block.0.conv1.weight"].shape[0] for i in levels]
    except (KeyError, ValueError) as error:
        raise UserError(f"the weights are not whole: {error} is missing") from error
    return {
        "channels": channels,
        "ch": ch,
        "ch_mult": [width // ch for width in widths],
        "num_res_blocks": len(blocks),
        "attention_levels": _numbers(weights, r"down\.(\d+)\.attn\."),
        "resamp_with_conv": "down.0.downsample.conv.weight" in weights or len(levels) == 1,
        "num_classes": max(0, len(weights.get("class_embed.weight", ())) - 1),
    }


def _numbers(weights: Weights, pattern: str) -> list[int]:
    return sorted({int(match[1]) for name in weights if (match := re.match(pattern, name))})


def fitting(weights: Weights) -> list[str]:
    """The presets whose network has exactly these weights."""
    shapes = {name: tuple(array.shape) for name, array in weights.items()}

    def fits(config: Config) -> bool:
        table = parameter_table(make_plan(config))
        return {name: parameter.shape for name, parameter in table.items()} == shapes

    return [name for name in preset_names() if fits(load_config(name))]


def render(facts: dict[str, Any]) -> str:
    """Format the facts for people: one per line."""
    lines = [f"{facts['source']}: {facts['what']}"]
    for key in ("layout", "weights", "parameters", "arrays", "weights_sha256"):
        value = facts[key]
        lines.append(f"  {key:15} {f'{value:,}' if isinstance(value, int) else value}")
    lines.append(f"  largest         {facts['largest']:.3g}, the largest magnitude of a weight")
    if names := facts["not_finite"]:
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        lines.append(f"  NOT FINITE      {', '.join(names[:3])}{more}: NaN or infinity")
    for key in ("checkpoints", "sampler", "fits"):
        if facts.get(key):
            value = facts[key]
            items = [f"{k} {v}" for k, v in value.items()] if isinstance(value, dict) else value
            lines.append(f"  {key:15} {', '.join(map(str, items))}")
    if facts.get("note"):
        lines.append(f"  note            {facts['note']}")
    for key in ("network", "config"):
        for name, value in (facts[key] or {}).items():
            lines.append(f"  {key + '.' + name:32} {value}")
    if facts["config"] is None and facts["network"]:
        lines.append(
            "  image size, norm groups and eps, noise and training are not in this file; give a "
            "--config"
        )
    return "\n".join(lines)
