"""The reference of a score: features of real images, cached for reuse, or saved statistics.

The features of a data set's split never change for given weights and protocol, and on a CPU they
take most of an evaluation's time, so they are kept in the user's cache, under a name made from all
that they depend on. Nothing is kept for folders and files, nor for pictures whose identity does not
see their pixels.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from diptych.data.notes import note
from diptych.errors import MachineError, UserError
from diptych.evaluation.collect import BATCH, Needs, collect
from diptych.evaluation.feature_network import Extractor
from diptych.evaluation.feature_parts import FeatureSet, features_path, load_features
from diptych.evaluation.images import Images, open_images
from diptych.evaluation.protocol import Protocol, check_made_alike
from diptych.evaluation.statistics import Moments, Statistics
from diptych.evaluation.statistics_file import load, statistics_path
from diptych.files import atomic_path, sha256_of
from diptych.types import Floating

ROWS = 2048


@dataclass(frozen=True)
class Reference:
    """The real images or statistics that samples are compared with.

    Attributes:
        facts: `reference.*` fields of a protocol.
        moments: by kind, "pool" and "spatial".
        rows: features by kind, if the reference has images.
        left_out: number of files skipped, by reason.
        on_white: number of pictures read for this with transparent pixels, put on white.
    """

    facts: dict[str, Any]
    moments: dict[str, Moments]
    rows: dict[str, Floating]
    left_out: dict[str, int] = field(default_factory=dict)
    on_white: int = 0


def open_reference(
    source: str | Path | Images,
    extractor: Extractor,
    protocol: Protocol,
    wanted: Needs,
    *,
    batch: int = BATCH,
    progress: bool = True,
    cache: Path | None = None,
    data_dir: Path | None = None,
) -> Reference:
    """The reference that `source` names: images (see `open_images`), their features in parts, or a
    file of statistics.

    Args:
        source: a data set's split, a folder, an npz of images, statistics, or images in memory.
        cache: the folder of cached features; None: keep nothing.

    Raises:
        UserError: missing, made by another protocol, or lacking something that `wanted` needs.
    """
    path = None if isinstance(source, Images) else statistics_path(source)
    if path is not None:
        return _from_statistics(path, extractor, protocol, wanted)
    parts = None if isinstance(source, Images) else features_path(source)
    if parts is not None:
        return _from_parts(load_features(parts), extractor, protocol, wanted)
    images = source if isinstance(source, Images) else open_images(source, data_dir)
    facts = {
        "reference.name": images.name,
        "reference.split": images.split,
        "reference.count": images.count,
        "reference.sha256": images.identify(),
    }
    kinds = tuple(dict.fromkeys((*wanted.statistics, *wanted.rows)))
    known = images.split is not None and images.by_pixels
    kept = _kept(cache, facts, extractor, protocol) if known else None
    rows = _read_kept(kept, kinds)
    on_white = 0
    if rows is None:
        # sFID's features come as rows here too: the cache only holds rows.
        found = collect(
            images,
            extractor,
            protocol,
            Needs((), kinds),
            batch=batch,
            progress=progress,
            title=f"reference {images.name}",
        )
        rows, on_white = found.rows, found.on_white
        _keep(kept, rows)
    return Reference(facts, _all_moments(rows, protocol, wanted), rows, images.left_out, on_white)


def reference_sha256(source: str | Path, data_dir: Path | None = None) -> str:
    """The `reference.sha256` that `open_reference` would find, without the features.

    Raises:
        UserError: missing or damaged.
    """
    path = statistics_path(source)
    if path is not None:
        return str(load(path).protocol.get("images.sha256") or sha256_of(path))
    parts = features_path(source)
    if parts is not None:
        return str(load_features(parts).reference_facts()["reference.sha256"])
    return open_images(source, data_dir).identify()


def _from_parts(
    parts: FeatureSet, extractor: Extractor, protocol: Protocol, wanted: Needs
) -> Reference:
    kinds = tuple(dict.fromkeys((*wanted.statistics, *wanted.rows)))
    found = parts.collect(extractor, protocol, Needs((), kinds))
    moments = _all_moments(found.rows, protocol, wanted)
    left_out = dict(parts.facts["images.left_out"])
    return Reference(parts.reference_facts(), moments, found.rows, left_out, found.on_white)


def _all_moments(
    rows: dict[str, Floating], protocol: Protocol, wanted: Needs
) -> dict[str, Moments]:
    return {kind: protocol.rounded(moments_of(rows[kind])) for kind in wanted.statistics}


def moments_of(rows: Floating) -> Moments:
    """Mean and covariance of features (N, dims)."""
    found = Statistics(rows.shape[1])
    for first in range(0, len(rows), ROWS):
        found.add(rows[first : first + ROWS])
    return found.moments()


def _from_statistics(
    path: Path, extractor: Extractor, protocol: Protocol, wanted: Needs
) -> Reference:
    if wanted.rows or wanted.statistics != ("pool",):
        raise UserError(
            f"{path}: statistics hold no single features, so they serve --metrics fid, "
            f"fid-infinity and is only; give the images for the others"
        )
    stored = load(path)
    check_made_alike(path, stored.protocol, extractor, protocol)
    if stored.moments.mean.size != extractor.dims:
        raise UserError(
            f"{path}: has {stored.moments.mean.size} dimensions, {extractor.name} has "
            f"{extractor.dims}; compute the statistics with it: diptych stats"
        )
    # Our own files name the images behind them; otherwise the file itself is the reference.
    facts = {
        "reference.name": stored.protocol.get("images.name", path.name),
        "reference.split": stored.protocol.get("images.split"),
        "reference.count": stored.moments.n,
        "reference.sha256": stored.protocol.get("images.sha256") or sha256_of(path),
    }
    return Reference(facts, {"pool": protocol.rounded(stored.moments)}, {})


def _kept(
    cache: Path | None, facts: dict[str, Any], extractor: Extractor, protocol: Protocol
) -> Path | None:
    if cache is None:
        return None
    all_of_it = [facts, extractor.sha256, extractor.backend, extractor.device, protocol.facts()]
    key = hashlib.sha256(json.dumps(all_of_it, sort_keys=True).encode()).hexdigest()[:16]
    return cache / f"{facts['reference.name']}-{facts['reference.split']}-{extractor.name}-{key}"


def _read_kept(kept: Path | None, kinds: tuple[str, ...]) -> dict[str, Floating] | None:
    """Features from the cache, memory-mapped; None if any is missing or damaged."""
    if kept is None:
        return None
    try:
        return {kind: np.load(f"{kept}-{kind}.npy", mmap_mode="r") for kind in kinds}
    except (OSError, ValueError, EOFError):
        return None


def _keep(kept: Path | None, rows: dict[str, Floating]) -> None:
    """Cache the features; if the cache cannot be written, only this evaluation uses them."""
    try:
        for kind, values in rows.items() if kept is not None else ():
            with atomic_path(Path(f"{kept}-{kind}.npy")) as temporary, temporary.open("wb") as file:
                np.save(file, values, allow_pickle=False)
    except (UserError, MachineError) as error:
        note(
            f"the reference's features are not kept ({error.__cause__ or error}); set "
            "XDG_CACHE_HOME to a folder that can be written, or give --no-cache"
        )
