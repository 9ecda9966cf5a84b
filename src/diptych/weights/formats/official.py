"""Read configs of the official DDIM repository (ermongroup/ddim) into ours.

    data, model, diffusion, training, sampling, optim  ->  data, model, diffusion, train

Every key is honoured, or refused by name, or has no meaning here (`_NO_MEANING`, with the reason).
Fixed in their training, without a key: the loss is summed over pixels, Adam's beta2 is 0.999, there
is no learning-rate warm-up, and without `optim.grad_clip` gradients are not clipped. For sampling
only, pass `for_training=False`: then keys that only training uses may be missing, unknown or
unsupported, and stay at our defaults.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from diptych.config.load import (
    Config,
    apply_override,
    is_there,
    load_config,
    preset_names,
    read_tree,
    validate,
)
from diptych.errors import UserError, nearest

Tree = dict[str, Any]


# Their key -> ours.
_HONOURED = {
    "data.image_size": "data.image_size",
    "data.channels": "data.channels",
    "data.random_flip": "data.random_flip",
    "data.rescaled": "data.rescaled",
    "data.logit_transform": "data.logit_transform",
    "model.ch": "model.ch",
    "model.ch_mult": "model.ch_mult",
    "model.num_res_blocks": "model.num_res_blocks",
    "model.attn_resolutions": "model.attn_resolutions",
    "model.dropout": "model.dropout",
    "model.resamp_with_conv": "model.resamp_with_conv",
    "model.ema_rate": "train.ema_rate",
    "diffusion.beta_schedule": "diffusion.schedule",
    "diffusion.beta_start": "diffusion.beta_start",
    "diffusion.beta_end": "diffusion.beta_end",
    "diffusion.num_diffusion_timesteps": "diffusion.timesteps",
    "training.batch_size": "train.batch_size",
    "training.n_epochs": "train.epochs",
    "training.snapshot_freq": "train.checkpoint_every",
    "optim.lr": "train.lr",
    "optim.beta1": "train.beta1",
    "optim.eps": "train.eps",
    "optim.grad_clip": "train.grad_clip",
}
# Their key -> (the only supported value, the reason).
_ONLY: dict[str, tuple[object, str]] = {
    "model.type": ("simple", "there is no other network"),
    "model.ema": (True, "training always keeps an EMA"),
    "optim.optimizer": ("Adam", "there is no other optimizer"),
    "optim.weight_decay": (0.0, "Adam runs without weight decay"),
    "optim.amsgrad": (False, "Adam runs without AMSGrad"),
}
# Accepted and ignored: the official code does not read them either, or they affect no number.
_NO_MEANING = frozenset({
    "data.num_workers",  # batches are a function of the step, whatever the number of workers
    "model.var_type",  # the sampler's sigma is chosen when sampling
    "training.n_iters",  # the official loop counts epochs
    "training.validation_freq",  # the official loop never validates
    "sampling.batch_size",  # chosen when sampling; an image does not depend on it
    "sampling.last_only",
    "sampling.ckpt_id",  # the checkpoint is chosen by its path
})  # fmt: skip
_DEQUANTIZATION = ("data.uniform_dequantization", "data.gaussian_dequantization")
_MATCHED = ("data.dataset", "data.category", "model.in_channels", "model.out_ch", *_DEQUANTIZATION)
_KNOWN = [*_HONOURED, *_ONLY, *sorted(_NO_MEANING), *_MATCHED]
_OPTIONAL = _NO_MEANING | {"data.category", "optim.grad_clip"}
_TRAINING_ONLY = frozenset({
    "data.dataset", "data.category", "data.random_flip", "data.uniform_dequantization",
    "data.gaussian_dequantization", "model.dropout", "model.ema", "model.ema_rate",
})  # fmt: skip
_DATASETS = {"cifar10": "cifar10", "celeba": "celeba", "ffhq": "ffhq", "mnist": "mnist",
             "fashionmnist": "fashion_mnist", "lsun": "lsun"}  # fmt: skip


def is_official(tree: Tree) -> bool:
    """True if a config's keys are in the official format rather than ours."""
    theirs = {"training", "optim", "sampling", "diffusion.beta_schedule", "data.dataset",
              "diffusion.num_diffusion_timesteps", "model.out_ch", "model.type"}  # fmt: skip
    ours = {"train", "seed", "diffusion.schedule", "diffusion.timesteps", "data.source"}
    present = set(tree)
    for section in ("data", "model", "diffusion"):
        if isinstance(values := tree.get(section), dict):
            present |= {f"{section}.{key}" for key in values}
    return len(present & theirs) > len(present & ours)


def read_config(
    path_or_name: str, overrides: Sequence[str] = (), *, for_training: bool = True
) -> Config:
    """Read a preset by name, or a YAML file in our or the official format, recognised by its keys.

    The overrides use our keys, `section.key=value`, for either format.

    Raises:
        UserError: as `load_config` and `from_official`.
    """
    name = str(path_or_name)
    if name in preset_names():
        return load_config(name, list(overrides))
    if is_there(Path(name)) and is_official(tree := read_tree(Path(name))):
        config = from_official(tree, name, for_training=for_training)
        changed = config.model_dump(mode="json")
        for override in overrides:
            apply_override(changed, override)
        return validate(changed, name) if overrides else config
    return load_config(name, list(overrides))


