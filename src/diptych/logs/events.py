"""TensorBoard event files: every scalar of every tag, a row per step."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from diptych.errors import UserError
from diptych.files import open_file
from diptych.logs.table import Row, Table

NAME = "tfevents"
WALL = "wall_time"


def is_events(path: Path) -> bool:
    """True if the file has the name of an event file."""
    return NAME in path.name


def read_events(paths: list[Path]) -> Table:
    """The scalars of event files, oldest first; a file that breaks off is read up to there.

    Raises:
        UserError: no file holds a scalar.
    """
    table = Table("TensorBoard")
    for path in sorted(paths, key=_order):
        open_file(path, "an event file").close()
        rows: dict[int, Row] = {}
        for step, tag, value, wall in _scalars(path, table):
            if rows and step not in rows and step < next(reversed(rows)):
                _flush(rows, table, path)  # begun anew at an earlier step: resumed
            row = rows.setdefault(step, {"step": float(step)})
            row[tag] = value
            row[WALL] = wall
        _flush(rows, table, path)
    if not table.rows:
        why = f" ({table.damaged})" if table.damaged else ""
        raise UserError(
            f"{paths[0]}: no scalar can be read{why}; expected an event file of TensorBoard"
        )
    return table


def _flush(rows: dict[int, Row], table: Table, path: Path) -> None:
    for row in rows.values():
        table.add(row, path)
    rows.clear()


def _order(path: Path) -> tuple[int, str]:
    """The time in an event file's name, else 0."""
    parts = path.name.split(".")
    return next((int(p) for p in parts if p.isdigit() and len(p) >= 9), 0), path.name


def _scalars(path: Path, table: Table) -> Iterator[tuple[int, str, float, float]]:
    from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
    from tensorboard.compat.proto.event_pb2 import Event

    read = 0
    try:
        for record in RawEventFileLoader(str(path)).Load():
            read += 1
            event: Any = Event.FromString(record)
            for value in event.summary.value:
                number = _number(value)
                if number is not None:
                    yield int(event.step), str(value.tag), number, float(event.wall_time)
        # The loader stops without a word at a damaged record, as at one that is still written.
        whole, cut = _framed(path)
        if read < whole:
            table.damaged = f"{path.name}: record {read + 1:,} is damaged"
        table.torn = table.torn or cut
    except Exception as error:  # a record that is no event
        table.damaged = f"{path.name}: {type(error).__name__}"


def _framed(path: Path) -> tuple[int, bool]:
    """The number of whole records by their lengths alone, and True if a cut one follows."""
    import struct

    size = path.stat().st_size
    at = records = 0
    with path.open("rb") as file:
        while at + 12 <= size:
            file.seek(at)
            (length,) = struct.unpack("<Q", file.read(8))
            if at + 16 + length > size:
                return records, True
            at, records = at + 16 + length, records + 1
    return records, at != size


def _number(value: Any) -> float | None:
    """The scalar of a summary's value, of either encoding; None if it is none."""
    kind = value.WhichOneof("value")
    if kind == "simple_value":
        return float(value.simple_value)
    if kind != "tensor":
        return None
    plugin = value.metadata.plugin_data.plugin_name
    if plugin not in ("", "scalars"):
        return None
    from tensorboard.util.tensor_util import make_ndarray

    try:
        array = make_ndarray(value.tensor)
    except (TypeError, ValueError):
        return None
    return float(array.reshape(())) if array.size == 1 and array.dtype.kind in "fiu" else None
