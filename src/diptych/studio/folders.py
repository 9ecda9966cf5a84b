"""Contents of the studio's folders, and the way to a file there: never outside.

A thing is named `K/relative/path`, K the folder's number. A link is only followed if it stays
below the same folder.
"""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from diptych.config.load import Config, flatten, load_config
from diptych.errors import UserError
from diptych.files import Line, Tail, read_bytes, read_json
from diptych.runs.reader import last_step
from diptych.runs.records import Sweep
from diptych.runs.status import at_work
from diptych.weights.find import zoo_names
from diptych.weights.formats import is_diffusers

DEPTH = 5
MOST_FOLDERS = 5_000
FRESH = 2.0  # seconds for which a listing is used again
MOST_PICTURE = 32 * 2**20  # bytes
MOST_PAGE = 128 * 2**20
GRID = re.compile(r"step-\d+\.png")
POINTS = 400  # of a loss curve
LAST_BYTES = 16_384  # of a journal, which hold its last row


@dataclass(frozen=True)
class Entry:
    """A folder of interest: a run, a model, samples, a sweep, a report (any of them at once)."""

    name: str
    path: Path
    kinds: tuple[str, ...]


@dataclass
class Curve:
    """A journal read so far; it goes on where it ended."""

    tail: Tail = field(default_factory=Tail)
    steps: list[int] = field(default_factory=list)
    losses: list[float | None] = field(default_factory=list)
    left_out: int = 0  # lines that could not be read
    lock: threading.Lock = field(default_factory=threading.Lock)

    def read_on(self, path: Path) -> None:
        """Read the new lines of the journal."""
        for line in self.tail.read(path, self._forget):
            row = _row(line)
            if row is None:
                self.left_out += not line.blank
                continue
            self.steps.append(row["step"])
            self.losses.append(_finite(row.get("loss")))

    def _forget(self) -> None:
        self.left_out = 0
        self.steps.clear()
        self.losses.clear()


