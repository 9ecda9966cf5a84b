"""Scores: numbers with protocol and interval, only comparable under the same protocol.

    interval = mean +- t * sd / sqrt(R)         R >= 3 independent sample sets, Student's t, 95 %
    split-half estimate = 2 F_n - mean(F_n/2)   removes the part of a Frechet distance that is
                                                proportional to 1/n

The bootstrap over images is not used: with 5,000 images and 2,048 dimensions its interval excludes
the estimate itself. The interval covers the sampler's randomness with these weights; training
again with another seed moves a score by more.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from diptych.errors import UserError
from diptych.stats import difference_interval, mean_interval

LEAST_FOR_INTERVAL = 3
# Last words of the metrics of which less is better, and of those that are neither: they are to be
# as those of held-out images. Of the others more is better.
DISTANCES = ("fid", "sfid", "kid", "frechet", "infinity", "copies")
NEITHER = ("authenticity", "ratio", "ct")
PIXELS = "pixel-"  # begins the names of scores for which no feature network is used
# Entries of a protocol that describe the feature network and its input.
OF_NETWORK = ("protocol", "resize", "clip", "scale", "shift", "mean_dtype", "covariance",
              "features_dtype", "extractor", "extractor_sha256")  # fmt: skip


@dataclass(frozen=True, repr=False)
class Score:
    """One metric of one model's samples.

    Attributes:
        metric: its name, such as "fid" or "mnist-frechet".
        value: the number; the mean over `repeats` if there are any.
        protocol: all that must be equal for two scores to be comparable, flat, JSON values.
        repeats: the value of each independent sample set.
        std: spread within one set, over subsets (KID) or parts (IS); None for other metrics.
        split_half: the split-half estimate, mean over `repeats`; None where it does not apply.
        within: the 95 % interval from one set alone, for metrics that have one.
        details: further numbers of a single set, such as the same metric of held-out images.
    """

    metric: str
    value: float
    protocol: Mapping[str, Any]
    repeats: tuple[float, ...] = ()
    std: float | None = None
    split_half: float | None = None
    subject: Mapping[str, Any] = field(default_factory=dict)
    within: tuple[float, float] | None = None
    details: Mapping[str, Any] = field(default_factory=dict)

    @property
    def protocol_id(self) -> str:
        """Twelve hexadecimal digits that identify the protocol."""
        return protocol_id(self.protocol)

    @property
    def interval(self) -> tuple[float, float] | None:
        """The 95 % interval of the value: from three repeats or more, or from a single set if
        the metric has one; else None."""
        if len(self.repeats) < LEAST_FOR_INTERVAL:
            return None if self.repeats else self.within
        return mean_interval(self.repeats)

    def __repr__(self) -> str:
        bounds = self.interval
        within = "" if bounds is None else f", 95 % interval {bounds[0]:.4g} to {bounds[1]:.4g}"
        sets = f"{len(self.repeats)} x " if self.repeats else ""
        num, protocol = self.protocol.get("num"), self.protocol.get("protocol")
        return f"<Score {self.metric} {self.value:.4g}{within} ({sets}{num} images, {protocol})>"

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values, with the id and the interval."""
        found = asdict(self) | {"protocol": dict(self.protocol), "subject": dict(self.subject)}
        found["repeats"] = list(self.repeats)
        del found["within"], found["details"]
        if self.within is not None:  # only then, so that other scores keep their form
            found["within"] = list(self.within)
        if self.details:
            found["details"] = dict(self.details)
        found["protocol_id"] = self.protocol_id
        found["interval"] = None if self.interval is None else list(self.interval)
        return found

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> Score:
        """The score that `to_json` wrote.

        Raises:
            UserError: missing fields, or a protocol that does not match its id.
        """
        names = ("metric", "value", "protocol", "repeats", "std", "split_half", "subject")
        missing = [name for name in names if name not in value]
        if missing:
            raise UserError(f"a score lacks '{missing[0]}'; expected what `diptych evaluate` wrote")
        parts = {name: value[name] for name in names} | {"repeats": tuple(value["repeats"])}
        if value.get("within") is not None:
            parts["within"] = tuple(value["within"])
        score = Score(**parts, details=value.get("details", {}))
        if value.get("protocol_id") != score.protocol_id:
            raise UserError(
                f"the score '{score.metric}' has protocol id {value.get('protocol_id')}, its "
                f"protocol gives {score.protocol_id}; the file was changed by hand"
            )
        return score


