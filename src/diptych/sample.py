"""`diptych sample`: exactly N images in a folder, with a manifest that says how they came about.

    OUT/00000.png ...    the images; `images.npz` (uint8, NHWC) besides where asked for
    OUT/grid.png         the first 64
    OUT/progress.png     denoising seen: a row an image, a column a moment, noise on the left
    OUT/trajectory.gif   the first grid at every step or at some, where asked for
    OUT/manifest.json    weights, sampler card, seed, versions, seconds

The manifest is begun before the first image and completed after the last, so an interrupted
folder can be told from a whole one and resumed to the same bytes.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from diptych.conditioning import short_name
from diptych.config import flatten
from diptych.environment import environment
from diptych.errors import UserError
from diptych.files import atomic_path, claim_folder, read_json, write_json
from diptych.model import Model, batches_of
from diptych.movie import Movie, record
from diptych.noise import Float32
from diptych.pictures import Pixels, grid, read_png, save_png
from diptych.sampler import Observer, Sampler
from diptych.schedule import Level

PROGRESS_ROWS, PROGRESS_COLUMNS = 8, 10


@dataclass(frozen=True)
class Request:
    """What to draw: all that the images depend on, besides the weights."""

    sampler: Sampler
    num: int
    seed: int = 0
    batch: int = 64
    movie: Movie | None = None

    def __post_init__(self) -> None:
        for name, least in (("num", 1), ("batch", 1), ("seed", 0)):
            if getattr(self, name) < least:
                raise UserError(f"--{name} is {getattr(self, name)}; it must be {least} or more")


def default_folder(run: Path, request: Request) -> Path:
    """Where a run's samples go if no folder is given."""
    s = request.sampler
    order = f"-order{s.order}" if s.order else ""
    limit = "-clip" if s.clip else f"-threshold{s.threshold:g}" if s.threshold else ""
    told = "" if s.classes is None else f"-class{short_name(s.classes)}-w{s.guidance:g}"
    name = f"{s.solver}{order}-{s.steps}-{s.spacing}-eta{s.eta:g}{limit}{told}-seed{request.seed}"
    return run / "samples" / name


def sample_to(
    model: Model,
    request: Request,
    out: Path,
    *,
    resume: bool = False,
    overwrite: bool = False,
    npz: bool = False,
    progress: bool = True,
) -> dict[str, Any]:
    """Draw the images of `request` into `out`; gives the manifest.

    Raises:
        UserError: the folder holds something else, or was begun with other settings.
    """
    manifest = begin_manifest(model, request)
    _check_same(out, manifest, resume)
    claim_folder(out, resume=resume, overwrite=overwrite)
    if not (out / "manifest.json").exists():
        write_json(out / "manifest.json", manifest)
    drawn = 0
    began = time.perf_counter()
    with _bar(model, request, progress) as bar:
        for images in batches_of(request.num, min(request.batch, request.num)):
            wanted = [i for i in images if i < request.num]
            expected = [_path(out, i) for i in wanted] + [_movie_path(request, out, images)]
            if not all(path is None or path.exists() for path in expected):
                _draw_batch(model, request, out, images, wanted, bar)
                drawn += len(wanted)
            bar.update(0)
    seconds = time.perf_counter() - began
    _finish(out, request, npz)
    earlier = read_json(out / "manifest.json")
    done = {
        **manifest,
        "complete": True,
        "seconds": earlier.get("seconds", 0.0) + seconds,
        "images_timed": earlier.get("images_timed", 0) + drawn,
    }
    done["seconds_per_image"] = done["seconds"] / max(1, done["images_timed"])
    write_json(out / "manifest.json", done)
    return done


def begin_manifest(model: Model, request: Request) -> dict[str, Any]:
    """All that is known before the first image."""
    return {
        "schema": 1,
        "complete": False,
        **request.sampler.card(model.engine.schedule),
        "num": request.num,
        "seed": request.seed,
        "batch": request.batch,
        **model.facts,
        "environment": environment(model.engine.backend),
        "backend": model.engine.backend.name,
        "device": model.engine.backend.device,
        "config": flatten(model.config),
    }


