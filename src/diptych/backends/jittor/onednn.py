"""oneDNN for Jittor: links to an installed copy where Jittor looks, so it downloads nothing.

Jittor builds its CPU convolutions on oneDNN, and looks for it in one folder only:

    <Jittor's home>/.cache/jittor/mkl/dnnl_lnx_2.2.0_cpu_gomp/{include, lib/libmkldnn.so}

If the folder is absent, Jittor downloads an archive. We link a oneDNN 2.x that is already on the
machine: the wheels `onednn-devel-cpu-gomp` and `onednn-cpu-gomp` put headers and library into the
environment's prefix (2022.2.1 is oneDNN 2.6; 2023.x has another API); Debian's `libdnnl-dev` also
works. They are links, not copies, because the library is 40 MB. Working files are never touched.
"""

from __future__ import annotations

import os
import platform
import shutil
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from diptych.errors import MachineError, UserError
from diptych.machine.packages import PIP

WHEEL = "onednn-devel-cpu-gomp==2022.2.1"
_WHEELS = ("onednn-devel-cpu-gomp", "onednn-cpu-gomp")
_DEBIAN = (Path("/usr/include"), Path("/usr/lib") / f"{platform.machine()}-linux-gnu")


@dataclass(frozen=True)
class Source:
    """A oneDNN on this machine: header folder, shared library, and origin in words."""

    include: Path
    library: Path
    origin: str


def folder(home: Path) -> Path:
    """The only folder, below Jittor's home, in which Jittor looks for oneDNN."""
    arm = "_aarch64" if platform.machine() == "aarch64" else ""
    return home / ".cache" / "jittor" / "mkl" / f"dnnl_lnx_2.2.0_cpu_gomp{arm}"


def find() -> Source | None:
    """Find the first usable oneDNN: this environment's wheels, its prefix, then Debian's."""
    candidates = [
        _from_wheels(),
        _from_folders(Path(sys.prefix, "include"), Path(sys.prefix, "lib")),
    ]
    candidates.append(_from_folders(*_DEBIAN))
    return next((source for source in candidates if source), None)


def is_placed(target: Path) -> bool:
    """True if `target` holds a working oneDNN, whoever put it there."""
    lib = target / "lib"
    return (
        _has_headers(target / "include")
        and (lib / "libmkldnn.so").is_file()
        and (not (lib / "libmkldnn.so").is_symlink() or (lib / "libdnnl.so.2").is_file())
    )


def place(target: Path) -> None:
    """Place oneDNN in `target`: renew missing files and dangling links, leave working files.

    Raises:
        UserError: this machine has no oneDNN to link.
        MachineError: the folder cannot be written.
    """
    if is_placed(target):
        return
    source = find()
    if source is None:
        raise UserError(
            f"Jittor needs oneDNN 2.x, and neither {sys.prefix} nor {_DEBIAN[1]} has one. "
            f"Install it: {PIP} {WHEEL}"
        )
    try:
        (target / "lib").mkdir(parents=True, exist_ok=True)
        _put(target / "include", source.include)
        _put(target / "lib" / "libmkldnn.so", source.library)
        _put(target / "lib" / "libdnnl.so.2", source.library)
    except OSError as error:
        raise MachineError(
            f"{target}: cannot place oneDNN here ({error.strerror or error}). "
            "Make the folder writable, or set HOME to a writable folder."
        ) from error


def _put(link: Path, source: Path) -> None:
    """Link to `source`, or copy it if the file system has no links; replaces `link` atomically."""
    new = link.with_name(f".{link.name}.{os.getpid()}.new")
    try:
        new.symlink_to(source, target_is_directory=source.is_dir())
    except OSError:
        if source.is_dir():
            shutil.copytree(source, new)
        else:
            shutil.copy2(source, new)
    if link.is_dir() and not link.is_symlink():
        shutil.rmtree(link)  # a rename cannot replace a real folder
    new.replace(link)


def _from_wheels() -> Source | None:
    files: list[Path] = []
    for name in _WHEELS:
        try:
            found = metadata.distribution(name).files or []
        except metadata.PackageNotFoundError:
            return None
        files += [
            Path(os.path.normpath(file.locate()))
            for file in found
            if file.name == "dnnl.hpp" or file.name.startswith("libdnnl.so")
        ]
    headers = [file.parent for file in files if file.name == "dnnl.hpp"]
    library = next((file.parent for file in files if file.name.startswith("libdnnl.so")), None)
    if not headers or library is None:
        return None
    # dnnl.hpp is in include/ and in include/oneapi/dnnl/; Jittor includes the outer one.
    return _from_folders(min(headers, key=lambda path: len(path.parts)), library)


def _from_folders(include: Path, lib: Path) -> Source | None:
    """The oneDNN 2.x in a pair of folders, recognised by the library's file name."""
    if not _has_headers(include):
        return None
    libraries = sorted(lib.glob("libdnnl.so.2*"))
    return Source(include, libraries[-1], str(lib)) if libraries else None


def _has_headers(include: Path) -> bool:
    return (include / "dnnl.hpp").is_file()
