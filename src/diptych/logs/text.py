"""Text logs: bare numbers, or names beside numbers, one row a line.

0.0345                                       the loss
200 0.0345                                   step, loss
Epoch [1/10], Step [200/938], Loss: 0.0345   names before numbers, with `/total` or without
[Epoch 0] Step: 1, Loss: 0.768, Step Time: 0.033s
Epoch 3:  45%|####  | 422/938 [00:12<00:15, 33.5it/s, loss=0.0345]
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

from diptych.logs.columns import (
    HELD_OUT,
    MB,
    NAMES,
    megabytes_of,
    of_held_out,
    plain,
    seconds_of,
)
from diptych.logs.table import TOTAL, Row, Table, parse_number

# No part of a pattern can be read in two ways, and names are bounded: time is linear in the line.
NUMBER = r"[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?|[-+]?(?:nan|inf(?:inity)?)\b"
THOUSANDS = r"[-+]?[1-9]\d{0,2}(?:,\d{3})+(?:\.\d+)?(?!,?\d)"  # 1,999.00
UNCLEAR = re.compile(r",(?!\d+\.\d+(?![\w.,]))\d")  # behind a whole number: perhaps a decimal comma
WORD = r"[\w/.\-]{0,120}"
# A name, its separator, a number, perhaps the total, perhaps a unit.
PAIR = re.compile(
    r"(?<![^\W\d])(?<![^\W\d][/.\-])(?P<name>"  # the beginning of a name, not its middle
    rf"[^\W\d](?:{WORD}[^\W\d_])?(?:[ ](?![\d.])[^\W\d](?:{WORD}\w)?){{0,3}}"
    r"(?:\s?\([A-Za-z/%]{1,20}\))?)"
    r"[\"']?\s*(?P<link>[:：=]|is\b)?\s*[\[(#]?\s*"
    rf"(?P<number>{THOUSANDS}|{NUMBER})(?:\s*/\s*(?P<total>{THOUSANDS}|\d+))?\s*"
    r"(?P<unit>milliseconds?|ms|seconds?|secs?|s|it/s|GiB|GB|MiB|MB|秒|%)?(?![\w.])",
    re.IGNORECASE,
)
ALONE = re.compile(rf"(?<![\w.])(?:{THOUSANDS}|{NUMBER})(?![\w.])", re.IGNORECASE)
BARE = re.compile(rf"^\s*(?:{NUMBER})(?:[\s,;]+(?:{NUMBER}))*[\s,;]*$", re.IGNORECASE)
# In a line whose columns are apart by spaces, a comma between digits belongs to its number.
CELLS = re.compile(rf"(?<!\S)(?:{THOUSANDS})(?=[,;]?(?:\s|$))|{NUMBER}", re.IGNORECASE)
STAMP = re.compile(
    r"\d{4}[-/]\d{1,2}[-/]\d{1,2}(?:[T ]\d{1,2}:\d{2}:\d{2}(?:[.,]\d+)?)?Z?"
    r"|\b\d{1,2}:\d{2}:\d{2}(?:[.,]\d+)?\b"
)
PROGRESS = re.compile(r"(?<![\d,.])(\d+)/(\d+)\s*\[")  # tqdm's rates are smoothed: no times
# `[Val] Epoch: 1, Loss: 0.3`: the first word of a line, behind the time and the level of a logger.
OF_HELD_OUT = re.compile(
    r"^(?:[\W\d_]|\b(?:info|debug|warning|root|main|logger)\b)*"
    rf"(?:{'|'.join(sorted(HELD_OUT, key=len, reverse=True))})(?![\w/.])",
    re.IGNORECASE,
)
# `[12/400] loss: 0.3` counts without a name.
COUNTED_OF = re.compile(r"[\[(]\s*(\d+)\s*/\s*(\d+)\s*[\])]")
# "第 1 轮" puts the number inside its name.
CHINESE = re.compile(rf"第\s*({THOUSANDS}|\d+)\s*(轮|步|个?epoch|次迭代)", re.IGNORECASE)


def read_text(lines: list[str], table: Table, path: Path) -> None:
    """Add the rows of text lines, none of them blank, to a table."""
    bare = [line for line in lines if BARE.match(line)]
    if len(bare) > len(lines) / 2:
        _bare(lines, table, path)
        return
    for line in lines:
        table.add(row_of(line, table), path)


def _bare(lines: list[str], table: Table, path: Path) -> None:
    """Lines of numbers only; those with another count than most are left out."""
    rows = [_cells(line) if BARE.match(line) else [] for line in lines]
    width = Counter(len(row) for row in rows if row).most_common(1)[0][0]
    for n, row in enumerate(rows):
        if len(row) != width and n == len(rows) - 1 and row:
            table.torn = True
        elif len(row) != width:
            table.skipped += 1
        else:
            values = [whole(cell, table) for cell in row]
            table.add({f"column {i}": v for i, v in enumerate(values, 1) if v is not None}, path)
    name_bare(table, width)


def _cells(line: str) -> list[str]:
    spaced = len(line.split()) > 1
    return (CELLS if spaced else re.compile(NUMBER, re.IGNORECASE)).findall(line)


def whole(cell: str, table: Table) -> float | None:
    """A cell as a number; one with commas between thousands is counted."""
    if re.fullmatch(THOUSANDS, cell):
        table.thousands += 1
        cell = cell.replace(",", "")
    return parse_number(cell)


def name_bare(table: Table, width: int) -> None:
    """Name bare columns: up to two leading whole ones count, the next is the loss."""
    columns = [f"column {i}" for i in range(1, width + 1)]
    counting = 0
    for name in columns[: min(2, width - 1)]:
        values = [row[name] for row in table.rows if name in row]
        if not all(v.is_integer() and v >= 0 for v in values):
            break
        counting += 1
    named = {0: ("loss",), 1: ("step", "loss"), 2: ("epoch", "step", "loss")}[counting]
    new = dict(zip(columns, named, strict=False))
    table.rows = [{new.get(k, k): v for k, v in row.items()} for row in table.rows]


def row_of(line: str, table: Table) -> Row:
    """The named numbers of one line; the table counts those with commas."""
    row: Row = {}
    line = STAMP.sub(" ; ", re.sub(r"\s{3,}", "  ", line))
    line = re.sub(r"\b(?:tensor|jt\.Var|Var|float)\(\[?", "", line)
    for number, kind in CHINESE.findall(line):
        counted = whole(number, table)
        if counted is not None:
            row["epoch" if kind == "轮" or "epoch" in kind.lower() else "step"] = counted
    line = CHINESE.sub(" ; ", line)
    for done, total in PROGRESS.findall(line):
        row |= {"step": float(done), f"step{TOTAL}": float(total)}
    line = re.sub(r"(?<!\d)\d{1,3}%\|[^|]{0,300}\|\s*\d+/\d+", " ; ", line)
    line = re.sub(r"(?<!\d)\d+:\d+<[\d:?]+", " ; ", line)
    unclear = table.unclear
    for found in PAIR.finditer(line):
        unit = (found["unit"] or "").lower()
        if unit == "it/s":
            continue
        if found["number"].lstrip("+-").isdigit() and UNCLEAR.match(line, found.end("number")):
            table.unclear += 1
            continue
        name, number = found["name"].strip(), whole(found["number"], table)
        if number is None:
            continue
        # A name that only touches its number is one only for counters: `Epoch 3`, `loss 0.5`.
        if not found["link"]:
            words = name.split(" ")
            kept = name.lower() in COUNTED or (len(words) > 1 and words[-1].lower() == "loss")
            # `val loss 0.5` is no `loss`.
            name = " ".join(words[-2:]) if kept else words[-1]
        if unit in MB and "mem" not in name.lower():
            name = f"{name} memory"
        row.setdefault(name, number * scale_of(unit, name))
        if found["total"]:
            row.setdefault(f"{name}{TOTAL}", float(found["total"].replace(",", "")))
    if row and not any(plain(name) in NAMES["step"] for name in row):
        places = COUNTED_OF.findall(PAIR.sub(" ; ", line))
        if len(places) == 1:
            row |= {"step": float(places[0][0]), f"step{TOTAL}": float(places[0][1])}
    unnamed = bool(row) and table.unclear == unclear
    if unnamed and not any("loss" in name.lower() or "损失" in name for name in row):
        rest = ALONE.findall(PAIR.sub(" ; ", line))
        loss = whole(rest[0], table) if len(rest) == 1 else None
        if loss is not None:  # `step 1: 0.5`
            row["loss"] = loss
    return of_held_out(row) if OF_HELD_OUT.match(line) else row


def scale_of(unit: str, name: str) -> float:
    """The factor from the unit behind a number to that of its name, or to seconds or MB."""
    if unit in MB:
        return MB[unit] / (megabytes_of(name) or 1.0)
    if unit.startswith(("ms", "milli")):
        return 1e-3 / seconds_of(name)
    return 1.0 / seconds_of(name) if unit.startswith(("s", "秒")) else 1.0


COUNTED = ("global step", "step time", "epoch time", "train loss", "training loss", "grad norm",
           "learning rate", "loss step")  # fmt: skip