IDENTITY = (
    "solver",
    "timesteps",
    "eta",
    "clip",
    "order",
    "threshold",
    "classes",
    "guidance",
    "seed",
    "batch",
    "num",
    "weights_sha256",
    "backend",
)


def _check_same(out: Path, manifest: dict[str, Any], resume: bool) -> None:
    if not (resume and (out / "manifest.json").exists()):
        return
    before = read_json(out / "manifest.json")
    for key in IDENTITY:
        if before.get(key) != manifest.get(key):
            raise UserError(
                f"{out}: was begun with {key}={before.get(key)}, not {manifest[key]}; resume it "
                f"with its own settings, or choose another --out"
            )


def _path(out: Path, image: int) -> Path:
    return out / f"{image:05d}.png"


@contextmanager
def _bar(model: Model, request: Request, progress: bool) -> Iterator[tqdm[Any]]:
    steps = -(-request.num // min(request.batch, request.num)) * request.sampler.steps
    name = f"{model.engine.backend.name} {request.sampler.solver}"
    pause = 0.1 if sys.stderr.isatty() else 30.0  # a log wants few lines
    bar = tqdm(total=steps, unit="step", desc=name, disable=not progress, mininterval=pause)
    with bar:
        yield bar


def _draw_batch(
    model: Model, request: Request, out: Path, images: list[int], wanted: list[int], bar: tqdm[Any]
) -> None:
    moments = _Moments(model, request.sampler) if images[0] == 0 else None

    with _filmed(model, request, out, images) as (film, predicted):

        def observe(k: int, level: Level, x: Any) -> None:
            bar.update()
            if moments is not None:
                moments.see(k, x)
            if film is not None:
                film(k, level, x)

        drawn = model.engine.draw(
            request.sampler, images, request.seed, observe=observe, predicted=predicted
        )
    if moments is not None:
        save_png(out / "progress.png", moments.picture(), scale=2)
    pixels = model.engine.pixels(drawn)
    for row, image in enumerate(wanted):
        save_png(_path(out, image), pixels[row])


def _movie_path(request: Request, out: Path, images: list[int]) -> Path | None:
    return out / "trajectory.gif" if request.movie is not None and images[0] == 0 else None


@contextmanager
def _filmed(
    model: Model, request: Request, out: Path, images: list[int]
) -> Iterator[tuple[Observer | None, Observer | None]]:
    """What shows x_t, and what shows the predicted x0, to the GIF of the first batch, if any."""
    path = _movie_path(request, out, images)
    if path is None or request.movie is None:
        yield None, None
        return

    def picture(x: Any) -> Pixels:
        shown = model.engine.backend.numpy(x[: min(64, request.num)])
        return grid(model.engine.pixels(shown), columns=8)

    with record(path, request.movie, request.sampler.steps, picture) as film:
        yield (film, None) if request.movie.show == "x_t" else (None, film)


class _Moments:
    """Keeps the first rows at evenly spread steps: what the progressive picture needs, no more."""

    def __init__(self, model: Model, sampler: Sampler) -> None:
        self.model = model
        columns = min(PROGRESS_COLUMNS, sampler.steps)
        self.steps = {round(k) for k in np.linspace(0, sampler.steps - 1, columns)}
        self.columns: list[Float32] = []

    def see(self, k: int, x: Any) -> None:
        if k in self.steps:
            self.columns.append(self.model.engine.backend.numpy(x[:PROGRESS_ROWS]))

    def picture(self) -> np.ndarray[Any, np.dtype[np.uint8]]:
        rows = np.stack([self.model.engine.pixels(column) for column in self.columns], axis=1)
        return grid(rows.reshape(-1, *rows.shape[2:]), columns=len(self.columns))


def _finish(out: Path, request: Request, npz: bool) -> None:
    first = np.stack([read_png(_path(out, i)) for i in range(min(64, request.num))])
    save_png(out / "grid.png", grid(first, columns=request.sampler.columns), scale=2)
    if npz:
        images = np.stack([read_png(_path(out, i)) for i in range(request.num)])
        with atomic_path(out / "images.npz") as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, images=images.transpose(0, 2, 3, 1))
