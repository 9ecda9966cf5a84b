"""The official code's training checkpoint: [model, optimizer, epoch, step, ema].

    model        `module.NAME` -> weight as trained            (DataParallel's names)
    optimizer    {"state": {i: {"step", "exp_avg", "exp_avg_sq"}}, "param_groups": [...]}
    ema          NAME -> moving average

Adam's moments are numbered in the order of the network's parameters, which is the order of the
names in `model`; so they are read and written strictly, and a run resumes where the official code
stopped.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from diptych.backends.protocol import State
from diptych.config.load import Config
from diptych.errors import UserError
from diptych.network.parameters import check_weights, parameter_table
from diptych.network.plan import Plan, make_plan
from diptych.types import Weights
from diptych.weights.pickle.files import read_pickle_weights

_PREFIX = "module."
_WRAPPERS = re.compile(r"^(module\.|_orig_mod\.)+")  # DataParallel, torch.compile


def read_training_list(path: Path, plan: Plan) -> State:
    """Read the complete state of an official training and check it against the network's plan.

    Raises:
        UserError: another kind of file, another network, no EMA, or moments that do not match.
    """
    tree = read_pickle_weights(path)
    if not isinstance(tree, (list, tuple)) or len(tree) not in (4, 5):
        raise UserError(
            f"{path}: is not a training checkpoint of the official DDIM code, the list "
            "[model, optimizer, epoch, step, ema]; weights alone cannot be trained on"
        )
    if len(tree) == 4:
        raise UserError(f"{path}: holds no EMA (model.ema was false); training here keeps one")
    model, optimizer, _, step, ema = tree
    if type(step) is not int or step < 1:
        raise UserError(f"{path}: its step is not a whole number of 1 or more")
    raw, averaged = _weights(model, plan, f"{path}: model"), _weights(ema, plan, f"{path}: ema")
    moments = _moments(optimizer, list(raw), step, path)
    m, v = (
        _weights(dict(zip(raw, part, strict=True)), plan, f"{path}: optimizer") for part in moments
    )
    return State(step, raw, averaged, m, v)


def _weights(found: object, plan: Plan, where: str) -> Weights:
    if not isinstance(found, dict) or not all(isinstance(a, np.ndarray) for a in found.values()):
        raise UserError(f"{where} holds something other than weights by name")
    arrays = {
        _WRAPPERS.sub("", str(name)): np.array(array, np.float32, order="C")
        for name, array in found.items()
    }
    check_weights(plan, arrays, where)
    return {name: arrays[name] for name in parameter_table(plan)}


def _moments(optimizer: object, names: list[str], step: int, path: Path) -> list[list[Any]]:
    """Read Adam's first and second moments in the order of the parameters."""
    state = optimizer.get("state") if isinstance(optimizer, dict) else None
    groups = optimizer.get("param_groups") if isinstance(optimizer, dict) else None
    if not isinstance(state, dict) or not isinstance(groups, list) or len(groups) != 1:
        raise UserError(f"{path}: its optimizer is not Adam with one group of parameters")
    order = groups[0].get("params") if isinstance(groups[0], dict) else None
    if not isinstance(order, list) or len(order) != len(names) or set(order) != set(state):
        raise UserError(
            f"{path}: its optimizer has {len(state)} parameters, the network has {len(names)}"
        )
    if groups[0].get("amsgrad") or groups[0].get("weight_decay"):
        raise UserError(f"{path}: its Adam has AMSGrad or weight decay, which training here lacks")
    found: list[list[Any]] = [[], []]
    for number, name in zip(order, names, strict=True):
        entry = state[number]
        if not isinstance(entry, dict) or not {"step", "exp_avg", "exp_avg_sq"} <= set(entry):
            raise UserError(f"{path}: Adam's state of '{name}' is incomplete")
        if int(entry["step"]) != step:
            raise UserError(
                f"{path}: Adam has taken {int(entry['step'])} steps at '{name}', the training "
                f"{step}; its moments cannot be continued"
            )
        found[0].append(entry["exp_avg"])
        found[1].append(entry["exp_avg_sq"])
    return found


def training_list(state: State, config: Config, epoch: int) -> list[Any]:
    """Build the list that the official code samples from and loads with --resume_training."""
    names, train = list(parameter_table(make_plan(config))), config.train  # the parameters' order
    moments = {
        i: {
            "step": np.array(state.step, np.float32),
            "exp_avg": state.adam_m[name],
            "exp_avg_sq": state.adam_v[name],
        }
        for i, name in enumerate(names)
    }
    group = {
        "lr": train.lr,
        "betas": (train.beta1, train.beta2),
        "eps": train.eps,
        "weight_decay": 0.0,
        "amsgrad": False,
        "params": list(range(len(names))),
    }
    optimizer = {"state": moments, "param_groups": [group]}
    model = {_PREFIX + name: state.raw[name] for name in names}
    return [model, optimizer, epoch, state.step, {name: state.ema[name] for name in names}]
