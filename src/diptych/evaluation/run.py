"""`diptych evaluate`: sample sets against a reference, with the chosen metrics and protocol.

    samples, reference -> features -> fid, kid, is, precision/recall/density/coverage, sfid

A score's protocol records all that it depends on, except the weights and the seed.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from diptych.data.notes import note
from diptych.errors import UserError
from diptych.evaluation.collect import Collected, collect, needs
from diptych.evaluation.feature_network import Extractor
from diptych.evaluation.images import Images
from diptych.evaluation.measure import Context, measure, score_name
from diptych.evaluation.protocol import check_made_alike, protocol_for
from diptych.evaluation.reference import open_reference
from diptych.evaluation.score import Score, combine
from diptych.evaluation.sets import (
    SAMPLER,
    TOLD,
    SampleSet,
    Settings,
    sample_sets,
    start_name,
)
from diptych.evaluation.statistics import Statistics
from diptych.evaluation.training_distances import open_training
from diptych.files import expanded
from diptych.runs.records import MANIFEST_LATER

SCHEMA = 1
KIND = "diptych scores"


def evaluate(
    sources: Sequence[str | Path | Images],
    reference: str | Path | Images | None,
    settings: Settings,
    extractor: Extractor,
) -> dict[str, Any]:
    """Score the sample sets of one model.

    Args:
        sources: independent sample sets of one model (folders, npz files, saved statistics,
            features in parts, images in memory), or one source, which `settings.repeats` cuts into
            sets.
        reference: see `open_reference`; not needed for IS alone.
        settings: metrics and protocol.
        extractor: the feature network.

    Returns:
        Plain JSON values: `scores` (see `Score.to_json`), `classes`, `seconds`.

    Raises:
        UserError: anything missing, damaged, mismatched, or too few images.
    """
    began = time.perf_counter()
    protocol = protocol_for(settings.features, settings.protocol)
    metrics = tuple(dict.fromkeys(settings.metrics))
    settings.check_reference(reference)
    sets = sample_sets(sources, settings)
    _tell(sets, reference, settings, extractor)
    real = None
    if settings.compared and reference is not None:
        real = open_reference(
            reference,
            extractor,
            protocol,
            needs(metrics, samples=False),
            batch=settings.batch,
            progress=settings.progress,
            cache=settings.cache,
            data_dir=settings.data_dir,
        )
    remembered = "memorization" in metrics
    training = open_training(settings, extractor, protocol) if remembered else None
    context = Context(settings, metrics, protocol, extractor, real, training)
    per_set = [score_set(context, one, i, len(sets)) for i, one in enumerate(sets)]
    names = per_set[0].scores.keys()
    scores = [combine(name, [one.scores[name] for one in per_set]) for name in names]
    seconds = time.perf_counter() - began
    return {
        "schema": SCHEMA,
        "kind": KIND,
        "scores": [score.to_json() for score in scores],
        "classes": _classes([one.collected for one in per_set]),
        "left_out": {
            "samples": [one.left_out for one in sets],
            "reference": real.left_out if real else {},
            **(training.left_out if training else {}),
        },
        "on_white": {
            "samples": [one.collected.on_white for one in per_set],
            "reference": real.on_white if real else 0,
        },
        "seconds": seconds,
    }


def _tell(
    sets: Sequence[SampleSet],
    reference: str | Path | Images | None,
    settings: Settings,
    extractor: Extractor,
) -> None:
    """Notes on what was asked for and means little."""
    if reference is not None and not settings.compared:
        note(f"the reference is not used by {', '.join(settings.metrics)}")
    num = sets[0].num
    if "fid" in settings.metrics and num < extractor.dims:
        note(
            f"fid of {num:,} images with {extractor.dims:,} features: a covariance of so few is "
            "biased, so compare it with no published value (fid-infinity is less so)"
        )
    if not isinstance(reference, Images) and reference is not None:
        own = [one.path.resolve() for one in sets if one.path is not None]
        if expanded(str(reference)).resolve() in own:
            note(f"{reference}: is a sample set and the reference too")


@dataclass(frozen=True)
class Scored:
    """One set's scores by name, and the data collected from it."""

    scores: dict[str, Score]
    collected: Collected


