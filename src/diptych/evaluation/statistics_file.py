"""Statistics on disk, with the protocol that made them: .npz or .safetensors.

Both hold the exact integer sums (upper triangles), so that shards computed apart add up exactly,
and `mu` and `sigma` in float64, the names that other tools read in an .npz. A file with only `mu`
and `sigma`, as those tools write it, is accepted too: it gives neither N nor protocol.

Files are not trusted: types, shapes and sizes are checked before use, and a covariance must be
real, finite, symmetric and positive semi-definite. TOLERANCE is for files of float32: rounding
moves an eigenvalue of a 2,048 x 2,048 covariance by about 2 sqrt(2048) 2**-25 = 3e-6 of its largest
variance.
"""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from diptych.errors import MachineError, UserError
from diptych.evaluation.statistics import BOUND, LADDER, Grid, Moments, Statistics
from diptych.files import atomic_path, expanded, look, numpy_array, parse_json
from diptych.types import Arrays, Float64

SCHEMA = "diptych-statistics-1"
SUFFIXES = (".npz", ".safetensors")
TOLERANCE = 1e-5  # relative to the largest variance
MOST = 2**40  # most images in int64 sums
_BOUNDS = range(BOUND, 128, LADDER)  # bounds of the grids that `statistics` makes


@dataclass(frozen=True)
class Stored:
    """The content of a statistics file.

    Attributes:
        moments: mean and covariance.
        statistics: the exact sums; None in another tool's file.
        protocol: the protocol that made them, flat; empty in another tool's file.
    """

    moments: Moments
    statistics: Statistics | None
    protocol: dict[str, Any]


