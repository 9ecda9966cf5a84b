"""Pack a source once: decode, crop, and write row by row into one file.

    .FILE.partial/   pixels (the unfinished .npy), state (one byte per picture), bad, settings
    FILE.png         a grid of 64 of them         FILE.json   the index       FILE   written last

A row's byte in `state` is written after the row, so a killed packing job resumes after the rows it
has, and the result is byte-identical to an uninterrupted one. A picture that cannot be used stops
the job with an error that names it; with `skip_bad` it is left out and listed in the index.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from diptych.data.decoded import Decoded, default_workers
from diptych.data.packed.job import BAD, DONE, TODO, Packing, header
from diptych.data.packed.read import index_path, read_index
from diptych.errors import UserError
from diptych.figures.grids import grid, save_png
from diptych.files import atomic_path, hold, machine_faults, parse_json, read_json, write_json
from diptych.types import Int64, Pixels

ROWS = 1024  # rows between two updates of `state`


def prepare(packing: Packing, overwrite: bool = False) -> dict[str, Any]:
    """Pack or resume packing; return the index. An existing file of the same data is kept.

    Raises:
        UserError: a file of other data exists; a picture cannot be used (without `skip_bad`); no
            picture is left; another process is packing the same file.
        MachineError: the disk is full; the rows packed so far are kept.
    """
    out = packing.out
    if out.is_file() and not overwrite:
        there = read_index(out) if index_path(out).is_file() else {}
        if _made_of(there, packing):
            return there
        raise UserError(f"{out}: is there already, from other data; replace it with --overwrite")
    with machine_faults(f"packing into {out}"), hold(packing.folder):
        _begin(packing)
        _fill(packing)
        return _finish(packing)


def _made_of(there: dict[str, Any], packing: Packing) -> bool:
    """True if a finished file is what the job would make."""
    wanted = packing.settings()
    if there and "labels_sha256" not in there:  # of an older version: its labels are compared
        del wanted["labels_sha256"]
        given = packing.dataset.labels
        labels = None if given is None else given.tolist()
        if not there.get("skipped") and there.get("labels") != labels:
            return False
    return {key: there.get(key) for key in wanted} == wanted


def _begin(packing: Packing) -> None:
    """Create an empty job folder, unless the same job was begun before."""
    folder, count = packing.folder, packing.shape[0]
    kept = folder / "settings.json"
    pixels, state = folder / "pixels", folder / "state"
    whole = packing.start + int(np.prod(packing.shape))
    lengths = packing.sizes()
    if kept.is_file() and read_json(kept) == packing.begun():
        found = [path.stat().st_size if path.is_file() else 0 for path in (pixels, state)]
        if found == [whole, count]:
            marks = np.frombuffer(state.read_bytes(), np.uint8).copy()
            marks[np.load(folder / "sizes.npy") != lengths] = TODO
            state.write_bytes(marks.tobytes())
            np.save(folder / "sizes.npy", lengths)
            return
    for path in (kept, folder / "bad"):
        path.unlink(missing_ok=True)
    with pixels.open("wb") as file:
        file.write(header(packing.shape))
        file.truncate(whole)
    state.write_bytes(bytes([TODO]) * count)
    np.save(folder / "sizes.npy", lengths)
    write_json(kept, packing.begun())


def _fill(packing: Packing) -> None:
    """Write every missing row, in parts; a part's states are written after its rows."""
    from tqdm import tqdm

    folder, (count, *sides) = packing.folder, packing.shape
    state = np.frombuffer((folder / "state").read_bytes(), np.uint8).copy()
    if not packing.skip_bad:
        state[state == BAD] = TODO  # these may have been repaired since
    todo = np.flatnonzero(state == TODO)
    row_bytes, start = int(np.prod(sides)), packing.start
    workers = packing.workers or default_workers()
    with (
        (folder / "pixels").open("r+b") as pixels,
        (folder / "state").open("r+b") as marks,
        (folder / "bad").open("a") as bad,
        ThreadPoolExecutor(workers, "diptych-pack") as pool,
        tqdm(
            total=count,
            initial=count - len(todo),
            unit="image",
            desc=packing.dataset.name,
            disable=not packing.progress,
            mininterval=0.5 if sys.stderr.isatty() else 30,
        ) as bar,
    ):
        for first in range(0, len(todo), ROWS):
            part = todo[first : first + ROWS]
            made = _rows(packing, part, pool)
            for index, row in zip(part.tolist(), made, strict=True):
                if isinstance(row, bytes):
                    os.pwrite(pixels.fileno(), row, start + index * row_bytes)
                    state[index] = DONE
                elif packing.skip_bad:
                    bad.write(json.dumps({"index": index, "reason": str(row)}) + "\n")
                    state[index] = BAD
            for file in (pixels, bad):
                file.flush()
                os.fsync(file.fileno())
            first_row, last_row = int(part[0]), int(part[-1])
            os.pwrite(marks.fileno(), state[first_row : last_row + 1].tobytes(), first_row)
            bar.update(len(part))
            if not packing.skip_bad:
                _refuse(made)


