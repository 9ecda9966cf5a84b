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

from diptych.logs.table import TOTAL, Row, Table, parse_number

NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?|[-+]?(?:nan|inf(?:inity)?)\b"
# A name, its separator, a number, perhaps the total, perhaps a unit.
PAIR = re.compile(
    r"(?P<name>[^\W\d](?:[\w/.\-]*[^\W\d_])?(?:[ ](?![\d.])[^\W\d](?:[\w/.\-]*\w)?){0,3}"
    r"(?:\s?\([A-Za-z/%]+\))?)"
    r"[\"']?\s*(?P<link>[:：=]|is\b)?\s*[\[(#]?\s*"
    rf"(?P<number>{NUMBER})(?:\s*/\s*(?P<total>\d+))?\s*"
    r"(?P<unit>milliseconds?|ms|seconds?|secs?|s|it/s|GiB|GB|MiB|MB|秒|%)?(?![\w.])",
    re.IGNORECASE,
)
BARE = re.compile(rf"^\s*(?:(?:{NUMBER})[\s,;]*)+$", re.IGNORECASE)
STAMP = re.compile(
    r"\d{4}[-/]\d{1,2}[-/]\d{1,2}(?:[T ]\d{1,2}:\d{2}:\d{2}(?:[.,]\d+)?)?Z?"
    r"|\b\d{1,2}:\d{2}:\d{2}(?:[.,]\d+)?\b"
)
PROGRESS = re.compile(r"(\d+)/(\d+)\s*\[[^\]]*?(?:([\d.]+)\s*(it/s|s/it))?")
# "第 1 轮" puts the number inside its name.
CHINESE = re.compile(r"第\s*(\d+)\s*(轮|步|个?epoch|次迭代)", re.IGNORECASE)


def read_text(lines: list[str], table: Table, path: Path) -> None:
    """Add the rows of text lines to a table."""
    filled = [line for line in lines if line.strip() and not line.lstrip().startswith("#")]
    bare = [line for line in filled if BARE.match(line)]
    if len(bare) > len(filled) / 2:
        _bare(filled, table, path)
        return
    for line in filled:
        table.add(row_of(line), path)


def _bare(lines: list[str], table: Table, path: Path) -> None:
    """Lines of numbers only; those with another count than most are left out."""
    rows = [re.findall(NUMBER, line, re.IGNORECASE) if BARE.match(line) else [] for line in lines]
    width = Counter(len(row) for row in rows if row).most_common(1)[0][0]
    for n, row in enumerate(rows):
        if len(row) != width and n == len(rows) - 1 and row:
            table.torn = True
        elif len(row) != width:
            table.skipped += 1
        else:
            values = [parse_number(cell) for cell in row]
            table.add({f"column {i}": v for i, v in enumerate(values, 1) if v is not None}, path)
    name_bare(table, width)


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


def row_of(line: str) -> Row:
    """The named numbers of one line."""
    row: Row = {}
    line = STAMP.sub(" ; ", line)
    line = re.sub(r"\b(?:tensor|jt\.Var|Var|float)\(\[?", "", line)
    for number, kind in CHINESE.findall(line):
        row["epoch" if kind in ("轮",) or "epoch" in kind.lower() else "step"] = float(number)
    line = CHINESE.sub(" ; ", line)
    for done, total, speed, unit in PROGRESS.findall(line):
        row |= {"step": float(done), f"step{TOTAL}": float(total)}
        if speed and float(speed) > 0:
            row["step time"] = 1 / float(speed) if unit == "it/s" else float(speed)
    line = re.sub(r"\d+%\|.*?\|\s*\d+/\d+", " ; ", line)
    line = re.sub(r"\d+:\d+<[\d:?]+", " ; ", line)
    for found in PAIR.finditer(line):
        name, number = found["name"].strip(), parse_number(found["number"])
        unit = (found["unit"] or "").lower()
        if number is None or unit == "it/s":
            continue
        # A name that only touches its number is one only for counters: `Epoch 3`, `loss 0.5`.
        if not found["link"]:
            name = name.split(" ")[-1] if name.lower() not in COUNTED else name
        if unit.startswith(("ms", "milli")):
            number /= 1000.0
        elif unit in ("gib", "gb"):
            number *= 1024.0
        if unit in ("gib", "gb", "mib", "mb") and "mem" not in name.lower():
            name = f"{name} memory"
        row.setdefault(name, number)
        if found["total"]:
            row.setdefault(f"{name}{TOTAL}", float(found["total"]))
    if row and not any("loss" in name.lower() or "损失" in name for name in row):
        rest = re.findall(rf"(?<![\w.])(?:{NUMBER})(?![\w.])", PAIR.sub(" ; ", line), re.IGNORECASE)
        if len(rest) == 1 and parse_number(rest[0]) is not None:  # `step 1: 0.5`
            row["loss"] = float(rest[0])
    return row


COUNTED = ("global step", "step time", "epoch time", "train loss", "training loss", "grad norm",
           "learning rate", "loss step")  # fmt: skip
