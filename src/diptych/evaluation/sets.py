"""Evaluation settings, and the sample sets that the sources hold.

Repeats are independent draws of one model with one sampler; anything else is refused
by name.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from diptych.data.notes import note
from diptych.errors import UserError, nearest
from diptych.evaluation.collect import BATCH, METRICS, WITHOUT_REFERENCE
from diptych.evaluation.extents import Extent, extent, overlap
from diptych.evaluation.feature_network import NO_NETWORK
from diptych.evaluation.feature_parts import FeatureSet, features_path, load_features
from diptych.evaluation.images import Images, open_images
from diptych.evaluation.statistics_file import Stored, load, statistics_path
from diptych.runs.records import MANIFEST_LATER

SAMPLER = (
    "solver", "order", "steps", "eta", "spacing", "sigma_type", "clip", "threshold",
    "last_timestep",
)  # fmt: skip
# Left out of a protocol where unset.
TOLD = ("classes", "guidance", "guide_sha256", "guidance_interval", "euler_at_final", "start")


@dataclass(frozen=True)
class Settings:
    """Settings of an evaluation.

    Attributes:
        metrics: names out of METRICS.
        features: "inception", "mnist" or "fashion_mnist"; "pixels": none, for memorization.
        protocol: a tool's name for inception; None: the default.
        num: images per sample set; None: all.
        repeats: number of sets that a single source is cut into.
        batch: images per batch.
        cache: folder for a data set's features; None: keep none.
        train, held_out: for memorization, the images that the model was trained on, and others
            that it was not trained on; None: the test split of a named data set.
        mirrored: whether training mirrored its images.
    """

    metrics: tuple[str, ...] = ("fid",)
    features: str = "inception"
    protocol: str | None = None
    num: int | None = None
    repeats: int = 1
    batch: int = BATCH
    cache: Path | None = None
    data_dir: Path | None = None
    progress: bool = True
    train: str | Path | Images | None = None
    held_out: str | Path | Images | None = None
    mirrored: bool = False

    def __post_init__(self) -> None:
        for metric in self.metrics:
            if metric not in METRICS:
                known = [m for m in METRICS if m != "sfid" or self.features == "inception"]
                raise UserError(f"metric '{metric}' is not known{nearest(metric, known)}")
        for name, most in (("repeats", 10_000), ("batch", 10_000_000), ("num", 2**40)):
            value = getattr(self, name)
            if value is not None and not 1 <= value <= most:
                bound = "1 or more" if value < 1 else f"{most:,} or less"
                raise UserError(f"--{name} is {value}; it must be {bound}")
        if "memorization" not in self.metrics:
            for name in ("train", "held_out", "mirrored"):
                if getattr(self, name) not in (None, False):
                    raise UserError(
                        f"--{name.replace('_', '-')} is for --metrics memorization; leave it out"
                    )
        if self.features == NO_NETWORK and set(self.metrics) != {"memorization"}:
            raise UserError(
                f"--features {NO_NETWORK} serves --metrics memorization alone; name a network for "
                f"{', '.join(m for m in self.metrics if m != 'memorization')}"
            )
        if "sfid" in self.metrics and self.features != "inception":
            raise UserError(f"sfid needs --features inception; {self.features} has no such layer")
        if not self.metrics:
            raise UserError(f"no metric was asked for; known: {', '.join(METRICS)}")

    @property
    def compared(self) -> bool:
        """True if a metric compares with real images."""
        return bool(set(self.metrics) - set(WITHOUT_REFERENCE))

    def check_reference(self, reference: object) -> None:
        """Raise UserError if real images are needed, and `reference` is None."""
        if self.compared and reference is None:
            raise UserError("scores need a reference: give --reference, for example mnist:test")


SHARED = 0.01  # share of a set's images that may be in another by chance: blank ones, say


@dataclass(frozen=True)
class SampleSet:
    """One set of samples: images from `first` on, saved statistics, or features in parts."""

    images: Images | None
    first: int
    num: int
    stored: Stored | None = None
    path: Path | None = None
    manifest: dict[str, Any] = field(default_factory=dict)
    features: FeatureSet | None = None

    @property
    def name(self) -> str | None:
        """The name of its images' folder or file; None for images in memory."""
        if self.features is not None:
            return str(self.features.facts["images.source"])
        return None if self.path is None else self.path.resolve().name

    @property
    def left_out(self) -> dict[str, int]:
        """Number of files skipped, by reason."""
        if self.features is not None:
            return dict(self.features.facts["images.left_out"])
        return self.images.left_out if self.images else {}


