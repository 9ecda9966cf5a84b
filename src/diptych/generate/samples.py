"""`diptych sample`: exactly N images in a folder, with a manifest of how they were made.

    OUT/00000.png ...    the images; in addition `images.npz` (uint8, NHWC), if requested
    OUT/grid.png         the first 64
    OUT/progress.png     denoising: one row per image, one column per moment, noise on the left
    OUT/trajectory.gif   the first grid at every step or some steps, if requested; .webp, .mp4
    OUT/strip.png        x_t, predicted x0 or both at chosen moments, if requested
    OUT/nearest.png      samples beside their nearest training images; nearest.json has all
    OUT/interpolation.png    the path between noises, one row per arc
    OUT/manifest.json    weights, sampler card, seed, versions, seconds
    OUT/README.md        the same for people, without times

The manifest is written before the first image and completed after the last, so an interrupted
folder can be distinguished from a complete one and resumed to the same bytes.

Above 400 lines: one folder, from its check to its last picture.
"""

from __future__ import annotations

import hashlib
import json
import logging
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL.Image import DecompressionBombError
from tqdm import tqdm

from diptych.config.load import flatten
from diptych.diffusion.schedule import Level
from diptych.errors import UserError
from diptych.evaluation.nearest import Nearest, save_nearest, search
from diptych.figures.grids import grid, read_png, save_png
from diptych.figures.movie import FORMATS, Movie, Strip
from diptych.figures.sheets import save_arcs
from diptych.files import (
    atomic_path,
    claim_folder,
    hold,
    hold_part,
    write_json,
)
from diptych.generate.parts import join, read_records, refuse_unbegun, remove_records, share
from diptych.generate.trajectory import Pictures, watching
from diptych.model import Model, batches_of
from diptych.ranks import Part
from diptych.rng import normal_per_image
from diptych.runs.cards import write_samples_card
from diptych.runs.folder import check_same
from diptych.runs.provenance import environment
from diptych.runs.records import Begun, Manifest
from diptych.sampling.options import IDENTITY as SAMPLER_IDENTITY
from diptych.sampling.options import folder_name
from diptych.sampling.sampler import Sampler
from diptych.types import Float32, Pixels

log = logging.getLogger(__name__)

MOST = 10_000_000
WRITERS = 8  # threads
FILES = {"npz": "images.npz", "nearest": "nearest.json"}


class Start(Protocol):
    """A start of trajectories other than their keyed noise; see `diptych.generate.starts`."""

    def rows(self, images: Sequence[int]) -> Float32:
        """The initial x of these images, (len(images), C, H, W)."""

    def card(self) -> dict[str, Any]:
        """Everything that determines the start, for the manifest."""