class Folders:
    """The given folders.

    Attributes:
        roots: their real paths.
        left_out: folders that were not looked into, for they are too many or too deep.
    """

    def __init__(self, given: Sequence[Path]) -> None:
        self.roots: list[Path] = []
        for path in given:
            if not path.is_dir():
                raise UserError(f"{path}: not a folder; give folders that hold runs or models")
            self.roots.append(path.resolve())
        self.left_out = 0
        self._found: tuple[float, list[Entry]] = (0.0, [])
        self._curves: dict[str, Curve] = {}
        self._lock = threading.Lock()

    def path(self, name: str) -> Path:
        """The path of `K/relative`. Raises UserError if it is not below its folder."""
        number, _, relative = name.partition("/")
        inside = number.isdecimal() and len(number) < 10 and int(number) < len(self.roots)
        if not inside or "\0" in name:
            raise UserError(f"'{name[:200]}': not below the studio's folders")
        root = self.roots[int(number)]
        try:
            path = (root / relative).resolve()
        except (OSError, RuntimeError) as error:
            raise UserError(f"'{name[:200]}': not below the studio's folders") from error
        if path != root and root not in path.parents:
            raise UserError(f"'{name[:200]}': not below the studio's folders")
        return path

    def model(self, name: str) -> str:
        """The source of a model for a worker: `zoo:NAME`, or the path of one that is listed."""
        if name.startswith("zoo:"):
            if name.removeprefix("zoo:") not in zoo_names():
                raise UserError(f"{name}: not in the zoo, which holds {', '.join(zoo_names())}")
            return name
        path = self.path(name)
        if not any(each.path == path and "model" in each.kinds for each in self.entries()):
            raise UserError(f"{name}: no model here; choose one from the list")
        self._check_links(path, self.roots[int(name.partition("/")[0])])
        return str(path)

    def _check_links(self, folder: Path, root: Path) -> None:
        """Refuse a folder with a link that leads out of the studio's folder."""
        for place, folders, files in os.walk(folder):
            for name in (*folders, *files):
                path = Path(place, name)
                if path.is_symlink() and root not in path.resolve().parents:
                    raise UserError(
                        f"{path.relative_to(root)}: is a link out of the studio's folders; start "
                        f"the studio with the folder that it leads to"
                    )

    def entries(self) -> list[Entry]:
        """Everything found, in the order of names; looked up anew after two seconds."""
        with self._lock:
            when, found = self._found
            if time.monotonic() - when > FRESH or not when:
                self.left_out = 0
                found = list(self._walk())
                self._found = (time.monotonic(), found)
            return found

    def of(self, kind: str) -> list[Entry]:
        """The entries of one kind."""
        return [each for each in self.entries() if kind in each.kinds]

    def _walk(self) -> Iterator[Entry]:
        count = 0
        for number, root in enumerate(self.roots):
            for place, folders, files in os.walk(root):
                folder = Path(place)
                depth = len(folder.relative_to(root).parts)
                count += 1
                folders.sort()
                inside = {
                    name
                    for name in files
                    if name.endswith(".safetensors")  # told by `model`, when asked for
                    or self._is_inside(folder / name, root)
                }
                if kinds := kinds_of(folder, inside, set(folders)):
                    relative = folder.relative_to(root).as_posix()
                    yield Entry(f"{number}/{relative}".removesuffix("/."), folder, kinds)
                inner = [name for name in folders if not name.startswith(".")]
                if depth >= DEPTH or count >= MOST_FOLDERS:
                    self.left_out += len(inner)
                    inner = []
                if "model_index.json" in files:
                    inner = []  # its parts are no models of their own
                folders[:] = inner

    @staticmethod
    def _is_inside(path: Path, root: Path) -> bool:
        """False for a link that leads out of the root, or nowhere."""
        return not path.is_symlink() or root in path.resolve().parents

    def title(self, name: str) -> str:
        """A name for people: the path below its folder, with the folder's own name if several."""
        number, _, relative = name.partition("/")
        root = self.roots[int(number)].name
        return "/".join(
            filter(None, [root if len(self.roots) > 1 or not relative else "", relative])
        )

    def runs(self) -> list[dict[str, Any]]:
        """The runs, with their last step and loss."""
        found = []
        for each in self.of("run"):
            try:
                found.append(self._run(each))
            except (UserError, OSError) as error:
                found.append(
                    {
                        "name": each.name,
                        "title": self.title(each.name),
                        "error": str(error),
                        "time": 0.0,
                        "live": False,
                        "grids": [],
                        "step": 0,
                    }
                )
        return found

    def _run(self, entry: Entry) -> dict[str, Any]:
        journal = self.path(f"{entry.name}/metrics.jsonl")
        changed = journal.stat().st_mtime
        last = _last_row(journal)
        facts = self.path(f"{entry.name}/environment.json")
        environment = read_json(facts) if facts.is_file() else {}
        config = self.path(f"{entry.name}/config.yaml")
        steps = last_step(_config(config, config.stat().st_mtime_ns), environment)
        return {
            "name": entry.name,
            "title": self.title(entry.name),
            "backend": environment.get("backend"),
            "step": last.get("step", 0),
            "loss": _finite(last.get("loss")),
            "steps": steps,
            "time": changed,
            "live": at_work(entry.path),
            "grids": [path.name for path in self._grids(entry)],
        }

    def _grids(self, entry: Entry) -> list[Path]:
        folder = entry.path / "grids"
        found = sorted(folder.glob("step-*.png")) if folder.is_dir() else []
        return [path for path in found if GRID.fullmatch(path.name)]

    def _entry(self, name: str, kind: str) -> Entry:
        for each in self.of(kind):
            if each.name == name:
                return each
        raise UserError(f"'{name[:200]}': no {kind} below the studio's folders")

    def picture(self, name: str, file: str) -> bytes:
        """The PNG of a training's grid, or of a sample folder (`grid.png`)."""
        entry = self._entry(name, "samples" if file == "grid.png" else "run")
        if file != "grid.png" and not GRID.fullmatch(file):
            raise UserError(f"'{file[:100]}': no picture of a training")
        relative = file if file == "grid.png" else f"grids/{file}"
        return read_bytes(self.path(f"{entry.name}/{relative}"), "a PNG", MOST_PICTURE)

    def page(self, name: str) -> bytes:
        """A report's page."""
        entry = self._entry(name, "report")
        return read_bytes(self.path(f"{entry.name}/index.html"), "a page", MOST_PAGE)

    def settings(self, names: Sequence[str]) -> dict[str, Any]:
        """The settings of runs that differ, {key: [value of each]}, and how many are equal."""
        configs = [
            flatten(load_config(str(self.path(f"{self._entry(name, 'run').name}/config.yaml"))))
            for name in names
        ]
        keys = sorted({key for config in configs for key in config})
        rows = {key: [config.get(key) for config in configs] for key in keys}
        unlike = {key: row for key, row in rows.items() if any(value != row[0] for value in row)}
        return {"unlike": unlike, "equal": len(rows) - len(unlike)}

    def curve(self, name: str) -> dict[str, Any]:
        """The loss curve as means of at most POINTS bins, and the number of lines left out."""
        entry = self._entry(name, "run")
        with self._lock:
            curve = self._curves.setdefault(name, Curve())
        with curve.lock:
            curve.read_on(self.path(f"{entry.name}/metrics.jsonl"))
            width = max(1, -(-len(curve.steps) // POINTS))
            steps, losses = [], []
            for first in range(0, len(curve.steps), width):
                part = [x for x in curve.losses[first : first + width] if x is not None]
                steps.append(curve.steps[first : first + width][-1])
                losses.append(sum(part) / len(part) if part else None)
            return {
                "steps": steps,
                "losses": losses,
                "mean_of": width,
                "rows": len(curve.steps),
                "left_out": curve.left_out,
            }

    def sweeps(self, weights_sha256: str) -> list[dict[str, Any]]:
        """Cells of the sweeps of these weights: solver, steps, calls and scores."""
        found = []
        for each in self.of("sweep"):
            try:
                sweep = Sweep.read(self.path(f"{each.name}/sweep.json"))
            except (UserError, OSError):
                continue
            if sweep.request.weights_sha256 == weights_sha256:
                cells = [cell.model_dump(mode="json") for cell in sweep.cells]
                found.append({"name": each.name, "title": self.title(each.name), "cells": cells})
        return found


def kinds_of(folder: Path, files: set[str], folders: set[str]) -> tuple[str, ...]:
    """The kinds of a folder, by the names in it."""
    found = []
    if "metrics.jsonl" in files and "config.yaml" in files:
        found.append("run")
        if "checkpoints" in folders and any((folder / "checkpoints").glob("step-*/manifest.json")):
            found.append("model")
    elif "manifest.json" in files and any(name.endswith(".safetensors") for name in files):
        found.append("model")
    elif files & {"model_index.json", "config.json"}:
        try:
            if is_diffusers(folder):
                found.append("model")
        except UserError:
            pass
    if "grid.png" in files and "manifest.json" in files:
        found.append("samples")
    if "sweep.json" in files:
        found.append("sweep")
    if "index.html" in files and files & {"report.json", "align.json", "compare.json", "port.json"}:
        found.append("report")
    return tuple(found)


@lru_cache(512)
def _config(path: Path, changed: int) -> Config:
    """A run's settings, read again once the file has changed."""
    return load_config(str(path))


def _finite(value: Any) -> float | None:
    number = isinstance(value, int | float) and abs(value) < float("inf")
    return float(value) if number else None


def _last_row(path: Path) -> dict[str, Any]:
    """The last whole row of a journal; {} before the first."""
    rows = [row for row in map(_row, Tail(LAST_BYTES).read(path)) if row is not None]
    return rows[-1] if rows else {}


def _row(line: Line) -> dict[str, Any] | None:
    row = line.value
    return row if isinstance(row, dict) and isinstance(row.get("step"), int) else None
