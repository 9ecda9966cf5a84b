"""Model cards: the README.md of a folder of samples, of a zoo model, and of a converted model.

Made from the records alone (manifest, config, files of scores), without times, so that every
resume, every part and both panels write the same text. What no record holds is said to be unknown:
neither a licence nor a score is ever made up.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from diptych.backends import TITLES
from diptych.config.load import Config
from diptych.config.size import size_text
from diptych.files import read_json, write_text
from diptych.runs.status import scores_in

NAME = "README.md"
UNKNOWN = "unknown: no record says it. Whoever publishes this decides it, and adds it here"
KINDS = {"ema": "moving average (EMA)", "raw": "as trained (not the moving average)",
         "file": "from a file that does not say whether they are averaged"}  # fmt: skip
# The head by which the Hugging Face hub files a model.
HUB = """\
---
license: {licence}
library_name: diffusers
pipeline_tag: unconditional-image-generation
tags:
- diffusers
- unconditional-image-generation
- ddpm
- ddim
- diptych
---

"""


def write_samples_card(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Write the card of a folder of samples; one that is there, and perhaps edited, stays."""
    if not (folder / NAME).exists():
        write_text(folder / NAME, samples_card(manifest))


def samples_card(manifest: Mapping[str, Any]) -> str:
    """The card of a folder of samples, from its manifest; missing entries are passed over."""
    config = manifest["config"]
    rows = [
        ("images", f"{manifest['num']}, of {_size(config)} (channels, height, width)"),
        ("weights", _weights(manifest)),
        ("training data of these weights", f"`{config['data.source']}`, as their config says"),
        ("sampler", _sampler(manifest)),
        ("seed, batch", f"{manifest['seed']}, {manifest['batch']}"),
        ("drawn by", f"{manifest['backend']}, {manifest['precision']}"),
        ("scores", "none yet: `diptych evaluate` scores this folder"),
        ("licence", f"{UNKNOWN}. It follows from those of the weights and their training data"),
    ]
    return _page(
        f"{manifest['num']} images drawn by Diptych",
        rows,
        "`manifest.json` holds every setting and the machine. Image i depends on the weights, the "
        "sampler, the seed and i alone.",
        ["diptych evaluate FOLDER --reference REFERENCE    # this folder against real pictures"],
    )


def model_card(
    config: Config,
    facts: Mapping[str, Any],
    parameters: int,
    *,
    title: str,
    commands: Sequence[str],
    manifest: Mapping[str, Any] | None = None,
    sampler: Mapping[str, Any] | None = None,
    scores: Sequence[Mapping[str, Any]] = (),
    licence: str | None = None,
    hub: bool = False,
) -> str:
    """The card of trained weights.

    Args:
        config: of the network.
        facts: `weights`, `weights_sha256` and `weights_from`, as in manifests.
        parameters: how many numbers the weights are.
        title: the card's heading.
        commands: how to use it, as lines of a shell.
        manifest: of the training's checkpoint; None: nothing is recorded about the training.
        sampler: the recommended one; None: none is recommended.
        scores: of these weights, as in files of `diptych evaluate --out`.
        licence: an SPDX name in lower case; None: unknown.
        hub: begin with the head by which the Hugging Face hub files a model.
    """
    model, noise = config.model, config.diffusion
    rows = [
        (
            "network",
            f"U-Net of the official DDIM code, {model.ch} channels x {list(model.ch_mult)}, "
            f"{parameters:,} parameters; predicts {noise.objective}",
        ),
        ("images", f"{config.data.channels}x{config.data.size_text}"),
        ("noise", f"{noise.schedule}, {noise.timesteps} timesteps"),
        ("weights", _weights(facts)),
        ("training", _training(config, manifest)),
        ("sampler", _recommended(sampler)),
        ("scores", "; ".join(map(_score, scores)) or "none recorded"),
        ("licence", UNKNOWN if licence is None else licence.upper()),
    ]
    if model.num_classes:
        rows.insert(2, ("classes", str(model.num_classes)))
    page = _page(title, rows, "", commands)
    return HUB.format(licence=licence or "unknown") + page if hub else page


def training_records(checkpoint: Path, sha256: str) -> tuple[Any, list[dict[str, Any]]]:
    """The manifest of a checkpoint folder (None if it has none), and the scores of its weights that
    lie in its run."""
    if not (checkpoint / "manifest.json").is_file():
        return None, []
    manifest = read_json(checkpoint / "manifest.json")
    if checkpoint.parent.name != "checkpoints":
        return manifest, []
    run = checkpoint.parent.parent
    found = [
        score
        for path in sorted([*run.glob("*.json"), *run.glob("*/*.json")])
        for score in scores_in(path)
        if score["subject"].get("weights_sha256") == sha256
    ]
    return manifest, found


def _page(title: str, rows: Sequence[tuple[str, str]], note: str, commands: Sequence[str]) -> str:
    table = [f"| {key} | {value} |" for key, value in rows]
    lines = [f"# {title}", "", "| | |", "|---|---|", *table, ""]
    lines += [note, ""] if note else []
    return "\n".join([*lines, "```bash", *commands, "```", ""])


def _size(config: Mapping[str, Any]) -> str:
    return f"{config['data.channels']}x{size_text(config['data.image_size'])}"


def _weights(facts: Mapping[str, Any]) -> str:
    kind = KINDS.get(facts.get("weights", ""), "of unknown kind")
    return f"`{facts.get('weights_from', 'unnamed')}`, {kind}, sha256 `{facts['weights_sha256']}`"


def _sampler(manifest: Mapping[str, Any]) -> str:
    words = [f"{manifest['solver']}, {manifest['steps']} steps"]
    for key in ("eta", "spacing", "order", "clip", "threshold", "classes", "guidance", "guide",
                "guidance_interval", "noise"):  # fmt: skip
        value = manifest.get(key)
        if key == "classes" and value:
            value = " ".join(map(str, value[:10])) + (" ..." if len(value) > 10 else "")
        if value is not None and value is not False:
            words.append(f"{key} {value}")
    return ", ".join(words)


def _recommended(sampler: Mapping[str, Any] | None) -> str:
    if not sampler:
        return "none recommended"
    return ", ".join(f"{key} {value}" for key, value in sampler.items())


def _training(config: Config, manifest: Mapping[str, Any] | None) -> str:
    """A line on the training, if a checkpoint of Diptych records it."""
    if manifest is None or "step" not in manifest:
        return "not recorded in the weights"
    train = config.train
    by = TITLES.get(manifest.get("backend", ""), "")
    version = f" {manifest['framework_version']}" if "framework_version" in manifest else ""
    where = f" in {by}{version}" if by else ""
    return (
        f"{manifest['step']:,} steps of {train.batch_size} images of `{config.data.source}`"
        f"{where}, learning rate {train.lr:g}, EMA {train.ema_rate:g}, seed {config.seed}"
    )


def _score(score: Mapping[str, Any]) -> str:
    return f"{score['metric']} {score['value']:.6g} ({len(score['repeats'])} sets of images)"
