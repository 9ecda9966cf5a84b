"""Files that are there whole or not at all, and folders that nothing overwrites by accident.

Reading is bounded: only regular files are opened (a FIFO would wait for ever, a device never ends),
and a text holds no more bytes, values or levels than its reader allows.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import math
import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from diptych.errors import MachineError, UserError

MOST_BYTES = 64 * 2**20  # of a JSON file
MOST_VALUES = 2_000_000  # in it; an empty list takes 2 bytes there and 64 in memory
MOST_LEVELS = 64  # of lists and objects in each other


@contextlib.contextmanager
def machine_faults(what: str) -> Iterator[None]:
    """Turn an OSError raised while doing `what` into one clear line.

    Raises:
        UserError: no permission, or a file in the way.
        MachineError: a full disk, or any other fault.
    """
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise MachineError(f"{what}: the disk is full; free some space and resume") from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise UserError(f"{what}: no permission to write; choose another folder") from error
        if error.errno in (errno.ENOTDIR, errno.EEXIST, errno.EISDIR):
            raise UserError(f"{what}: a file stands in the way ({error.strerror})") from error
        if error.errno in (errno.ENAMETOOLONG, errno.ELOOP, errno.ENOENT):
            raise UserError(f"{what}: {error.strerror}; choose another path") from error
        raise MachineError(f"{what}: {error.strerror or error}") from error


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`: renamed to it if the block succeeds, removed if not.

    Its folder is made where it is missing. Only a regular file or a folder is ever replaced.

    Raises:
        UserError: a device, a FIFO or a socket is in the way. Otherwise as `machine_faults`.
    """
    check_replaceable(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with machine_faults(f"writing {path}"):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield temporary
            _flush(temporary)
            _move(temporary, path)
        finally:
            if temporary.is_dir():
                shutil.rmtree(temporary)
            else:
                temporary.unlink(missing_ok=True)


def _move(temporary: Path, path: Path) -> None:
    """Put what is whole in its place. An old folder goes last, and comes back if this fails."""
    if not (temporary.is_dir() and path.is_dir() and not path.is_symlink()):
        os.replace(temporary, path)
        return
    old = temporary.with_suffix(".old.tmp")
    os.replace(path, old)
    try:
        os.replace(temporary, path)
    except BaseException:
        os.replace(old, path)
        raise
    shutil.rmtree(old)


def _flush(path: Path) -> None:
    for part in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if part.is_file():
            with part.open("rb+") as file:
                os.fsync(file.fileno())


def write_text(path: Path, text: str) -> None:
    """Write a small text file (UTF-8) atomically. Raises the errors of `machine_faults`."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file atomically.

    Raises:
        UserError, MachineError: see `machine_faults`.
        ValueError: the value holds NaN or infinity.
    """
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def check_path(path: Path) -> int | None:
    """The mode of what is at `path`, links followed; None if nothing is.

    Raises:
        UserError: no system takes such a path, a link leads to itself, or no permission.
    """
    if "\0" in str(path):
        raise UserError(f"{str(path)!a}: no path holds a NUL character; give another")
    with machine_faults(str(path)):
        try:
            return path.stat().st_mode
        except (FileNotFoundError, NotADirectoryError):
            return None


def check_replaceable(path: Path) -> None:
    """Raises UserError where something other than a regular file or a folder is at `path`."""
    mode = check_path(path)
    if mode is not None and not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise UserError(f"{path}: is {_named(mode)}, and only files are replaced; choose another")


def _named(mode: int) -> str:
    kinds = (
        (stat.S_ISFIFO, "a FIFO"),
        (stat.S_ISSOCK, "a socket"),
        (stat.S_ISDIR, "a folder"),
    )
    return next((name for test, name in kinds if test(mode)), "a device")


def open_file(path: Path, expected: str) -> IO[bytes]:
    """A regular file opened for reading; never waits for a FIFO or a device.

    Args:
        path: of the file, or of a link to it.
        expected: a word for messages, such as "a YAML file".

    Raises:
        UserError: nothing there, something other than a file, no permission, or no possible path.
        MachineError: the system cannot open it.
    """
    try:
        number = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UserError(f"{path}: not found; expected {expected}") from error
    except ValueError as error:  # a NUL character
        raise UserError(f"{str(path)!a}: cannot be a path; expected {expected}") from error
    except OSError as error:
        own = (errno.EACCES, errno.EPERM, errno.ELOOP, errno.ENAMETOOLONG, errno.ENXIO)
        kind = UserError if error.errno in own else MachineError
        raise kind(f"{path}: cannot be opened ({error.strerror}); expected {expected}") from error
    mode = os.fstat(number).st_mode
    if not stat.S_ISREG(mode):
        os.close(number)
        raise UserError(f"{path}: is {_named(mode)}; expected {expected}")
    return os.fdopen(number, "rb")


def read_bytes(path: Path, expected: str, most: int) -> bytes:
    """The content of a regular file of at most `most` bytes.

    Raises:
        UserError: as `open_file`, or too long. MachineError: it cannot be read.
    """
    with open_file(path, expected) as file:
        try:
            content = file.read(most + 1)
        except OSError as error:
            raise MachineError(f"{path}: cannot be read ({error.strerror})") from error
    if len(content) > most:
        raise UserError(f"{path}: is longer than {most:,} bytes; expected {expected}")
    return content


def read_json(
    path: Path,
    *,
    most_bytes: int = MOST_BYTES,
    most_values: int = MOST_VALUES,
    finite: bool = True,
) -> dict[str, Any]:
    """A JSON object from a file; limits as in `parse_json`.

    Raises:
        UserError: missing, no file, not an object, damaged, or out of bounds.
        MachineError: it cannot be read.
    """
    content = read_bytes(path, "a JSON file", most_bytes)
    try:
        value = parse_json(content, most_values, finite=finite)
    except ValueError as error:
        raise UserError(f"{path}: cannot be read as JSON ({error})") from error
    if not isinstance(value, dict):
        raise UserError(f"{path}: expected a JSON object")
    return value


def parse_json(text: str | bytes, most_values: int = MOST_VALUES, *, finite: bool = True) -> Any:
    """The value of a JSON text from outside, within bounds.

    Args:
        text: UTF-8 where it is bytes.
        most_values: how many values it may hold at most.
        finite: refuse NaN and infinity; False for rows of a training, whose loss may be either.

    Raises:
        ValueError: not JSON, a key that occurs twice, a whole number beyond 64 bits, a number that
            is not finite, more than `most_values` values, or more than `MOST_LEVELS` levels.
    """
    if isinstance(text, bytes):
        text = text.decode("utf-8")
    opened = text.count("[") + text.count("{")
    if opened + text.count(",") > most_values:
        raise ValueError(f"more than {most_values:,} values")
    deep = ValueError(f"more than {MOST_LEVELS} levels of lists and objects")
    try:
        value = (_DECODER if finite else _LENIENT).decode(text)
    except RecursionError:
        raise deep from None
    if opened > MOST_LEVELS and _levels(value) > MOST_LEVELS:
        raise deep
    return value


def _levels(value: object) -> int:
    """How many lists and objects are in each other, without recursion."""
    level, found = [value], 0
    while level:
        containers = [item for item in level if isinstance(item, (list, dict))]
        level = [x for c in containers for x in (c.values() if isinstance(c, dict) else c)]
        found += bool(containers)
    return found


def _whole(text: str) -> int:
    if len(text) > 21 or abs(int(text)) >= 2**64:
        raise ValueError("a whole number beyond 64 bits")
    return int(text)


def _finite(text: str) -> float:
    if not math.isfinite(number := float(text)):
        raise ValueError("a number that is not finite")
    return number


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"key {ascii(twice)[:80]} occurs twice")
    return found


