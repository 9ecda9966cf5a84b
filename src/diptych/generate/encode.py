"""The folder of `diptych encode`.

    OUT/latents.safetensors     x_T of each image, float32 (N, C, H, W); or latents.npz
    OUT/00000.png ...           the reconstructions: the latents, decoded with the same steps
    OUT/encode.png              originals, latents and reconstructions of the first images
    OUT/errors.csv              the error of each image
    OUT/curve.json, .csv, .png  the mean error against the number of steps, if requested
    OUT/manifest.json           everything the latents depend on, and the mean error

Batches are kept in OUT/parts until the end, so that an interrupted run can resume, and that several
processes can share the work; see `diptych.generate.parts`. A finished folder is not recomputed; a
curve can still be added to it.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from diptych.config.load import flatten
from diptych.errors import UserError
from diptych.figures.grids import save_png
from diptych.figures.sheets import save_sheet
from diptych.files import (
    atomic_path,
    claim_folder,
    hold,
    write_json,
    write_text,
)
from diptych.generate.latents import write_latents
from diptych.generate.parts import refuse_unbegun, remove_records, share
from diptych.generate.roundtrip import EncodeRequest, errors_of, round_trip, steps_shown
from diptych.generate.roundtrip_curve import measure
from diptych.model import Model
from diptych.ranks import Part
from diptych.runs.folder import check_same
from diptych.runs.provenance import environment
from diptych.runs.records import Begun
from diptych.training.batches import to_uint8
from diptych.types import Float64

SHOWN = 10
SPREAD = 3.0  # figures show latents from -3 (black) to 3 (white) standard deviations
IDENTITY = (
    "steps",
    "spacing",
    "refine",
    "batch",
    "images_sha256",
    "weights_sha256",
    "backend",
    "precision",
    "latents",
)


def encode_to(
    model: Model,
    request: EncodeRequest,
    out: Path,
    *,
    resume: bool = False,
    overwrite: bool = False,
    progress: bool = True,
    part: Part | None = None,
) -> dict[str, Any]:
    """Encode the images of `request` into `out`; return the manifest.

    Args:
        part: encode only this part, together with other processes; the manifest is `complete` if
            this process was the last, and completed the folder.

    Raises:
        UserError: the folder holds something else, or was started with other settings.
    """
    manifest = _begin(model, request)
    if part is not None:
        if overwrite:
            raise UserError("--overwrite would delete the other parts' latents; empty --out first")
        curve = sorted(one.sampler.steps for one in request.curve)
        return share(
            out,
            manifest,
            part,
            IDENTITY,
            work=lambda: _encode_part(model, request, out, part, progress),
            fill=lambda begun: _fill(model, request, out, manifest, begun, progress=False),
            asked={"curve": curve} if curve else {},
            lacks=lambda done: [
                f"a curve of {steps} steps"
                for steps in curve
                if steps not in [row["steps"] for row in done.get("curve", [])]
            ],
        )
    with hold(out):
        before = check_same(out, manifest, IDENTITY) if resume else {}
        if resume:
            refuse_unbegun(out)
        claim_folder(out, resume=resume, overwrite=overwrite)
        return _fill(model, request, out, manifest, before, progress)


def _fill(
    model: Model,
    request: EncodeRequest,
    out: Path,
    manifest: dict[str, Any],
    before: dict[str, Any],
    progress: bool,
) -> dict[str, Any]:
    """Encode the missing parts in a prepared folder; return the manifest."""
    if before.get("complete"):
        manifest = before
    else:
        if not before:  # else it says how many parts share the work
            write_json(out / "manifest.json", Begun.checked(manifest))
        paths = _encode_missing(model, request, out, Part(0, 1), progress)
        manifest |= _summary(_write(model, request, out, paths))
    if request.curve:
        manifest["curve"] = measure(model, request, out, progress)
    manifest["complete"] = True
    write_json(out / "manifest.json", Begun.checked(manifest))
    remove_records(out)
    shutil.rmtree(out / "parts", ignore_errors=True)
    return manifest


def _begin(model: Model, request: EncodeRequest) -> dict[str, Any]:
    return {
        "schema": 1,
        "kind": "encode",
        "complete": False,
        **request.inversion.card(model.engine.schedule),
        **request.inputs.facts(),
        "num": len(request.inputs.pixels),
        "batch": request.batch,
        "latents": f"latents.{request.form}",
        **model.facts,
        "environment": environment(model.engine.backend),
        "backend": model.engine.backend.name,
        "device": model.engine.backend.device,
        "precision": model.engine.backend.precision,
        "config": flatten(model.config),
    }


def _summary(error: Float64) -> dict[str, Any]:
    mean = float(error.mean())
    psnr = float(-10 * np.log10(mean)) if mean > 0 else None
    return {"mse": mean, "mse_worst": float(error.max()), "psnr_db": psnr}


def _encode_missing(
    model: Model, request: EncodeRequest, out: Path, part: Part, progress: bool
) -> list[Path]:
    """Encode the part's batches that are not yet in OUT/parts; return the files of all batches."""
    paths = [out / "parts" / f"{k:05d}.npz" for k in range(len(request.batches))]
    own = len(paths[part.number :: part.count])
    with steps_shown(model, [request.inversion], own, progress) as count:
        for number, (rows, path) in enumerate(zip(request.batches, paths, strict=True)):
            if part.has(number) and not path.exists():
                trip = round_trip(model, request.inversion, request.inputs.pixels[rows], count)
                with atomic_path(path) as temporary, temporary.open("wb") as file:
                    np.savez(file, latents=trip.latents, back=trip.back)
    return paths


def _encode_part(
    model: Model, request: EncodeRequest, out: Path, part: Part, progress: bool
) -> int:
    """Encode the part's batches; return their number of images."""
    _encode_missing(model, request, out, part, progress)
    return sum(len(rows) for rows in request.batches[part.number :: part.count])


def _write(model: Model, request: EncodeRequest, out: Path, parts: Sequence[Path]) -> Float64:
    """Write all files of the folder but the manifest; return the errors of all images."""
    pixels = request.inputs.pixels
    found = []
    for path in parts:
        with np.load(path) as part:
            found.append((part["latents"], part["back"]))
    latents, back = (np.concatenate(tables)[: len(pixels)] for tables in zip(*found, strict=True))
    error = errors_of(model, pixels, back)
    shown = model.engine.pixels(back)
    for i, image in enumerate(shown):
        save_png(out / f"{i:05d}.png", image)
    card = request.inversion.card(model.engine.schedule)
    write_latents(out / f"latents.{request.form}", latents, card | model.facts)
    rows = "".join(f"{i},{value:.9g}\n" for i, value in enumerate(error))
    write_text(out / "errors.csv", "image,mse\n" + rows)
    first = slice(0, SHOWN)
    names = ["original", f"x_T (t={card['level']})", "reconstruction"]
    tables = pixels[first], to_uint8(latents[first] / np.float32(SPREAD)), shown[first]
    save_sheet(out / "encode.png", np.stack(tables), left=names)
    return error
