"""Download a data set's files into the user's cache, once.

    mirror/NAME.gz  ->  cache/NAME.gz.part  ->  unpacked to a temporary name, sha256  ->  cache/NAME

The part file survives an interruption, and the next try continues it if the server allows it. pooch
checks the hash of the unpacked content and only then gives the file its name, so a name in the
cache means a complete, correct file. Two processes that start together take turns through a lock.
"""

from __future__ import annotations

import fcntl
import gzip
import logging
import os
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from diptych.data.sources.registry import File, Located, Source, cache_folder
from diptych.errors import MachineError, UserError
from diptych.files import machine_faults

log = logging.getLogger(__name__)

TIMEOUT = (10.0, 30.0)  # seconds to connect, and between two pieces
_PIECE = 1 << 16


class Unusable(Exception):
    """A mirror's failure in a few words; the next mirror is tried."""


def fetch(known: Source, split: str, online: bool = True, settable: bool = False) -> Located:
    """Download both files of a split into the cache, from the first mirror that serves them.

    Raises:
        UserError: `online` is False or no mirror served it; the message says which files to put
            where and, if `settable`, names alternative images.
        MachineError: the cache cannot be written.
    """
    folder = cache_folder(known.name)
    if not online:
        raise UserError(_refusal(known, split, "downloading is switched off", settable))
    try:
        with turn(folder):
            paths = [_fetch_file(known, file, folder) for file in known.splits[split]]
    except Unusable as error:
        why = f"it could not be downloaded ({error})"
        raise UserError(_refusal(known, split, why, settable)) from None
    return Located(paths[0], paths[1], f"{folder} (downloaded)")


def _fetch_file(known: Source, file: File, folder: Path) -> Path:
    """Download one file, packed by gzip, from the first mirror that serves it."""
    packed = f"{file.name}.gz"
    part = folder / f"{packed}.part"
    urls = [f"{mirror}{packed}" for mirror in known.mirrors]
    return retrieve(urls, file.name, f"sha256:{file.sha256}", folder, part, _unpack)


def retrieve(
    urls: Iterable[str],
    name: str,
    digest: str,
    folder: Path,
    part: Path | None = None,
    unpack: Callable[[Path, Path], object] = os.replace,
) -> Path:
    """Download `folder / name` from the first address that serves it complete and correct.

    Args:
        urls: tried in order.
        name: the file's name below `folder`.
        digest: of its content, as `sha256:...` or `md5:...`.
        part: keeps what has come so far; by default `folder / NAME.part`.
        unpack: makes the output, its second argument, of the complete part.

    Raises:
        Unusable: no address serves it; says what each did.
    """
    part = part or folder / f"{name}.part"
    refusals = []
    for url in urls:
        # A part file from an earlier try may belong to another file: then try again from scratch.
        for _ in range(2 if part.exists() else 1):
            try:
                return _retrieve(url, name, digest, folder, part, unpack)
            except Unusable as error:
                refusal = f"{url}: {error}"
            if part.exists():
                break
        refusals.append(refusal)
    raise Unusable("; ".join(refusals) or "no mirror is known")


def located(
    places: Iterable[Path],
    urls: Sequence[str],
    name: str,
    digest: str,
    folder: Path,
    remedy: str,
    notice: str = "",
) -> Path:
    """Find a published file at one of some places or in `folder`, or download it to there.

    Args:
        places: where others keep it.
        urls, name, digest, folder: as for `retrieve`.
        remedy: what to do about a file with another content, beside removing it.
        notice: said before a download.

    Raises:
        UserError: a file with another content.
        Unusable: it is nowhere, and no address serves it.
        MachineError: `folder` cannot be written.
    """
    import pooch

    kind, _, wanted = digest.partition(":")
    for path in (folder / name, *places):
        if not path.is_file():
            continue
        with machine_faults(f"reading {path}"):
            found = pooch.file_hash(path, alg=kind)
        if found != wanted:
            raise UserError(
                f"{path}: its {kind} is {found[:12]}..., the published file's is {wanted[:12]}.... "
                f"Remove it and it is fetched anew, or {remedy}"
            )
        return path
    with turn(folder):
        if notice:
            log.info(notice)
        return retrieve(urls, name, digest, folder)