def sample_sets(sources: Sequence[str | Path | Images], settings: Settings) -> list[SampleSet]:
    """The sample sets of the sources, all of one size.

    Raises:
        UserError: too few images, sets of different sizes, or statistics that would need cutting.
    """
    if len(sources) > 1 and settings.repeats > 1:
        raise UserError("several sources are repeats already; leave --repeats out")
    made = []
    for source in sources:
        path = None if isinstance(source, Images) else Path(source)
        saved = None if isinstance(source, Images) else statistics_path(source)
        if saved is not None:
            if settings.repeats > 1 or settings.num is not None:
                raise UserError(f"{path}: statistics cannot be cut; leave out --num and --repeats")
            stored = load(saved)
            made.append(SampleSet(None, 0, stored.moments.n or 0, stored, saved))
            continue
        parts = None if isinstance(source, Images) else features_path(source)
        if parts is not None:
            made.append(_of_parts(parts, settings))
            continue
        images = source if isinstance(source, Images) else open_images(source, settings.data_dir)
        num = images.count // settings.repeats if settings.num is None else settings.num
        if num < 1 or num * settings.repeats > images.count:
            raise UserError(
                f"{path or images.name}: holds {images.count} images, {settings.repeats} x "
                f"{max(num, 1)} are needed; sample more, or lower --num or --repeats"
            )
        if settings.num is None and (rest := images.count - num * settings.repeats):
            note(f"{images.name}: {rest} of {images.count} images are in none of the "
                 f"{settings.repeats} sets of {num}")  # fmt: skip
        made += [
            SampleSet(images, i * num, num, None, path, images.manifest)
            for i in range(settings.repeats)
        ]
    sizes = {one.num for one in made}
    if len(sizes) > 1:
        raise UserError(f"the sample sets hold {sorted(sizes)} images; give one --num for all")
    _check_one_model(made)
    if len(sources) > 1:  # the sets of one source are disjoint
        _check_other_draws(made)
    return made


def _of_parts(path: Path, settings: Settings) -> SampleSet:
    if settings.repeats > 1 or settings.num is not None:
        raise UserError(
            f"{path}: features in parts are not cut; leave out --num and --repeats, or give them "
            f"to diptych stats as --first and --num"
        )
    if "memorization" in settings.metrics:
        raise UserError(
            f"{path}: memorization compares pixels, and features have none; give the images"
        )
    found = load_features(path)
    manifest = found.facts["images.manifest"]
    return SampleSet(None, found.first, found.num, path=path, manifest=manifest, features=found)


def _check_one_model(sets: Sequence[SampleSet]) -> None:
    """Refuse repeats that differ in model or sampler."""
    first, *others = (one.manifest for one in sets)
    for other in others:
        own = (*MANIFEST_LATER, "timesteps", "weights_sha256", "backend")
        for key in (*SAMPLER, *TOLD, *own):
            one, two = first.get(key), other.get(key)
            if one != two:
                told = [start_name(each) if key == "start" else each for each in (one, two)]
                raise UserError(
                    f"the sample sets differ in {key} ({told[0]} and {told[1]}); "
                    f"they are not repeats of each other: evaluate them apart"
                )


def start_name(card: Any) -> str:
    """The kind of a manifest's `start`, and a hash of all that determines it."""
    if not isinstance(card, dict):
        return "noise" if card is None else str(card)
    text = json.dumps(card, sort_keys=True)
    return f"{card.get('kind')} {hashlib.sha256(text.encode()).hexdigest()[:12]}"


def _check_other_draws(sets: Sequence[SampleSet]) -> None:
    """Refuse sets of several sources that share images: by content, place or seed."""
    contents: dict[int, str] = {}

    def content(images: Images) -> str:
        if id(images) not in contents:
            contents[id(images)] = images.identify()
        return contents[id(images)]

    held: list[Extent] = []
    for one in sets:
        last = one.first + one.num
        if one.path is not None:
            held.append(Extent(f"path {one.path.resolve()}", one.first, last))
        if "seed" in one.manifest:
            held.append(Extent(f"seed {one.manifest['seed']}", one.first, last))
        elif one.images is not None:  # a sample folder is known by its seed, and not read here
            held.append(Extent(content(one.images), one.first, last))
        if one.features is not None:
            held.append(Extent(one.features.facts["images.sha256"], one.first, last))
        if one.stored is not None and "images.sha256" in one.stored.protocol:
            held.append(extent(str(one.stored.protocol["images.sha256"]), one.num))
    if overlap(held) is not None:
        raise UserError(
            "two sample sets are the same draw or share images (same pictures, folder or seed); "
            "give each once"
        )
    _check_pixels([one for one in sets if one.images is not None and "seed" not in one.manifest])


def _check_pixels(sets: Sequence[SampleSet]) -> None:
    """Refuse sets of which more than a few images are equal pixel by pixel."""
    if len(sets) < 2:
        return
    owners: dict[bytes, int] = {}
    for i, one in enumerate(sets):
        assert one.images is not None
        own = {
            hashlib.blake2b(image.tobytes(), digest_size=16, key=str(image.shape).encode()).digest()
            for _, batch in one.images.batches(BATCH, one.first, one.num)
            for image in batch
        }
        shared = [owners[each] for each in own if each in owners]
        if len(shared) > SHARED * one.num:
            other = max(set(shared), key=shared.count)
            raise UserError(
                f"{shared.count(other):,} images of {one.name} are in {sets[other].name} too, "
                "pixel for pixel: sets that share images are no repeats; give each once"
            )
        owners |= dict.fromkeys(own, i)
