"""Statistics on disk, with the protocol that made them: .npz or .safetensors.

Both hold the exact integer sums (upper triangles), so that shards computed apart add up exactly,
and `mu` and `sigma` in float64, under which names other tools read an .npz. A file with nothing but
`mu` and `sigma`, as those tools write it, is taken too: it says neither N nor protocol.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from diptych.errors import UserError
from diptych.evaluation.statistics import Grid, Moments, Statistics
from diptych.files import atomic_path, parse_json
from diptych.types import Arrays

SCHEMA = "diptych-statistics-1"
SUFFIXES = (".npz", ".safetensors")


@dataclass(frozen=True)
class Stored:
    """What a file of statistics holds.

    Attributes:
        moments: mean and covariance.
        statistics: the exact sums; None in another tool's file.
        protocol: what made them, flat; empty in another tool's file.
    """

    moments: Moments
    statistics: Statistics | None
    protocol: dict[str, Any]


def save(path: Path, statistics: Statistics, protocol: dict[str, Any]) -> None:
    """Write statistics and their protocol; the suffix chooses the format.

    Raises:
        UserError: another suffix, or fewer than two images.
        MachineError: the file cannot be written.
    """
    check_suffix(path)
    moments = statistics.moments()
    upper = np.triu_indices(statistics.dims)
    arrays: Arrays = {"mu": moments.mean, "sigma": moments.cov}
    for bound, grid in statistics.grids.items():
        arrays[f"sums.{bound}"] = grid.sums
        arrays[f"outer.{bound}"] = np.ascontiguousarray(grid.outer[:, upper[0], upper[1]])
    note = {"schema": SCHEMA, "n": statistics.n, "dims": statistics.dims, "protocol": protocol}
    text = json.dumps(note, sort_keys=True, allow_nan=False)
    with atomic_path(path) as temporary:
        if path.suffix == ".npz":
            with temporary.open("wb") as file:
                np.savez(file, note=np.array(text), **arrays)
        else:
            from safetensors.numpy import save_file

            save_file(arrays, str(temporary), metadata={"note": text})


def check_suffix(path: Path) -> None:
    """Refuse a name that is neither .npz nor .safetensors."""
    if path.suffix not in SUFFIXES:
        raise UserError(f"{path}: statistics are written as {' or '.join(SUFFIXES)}; name it so")


def is_statistics(path: Path) -> bool:
    """Whether a file holds statistics and not images."""
    if not path.is_file() or path.suffix not in SUFFIXES:
        return False
    return path.suffix == ".safetensors" or {"mu", "sigma"} <= set(_read(path)[0])


def load(path: Path) -> Stored:
    """The statistics in a file.

    Raises:
        UserError: not such a file, or damaged.
    """
    arrays, text = _read(path)
    if not {"mu", "sigma"} <= set(arrays):
        raise UserError(f"{path}: holds no statistics (mu and sigma); make some: diptych stats")
    mean = np.asarray(arrays["mu"], np.float64)
    cov = np.asarray(arrays["sigma"], np.float64)
    if mean.ndim != 1 or cov.shape != (mean.size, mean.size):
        raise UserError(f"{path}: mu is {mean.shape} and sigma {cov.shape}; expected (d,), (d, d)")
    if text is None:
        return Stored(Moments(None, mean, cov), None, {})
    try:
        note = parse_json(text)
        statistics = _statistics(note, arrays)
        protocol = dict(note["protocol"])
    except (KeyError, ValueError, TypeError, IndexError) as error:
        raise UserError(f"{path}: damaged statistics ({error}); compute them again") from error
    return Stored(statistics.moments(), statistics, protocol)


def _statistics(note: dict[str, Any], arrays: Arrays) -> Statistics:
    if note["schema"] != SCHEMA:
        raise ValueError(f"schema {note['schema']}")
    dims, found = int(note["dims"]), Statistics(int(note["dims"]), int(note["n"]))
    upper = np.triu_indices(dims)
    for name in arrays:
        kind, _, bound = name.partition(".")
        if kind != "outer":
            continue
        outer = np.zeros((3, dims, dims), np.int64)
        outer[:, upper[0], upper[1]] = arrays[name]
        outer[:, upper[1], upper[0]] = arrays[name]
        found.grids[int(bound)] = Grid(np.asarray(arrays[f"sums.{bound}"], np.int64), outer)
    return found


def _read(path: Path) -> tuple[Arrays, str | None]:
    """The arrays, and the note where there is one."""
    try:
        if path.suffix == ".safetensors":
            from safetensors import safe_open

            with safe_open(str(path), framework="numpy") as file:
                note = (file.metadata() or {}).get("note")
                return {name: file.get_tensor(name) for name in file.keys()}, note  # noqa: SIM118
        with np.load(path, allow_pickle=False) as file:
            if not {"mu", "sigma"} <= set(file.files):
                return {}, None
            found = {name: file[name] for name in file.files}
    except FileNotFoundError as error:
        raise UserError(f"{path}: not found") from error
    except Exception as error:  # every library has its own errors for a damaged file
        raise UserError(f"{path}: not a readable file of statistics ({error})") from error
    written = found.pop("note", None)
    return found, None if written is None else str(written)