def from_official(tree: Tree, where: str, *, for_training: bool = True) -> Config:
    """Convert an official config to ours.

    Args:
        tree: the YAML file as a dict.
        where: the file's name, for messages.
        for_training: False if only the network and the noise matter (sampling from given
            weights): unsupported training keys then stay at our defaults.

    Raises:
        UserError: the first key that is missing, unknown, out of range, or unsupported.
    """
    flat = _flat(tree, where)
    for key, value in flat.items():
        if for_training or not _only_trains(key):
            _check(key, value, where)
    for key in _KNOWN:
        optional = key in _OPTIONAL or (not for_training and _only_trains(key))
        if key not in flat and not optional:
            raise UserError(f"{where}: key '{key}' is missing; the official form needs it")
    for key in ("model.in_channels", "model.out_ch"):
        if flat[key] != flat["data.channels"]:
            raise UserError(
                f"{where}: {key} is {flat[key]!r} but data.channels is {flat['data.channels']!r}; "
                "the network here takes and gives images of the same channels"
            )
    ours: Tree = {"data": {}, "model": {}, "diffusion": {}, "train": {}}
    for key, target in _HONOURED.items():
        if key in flat and (for_training or not _only_trains(key) or _sound(target, flat[key])):
            section, name = target.split(".")
            ours[section][name] = flat[key]
    ours["data"]["dequantization"] = _dequantization(flat, where, for_training)
    ours["data"].update(source=_source(flat, where, for_training), split="train")
    ours["train"].update(loss="sum", warmup_steps=0, beta2=0.999)
    ours["train"].setdefault("grad_clip", None)
    theirs = {**_HONOURED, "data.dataset": "data.source"}
    return validate(ours, where, {key: name for name, key in theirs.items()})


def _flat(tree: Tree, where: str) -> Tree:
    """Flatten to {"data.channels": 3, ...}; refuse unknown sections and nested values."""
    sections = ["data", "model", "diffusion", "training", "sampling", "optim"]
    flat: Tree = {}
    for section, values in tree.items():
        if section not in sections:
            raise UserError(
                f"{where}: section '{section}' is not of the official form"
                f"{nearest(str(section), sections)}"
            )
        if not isinstance(values, dict):
            raise UserError(f"{where}: section '{section}' is not a mapping of keys to values")
        for key, value in values.items():
            items = value if isinstance(value, list) else [value]
            if not all(isinstance(item, (str, int, float, type(None))) for item in items):
                raise UserError(f"{where}: {section}.{key} is not a value or a list of values")
            flat[f"{section}.{key}"] = value
    return flat


def _only_trains(key: str) -> bool:
    return key in _TRAINING_ONLY or key.startswith(("training.", "optim."))


def _check(key: str, value: object, where: str) -> None:
    if key not in _KNOWN and not key.startswith("sampling."):
        raise UserError(f"{where}: key '{key}' is not of the official form{nearest(key, _KNOWN)}")
    if key == "model.var_type" and value not in ("fixedlarge", "fixedsmall"):
        raise UserError(f"{where}: {key} is {value!r}; expected fixedlarge or fixedsmall")
    if key not in _ONLY:
        return
    wanted, reason = _ONLY[key]
    if value != wanted or isinstance(value, bool) != isinstance(wanted, bool):
        shown = str(wanted).lower() if isinstance(wanted, bool) else wanted
        raise UserError(
            f"{where}: {key} is {value!r}, which cannot be honoured: {reason} ({shown})"
        )


def _source(flat: Tree, where: str, for_training: bool) -> str:
    """Our name of the data set; for LSUN followed by its category."""
    dataset, category = flat.get("data.dataset"), flat.get("data.category")
    source = _DATASETS.get(str(dataset).lower())
    if source == "lsun" and isinstance(category, str) and category:
        return f"lsun_{category}"
    if not for_training:
        return source or (dataset if isinstance(dataset, str) and dataset else "unknown")
    if source is None:
        known = nearest(str(dataset), [name.upper() for name in _DATASETS])
        raise UserError(f"{where}: data.dataset {dataset!r} is not known{known}")
    if source == "lsun":
        raise UserError(f"{where}: data.category is missing; LSUN needs it, for example bedroom")
    if category is not None:
        raise UserError(f"{where}: data.category has a meaning for LSUN only, not {dataset}")
    return source


def _dequantization(flat: Tree, where: str, for_training: bool) -> str:
    """Merge their two switches into our one. Only the uniform one affects the pixels of samples."""
    if not for_training:
        return "uniform" if flat.get("data.uniform_dequantization") is True else "none"
    on = []
    for key in _DEQUANTIZATION:
        if not isinstance(flat.get(key, False), bool):
            raise UserError(f"{where}: {key} is {flat[key]!r}; expected true or false")
        if flat.get(key, False):
            on.append(key)
    if len(on) == 2:
        raise UserError(f"{where}: {on[0]} and {on[1]} are both on; choose one")
    return on[0].split(".")[1].split("_")[0] if on else "none"


def _sound(target: str, value: object) -> bool:
    """True if our key accepts this value, with all others at their defaults."""
    section, name = target.split(".")
    try:
        validate({section: {name: value}}, "")
    except UserError:
        return False
    return True
