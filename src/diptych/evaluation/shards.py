"""`diptych stats`: statistics of a set of images, or of a shard of it, in a file.

Shards computed apart, on other machines or days, add up bit for bit to the statistics of the whole
if they share network and protocol; anything else is refused, naming the field.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from diptych.errors import UserError
from diptych.evaluation.collect import BATCH, Needs, collect
from diptych.evaluation.extents import Extent, extent, overlap
from diptych.evaluation.feature_network import Extractor
from diptych.evaluation.images import open_images
from diptych.evaluation.protocol import Protocol, check_made_alike
from diptych.evaluation.statistics_file import Stored, load, save
from diptych.files import sha256_of


def write_statistics(
    source: str,
    out: Path,
    extractor: Extractor,
    protocol: Protocol,
    *,
    first: int = 0,
    num: int | None = None,
    add: Sequence[Path] = (),
    batch: int = BATCH,
    data_dir: Path | None = None,
    progress: bool = True,
) -> dict[str, Any]:
    """Write the statistics of `num` images of `source` from `first` on; return facts of the file.

    Args:
        source: images, as `open_images` takes them.
        out: .npz or .safetensors.
        add: statistics of other shards, added to these.

    Raises:
        UserError: images missing or damaged, shards of another network or protocol, or shards that
            share images.
    """
    images = open_images(source, data_dir)
    if first < 0:
        raise UserError(f"--first {first}: give 0 or more")
    if num is not None and num < 1:
        raise UserError(f"--num {num}: give 1 or more")
    shards = [_shard(path, extractor, protocol) for path in add]
    sha256 = images.identify()
    last = images.count if num is None else first + num
    leaves = [Extent(sha256, first, last)]
    for path, shard in zip(add, shards, strict=True):
        more = _leaves(shard)
        if overlap([*leaves, *more]) is not None:
            raise UserError(
                f"{path}: holds images that {source} or another shard holds too, which would count "
                f"twice; add each image once"
            )
        leaves += more
    found = collect(
        images,
        extractor,
        protocol,
        Needs(("pool",)),
        first=first,
        num=num,
        batch=batch,
        progress=progress,
        title=images.name,
    )
    total = found.statistics("pool")
    whole = found.num == images.count
    own = sha256 if whole else str(leaves[0])
    parts = [own]
    for shard in shards:
        assert shard.statistics is not None
        total = total + shard.statistics
        parts.append(str(shard.protocol.get("images.sha256")))
    facts = {
        "extractor": extractor.name,
        "extractor_sha256": extractor.sha256,
        **protocol.facts(),
        "images.name": images.name,
        "images.split": images.split if whole and not add else None,
        "images.sha256": own if len(parts) == 1 else _joined(parts),
    }
    if add:
        facts["images.parts"] = [str(leaf) for leaf in sorted(leaves)]
    save(out, total, facts)
    return {"out": str(out), "n": total.n, "dims": total.dims, "sha256": sha256_of(out), **facts}


def _shard(path: Path, extractor: Extractor, protocol: Protocol) -> Stored:
    stored = load(path)
    if stored.statistics is None:
        raise UserError(f"{path}: holds mu and sigma only, without N; such files cannot be added")
    check_made_alike(path, stored.protocol, extractor, protocol)
    if stored.statistics.dims != extractor.dims:
        raise UserError(
            f"{path}: has {stored.statistics.dims} dimensions, the others {extractor.dims}"
        )
    return stored


def _leaves(shard: Stored) -> list[Extent]:
    """The runs of images that a shard is the sum of; a sum of an earlier version is its own."""
    assert shard.statistics is not None
    parts = shard.protocol.get("images.parts")
    if isinstance(parts, list):
        return [extent(str(part), 0) for part in parts]
    known = shard.protocol.get("images.sha256")
    return [] if known is None else [extent(str(known), shard.statistics.n)]


def _joined(parts: Sequence[str]) -> str:
    """One identity for a sum of shards, whatever their order."""
    return hashlib.sha256("+".join(sorted(parts)).encode()).hexdigest()