_DECODER = json.JSONDecoder(
    object_pairs_hook=_once, parse_int=_whole, parse_float=_finite, parse_constant=_finite
)
_LENIENT = json.JSONDecoder(object_pairs_hook=_once, parse_int=_whole)


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def check_folder(path: Path, *, resume: bool = False, overwrite: bool = False) -> None:
    """Refuse an output folder that `claim_folder` would refuse; change nothing.

    Raises:
        UserError: the path is a file, cannot be written, or holds files and neither `resume`
            nor `overwrite` is set; or `overwrite` would delete files that are not Diptych's.
    """
    if resume and overwrite:
        raise UserError("--resume and --overwrite exclude each other; choose one")
    if path.exists() and not path.is_dir():
        raise UserError(f"{path}: is a file; give a folder")
    with machine_faults(f"opening {path}"):
        inside = contents(path) if path.is_dir() else []
        if inside and not (resume or overwrite):
            raise UserError(
                f"{path}: the folder is not empty; go on with --resume, "
                f"or replace it with --overwrite"
            )
        if inside and overwrite and not any(next(path.glob(m), None) for m in MARKS):
            raise UserError(
                f"{path}: holds files that are not Diptych's; --overwrite would delete them all. "
                f"Choose another folder"
            )
    existing = next(p for p in (path.absolute(), *path.absolute().parents) if p.exists())
    if not existing.is_dir():
        raise UserError(f"{existing}: is a file; give a folder")
    if not os.access(existing, os.W_OK):
        raise UserError(f"{existing}: no permission to write; choose another folder")


