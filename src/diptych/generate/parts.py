"""Parts of a sampling or encoding job, for processes that share an output folder and nothing else.

    part K of N (`--part K/N`) computes the whole batches j with j mod N = K

An image depends on the batch size only, not on who computes its batch, so the parts together are
the folder of one process. Each part has a lock of its own and leaves a record, `part-K-of-N.json`;
the process that finds all records completes the folder and removes them.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from diptych.errors import UserError
from diptych.files import (
    Held,
    claim_folder,
    contents,
    hold,
    hold_part,
    machine_faults,
    write_json,
)
from diptych.ranks import Part
from diptych.runs.folder import check_same
from diptych.runs.records import Begun, Share

T = TypeVar("T")
MANIFEST = "manifest.json"
OTHERS = re.compile(r"\..*\.(lock|tmp)")  # files of parts that begin at the same time


def share(
    out: Path,
    manifest: dict[str, Any],
    part: Part,
    identity: Sequence[str],
    *,
    work: Callable[[], int],
    fill: Callable[[dict[str, Any]], dict[str, Any]],
    asked: dict[str, Any],
    lacks: Callable[[dict[str, Any]], list[str]],
) -> dict[str, Any]:
    """Do one part's work; complete the folder if all parts are done. Returns the manifest.

    Args:
        manifest: as it is known before the first image.
        identity: the manifest's keys in which all parts have to agree.
        work: does the part's work; returns its number of images.
        fill: completes the folder, given the manifest that it was begun with.
        asked: what the folder is to hold beside the images; each part has to ask for the same.
        lacks: what of it a complete folder does not hold, given its manifest.

    Raises:
        UserError: the folder holds something else, or was begun with other settings.
    """
    with hold_part(out, str(part)):
        join(out, manifest | {"asked": asked}, part)
        begun = check_same(out, manifest, identity)
        if begun.get("complete"):
            if missing := ", ".join(lacks(begun)):
                raise UserError(
                    f"{out}: is complete, without {missing} as asked for here; add it with "
                    f"--resume, in one process and without --part"
                )
            return begun
        if begun.get("asked", asked) != asked:
            raise UserError(
                f"{out}: was begun with other pictures; give each part the same options"
            )
        if not record(out, part).exists():
            began = time.perf_counter()
            images = work()
            facts = {"seconds": time.perf_counter() - began, "images": images}
            write_json(record(out, part), Share.checked(facts))

    def complete() -> dict[str, Any]:
        before = check_same(out, manifest, identity)
        if before.get("complete"):
            return before
        claim_folder(out, resume=True)
        return fill(before)

    return complete_together(out, part, complete) or Begun.content(out / MANIFEST)


def record(out: Path, part: Part) -> Path:
    """The file that says that a part is done."""
    return out / f"{part}.json"


def join(out: Path, manifest: dict[str, Any], part: Part) -> None:
    """Begin a folder with this manifest, or take part in one that another part began.

    Raises:
        UserError: the folder holds something else, or was begun in other parts.
    """
    file = out / MANIFEST
    if not file.exists():
        refuse_unbegun(out)
        create(file, Begun.checked({**manifest, "parts": part.count}), part)
    begun = Begun.read(file)
    count = begun.parts or 1
    if not begun.complete and count != part.count:
        raise UserError(
            f"{out}: was begun in {count} part{'s' * (count != 1)}, not {part.count}; go on with "
            f"{'--resume alone' if count == 1 else f'--part K/{count}'}, or choose another --out"
        )


def refuse_unbegun(out: Path) -> None:
    """Raise UserError if a folder holds files of others: no manifest says what was begun there."""
    there = [p.name for p in contents(out) if not OTHERS.fullmatch(p.name)] if out.is_dir() else []
    if there and not (out / MANIFEST).exists():
        raise UserError(
            f"{out}: the folder is not empty ('{there[0]}'), and has no {MANIFEST} of a job to go "
            f"on with; choose another --out, or empty it"
        )


def create(file: Path, content: dict[str, Any], part: Part) -> None:
    """Write a file, whole, unless another part has just written it."""
    mine = file.with_name(f".{file.name}.{part}.{os.getpid()}.tmp")
    write_json(mine, content)
    try:
        with machine_faults(f"writing {file}"), contextlib.suppress(FileExistsError):
            os.link(mine, file)
    finally:
        mine.unlink()


def all_done(out: Path, part: Part) -> bool:
    """True if each of the parts has left its record."""
    return all(record(out, Part(number, part.count)).exists() for number in range(part.count))


def complete_together(out: Path, part: Part, complete: Callable[[], T]) -> T | None:
    """Call `complete`, with the folder held, if all parts are done; returns its result, or None."""
    while all_done(out, part):
        try:
            with hold(out):
                return complete()
        except Held:  # another part completes it, or is about to look whether all are done
            time.sleep(0.2)
    return None


def read_records(out: Path) -> tuple[float, int]:
    """The seconds that all parts took, and the images computed in them."""
    records = [Share.read(path) for path in _records(out)]
    return sum(each.seconds for each in records), sum(each.images for each in records)


def remove_records(out: Path) -> None:
    """Remove the records of all parts, once the folder's manifest is complete."""
    for path in _records(out):
        path.unlink()


def _records(out: Path) -> list[Path]:
    return sorted(out.glob("part-*-of-*.json"))
