"""The guide of a sampler: which model it is, and which models it can guide."""

from __future__ import annotations

from typing import Any

import numpy as np

from diptych.config.load import Config
from diptych.diffusion.schedule import make_schedule
from diptych.errors import UserError
from diptych.weights.find import Source, find_weights

SAME = ("image_size", "channels", "rescaled", "logit_transform")


def find_guide(name: str, config: Config) -> Source:
    """The weights of a guide, which fit a model of this config. Loads no framework.

    Raises:
        UserError: as `find_weights`, or it cannot guide this model; it names the guide.
    """
    if not name:
        raise UserError("guide: no model is named; give a run, a folder or zoo:NAME/guide, or none")
    try:
        found = find_weights(name)
    except UserError as error:
        said = str(error).replace("give --config", "make a folder of it with diptych convert")
        raise UserError(f"guide {said.removeprefix('guide ')}") from error
    check_guide(name, config, found.config)
    return found


def guide_facts(name: str | None, config: Config) -> dict[str, Any]:
    """The manifest's entry on a guide's weights, and None for none; raises as `find_guide`."""
    sha = None if name is None else find_guide(name, config).facts()["weights_sha256"]
    return {"guide_sha256": sha}


def check_guide(name: str, config: Config, guide: Config) -> None:
    """Refuse a guide of other images, classes or noise than the model's.

    Objectives may differ, since predictions are compared as noise, and a guide without classes
    guides every class.

    Raises:
        UserError: the first difference.
    """
    for key in SAME:
        ours, theirs = getattr(config.data, key), getattr(guide.data, key)
        if ours != theirs:
            raise UserError(
                f"guide {name}: data.{key} is {theirs}, the model's is {ours}; give a model of the "
                f"same images"
            )
    count, classes = config.model.num_classes, guide.model.num_classes
    if count and classes not in (0, count):
        raise UserError(f"guide {name}: {classes} classes, the model has {count}; give another")
    a, b = make_schedule(config.diffusion), make_schedule(guide.diffusion)
    if not np.array_equal(a.alpha, b.alpha):
        raise UserError(
            f"guide {name}: has another noise schedule than the model (diffusion.schedule, beta or "
            f"timesteps); give one trained with the same"
        )