# Files that mark a folder as Diptych's own; --overwrite only replaces such folders.
MARKS = ("config.yaml", "manifest.json", "demo.json", "align.json", "sweep.json",
         "cells/torch-*.json", "cells/jittor-*.json")  # fmt: skip
LOCK = ".lock"


def contents(path: Path) -> list[Path]:
    """The entries of a folder, except the lock file of a process working in it."""
    return [child for child in path.iterdir() if child.name != LOCK]


def claim_folder(path: Path, *, resume: bool = False, overwrite: bool = False) -> None:
    """Create an output folder, or prepare an existing one: `overwrite` empties it.

    Temporary files left by killed processes are removed. The caller holds the folder: see
    `output_folder`.

    Raises:
        UserError: as `check_folder`; or another process is at work in a folder that would go.
    """
    check_folder(path, resume=resume, overwrite=overwrite)
    with machine_faults(f"opening {path}"):
        path.mkdir(parents=True, exist_ok=True)
        held = [lock.parent for lock in path.rglob(f"*/{LOCK}") if _is_held(lock)]
        if overwrite and held:
            raise UserError(f"{held[0]}: another process is at work in it; wait for its end")
        left = [temp for temp in path.rglob(".*.tmp") if _abandoned(temp, held)]
        for each in [*(contents(path) if overwrite else ()), *left]:
            whole = each.is_dir() and not each.is_symlink()
            shutil.rmtree(each) if whole else each.unlink(missing_ok=True)


def _abandoned(temporary: Path, held: list[Path]) -> bool:
    """Whether nobody writes a temporary file: its process is gone, and its folder is not held."""
    number = temporary.name.split(".")[-2]
    if number.isdecimal() and int(number) != os.getpid():
        try:
            os.kill(int(number), 0)
            return False
        except (ProcessLookupError, OverflowError):
            pass
        except PermissionError:  # there, and somebody else's
            return False
    return not any(folder in temporary.parents for folder in held)


def _is_held(lock: Path) -> bool:
    try:
        with lock.open("r+") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


@contextlib.contextmanager
def output_folder(path: Path, *, resume: bool = False, overwrite: bool = False) -> Iterator[None]:
    """Hold an output folder and make it ready: the one policy of every command that writes one.

    Raises:
        UserError: as `hold` and `check_folder`.
    """
    with hold(path):
        claim_folder(path, resume=resume, overwrite=overwrite)
        yield


INHERITED = "DIPTYCH_LOCK"  # the number of an open lock that the process which started us holds


@contextlib.contextmanager
def hold(path: Path) -> Iterator[int]:
    """Keep other processes out of a folder; create it if it is missing. Gives the lock.

    A folder that was created and stays empty is removed again. A child process takes part in the
    lock with `inherited`.

    Raises:
        UserError: another process holds it; the message says which.
    """
    with _lock(path / LOCK, path) as number:
        yield number


@contextlib.contextmanager
def hold_place(path: Path) -> Iterator[None]:
    """Keep other processes from writing a file or folder that is replaced whole.

    Raises:
        UserError: another process writes it, or is at work inside.
    """
    if _is_held(path / LOCK):
        raise UserError(f"{path}: another process is at work in it; wait until it ends")
    with _lock(path.with_name(f".{path.name}{LOCK}"), path):
        yield


