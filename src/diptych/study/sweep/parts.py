"""Parts of a sweep, for processes that share an output folder and nothing else.

    part K of N (`--part K/N`) computes the cells j with j mod N = K, of each backend

    OUT/parts.json          the cells of the whole sweep, while parts of it are missing
    OUT/part-K-of-N.json    a part that is done

A cell depends on its own settings only, not on who computes it. Each part has a lock of its own.
The process that finds all records writes the tables and figures and removes these files, so that
the folder is that of one process.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from diptych.errors import UserError
from diptych.files import contents, hold_part, read_json, write_json
from diptych.generate.parts import OTHERS, complete_together, create, record
from diptych.ranks import Part
from diptych.study.sweep.cells import (
    Cells,
    Sweep,
    cell_path,
    cells_of,
    is_there,
    read_cells,
    unlike,
)
from diptych.study.sweep.output import write_all

PLAN = "parts.json"


def sweep_part(
    cells: Cells,
    out: Path,
    backends: Sequence[str],
    part: Part,
    compute: Callable[[int], None],
    *,
    resume: bool = False,
) -> bool:
    """Compute one part of a sweep; complete the folder if all parts are done.

    Args:
        cells: the whole sweep's cells, in each of `backends`.
        compute: computes the missing cells of this part; called with the part's lock.
        resume: take part in a folder that holds cells of an earlier sweep.

    Returns:
        True if the sweep is complete: tables and figures are written.

    Raises:
        UserError: another process does this part, the folder holds something else, or the sweep was
            begun with other settings or in another number of parts. Otherwise as `compute`.
    """
    files = _files(cells, out, backends)
    with hold_part(out, str(part)) as lock:
        if _complete(out, cells, files):
            forget_parts(out)
            return True
        _join(out, _plan(cells, files, part.count), part, resume)
        compute(lock)
        own = [path.name for path in files if path.is_file()]
        write_json(record(out, part), {"cells": own})

    def complete() -> None:
        if not (out / PLAN).exists():
            return  # another part has just completed it
        missing = [path.name for path in files if not is_there(path, cells.request)]
        if missing:
            raise UserError(
                f"{out}: all parts were done, but cell {missing[0]} is not there; start the same "
                f"parts again, or finish it in one process by --resume"
            )
        write_all(read_cells(out), out)
        forget_parts(out)

    complete_together(out, part, complete)
    return _complete(out, cells, files)


def check_begun(sweep: Sweep, out: Path, backends: Sequence[str]) -> None:
    """Refuse to finish in one process what was begun in parts with other settings (UserError)."""
    if (out / PLAN).exists():
        cells, begun = cells_of(sweep), read_json(out / PLAN)
        _check(out, begun, _plan(cells, _files(cells, out, backends), begun.get("parts", 0)))


def _files(cells: Cells, out: Path, backends: Sequence[str]) -> list[Path]:
    return [cell_path(out, backend, *pair) for backend in backends for pair in cells.pairs]


def _plan(cells: Cells, files: Sequence[Path], parts: int) -> dict[str, Any]:
    plan = {
        "schema": 1,
        "kind": "diptych sweep in parts",
        "parts": parts,
        "request": cells.request,
        "cells": [path.name for path in files],
    }
    return dict(json.loads(json.dumps(plan)))  # as it is read again: lists in place of tuples


def _complete(out: Path, cells: Cells, files: Sequence[Path]) -> bool:
    if (out / PLAN).exists() or not (out / "sweep.json").exists():
        return False
    return all(is_there(path, cells.request) for path in files)


def _join(out: Path, plan: dict[str, Any], part: Part, resume: bool) -> None:
    """Begin a folder with this plan, or take part in one that another part began."""
    file = out / PLAN
    if not file.exists():
        there = [path.name for path in contents(out) if not OTHERS.fullmatch(path.name)]
        if there and not resume and not file.exists():
            raise UserError(
                f"{out}: the folder is not empty ('{there[0]}'); go on with --resume if it is a "
                f"sweep, or choose another --out"
            )
        create(file, plan, part)
    _check(out, read_json(file), plan)


def _check(out: Path, begun: dict[str, Any], plan: dict[str, Any]) -> None:
    """Refuse a part of another sweep, by the first setting that differs."""
    if begun.get("parts") != plan["parts"]:
        raise UserError(
            f"{out}: was begun in {begun.get('parts')} parts, not {plan['parts']}; go on with "
            f"--part K/{begun.get('parts')}, finish it in one process by --resume, or choose "
            f"another --out"
        )
    before = begun.get("request", {})
    for key in unlike(before, plan["request"]):
        raise UserError(
            f"{out}: was begun with {key}={before.get(key)}, not {plan['request'][key]}; give each "
            f"part the same settings, or choose another --out"
        )
    if begun.get("cells") != plan["cells"]:
        new = [name for name in plan["cells"] if name not in begun.get("cells", [])]
        old = [name for name in begun.get("cells", []) if name not in plan["cells"]]
        what = "in another order"
        if new or old:
            what = f"{new[0]} is not of that sweep" if new else f"{old[0]} is left out here"
        raise UserError(
            f"{out}: was begun with other cells ({what}); give each part the same --solver, "
            f"--steps, --eta, --calls and --backend, or choose another --out"
        )


def forget_parts(out: Path) -> None:
    """Remove the files of parts from a sweep that is complete.

    The plan goes first: a folder without one has no parts to wait for.
    """
    (out / PLAN).unlink(missing_ok=True)
    for path in out.glob("part-*-of-*.json"):
        path.unlink(missing_ok=True)