def score_set(context: Context, one: SampleSet, index: int, total: int) -> Scored:
    """All metrics of one sample set."""
    settings = context.settings
    title = "samples" if total == 1 else f"samples {index + 1}/{total}"
    features = one.features
    if features is not None:
        wanted = needs(context.metrics, samples=True)
        collected = features.collect(context.extractor, context.protocol, wanted)
    elif one.images is None:
        collected = _from_stored(context, one)
    else:
        collected = collect(
            one.images,
            context.extractor,
            context.protocol,
            needs(context.metrics, samples=True),
            first=one.first,
            num=one.num,
            batch=settings.batch,
            progress=settings.progress,
            title=title,
        )
    common = _common_protocol(context, one)
    subject = {
        "samples": one.name,
        **{key: one.manifest.get(key) for key in ("weights_sha256", "backend", "device", "seed")},
        "extractor_backend": features.facts["backend"] if features else context.extractor.backend,
    }
    found: dict[str, Score] = {}
    for metric in context.metrics:
        for name, (value, extra) in measure(context, collected, metric).items():
            settings_of = extra.pop("settings", {})
            full = score_name(settings.features, name)
            own = common | settings_of
            if metric == "memorization":  # it looks at no reference
                own = {key: own[key] for key in own if not key.startswith("reference.")}
            found[full] = Score(full, value, own, subject=subject, **extra)
    return Scored(found, collected)


def _from_stored(context: Context, one: SampleSet) -> Collected:
    """Saved statistics in place of samples; they only serve the Frechet distance."""
    assert one.stored is not None and one.path is not None
    if set(context.metrics) != {"fid"} or one.stored.statistics is None:
        what = "serve --metrics fid only" if one.stored.statistics else "of another tool lack N"
        raise UserError(f"{one.path}: as samples, statistics {what}; give the images")
    check_made_alike(one.path, one.stored.protocol, context.extractor, context.protocol)
    empty = Statistics(one.stored.statistics.dims)
    return Collected(one.num, {"pool": (one.stored.statistics, empty)}, {})


def _common_protocol(context: Context, one: SampleSet) -> dict[str, Any]:
    """All that two comparable scores have in common; a plain folder has no sampler card."""
    manifest = one.manifest
    made = {"protocol": context.protocol.name} | context.protocol.facts()
    made.pop("name")
    found = made | {
        "extractor": context.extractor.name,
        "extractor_sha256": context.extractor.sha256,
        "num": one.num,
        "weights": manifest.get("weights"),
        **{f"sampler.{key}": manifest.get(key) for key in SAMPLER},
        "sampler.timesteps": _short_hash(manifest.get("timesteps")),
    }
    # Left out if unset, so that scores without classes keep their protocol.
    told = {f"sampler.{key}": manifest[key] for key in TOLD if manifest.get(key) is not None}
    if "sampler.start" in told:  # latents, images or points, which may be many
        told["sampler.start"] = start_name(told["sampler.start"])
    # So are host noise and float32, the only ones when the first scores were written.
    later = {key: manifest.get(key, usual) for key, usual in MANIFEST_LATER.items()}
    found |= told | {
        f"sampler.{key}": value for key, value in later.items() if value != MANIFEST_LATER[key]
    }
    return found | (context.reference.facts if context.reference else {})


def _short_hash(timesteps: list[int] | None) -> str | None:
    if timesteps is None:
        return None
    return hashlib.sha256(str(timesteps).encode()).hexdigest()[:12]


def _classes(collected: Sequence[Collected]) -> dict[str, Any] | None:
    """Shares of each class and of confident answers over all sets; classifiers only."""
    counts = [one.classes for one in collected if one.classes is not None]
    if not counts:
        return None
    total = sum(one.num for one in collected)
    share = np.sum(counts, axis=0) / total
    confident = sum(one.confident for one in collected) / total
    return {"histogram": share.tolist(), "confident": confident, "images": total}