def save(path: Path, statistics: Statistics, protocol: dict[str, Any]) -> None:
    """Write statistics and their protocol; the suffix chooses the format.

    Raises:
        UserError: unknown suffix, or fewer than two images.
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
    # In memory first: on a full disk the two libraries fail in different ways, partly silently.
    if path.suffix == ".npz":
        held = io.BytesIO()
        np.savez(held, note=np.array(text), **arrays)
        data: bytes | memoryview = held.getbuffer()
    else:
        from safetensors.numpy import save as packed

        data = packed(arrays, metadata={"note": text})
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def check_suffix(path: Path) -> None:
    """Refuse a name that is neither .npz nor .safetensors."""
    if path.suffix not in SUFFIXES:
        raise UserError(f"{path}: statistics are written as {' or '.join(SUFFIXES)}; name it so")


def statistics_path(source: str | Path) -> Path | None:
    """The file of statistics that a source names, as PATH or npz:PATH; None for other sources."""
    text = str(source)
    kind, colon, rest = text.partition(":")
    path = expanded(rest if colon and kind == "npz" else text)
    return path if is_statistics(path) else None


def is_statistics(path: Path) -> bool:
    """Return whether a file holds statistics and not images."""
    if path.suffix not in SUFFIXES or look(path) != "file":
        return False
    return path.suffix == ".safetensors" or bool(_read(path)[0])


def load(path: Path) -> Stored:
    """The statistics in a file.

    Raises:
        UserError: not a statistics file, damaged, or values impossible for images.
    """
    arrays, text = _read(path)
    if not {"mu", "sigma"} <= set(arrays):
        raise UserError(f"{path}: holds no statistics (mu and sigma); make some: diptych stats")
    given = _moments(path, arrays["mu"], arrays["sigma"])
    if text is None:
        return Stored(given, None, {})
    try:
        note = parse_json(text)
        statistics = _statistics(note, arrays, given.mean.size)
        protocol = dict(note["protocol"])
        moments = statistics.moments()
    except (KeyError, ValueError, TypeError, IndexError, AttributeError, OverflowError,
            RecursionError) as error:  # fmt: skip
        said = f"{type(error).__name__}: {error}" if isinstance(error, KeyError) else str(error)
        raise UserError(f"{path}: damaged statistics ({said}); compute them again") from None
    except MemoryError:
        raise MachineError(f"{path}: is too large for this machine's memory") from None
    for name, one, other in (
        ("mu", given.mean, moments.mean),
        ("sigma", given.cov, moments.cov),
    ):
        # Not compared to the last bit: extended precision differs between machines.
        if not np.allclose(one, other, rtol=1e-9, atol=1e-9 * float(np.abs(one).max())):
            raise UserError(
                f"{path}: {name} is not that of the sums beside it; the file was changed. Compute "
                "it again"
            )
    return Stored(moments, statistics, protocol)


def _moments(path: Path, mean: Any, cov: Any) -> Moments:
    """Mean and covariance, checked."""
    for name, array in (("mu", mean), ("sigma", cov)):
        if array.dtype.kind not in "fiu":
            raise UserError(f"{path}: {name} is of type {array.dtype}; expected real numbers")
    if mean.ndim != 1 or not mean.size or cov.shape != (mean.size, mean.size):
        raise UserError(f"{path}: mu is {mean.shape} and sigma {cov.shape}; expected (d,), (d, d)")
    mean, cov = mean.astype(np.float64), cov.astype(np.float64)
    for name, array in (("mu", mean), ("sigma", cov)):
        if not np.isfinite(array).all():
            raise UserError(f"{path}: {name} holds values that are not finite; compute it again")
    largest = float(np.diagonal(cov).max())
    with np.errstate(over="ignore"):
        gap, middle = float(np.abs(cov - cov.T).max()), (cov + cov.T) / 2
    if gap > TOLERANCE * float(np.abs(cov).max()):
        raise UserError(
            f"{path}: sigma is not symmetric (two halves differ by {gap:.3g}, the largest variance "
            f"is {largest:.3g}), so it is not a covariance; compute it again"
        )
    if not np.isfinite(middle).all():
        raise UserError(f"{path}: sigma holds values beyond float64 when added; compute it again")
    if not _positive(middle, largest):
        raise UserError(
            f"{path}: sigma has negative variances (it is not positive semi-definite), so it is "
            "not a covariance; compute it again"
        )
    return Moments(None, mean, middle)


def _positive(cov: Float64, largest: float) -> bool:
    """Return whether no eigenvalue is below -TOLERANCE * the largest variance."""
    if largest <= 0.0:
        return not cov.any()
    try:
        np.linalg.cholesky(cov + TOLERANCE * largest * np.eye(len(cov)))
    except np.linalg.LinAlgError:
        return False
    return True


def _statistics(note: dict[str, Any], arrays: Arrays, size: int) -> Statistics:
    if note["schema"] != SCHEMA:
        raise ValueError(f"schema {note['schema']}")
    n, dims = note["n"], note["dims"]
    if type(n) is not int or not 2 <= n <= MOST:
        raise ValueError(f"n is {str(n)[:40]}, expected 2 to {MOST}")
    if type(dims) is not int or dims != size:
        raise ValueError(f"dims is {str(dims)[:40]}, mu has {size}")
    if not isinstance(note["protocol"], dict):
        raise ValueError("protocol is not an object")
    found = Statistics(dims, n)
    upper = np.triu_indices(dims)
    shapes = {"sums": (2, dims), "outer": (3, len(upper[0]))}
    bounds: dict[str, set[int]] = {"sums": set(), "outer": set()}
    for name in set(arrays) - {"mu", "sigma"}:
        kind, _, bound = name.partition(".")
        if kind not in shapes or not bound.isdecimal() or int(bound) not in _BOUNDS:
            raise ValueError(f"there is an array '{name}'")
        if arrays[name].dtype != np.int64 or arrays[name].shape != shapes[kind]:
            held = f"{arrays[name].dtype} {arrays[name].shape}"
            raise ValueError(f"'{name}' is {held}, expected int64 {shapes[kind]}")
        bounds[kind].add(int(bound))
    if bounds["sums"] != bounds["outer"] or not bounds["sums"]:
        raise ValueError("sums and outer sums are not of the same grids")
    for grid in sorted(bounds["sums"]):
        outer = np.zeros((3, dims, dims), np.int64)
        outer[:, upper[0], upper[1]] = arrays[f"outer.{grid}"]
        outer[:, upper[1], upper[0]] = arrays[f"outer.{grid}"]
        found.grids[grid] = Grid(np.asarray(arrays[f"sums.{grid}"]), outer)
    return found


def _read(path: Path) -> tuple[Arrays, str | None]:
    """The arrays, and the note if there is one; nothing for an .npz without mu and sigma."""
    if look(path) != "file":
        raise UserError(f"{path}: not found, or no regular file")
    try:
        if path.suffix == ".safetensors":
            from safetensors import safe_open

            with safe_open(str(path), framework="numpy") as file:
                note = (file.metadata() or {}).get("note")
                return {name: numpy_array(file, name) for name in file.keys()}, note  # noqa: SIM118
        with np.load(path, allow_pickle=False) as file:
            if not {"mu", "sigma"} <= set(file.files):
                return {}, None
            found = {name: file[name] for name in file.files}
    except MemoryError:
        raise MachineError(f"{path}: is too large for this machine's memory") from None
    except Exception as error:  # each library has its own errors for damaged files
        said = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(f"{path}: not a readable file of statistics ({said})") from None
    for name, value in found.items():
        if not isinstance(value, np.ndarray):
            raise UserError(f"{path}: '{name}' is not an array; compute the statistics again")
    written = found.pop("note", None)
    return found, None if written is None else str(written)
