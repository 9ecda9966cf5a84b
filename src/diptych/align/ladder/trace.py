"""A trace: one implementation's results, rung by rung, in a folder that any program can read.

    FOLDER/trace.json             schema, who computed it, and for each rung its order and facts
    FOLDER/RUNG.safetensors       the rung's arrays by name

Arrays keep their dtype: bits are compared as bits. Facts are JSON values (settings, versions).
Arrays are in the order of computation, so that the first difference listed is the first in time.

    with Tracer(Path("mine"), "my port") as trace:
        trace.add("layers", "conv_in", activations)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from diptych.errors import UserError
from diptych.files import machine_faults, read_json, write_json
from diptych.types import Array

SCHEMA = 1
KIND = "diptych-trace"


@dataclass
class Rung:
    """One rung of a trace: arrays and facts by name, and their order."""

    arrays: dict[str, Array] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def names(self) -> list[str]:
        """Facts first, then arrays in the order of computation."""
        return [*self.facts, *self.arrays]


@dataclass(frozen=True)
class Trace:
    """A trace folder, read one rung at a time on request: a whole trace may be gigabytes."""

    folder: Path
    about: dict[str, Any]
    listed: dict[str, dict[str, Any]]

    def rung(self, name: str, wanted: Callable[[str], bool] | None = None) -> Rung:
        """One rung's facts and arrays; `wanted` selects arrays by name.

        Raises:
            UserError: if the rung is not in the trace, or its file is missing or damaged.
        """
        if name not in self.listed:
            raise UserError(f"{self.folder}: holds no rung '{name}'; trace it, or leave it out")
        listed = self.listed[name]
        path = self.folder / f"{name}.safetensors"
        try:
            arrays = load_file(path) if listed["order"] else {}
        except FileNotFoundError as error:
            raise UserError(f"{path}: is missing; the trace is not whole, make it again") from error
        except (SafetensorError, OSError, ValueError) as error:
            raise UserError(f"{path}: is damaged ({error}); make the trace again") from error
        missing = [each for each in listed["order"] if each not in arrays]
        if missing:
            raise UserError(f"{path}: tensor '{missing[0]}' is missing; make the trace again")
        kept = {n: arrays[n] for n in listed["order"] if wanted is None or wanted(n)}
        return Rung(kept, dict(listed["facts"]), float(listed.get("seconds", 0.0)))


class Tracer:
    """Writer of a trace folder; a rung is on disk once the next one begins or the block ends."""

    def __init__(self, folder: Path, name: str, **about: Any) -> None:
        self.folder, self.about = folder, {"name": name, **about}
        self.listed: dict[str, dict[str, Any]] = {}
        self.rung, self.held = "", Rung()

    def __enter__(self) -> Tracer:
        with machine_faults(f"opening {self.folder}"):
            self.folder.mkdir(parents=True, exist_ok=True)
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self.finish()

    def add(self, rung: str, name: str, values: npt.ArrayLike) -> None:
        """Record a copy of one array under a name of its own.

        Raises:
            UserError: if the rung is finished, its name was used, or the array holds no numbers.
        """
        self._enter(rung)
        array = np.array(values, order="C")
        if name in self.held.arrays:
            raise UserError(f"{self.folder}: '{name}' was traced twice in rung '{rung}'")
        if array.dtype == object:
            raise UserError(f"{self.folder}: '{name}' is not an array of numbers")
        self.held.arrays[name] = array

    def fact(self, rung: str, name: str, value: Any) -> None:
        """Record one JSON value that must be equal on both sides."""
        self._enter(rung)
        self.held.facts[name] = value

    def begin(self, rung: str) -> None:
        """Open a rung, even if nothing will be added to it."""
        self._enter(rung)

    def timed(self, seconds: float) -> None:
        """Record the open rung's duration in seconds."""
        self.held.seconds = seconds

    def _enter(self, rung: str) -> None:
        if rung == self.rung:
            return
        self._flush()
        if rung in self.listed:
            raise UserError(f"{self.folder}: rung '{rung}' is finished; trace each in one go")
        self.rung, self.held = rung, Rung()

    def _flush(self) -> None:
        if not self.rung:
            return
        if self.held.arrays:
            path = self.folder / f"{self.rung}.safetensors"
            with machine_faults(f"writing {path}"):
                path.write_bytes(save(self.held.arrays))
        self.listed[self.rung] = {
            "order": list(self.held.arrays),
            "facts": self.held.facts,
            "seconds": self.held.seconds,
        }

    def finish(self) -> None:
        """Write the last rung and `trace.json`, without which the folder is not a trace."""
        self._flush()
        self.rung = ""
        head = {"schema": SCHEMA, "kind": KIND, "about": self.about, "rungs": self.listed}
        write_json(self.folder / "trace.json", head)


def read_trace(folder: Path) -> Trace:
    """Read a trace folder's head. Raises UserError if it is no trace or has another schema."""
    if not folder.is_dir():
        raise UserError(f"{folder}: not a folder; give a trace folder (with a trace.json)")
    head = read_json(folder / "trace.json")
    if head.get("kind") != KIND:
        raise UserError(f"{folder / 'trace.json'}: is not a trace (kind is not '{KIND}')")
    if head.get("schema") != SCHEMA:
        raise UserError(
            f"{folder}: the trace has schema {head.get('schema')}, this version reads {SCHEMA}; "
            f"make the trace again"
        )
    rungs = head.get("rungs")
    if not isinstance(rungs, dict) or not all(_is_listed(rung) for rung in rungs.values()):
        raise UserError(f"{folder / 'trace.json'}: its list of rungs is damaged; trace again")
    about = head.get("about")
    return Trace(folder, about if isinstance(about, dict) else {}, rungs)


def _is_listed(rung: Any) -> bool:
    order, facts = (rung.get(k) for k in ("order", "facts")) if isinstance(rung, dict) else (0, 0)
    return isinstance(facts, dict) and isinstance(order, list) and all_names(order)


def all_names(names: Iterable[Any]) -> bool:
    """True if all names are strings."""
    return all(isinstance(name, str) for name in names)