@contextlib.contextmanager
def _lock(file: Path, where: Path) -> Iterator[int]:
    """Hold a lock file, which names its process; gives its number.

    The lock ends with its process, however that ends. On a file system without locks, nobody is
    kept out. The lock is a file because network file systems lock files opened for writing, but not
    folders.
    """
    folder = file.parent
    with machine_faults(f"opening {where}"):
        made = not folder.exists()
        folder.mkdir(parents=True, exist_ok=True)
    try:
        with machine_faults(f"opening {where}"):
            number = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            if _ours(number):
                yield number
                return
            _take(number, file, where)
            try:
                yield number
            finally:
                file.unlink(missing_ok=True)
        finally:
            os.close(number)
    finally:
        if made:
            with contextlib.suppress(OSError):  # something came into it
                folder.rmdir()


def _take(number: int, file: Path, where: Path) -> None:
    try:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not os.path.samestat(os.fstat(number), file.stat()):
            raise FileNotFoundError  # the previous holder has removed the file that we opened
    except (BlockingIOError, FileNotFoundError) as error:
        by = os.pread(number, 400, 0).decode("utf-8", "replace").strip()
        raise UserError(
            f"{where}: another process is at work in it{f' ({by})' if by else ''}; "
            f"wait until it ends, or choose another folder"
        ) from error
    except OSError as error:
        if error.errno not in (errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK):
            raise
    with contextlib.suppress(OSError):  # on a full disk it stays without a name
        os.ftruncate(number, 0)
        said = f"process {os.getpid()}: {_command()}"
        os.pwrite(number, said.encode(errors="backslashreplace"), 0)


def inherited(lock: int) -> dict[str, Any]:
    """Arguments of `subprocess.run` for a child that works in the folder that `lock` holds."""
    return {"pass_fds": [lock], "env": {**os.environ, INHERITED: str(lock)}}


def _ours(number: int) -> bool:
    """Whether this lock file is the one that the process which started us holds."""
    try:
        return os.path.samestat(os.fstat(int(os.environ[INHERITED])), os.fstat(number))
    except (KeyError, ValueError, OSError):
        return False


def _command() -> str:
    words = [Path(sys.argv[0]).name, *sys.argv[1:]]
    return " ".join(" ".join(words).replace("__main__.py", "diptych").split())[:300]


def check_free(out: Path, overwrite: bool, ours: Callable[[str], bool]) -> None:
    """Refuse an output folder that may not be replaced whole by `new_folder`.

    Args:
        out: need not exist.
        overwrite: whether earlier output may be replaced.
        ours: whether a file name is one that the command writes.

    Raises:
        UserError: `out` is a file, or it is not empty and `overwrite` is off, or it holds
            something that is not ours.
    """
    if not out.exists():
        if out.is_symlink():
            raise UserError(f"{out}: a link to nothing; give another --out folder")
        return
    if not out.is_dir():
        raise UserError(f"{out}: is a file; --out needs a folder")
    names = sorted(entry.name for entry in out.iterdir())
    if names and not overwrite:
        raise UserError(
            f"{out}: not empty; give another --out folder, or --overwrite to replace it"
        )
    foreign = [name for name in names if not ours(name) or (out / name).is_dir()]
    if foreign:
        raise UserError(
            f"{out}: holds '{foreign[0]}', which this command does not write, so it is not "
            "overwritten; give another --out folder"
        )


@contextlib.contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """A temporary folder that takes the place of `out` when the block ends without an error.

    Raises:
        UserError, MachineError: the folder cannot be made, filled or moved, for want of permission
            or of space, or another process writes it; `out` is then as it was.
    """
    target = out.resolve()
    with hold_place(target), machine_faults(f"writing {out}"):
        target.parent.mkdir(parents=True, exist_ok=True)
        build = Path(tempfile.mkdtemp(prefix=f".{target.name}.new-", dir=target.parent))
        try:
            build.chmod(0o755)
            yield build
            _swap(build, target)
        finally:
            shutil.rmtree(build, ignore_errors=True)


def _swap(build: Path, out: Path) -> None:
    if not out.exists():
        os.replace(build, out)
        return
    old = build.with_name(build.name.replace(".new-", ".old-"))
    os.replace(out, old)
    try:
        os.replace(build, out)
    except OSError:
        os.replace(old, out)
        raise
    shutil.rmtree(old, ignore_errors=True)
