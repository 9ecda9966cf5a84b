"""Log files of any usual format as tables; the format is known by content, not by name."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path
from typing import Any

from diptych.errors import UserError
from diptych.files import parse_json, read_bytes, read_json
from diptych.logs.columns import is_held_out, of_held_out
from diptych.logs.events import NAME, is_events, read_events
from diptych.logs.table import MOST_BYTES, Row, Table, numbers_of, parse_number
from diptych.logs.text import BARE, THOUSANDS, read_text, whole

EXPECTED = "a log: CSV, JSON lines, TensorBoard events, trainer_state.json or text"
HISTORY = "log_history"  # key of Trainer's state
OBJECT = re.compile(r'\s*\{\s*(?:"|$)')  # the beginning of a JSON object, and of no dict of Python
# Facts of Trainer's state that are settings of the training.
FACTS = ("max_steps", "num_train_epochs", "train_batch_size", "logging_steps")
COMMA = re.compile(r"^\s*([-+]?\d+),(\d+(?:[eE][-+]?\d+)?)\s*$")  # 0,5 as German spreadsheets write
# Files that mark a folder of Diptych itself.
OURS = ("config.yaml", "study.json", "environment.json", "metrics.jsonl")
INSIDE = ("trainer_state.json", "wandb-history.jsonl", "metrics.jsonl")
PACKED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"PK\x03\x04")


def read_table(path: Path) -> Table:
    """The table of a log file, or of a folder that holds one.

    Raises:
        UserError: nothing there, nothing readable, an empty file, or no number in it.
    """
    if path.is_dir():
        return _folder(path)
    if is_events(path):
        return read_events([path])
    content = read_bytes(path, EXPECTED, MOST_BYTES)
    if not content.strip():
        raise UserError(f"{path}: is empty; expected {EXPECTED}")
    if content.startswith(PACKED):
        raise UserError(f"{path}: is compressed; unpack it first (gunzip, xz -d, unzip)")
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        text = content.decode("utf-16", errors="replace")
    else:
        try:
            text = content.decode("utf-8-sig")
        except UnicodeDecodeError:
            text = content.decode("gb18030", errors="replace")  # text logs of Windows in China
    if "\0" in text:
        raise UserError(f"{path}: is not text; expected {EXPECTED}")
    table = _text(text, path)
    if not table.rows:
        raise UserError(f"{path}: holds no numbers with names or in columns; expected {EXPECTED}")
    return table


def is_log(path: Path) -> bool:
    """True if this is a log of another program: a file, but none of scores, or a folder with a log
    that is no run or study of ours, and holds no run."""
    if path.is_dir():
        if any((path / name).exists() for name in OURS) or any(path.glob("*/environment.json")):
            return False
        return any(next(path.rglob(mark), None) for mark in (f"*{NAME}*", *INSIDE))
    if not path.exists():
        return path.suffix in (".csv", ".tsv", ".jsonl", ".txt", ".log")  # a slip of the keyboard
    if path.suffix != ".json" or path.stat().st_size > 2**26:
        return True
    try:
        return "scores" not in read_json(path, finite=False)
    except UserError:
        return True  # a list, or not JSON: the reader of logs says so


def _folder(path: Path) -> Table:
    events = [p for p in sorted(path.rglob(f"*{NAME}*")) if p.is_file()]
    for name in INSIDE:
        if (path / name).is_file():
            return read_table(path / name)
    states = sorted(path.glob("checkpoint-*/trainer_state.json"), key=lambda p: p.stat().st_mtime)
    if states:
        return read_table(states[-1])
    folders = sorted({str(p.parent.relative_to(path)) for p in events})
    if len(folders) > 1:
        raise UserError(
            f"{path}: holds event files in {len(folders)} folders ({', '.join(folders[:4])}); give "
            "one of them"
        )
    if not events:
        raise UserError(
            f"{path}: not a run folder (it has no config.yaml), and without a log; expected event "
            f"files or {INSIDE[0]}"
        )
    return read_events(events)


def _text(text: str, path: Path) -> Table:
    start = text.lstrip()[:1]
    if start in "[{":
        table = _json(text, path)
        if table is not None:
            return table
    lines = re.split(r"\r\n|\n|\r", text)
    filled = [line for line in lines if line.strip() and not line.lstrip().startswith("#")]
    if not filled:
        return Table("text")
    if start == "{" or sum(line.lstrip().startswith("{") for line in filled) > len(filled) / 2:
        table, why = _json_lines(filled, path)
        if table.rows:
            return table
        if why is not None and any(OBJECT.match(line) for line in filled):
            raise _damaged(path, why) from why
        table = Table("text")  # dicts as Python prints them
        read_text(filled, table, path)
        return table
    delimiter = _delimiter(filled)
    if delimiter:
        return _csv(filled, delimiter, path, ended=text.endswith(("\n", "\r")))
    table = Table("text")
    head = _header(filled)
    if head:
        return _spaced(filled, head, path)
    read_text(filled, table, path)
    return table


def _json(text: str, path: Path) -> Table | None:
    """The table of one JSON value; None if the text is none, such as JSON lines."""
    try:
        value = parse_json(text, most_values=20_000_000, finite=False)
    except ValueError as error:
        if _was_json(text):
            raise _damaged(path, error) from error
        return None
    if isinstance(value, dict) and isinstance(value.get(HISTORY), list):
        table = Table("Trainer")
        table.settings = {key: value[key] for key in FACTS if value.get(key) is not None}
        return _objects(value[HISTORY], table, path)
    if isinstance(value, dict):
        columns = {k: v for k, v in value.items() if isinstance(v, list) and v}
        return _columns(columns, path) if columns else _objects([value], Table("JSON"), path)
    if isinstance(value, list) and value and not isinstance(value[0], (dict, list)):
        return _columns({"loss": value}, path)
    if isinstance(value, list):
        return _objects(value, Table("JSON"), path)
    return None


def _was_json(text: str) -> bool:
    """True if a text that is no JSON was one value: a list of rows or numbers, or an object.

    JSON lines, lines of `[Epoch 1] ...` and Python's `{'loss': 0.5}` are none.
    """
    text = text.strip()
    if text.startswith("["):
        inner = text.lstrip("[ \t\r\n")
        return inner.startswith("{") or bool(BARE.match(inner.split("\n")[0].rstrip("], \r")))
    if not OBJECT.match(text):
        return False
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    rows = sum(line.startswith("{") and line.endswith("}") for line in lines)
    return f'"{HISTORY}"' in text or rows < len(lines) / 2


def _damaged(path: Path, error: ValueError) -> UserError:
    return UserError(f"{path}: cannot be read as JSON ({error}); restore the file")


def _row(item: Any) -> Row:
    """The numbers of a JSON object, under other names if they are of validation or test."""
    if not isinstance(item, dict):
        return {}
    return of_held_out(numbers_of(item)) if is_held_out(item) else numbers_of(item)


def _columns(columns: dict[str, list[Any]], path: Path) -> Table:
    table = Table("JSON")
    for i in range(max(map(len, columns.values()))):
        cells = {name: values[i] for name, values in columns.items() if i < len(values)}
        table.add(_row(cells), path)
    return table


def _objects(items: list[Any], table: Table, path: Path) -> Table:
    for item in items:
        table.add(_row(item), path)
    return table


def _json_lines(lines: list[str], path: Path) -> tuple[Table, ValueError | None]:
    """The table of JSON lines, and why the first line that is none could not be read."""
    first: ValueError | None = None
    table = Table("wandb history" if '"_step"' in lines[0] else "JSON lines")
    for n, line in enumerate(lines, start=1):
        try:
            value = parse_json(line, finite=False)
        except ValueError as error:
            first = first or error
            if n == len(lines):
                table.torn = True
            else:
                table.skipped += 1
            continue
        table.add(_row(value), path)
    return table, first


def _delimiter(lines: list[str]) -> str:
    """The delimiter of a CSV with a header; "" if the lines are no such table."""
    first = lines[0]
    if len(first) > csv.field_size_limit():
        return ""
    for delimiter in (",", "\t", ";"):
        cells = next(csv.reader(io.StringIO(first), delimiter=delimiter))
        if len(cells) < 2 or not any(_is_name(cell) for cell in cells):
            continue
        # `Epoch: 1, loss: 0.3` is text; a chart of wandb has `lr=0.1 - train/loss` above a column.
        wandb = any(cell.endswith("__MIN") for cell in cells)
        if not wandb and any(
            re.search(r"[:=]\s*\S", cell) or parse_number(cell) is not None for cell in cells
        ):
            continue
        body = lines[1:6]
        if not body or any(delimiter in line for line in body):
            return delimiter
    # A header of one name above one number a line.
    if len(lines) > 1 and _is_name(first) and parse_number(lines[1]) is not None:
        return ","
    return ""


def _is_name(cell: str) -> bool:
    return bool(re.search(r"[^\W\d]", cell)) and parse_number(cell) is None


def _header(lines: list[str]) -> list[str]:
    """The names above columns that spaces separate; empty if the first line is no such."""
    names = lines[0].split()
    if len(lines) < 2 or not all(_is_name(name) for name in names):
        return []
    alike = BARE.match(lines[1]) and len(lines[1].split()) == len(names)
    return names if alike else []


def _spaced(lines: list[str], names: list[str], path: Path) -> Table:
    rows = [line.split() for line in lines[1:]]
    return _rows(rows, names, Table("text"), path, True, _decimal_commas(rows, False))


def _csv(lines: list[str], delimiter: str, path: Path, ended: bool) -> Table:
    try:
        rows = list(csv.reader(lines, delimiter=delimiter))
    except csv.Error as error:
        raise UserError(f"{path}: cannot be read as CSV ({error})") from error
    names = [name.strip() for name in rows[0]]
    names = [name or f"column {i}" for i, name in enumerate(names, 1)]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise UserError(f"{path}: two columns are named '{twice}'; rename one")
    wandb = any(name.endswith("__MIN") for name in names)
    decimal = _decimal_commas(rows[1:], delimiter == ";")
    return _rows(rows[1:], names, Table("wandb CSV" if wandb else "CSV"), path, ended, decimal)


def _rows(
    rows: list[list[str]], names: list[str], table: Table, path: Path, ended: bool, decimal: bool
) -> Table:
    """The rows of cells; `ended`: the last line is whole, `decimal`: 0,5 is a half."""
    for n, cells in enumerate(rows, start=1):
        if len(cells) != len(names) and n == len(rows) and not ended:
            table.torn = True
            continue
        if len(cells) != len(names):
            table.skipped += 1
            continue
        if decimal:
            cells = [COMMA.sub(r"\1.\2", cell) for cell in cells]
        found = {k: _number(c, k, table) for k, c in zip(names, cells, strict=True)}
        row = {k: v for k, v in found.items() if v is not None}
        held_out = is_held_out(dict(zip(names, cells, strict=True)))
        table.add(of_held_out(row) if held_out else row, path)
    return table


def _number(cell: str, name: str, table: Table) -> float | None:
    return whole(cell.strip(), table) if "," in cell else parse_number(cell, name)


def _decimal_commas(rows: list[list[str]], semicolons: bool) -> bool:
    """True if commas in cells are decimal ones: one is nowhere between thousands, or `;` separates
    and no cell has a decimal point."""
    with_comma = [cell for cells in rows for cell in cells if "," in cell]
    if any(COMMA.match(c) and not re.fullmatch(THOUSANDS, c.strip()) for c in with_comma):
        return True
    return semicolons and not any(re.search(r"\d\.\d", cell) for cells in rows for cell in cells)