def _refuse(made: list[bytes | UserError]) -> None:
    failed = [row for row in made if not isinstance(row, bytes)]
    if failed:
        raise UserError(
            f"{failed[0]} (or leave such pictures out with --skip-bad; what is packed so far is "
            "kept)"
        )


def _rows(packing: Packing, part: Int64, pool: ThreadPoolExecutor) -> list[bytes | UserError]:
    """Each picture's bytes (H, W, C), or the error that prevents them."""
    images = packing.dataset.images
    if not isinstance(images, Decoded):
        return [row.tobytes() for row in images[part].transpose(0, 2, 3, 1)]

    def one(index: int) -> bytes | UserError:
        try:
            return images.one(index).transpose(1, 2, 0).tobytes()
        except UserError as error:
            return error

    return list(pool.map(one, part.tolist()))


def _finish(packing: Packing) -> dict[str, Any]:
    """Write the grid and the index, then move the file to its final name."""
    folder, out = packing.folder, packing.out
    state = np.frombuffer((folder / "state").read_bytes(), np.uint8)
    good = np.flatnonzero(state == DONE)
    if not len(good):
        raise UserError(f"{out}: no picture is left to pack; all {len(state)} cannot be used")
    rows = np.load(folder / "pixels", mmap_mode="r")
    index = _index(packing, good, rows)
    final = folder / "pixels"
    if len(good) < len(rows):
        final = folder / "chosen"
        with atomic_path(final) as temporary, temporary.open("wb") as file:
            file.write(header((len(good), *packing.shape[1:])))
            for first in range(0, len(good), ROWS):
                file.write(rows[good[first : first + ROWS]].tobytes())
    spread = np.linspace(0, len(good) - 1, min(64, len(good))).astype(np.int64)
    shown = np.ascontiguousarray(rows[good[spread]].transpose(0, 3, 1, 2))
    save_png(out.with_name(f"{out.name}.png"), grid(shown))
    out.unlink(missing_ok=True)  # an old file never stands beside a new index
    write_json(index_path(out), index)
    del rows
    os.replace(final, out)
    shutil.rmtree(folder)
    return index


def _index(packing: Packing, good: Int64, rows: Pixels) -> dict[str, Any]:
    data, names = packing.dataset, packing.names()
    count, height, width, channels = len(good), *packing.shape[1:]
    digest = hashlib.sha256(f"uint8 {count} {channels} {height} {width}\n".encode())
    for first in range(0, count, ROWS):
        part = rows[good[first : first + ROWS]].transpose(0, 3, 1, 2)
        digest.update(np.ascontiguousarray(part).data)
    chosen = set(good.tolist())
    labels = None if data.labels is None else [int(k) for k in data.labels[good]]
    return {
        **packing.settings(),
        "origin": data.origin,
        "left_out": data.left_out,
        "shape": [count, height, width, channels],
        "sha256": digest.hexdigest(),
        "skipped": [row for row in _bad(packing, names) if row["index"] not in chosen],
        "labels": labels,
        "names": [names[k] for k in good.tolist()],
    }


def _bad(packing: Packing, names: list[str]) -> list[dict[str, Any]]:
    """The pictures recorded as bad, each once, with its index, name and reason."""
    lines = (packing.folder / "bad").read_text("utf-8").splitlines()
    held = {row["index"]: row for row in map(parse_json, lines)}
    return [{**held[k], "name": names[k]} for k in sorted(held)]