def _retrieve(
    url: str,
    name: str,
    digest: str,
    folder: Path,
    part: Path,
    unpack: Callable[[Path, Path], object],
) -> Path:
    import pooch
    import requests

    def download(url: str, output: str, _: Any) -> None:
        log.info("downloading %s", url)
        go_on(url, part)
        unpack(part, Path(output))

    pooch.get_logger().setLevel("WARNING")
    try:
        pooch.retrieve(url, digest, name, folder, downloader=download)
    except requests.HTTPError as error:
        code = error.response.status_code if error.response is not None else "error"
        raise Unusable(f"HTTP {code}") from None
    except requests.Timeout:
        raise Unusable("no answer in time") from None
    except requests.RequestException as error:  # also an OSError: must be caught first
        what = "connection broken" if part.exists() else "no connection"
        raise Unusable(f"{what}, {type(error).__name__}") from None
    except ValueError:  # pooch raises it for another hash
        kind = digest.partition(":")[0]
        raise Unusable(f"the {kind} of the content is not the published one") from None
    return folder / name


def go_on(url: str, part: Path) -> None:
    """Download the rest of `url` after the bytes that `part` already holds, or all of it."""
    import requests
    from tqdm import tqdm

    have = part.stat().st_size if part.exists() else 0
    # Not "gzip": if the server compressed the .gz again, requests would decompress that layer.
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as answer:
        if answer.status_code == 416:  # nothing after our bytes: they are complete, or wrong
            return
        answer.raise_for_status()
        if answer.status_code != 206:
            have = 0
        length = answer.headers.get("Content-Length")
        total = have + int(length) if length else None
        with (
            part.open("ab" if have else "wb") as stored,
            tqdm(
                desc=part.stem, total=total, initial=have, unit="B", unit_scale=True, disable=None
            ) as bar,
        ):
            for piece in answer.iter_content(_PIECE):
                stored.write(piece)
                bar.update(len(piece))
    if total is not None and part.stat().st_size < total:
        raise requests.ConnectionError("the server closed the connection early")


def _unpack(part: Path, output: Path) -> None:
    """Unpack the complete part file; delete it once it is unpacked or known to be useless."""
    try:
        content = gzip.decompress(part.read_bytes())
    except (EOFError, gzip.BadGzipFile, zlib.error, struct.error):
        part.unlink()
        raise Unusable("it sent something else than a gzip file") from None
    output.write_bytes(content)  # a full disk leaves the part file for the next try
    part.unlink()


@contextmanager
def turn(folder: Path) -> Iterator[None]:
    """Let one process at a time download into `folder`; the next one finds the files there.

    Raises:
        MachineError: the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with open(folder / ".lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            for left in folder.glob("tmp*"):  # pooch's temporary files, left by a killed process
                left.unlink()
            yield
    except OSError as error:
        raise MachineError(
            f"{folder}: the download cannot be stored ({error.strerror or error}). Make room and "
            "check the folder's permissions, or set XDG_CACHE_HOME to another folder."
        ) from None


def _refusal(known: Source, split: str, why: str, settable: bool) -> str:
    names = " and ".join(f"{file.name}.gz" for file in known.splits[split])
    hints = "".join(f" {hint}." for hint in (known.hint, known.instead if settable else "") if hint)
    return (
        f"{known.name} ({split}) is not on this machine and {why}. Put {names} into "
        f"{cache_folder(known.name)}, or into DATA/{known.folders[0]} and pass --data DATA.{hints}"
    )


def fetch_whole(
    name: str, base: str, file_name: str, sha256: str, folder: Path, online: bool = True
) -> Path:
    """Download one published file unchanged into `folder`; its sha256 is checked.

    Raises:
        UserError: `online` is False or the download failed; the message says what to put where.
        MachineError: the folder cannot be written.
    """
    why = "downloading is switched off"
    try:
        if online:
            with turn(folder):
                return retrieve([base + file_name], file_name, f"sha256:{sha256}", folder)
    except Unusable as error:
        why = f"it could not be downloaded ({error})"
    raise UserError(
        f"{name} is not on this machine and {why}. Put {file_name} into {folder}, or into "
        f"DATA/{name} and pass --data DATA."
    )
