"""The metrics of a collected sample set: values and accompanying fields.

A metric on a classifier's features carries that classifier's name ("mnist-frechet"), never FID.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from diptych.evaluation.collect import Collected
from diptych.evaluation.feature_network import Extractor
from diptych.evaluation.frechet import frechet_distance
from diptych.evaluation.inception_score import SEED as SCORE_SEED
from diptych.evaluation.inception_score import SPLITS, inception_score
from diptych.evaluation.kid import SEED as KERNEL_SEED
from diptych.evaluation.kid import SUBSET_SIZE, SUBSETS, kernel_distance
from diptych.evaluation.neighbours import K, neighbours
from diptych.evaluation.protocol import Protocol
from diptych.evaluation.reference import Reference
from diptych.evaluation.score import split_half
from diptych.evaluation.sets import Settings
from diptych.evaluation.statistics import Statistics


@dataclass(frozen=True)
class Context:
    """Settings and reference shared by all sample sets."""

    settings: Settings
    metrics: tuple[str, ...]
    protocol: Protocol
    extractor: Extractor
    reference: Reference | None


def score_name(features: str, metric: str) -> str:
    """A metric's name on these features: "fid" only applies to Inception."""
    if features == "inception":
        return metric
    own = {"fid": "frechet"}.get(metric, metric)
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


def _reference(context: Context) -> Reference:
    assert context.reference is not None  # `evaluate` has refused a missing one
    return context.reference