def combine(metric: str, sets: Sequence[Score]) -> Score:
    """The score of R independent sample sets: the mean, and each set's value."""
    first = sets[0]
    halves = [s.split_half for s in sets if s.split_half is not None]
    stds = [s.std for s in sets if s.std is not None]
    return Score(
        metric,
        float(np.mean([s.value for s in sets])),
        first.protocol,
        tuple(s.value for s in sets) if len(sets) > 1 else (),
        float(np.mean(stds)) if stds else None,
        float(np.mean(halves)) if len(halves) == len(sets) else None,
        first.subject,
        first.within if len(sets) == 1 else None,
        first.details if len(sets) == 1 else _mean_details(sets),
    )


def _mean_details(sets: Sequence[Score]) -> dict[str, Any]:
    """The mean over the sets of every detail that is a number."""
    return {
        key: float(np.mean([one.details[key] for one in sets]))
        for key, value in sets[0].details.items()
        if isinstance(value, int | float)
    }


def protocol_id(protocol: Mapping[str, Any]) -> str:
    """Twelve hexadecimal digits of the protocol's sha256."""
    text = json.dumps(protocol, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def split_half(whole: float, halves: Iterable[float]) -> float:
    """2 F_n - mean(F_n/2), free of the bias that falls as 1/n."""
    return 2.0 * whole - float(np.mean(list(halves)))


def check_alike(a: Score, b: Score, across: Sequence[str] = ()) -> None:
    """Refuse to compare scores of different metrics or protocols.

    Scores in pixels are alike whichever feature network was opened for the scores beside them, and
    Inception Scores whichever reference.

    Args:
        a, b: the scores.
        across: protocol fields that are meant to differ, such as "sampler.steps".

    Raises:
        UserError: the metrics differ, or the protocols do; names the first field that differs.
    """
    if a.metric != b.metric:
        raise UserError(f"{a.metric} and {b.metric} are different metrics; nothing to compare")
    free = (*across, *OF_NETWORK) if a.metric.startswith(PIXELS) else across
    keys = dict.fromkeys((*a.protocol, *b.protocol))  # "protocol" itself comes first
    if a.metric.endswith("-is"):
        free = (*free, *(key for key in keys if key.startswith("reference.")))
    for key in keys:
        one, other = a.protocol.get(key), b.protocol.get(key)
        if one != other and key not in free:
            raise UserError(
                f"{a.metric}: the protocols {a.protocol_id} and {b.protocol_id} differ in "
                f"'{key}': {_short(one)} and {_short(other)}; evaluate both alike, or say that "
                f"this is what you compare: --across {key}"
            )


def difference(a: Score, b: Score, across: Sequence[str] = ()) -> dict[str, Any]:
    """b - a with its 95 % interval, and a sentence that claims no more than that.

    Raises:
        UserError: as `check_alike`.
    """
    check_alike(a, b, across)
    gap = b.value - a.value
    found: dict[str, Any] = {"metric": a.metric, "a": a.value, "b": b.value, "difference": gap}
    found |= {"interval": None, "across": [k for k in across if _differ(a, b, k)]}
    if min(len(a.repeats), len(b.repeats)) < LEAST_FOR_INTERVAL:
        return found | {
            "text": f"{a.metric}: {a.value:.4g} and {b.value:.4g}. There are fewer than "
            f"{LEAST_FOR_INTERVAL} independent sample sets of each, so there is no interval and "
            f"nothing can be said of the difference; evaluate with --repeats 3 or more."
        }
    low, high = difference_interval(a.repeats, b.repeats)
    found["interval"] = [low, high]
    return found | {"text": _sentence(a, b, low, high)}


def _differ(a: Score, b: Score, key: str) -> bool:
    return bool(a.protocol.get(key) != b.protocol.get(key))


def _sentence(a: Score, b: Score, low: float, high: float) -> str:
    start = (
        f"{a.metric}: {a.value:.4g} (A, {len(a.repeats)} sets) and {b.value:.4g} "
        f"(B, {len(b.repeats)} sets); B - A is {b.value - a.value:+.3g}, "
        f"95 % interval {low:+.3g} to {high:+.3g}"
    )
    if low <= 0 <= high:
        return f"{start}, which includes 0: no difference is shown."
    word = "higher" if low > 0 else "lower"
    judged = better(a.metric, low < 0)
    meaning = "" if judged is None else f", that is {judged}"
    return f"{start}, which leaves out 0: B is {word}{meaning}, with these weights."


def better(metric: str, lower: bool) -> str | None:
    """Return "better" or "worse" for a lower or a higher value of a metric; None if neither is."""
    kind = metric.partition(" ")[0].rpartition("-")[2]
    if kind in NEITHER:
        return None
    return "better" if lower == (kind in DISTANCES) else "worse"


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