@dataclass(frozen=True)
class SampleRequest:
    """A sampling job: everything the images depend on except the weights.

    batch: images at once; None: as many as the folder was begun with, else `Model.batch`.
    """

    sampler: Sampler
    num: int
    seed: int = 0
    batch: int | None = 64
    movie: Movie | None = None
    strip: Strip | None = None
    start: Start | None = None
    nearest: Nearest | None = None

    @property
    def pictures(self) -> Pictures:
        """The requested pictures of the first batch."""
        return Pictures(self.movie, self.strip)

    def __post_init__(self) -> None:
        if self.num > MOST:
            raise UserError(f"--num is {self.num}; {MOST:,} images are the most in one folder")
        if self.batch is not None and self.batch > MOST:
            raise UserError(f"--batch is {self.batch}; {MOST:,} images at once are the most")
        if self.seed >= 2**63:
            raise UserError(f"seed {self.seed} is 2**63 or more; give a smaller --seed")
        for name, least in (("num", 1), ("batch", 1), ("seed", 0)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise UserError(f"--{name} is {getattr(self, name)}; it must be {least} or more")


def default_folder(run: Path, request: SampleRequest, precision: str = "fp32") -> Path:
    """The default folder of a run's samples; of a checkpoint's too, as a training removes it."""
    name = f"{folder_name(request.sampler)}-seed{request.seed}"
    if request.start is not None:  # the card holds hashes, so each start has its own folder
        text = json.dumps(request.start.card(), sort_keys=True)
        name += f"-{request.start.card()['kind']}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
    name = name if precision == "fp32" else f"{name}-{precision}"
    if run.parent.name == "checkpoints":
        return run.parent.parent / "samples" / f"{name}-{run.name}"
    return run / "samples" / name


def _settled(model: Model, request: SampleRequest, out: Path, resume: bool) -> SampleRequest:
    """The request with a number of images at once: that of a folder that is resumed."""
    if request.batch is not None:
        return request
    path = out / "manifest.json"
    chosen = Begun.read(path).batch if resume and path.exists() else None
    return replace(request, batch=chosen or model.batch(request.sampler.doubled))


def sample_to(
    model: Model,
    request: SampleRequest,
    out: Path,
    *,
    resume: bool = False,
    overwrite: bool = False,
    npz: bool = False,
    progress: bool = True,
    part: Part | None = None,
) -> dict[str, Any]:
    """Draw the images of `request` into `out`; return the manifest.

    Args:
        part: draw only this part, together with other processes; the manifest is `complete` if
            this process was the last, and completed the folder.

    Raises:
        UserError: the folder holds something else, or was started with other settings.
    """
    if part is not None:
        if overwrite:
            raise UserError("--overwrite would delete the other parts' images; empty --out first")
        return _part(model, request, out, part, npz=npz, progress=progress)
    request = _settled(model, request, out, resume)
    manifest = begin_manifest(model, request)
    request.pictures.check(model.engine, request.sampler, request.num, out)
    with hold(out):
        before = check_same(out, manifest, IDENTITY) if resume else {}
        if resume:
            refuse_unbegun(out)
        claim_folder(out, resume=resume, overwrite=overwrite)
        return _fill(model, request, out, manifest, before, npz=npz, progress=progress)


def _fill(
    model: Model,
    request: SampleRequest,
    out: Path,
    manifest: dict[str, Any],
    before: dict[str, Any],
    *,
    npz: bool,
    progress: bool,
) -> dict[str, Any]:
    """Draw the missing images in a prepared folder; return the manifest."""
    _drop_unlike(out, request.pictures, before.get("trajectory", {}))
    manifest["trajectory"] = before.get("trajectory", {}) | request.pictures.card()
    if before.get("trajectory") != manifest["trajectory"]:
        begun = manifest | before | {"trajectory": manifest["trajectory"]}
        write_json(out / "manifest.json", Begun.checked(begun))
    seconds, drawn = _draw_missing(model, request, out, Part(0, 1), progress)
    _finish(out, model, request, npz)
    write_samples_card(out, manifest)
    searched = _beside(request, npz).get("nearest", before.get("nearest"))
    earlier = Begun.read(out / "manifest.json")
    theirs = (0.0, 0) if earlier.complete else read_records(out)
    seconds, drawn = seconds + theirs[0], drawn + theirs[1]
    done = {
        **manifest,
        "complete": True,
        "pictures": sorted(p.name for p in out.iterdir() if p.name in PICTURES),
        **({} if searched is None else {"nearest": searched}),
        "seconds": earlier.seconds + seconds,
        "images_timed": earlier.images_timed + drawn,
    }
    done["seconds_per_image"] = done["seconds"] / max(1, done["images_timed"])
    write_json(out / "manifest.json", Manifest.checked(done))
    remove_records(out)
    return done


def _part(
    model: Model,
    request: SampleRequest,
    out: Path,
    part: Part,
    *,
    npz: bool,
    progress: bool,
) -> dict[str, Any]:
    """Draw one part; complete the folder if all parts are done. Returns the manifest."""
    request.pictures.check(model.engine, request.sampler, request.num, out)
    asked = _beside(request, npz)
    manifest = begin_manifest(model, _settled(model, request, out, resume=True))
    manifest["trajectory"] = request.pictures.card()
    with hold_part(out, str(part)):
        join(out, manifest | {"asked": asked}, part)
    # Of parts that begin together, one has decided how many images are computed at once.
    request = _settled(model, request, out, resume=True)
    manifest["batch"] = request.batch
    return share(
        out,
        manifest,
        part,
        IDENTITY,
        work=lambda: _draw_missing(model, request, out, part, progress)[1],
        fill=lambda begun: _fill(model, request, out, manifest, begun, npz=npz, progress=False),
        asked=asked,
        lacks=lambda done: [k for k, how in asked.items() if not _holds(out, done, k, how)],
    )


def _beside(request: SampleRequest, npz: bool) -> dict[str, Any]:
    """Files requested in addition to the images, with their settings."""
    found = {**request.pictures.card(), **({"npz": True} if npz else {})}
    if (near := request.nearest) is not None:
        found["nearest"] = {"count": near.count, "by": near.by}
    return found


def _holds(out: Path, manifest: dict[str, Any], name: str, how: Any) -> bool:
    """True if a complete folder holds what `_beside` names.

    A manifest of an earlier version does not say with which settings neighbours were searched.
    """
    if name in FILES:
        return (out / FILES[name]).exists() and manifest.get(name, how) == how
    return bool(manifest.get("trajectory", {}).get(name) == how)


def _draw_missing(
    model: Model, request: SampleRequest, out: Path, part: Part, progress: bool
) -> tuple[float, int]:
    """Draw a part's images that are not there; return the seconds, and the images drawn."""
    drawn = 0
    began = time.perf_counter()
    at_once = request.batch or request.num  # `_settled` has given a number
    batches = list(batches_of(request.num, min(at_once, request.num)))
    with _bar(model, request, len(batches[part.number :: part.count]), progress) as bar:
        for number, images in enumerate(batches):
            if not part.has(number):
                continue
            wanted = [i for i in images if i < request.num]
            first = request.pictures.paths(out) if images[0] == 0 else []
            shape = model.engine.shape
            there = [_is_drawn(_path(out, i), shape) for i in wanted]
            if not all(there) or not all(path.exists() for path in first):
                _draw_batch(model, request, out, images, wanted, bar)
                drawn += len(wanted)
            bar.update(0)
    return time.perf_counter() - began, drawn


def begin_manifest(model: Model, request: SampleRequest) -> dict[str, Any]:
    """The manifest as known before the first image; refuses a guide that cannot guide."""
    return {
        "schema": 1,
        "complete": False,
        **request.sampler.card(model.engine.schedule),
        **model.guide_facts(request.sampler),
        "start": None if request.start is None else request.start.card(),
        "num": request.num,
        "seed": request.seed,
        "batch": request.batch,
        **model.facts,
        "environment": environment(model.engine.backend),
        "backend": model.engine.backend.name,
        "device": model.engine.backend.device,
        "precision": model.engine.backend.precision,
        "config": flatten(model.config),
    }


PICTURES = frozenset(
    ["grid.png", "progress.png", "strip.png", "interpolation.png", "nearest.png"]
    + [f"trajectory.{name}" for name in FORMATS]
)
IDENTITY = (
    *(key for key in SAMPLER_IDENTITY if key != "guide"),  # by its weights, not by its place
    "guide_sha256",
    "level",
    "start",
    "seed",
    "batch",
    "num",
    "weights_sha256",
    "backend",
    "precision",
)


def _drop_unlike(out: Path, asked: Pictures, before: dict[str, Any]) -> None:
    """Remove pictures from an earlier run with other settings, so that they are redrawn."""
    for name, settings in asked.card().items():
        if settings != before.get(name):
            for path in asked.paths_of(name, out):
                path.unlink(missing_ok=True)


def _is_drawn(path: Path, shape: tuple[int, int, int]) -> bool:
    """True if an image of this shape exists; a damaged one is logged and redrawn."""
    if not path.exists():
        return False
    try:
        found = read_png(path).shape
        said = f"is {found}"
    except (OSError, SyntaxError, ValueError, EOFError, DecompressionBombError) as error:
        found, said = (), " ".join(str(error).split())
    if found == shape:
        return True
    channels, height, width = shape
    log.warning(
        "%s: no image of %dx%d with %d channels (%s); drawn again",
        path,
        width,
        height,
        channels,
        said,
    )
    return False


def _path(out: Path, image: int) -> Path:
    return out / f"{image:05d}.png"


def _bar(model: Model, request: SampleRequest, batches: int, progress: bool) -> tqdm[Any]:
    steps = len(request.sampler.timesteps(model.engine.schedule)) * batches
    name = f"{model.engine.backend.name} {request.sampler.solver}"
    pause = 0.1 if sys.stderr.isatty() else 30.0  # few lines in a log file
    return tqdm(total=steps, unit="step", desc=name, disable=not progress, mininterval=pause)


def _draw_batch(
    model: Model,
    request: SampleRequest,
    out: Path,
    images: list[int],
    wanted: list[int],
    bar: tqdm[Any],
) -> None:
    engine, sampler, seed = model.engine, request.sampler, request.seed
    if request.start is not None:
        x = request.start.rows(images)
    else:
        x = normal_per_image(seed, "initial_noise", images, engine.shape, noise=sampler.noise)
    if images[0] == 0:
        with watching(engine, sampler, request.pictures, x, out, request.num) as watch:

            def observe(k: int, level: Level, x: Any) -> None:
                bar.update()
                watch.observe(k, level, x)

            drawn = engine.draw(
                sampler, images, seed, x, observe=observe, predicted=watch.predicted
            )
    else:

        def step(*_: Any) -> None:
            bar.update()

        drawn = engine.draw(sampler, images, seed, x, observe=step)
    pixels = engine.pixels(drawn)[: len(wanted)]
    with ThreadPoolExecutor(WRITERS) as pool:  # a file waits for the disk more than it computes
        list(pool.map(save_png, [_path(out, image) for image in wanted], pixels))


def _finish(out: Path, model: Model, request: SampleRequest, npz: bool) -> None:
    first = _drawn(out, min(64, request.num))
    save_png(out / "grid.png", grid(first, columns=request.sampler.columns), scale=2)
    way = request.start.card() if request.start is not None else {}
    if way.get("kind") == "interpolation":
        save_arcs(out / "interpolation.png", _drawn(out, request.num), way["points"])
    if request.nearest is not None:
        every = _drawn(out, request.num)
        found = search(request.nearest, every, model.engine.backend)
        write_json(out / "nearest.json", save_nearest(out, request.nearest, found, every))
    if npz:
        with atomic_path(out / "images.npz") as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, images=_drawn(out, request.num).transpose(0, 2, 3, 1))


def _drawn(out: Path, num: int) -> Pixels:
    first = read_png(_path(out, 0))
    images = np.empty((num, *first.shape), np.uint8)
    for i in range(num):
        images[i] = read_png(_path(out, i))
    return images
