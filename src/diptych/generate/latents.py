"""Latents in a file: x_T of images, float32, and their noise level.

    latents.safetensors     `latents` (N, C, H, W), with the inversion's card in its metadata
    latents.npz             the same array, and the card as text

Any .npz or .npy with one float array of that shape can also be read; its level is unknown.
"""

from __future__ import annotations

import json
import zipfile
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from diptych.errors import UserError
from diptych.files import atomic_path, numpy_array, parse_json, sha256_of
from diptych.types import Float32

NAME = "latents"
SUFFIXES = (".safetensors", ".npz", ".npy")


@dataclass(frozen=True)
class Latents:
    """Latents read from a file; `card` describes the inversion that made them, or is empty."""

    x: Float32
    name: str
    sha256: str
    card: dict[str, Any] = field(default_factory=dict)


def write_latents(path: Path, x: Float32, card: dict[str, Any]) -> None:
    """Write latents atomically, as safetensors or npz depending on the file's suffix."""
    text = json.dumps(card)
    with atomic_path(path) as temporary:
        if path.suffix == ".npz":
            with temporary.open("wb") as file:
                np.savez(file, **{NAME: x, "card": np.array(text)})
        else:
            temporary.write_bytes(save({NAME: np.ascontiguousarray(x)}, metadata={"card": text}))


def read_latents(source: str | Path, shape: tuple[int, int, int]) -> Latents:
    """Read latents from a file, or from a folder that `diptych encode` wrote.

    Raises:
        UserError: no file, damaged, not finite, or not latents of images of this shape.
    """
    path = Path(source)
    if path.is_dir():
        inside = [path / f"{NAME}{suffix}" for suffix in SUFFIXES]
        path = next((p for p in inside if p.is_file()), path)
    if not path.is_file():
        raise UserError(f"{path}: no latents here; give a folder of `diptych encode`, or its file")
    if path.suffix not in SUFFIXES:
        raise UserError(f"{path}: latents are .safetensors, .npz or .npy")
    x, card = _read(path)
    if x.ndim != 4 or x.shape[1:] != shape or not len(x):
        raise UserError(f"{path}: the latents are {x.shape}, this model needs (N, {_comma(shape)})")
    if not np.isfinite(x).all():
        raise UserError(f"{path}: the latents hold values that are not finite; encode them anew")
    return Latents(np.ascontiguousarray(x, np.float32), path.name, sha256_of(path), card)


def _comma(shape: tuple[int, ...]) -> str:
    return ", ".join(map(str, shape))


def _read(path: Path) -> tuple[np.ndarray[Any, Any], dict[str, Any]]:
    try:
        if path.suffix != ".safetensors":
            with path.open("rb") as file:
                found = np.load(file, allow_pickle=False)  # of either kind, whatever its suffix
                if isinstance(found, np.ndarray):
                    return _floats(path, found), {}
                name = NAME if NAME in found.files else found.files[0]
                card = _card(str(found["card"])) if "card" in found.files else {}
                return _floats(path, found[name]), card
        with safe_open(path, framework="numpy") as tensors:
            names = list(tensors.keys())
            name = NAME if NAME in names else names[0]
            card = _card((tensors.metadata() or {}).get("card", "{}"))
            return _floats(path, numpy_array(tensors, name)), card
    except (
        SafetensorError,
        OSError,
        ValueError,
        IndexError,
        EOFError,
        TypeError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path}: not readable latents ({reason}); encode them anew") from error


def _card(text: str) -> dict[str, Any]:
    """An inversion's card. Raises ValueError if it is not one, nor empty."""
    card = parse_json(text)
    if not isinstance(card, dict) or (card and not {"level", "steps", "spacing"} <= set(card)):
        raise ValueError(f"its card is {text[:40]}")
    return card


def _floats(path: Path, x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    if not np.issubdtype(x.dtype, np.floating):
        raise UserError(f"{path}: the latents are {x.dtype}; expected float32")
    return x
