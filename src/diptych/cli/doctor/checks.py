"""Checks of `diptych doctor` that start no framework.

Each function checks one thing and reports its finding; if something is missing, it names the
command that fixes it. Nothing is changed.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from diptych.errors import MachineError, UserError
from diptych.files import user_cache
from diptych.machine.packages import PIP
from diptych.machine.processor import asked_threads, cores, has_nvidia_driver

Status = Literal["ok", "warn", "fail"]
PREPARE = "diptych doctor --prepare"


@dataclass(frozen=True)
class Check:
    """One finding: name, status, detail, and the command that fixes it ("" if none).

    absent: the check is of a backend that is not installed.
    """

    name: str
    status: Status
    detail: str
    fix: str = ""
    absent: bool = False


def python() -> Check:
    """The interpreter's version: Jittor needs 3.10 to 3.12."""
    version = f"{platform.python_version()} in {sys.prefix}"
    if (3, 10) <= sys.version_info[:2] < (3, 13):
        return Check("python", "ok", version)
    fix = "make demo PYTHON=python3.11"
    return Check("python", "fail", f"{version}; 3.10, 3.11 or 3.12 is needed", fix)


def numpy() -> Check:
    """NumPy's version: with 2, Jittor computes wrong numbers silently."""
    from diptych.backends.jittor import setup

    version = setup.numpy_version()
    if int(version.split(".")[0]) < 2:
        return Check("numpy", "ok", version)
    return Check("numpy", "fail", f"{version}: Jittor needs 1.x", f"{PIP} 'numpy<2'")


def compiler() -> Check:
    """The C++ compiler and Python's headers; Jittor needs them to build its kernels."""
    from diptych.backends.jittor import setup

    path = setup.compiler()
    if path is None:
        return Check("compiler", "fail", "no C++ compiler (g++)", "sudo apt install g++")
    if setup.python_config() is None:
        short = "python{}.{}".format(*sys.version_info)
        detail = f"{path}; Python's C headers are missing ({short}-config)"
        return Check("compiler", "fail", detail, f"sudo apt install {short}-dev")
    return Check("compiler", "ok", f"{_first_line([path, '--version'])} at {path}")


def jittor_home() -> Check:
    """Jittor's compile folder: a JITTOR_HOME that was set once stays in force permanently."""
    from diptych.backends.jittor import setup

    kept = setup.remembered_home()
    if kept is None or os.environ.get("JITTOR_HOME"):
        return Check("jittor home", "ok", str(setup.home()))
    detail = f"{kept}, remembered from a JITTOR_HOME that was set once"
    return Check("jittor home", "warn", detail, PREPARE)


def onednn() -> Check:
    """oneDNN for Jittor's CPU convolutions, in the folder where Jittor looks for it."""
    from diptych.backends.jittor import onednn, setup

    folder = onednn.folder(setup.home())
    if onednn.is_placed(folder):
        return Check("onednn", "ok", str((folder / "lib" / "libmkldnn.so").resolve()))
    source = onednn.find()
    if source is not None:
        return Check("onednn", "warn", f"in {source.origin}, not yet placed for Jittor", PREPARE)
    status: Status = "warn" if setup.jittor_version() is None else "fail"
    return Check("onednn", status, "not found; Jittor needs it", f"{PIP} {onednn.WHEEL}")


def cuda() -> Check:
    """The NVIDIA driver, and a CUDA toolkit that Jittor can load."""
    from diptych.backends.jittor import cuda, setup

    if not has_nvidia_driver():
        return Check("cuda", "ok", "no NVIDIA driver: both backends run on the CPU")
    found = cuda.find_toolkit(setup.home())
    if found.nvcc:
        return Check("cuda", "ok", f"driver loaded; Jittor uses {found.nvcc}")
    detail = f"driver loaded, but no toolkit for Jittor ({found.reason}): it runs on the CPU"
    return Check("cuda", "warn", detail, f"{sys.executable} -m jittor_utils.install_cuda")


def mpi() -> Check:
    """MPI, which several Jittor processes need to train together."""
    path = shutil.which("mpirun")
    if path and shutil.which("mpicc"):
        found = _first_line([path, "--version"])
        return Check("mpi", "ok", f"{found} at {path}: the engine of several Jittor processes")
    detail = "no mpirun and mpicc; needed only for several Jittor processes"
    return Check("mpi", "warn", detail, "sudo apt install openmpi-bin libopenmpi-dev")


def data() -> Iterator[Check]:
    """Each known data set: its location, or the command to get it."""
    from diptych.data.sources import registry

    fixes = {"fashion_mnist": "sudo apt install dataset-fashion-mnist"}
    for name in registry.SOURCES:
        try:
            found = registry.find(name)
        except (UserError, MachineError) as error:
            yield Check(name, "warn", str(error), f"unset {registry.ENVIRONMENT}")
            continue
        if found is not None:
            yield Check(name, "ok", str(found.origin))
        else:
            fix = fixes.get(name, f"export {registry.ENVIRONMENT}=/folder/that/holds/{name}")
            yield Check(name, "warn", "not on this machine; downloaded when first used", fix)


def weights() -> Check:
    """The weights in the package, and the download cache."""
    from diptych.weights.find import zoo_names

    names = zoo_names()
    cache = user_cache()
    if not os.access(_existing(cache), os.W_OK):
        return Check("weights", "warn", f"{cache} cannot be written", f"sudo chown $USER {cache}")
    return Check("weights", "ok", f"zoo: {', '.join(names) or 'empty'}; cache: {cache}")


def disk() -> Check:
    """Free disk space for Jittor's compiled files and for downloads."""
    from diptych.backends.jittor import setup

    home = setup.home()
    free = shutil.disk_usage(_existing(home)).free / 2**30
    detail = f"{free:.1f} GiB free at {home}"
    if free >= 2:
        return Check("disk", "ok", detail)
    fix = "export HOME=/path/on/a/larger/disk"
    return Check("disk", "warn" if free > 0.2 else "fail", detail, fix)


def memory() -> Check:
    """Free memory."""
    import psutil

    memory = psutil.virtual_memory()
    detail = f"{memory.available / 2**30:.1f} of {memory.total / 2**30:.1f} GiB available"
    if memory.available >= 2 * 2**30:
        return Check("memory", "ok", detail)
    return Check("memory", "warn", detail, "diptych train mnist --set train.batch_size=16 ...")


def threads() -> Check:
    """Processor cores; a warning if more threads than cores are requested."""
    usable = cores()
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    detail = f"{usable} cores usable" + (f", OMP_NUM_THREADS={wanted}" if wanted else "")
    if (asked_threads() or 0) > usable:
        return Check("threads", "warn", detail, f"export OMP_NUM_THREADS={usable}")
    return Check("threads", "ok", detail)


def _first_line(command: list[str]) -> str:
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    except OSError as error:
        return str(error)
    return (done.stdout.strip().splitlines() or ["no version"])[0]


def _existing(path: Path) -> Path:
    """The path, or its nearest parent that exists."""
    return next((each for each in (path, *path.parents) if each.exists()), Path("/"))
