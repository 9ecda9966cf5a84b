"""The metrics of a collected sample set: values and accompanying fields.

A metric on a classifier's features carries that classifier's name ("mnist-frechet"), never FID.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from diptych.evaluation.collect import Collected
from diptych.evaluation.feature_network import Extractor
from diptych.evaluation.fid_infinity import PARTS, extrapolate
from diptych.evaluation.fid_infinity import SEED as EXTRAPOLATION_SEED
from diptych.evaluation.frechet import frechet_distance
from diptych.evaluation.inception_score import SEED as SCORE_SEED
from diptych.evaluation.inception_score import SPLITS, inception_score
from diptych.evaluation.kid import SEED as KERNEL_SEED
from diptych.evaluation.kid import SUBSET_SIZE, SUBSETS, kernel_distance
from diptych.evaluation.memorisation import memorisation
from diptych.evaluation.neighbours import K, neighbours
from diptych.evaluation.protocol import Protocol
from diptych.evaluation.reference import Reference
from diptych.evaluation.score import PIXELS, split_half
from diptych.evaluation.sets import Settings
from diptych.evaluation.statistics import Moments, Statistics
from diptych.evaluation.training_distances import Training, check_size
from diptych.types import Floating


@dataclass(frozen=True)
class Context:
    """Settings and reference shared by all sample sets."""

    settings: Settings
    metrics: tuple[str, ...]
    protocol: Protocol
    extractor: Extractor
    reference: Reference | None
    training: Training | None = None


def score_name(features: str, metric: str) -> str:
    """A metric's name on these features: "fid" only applies to Inception, and pixels to none."""
    if metric.startswith(PIXELS):
        return metric
    if features == "inception":
        return metric
    own = {"fid": "frechet", "fid-infinity": "frechet-infinity"}.get(metric, metric)
    return f"{features.replace('_', '-')}-{own}"


Measured = dict[str, tuple[float, dict[str, Any]]]


def measure(context: Context, collected: Collected, metric: str) -> Measured:
    """Names, values and further fields of a metric's scores."""
    measures: dict[str, Callable[[Context, Collected], Measured]] = {
        "fid": lambda c, x: _frechet(c, x, "fid", "pool"),
        "sfid": lambda c, x: _frechet(c, x, "sfid", "spatial"),
        "kid": _kernel,
        "is": _inception,
        "prdc": _neighbours,
        "fid-infinity": _infinity,
        "memorization": _memorisation,
    }
    return measures[metric](context, collected)


def _frechet(context: Context, collected: Collected, name: str, kind: str) -> Measured:
    real = _reference(context)
    target, rows = real.moments[kind], real.rows.get(kind)
    moments = context.protocol.rounded

    def distance(statistics: Statistics, features: Any = None) -> float:
        return frechet_distance(moments(statistics.moments()), target, features, rows)

    whole = distance(collected.statistics(kind), collected.rows.get(kind))
    halves = collected.halves[kind]
    if min(half.n for half in halves) < 2:
        return {name: (whole, {})}
    own = collected.rows.get(kind)
    parts = [distance(half, None if own is None else own[i::2]) for i, half in enumerate(halves)]
    return {name: (whole, {"split_half": split_half(whole, parts)})}


def _kernel(context: Context, collected: Collected) -> Measured:
    real, own = _reference(context).rows["pool"], collected.rows["pool"]
    size = min(SUBSET_SIZE, len(real), len(own))
    found = kernel_distance(own, real, subset_size=size)
    settings = {"kid.subsets": SUBSETS, "kid.subset_size": size, "kid.seed": KERNEL_SEED}
    return {"kid": (found.mean, {"std": found.std, "settings": settings})}


def _inception(context: Context, collected: Collected) -> Measured:
    found = inception_score(collected.rows["logits"])
    settings = {"is.splits": SPLITS, "is.shuffle_seed": SCORE_SEED}
    return {"is": (found.mean, {"std": found.std, "settings": settings})}


def _neighbours(context: Context, collected: Collected) -> Measured:
    found = neighbours(_reference(context).rows["pool"], collected.rows["pool"])
    settings = {"prdc.k": K}
    return {name: (value, {"settings": settings}) for name, value in asdict(found).items()}


def _infinity(context: Context, collected: Collected) -> Measured:
    real = _reference(context)
    target, rows = real.moments["pool"], real.rows.get("pool")

    def distance(part: Floating) -> float:
        # Not the exact sums of `statistics`: fifteen take minutes with 2,048 dimensions.
        centred = part - part.mean(axis=0, dtype=np.float64)
        mean, cov = part.mean(axis=0, dtype=np.float64), centred.T @ centred / (len(part) - 1)
        moments = context.protocol.rounded(Moments(len(part), mean, cov))
        return frechet_distance(moments, target, part, rows)

    found = extrapolate(collected.rows["pool"], distance)
    details: dict[str, Any] = {"standard_error": found.standard_error}
    details |= {"sizes": list(found.sizes), "means": list(found.means)}
    settings = {"infinity.parts": PARTS, "infinity.seed": EXTRAPOLATION_SEED}
    extra = {"within": found.interval, "details": details, "settings": settings}
    return {"fid-infinity": (found.value, extra)}


def _memorisation(context: Context, collected: Collected) -> Measured:
    training, images = context.training, collected.pixels
    assert training is not None and images is not None  # `evaluate` has opened and collected them
    found: Measured = {}
    for space in training.spaces:
        check_size(images, space.training, "samples")
        known = collected.rows["pool"] if space.name == "features" else None
        distances = space.distances(images, known)
        assert space.held_out is not None and space.cells is not None
        prefix = PIXELS if space.name == "pixels" else ""
        for name, (value, extra) in memorisation(distances, space.held_out, space.cells).items():
            found[prefix + name] = (value, extra | {"settings": training.facts})
    return found


def _reference(context: Context) -> Reference:
    assert context.reference is not None  # `evaluate` has refused a missing one
    return context.reference
