"""Preparation of `import jittor`, and the quiet import.

Jittor 1.3.11 needs: NumPy below 2 (with 2 it imports and computes wrong numbers), no torch in
the process (the two crash each other), a C++ compiler and Python's headers (it compiles its core
and every kernel), oneDNN (see `onednn`), a complete CUDA or none (see `cuda`), and one compile of
four minutes (see `coldstart`). Importing this module imports no framework.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import platform
import shutil
import signal
import sys
import sysconfig
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

from diptych.backends.jittor import coldstart, cuda, onednn, quickcompile, quiet
from diptych.errors import MachineError, UserError
from diptych.machine.packages import PIP
from diptych.machine.processor import processor_name

log = logging.getLogger(__name__)

_COMPILED_IN = ("cache_name", "nvcc_path", "use_mpi", "python_config_path", "cc_flags")
_loaded: list[bool] = []  # whether this module has imported Jittor
PACKAGES = f"jittor==1.3.11.0 {onednn.WHEEL}"


def home() -> Path:
    """Jittor's home, chosen as Jittor does: JITTOR_HOME, its own config file, the user's home."""
    return Path(os.environ.get("JITTOR_HOME") or remembered_home() or Path.home()).absolute()


def _memory() -> Path:
    """The file in which Jittor keeps a JITTOR_HOME that was set once, for all later processes."""
    return Path.home() / ".cache" / "jittor" / "config.json"


def _remembered() -> dict[str, Any]:
    try:
        found = json.loads(_memory().read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def remembered_home() -> str | None:
    """The JITTOR_HOME that some earlier process was given, if it is still in force."""
    found = _remembered().get("JITTOR_HOME")
    return str(found) if found and Path(found) != Path.home() else None


def forget_home() -> None:
    """Remove a remembered JITTOR_HOME, so that Jittor's home is the user's again."""
    if "JITTOR_HOME" in (found := _remembered()):
        del found["JITTOR_HOME"]
        _memory().write_text(json.dumps(found))


@contextmanager
def home_not_kept() -> Iterator[None]:
    """Jittor imported inside does not keep this process's JITTOR_HOME for every later one."""
    before = _remembered().get("JITTOR_HOME")
    try:
        yield
    finally:
        after = _remembered()
        if after.get("JITTOR_HOME") != before:
            forget_home()
            if before is not None:
                _memory().write_text(json.dumps({**after, "JITTOR_HOME": before}))


def prepare(progress: bool = True, verify: bool = False) -> None:
    """Make `import jittor` possible, correct and fast in this process; takes ms once compiled.

    Args:
        progress: show the progress of the first, four-minute compile on stderr.
        verify: try Jittor in a child process even if it was compiled before, and repair it.

    Raises:
        UserError: NumPy 2, torch already loaded, no compiler, no oneDNN, a compile that fails.
        MachineError: a folder that cannot be written.
    """
    check()
    set_environment()
    if platform.system() == "Linux" and os.environ.get("use_mkl") != "0":
        onednn.place(onednn.folder(home()))
    coldstart.ensure(site(), _command, _count, progress=progress, again=verify)


def load() -> ModuleType:
    """Prepare and import the `jittor` module without its chatter; warnings are kept.

    Raises:
        UserError, MachineError: see `prepare`.
    """
    if "jittor" in sys.modules:
        if not _loaded:
            log.warning(
                "Jittor was imported before Diptych could prepare it (oneDNN, CUDA, threads, its "
                "cache); import it after diptych.backends.load('jittor')"
            )
        return sys.modules["jittor"]
    _loaded.append(True)
    prepare()
    coldstart.say_if_busy(site())
    quiet.install()
    try:
        return _import()
    except SystemExit as error:
        raise MachineError(
            "Jittor rebuilt a part of itself and asked for a restart: run the command again."
        ) from error


def check() -> None:
    """Refuse conditions that would crash Jittor or make it silently wrong.

    Raises:
        UserError: one line with the command that fixes the problem.
    """
    version = numpy_version()
    if int(version.split(".")[0]) >= 2:
        raise UserError(
            f"NumPy {version} is installed, and Jittor computes wrong numbers with NumPy 2 or "
            f"newer. Install an older one: {PIP} 'numpy<2'"
        )
    if "torch" in sys.modules:
        raise UserError(
            "PyTorch is already loaded in this process, and PyTorch and Jittor crash each other. "
            "Run the backends in two processes, and exchange files between them."
        )
    if jittor_version() is None:
        raise UserError(f"Jittor is not installed in {sys.prefix}. Install it: {PIP} {PACKAGES}")
    if compiler() is None:
        raise UserError(
            f"Jittor needs the C++ compiler {os.environ.get('cc_path') or 'g++'}, which was not "
            "found. Install it: sudo apt install g++"
        )
    if python_config() is None:
        short = "python{}.{}".format(*sys.version_info)
        raise UserError(
            f"Jittor needs Python's C headers, and {short}-config was not found. "
            f"Install them: sudo apt install {short}-dev"
        )


def set_environment() -> None:
    """Set the environment variables that Jittor reads, unless the user has set them."""
    defaults = {
        "FIX_TORCH_ERROR": "0",  # else Jittor imports torch by itself
        "OMP_WAIT_POLICY": "passive",  # spinning threads slow a busy machine
        "use_mpi": "0",
        # Jittor's default is the current git branch: each branch would be compiled anew.
        "cache_name": "diptych-" + hashlib.sha256(sys.prefix.encode()).hexdigest()[:8],
        "python_config_path": str(python_config() or ""),
    }
    own_nccl = {"nccl_include_path", "nccl_lib_path"} <= os.environ.keys()
    defaults["use_nccl"] = str(int(own_nccl))  # else Jittor fetches and builds one at its import
    if "nvcc_path" not in os.environ:
        defaults["nvcc_path"] = cuda.find_toolkit(home()).nvcc
    for name, value in defaults.items():
        os.environ.setdefault(name, value)
    if "OMPI_COMM_WORLD_SIZE" in os.environ:  # Jittor fails under mpirun without it; a "0" may come
        os.environ["use_mpi"] = "1"  # from the process that started mpirun
    # cuDNN would otherwise compute float32 convolutions in TF32, which Jittor cannot switch off.
    os.environ["NVIDIA_TF32_OVERRIDE"] = "0"


def site() -> coldstart.Site:
    """The compile site of this environment; call `set_environment` first."""
    name = os.environ["cache_name"] + ("-mpi" if os.environ["use_mpi"] == "1" else "")
    return coldstart.Site(home() / ".cache" / "jittor" / "diptych" / name, compile_key())


def compile_key() -> dict[str, str]:
    """Everything the compiled files depend on; the compiler by its file, as running it is slow."""
    path = os.path.realpath(compiler() or "")
    stat = Path(path).stat()
    return {
        "jittor": jittor_version() or "",
        "python": platform.python_version(),
        "prefix": sys.prefix,
        "compiler": f"{path} {stat.st_size} {stat.st_mtime_ns}",
        "machine": " ".join(os.uname()),
        "cpu": processor_name(),
        "kernels": quickcompile.KEY,
        **{name: os.environ.get(name, "") for name in _COMPILED_IN},
    }


def numpy_version() -> str:
    return metadata.version("numpy")


def jittor_version() -> str | None:
    try:
        return metadata.version("jittor")
    except metadata.PackageNotFoundError:
        return None


def compiler() -> str | None:
    """The C++ compiler that Jittor will use: `cc_path`, or g++."""
    return shutil.which(os.environ.get("cc_path") or "g++")


def python_config() -> Path | None:
    """The `python3.N-config` of this very interpreter, not of another one on the path.

    Jittor looks beside `sys.executable` (in a virtual environment it is not there), then in
    /usr/bin, which may hold another build of the same Python version.
    """
    name = "python{}.{}-config".format(*sys.version_info)
    given = os.environ.get("python_config_path")
    folders = [Path(sys.base_prefix, "bin"), Path(os.path.realpath(sys.executable)).parent]
    folders += [Path(sysconfig.get_config_var("BINDIR") or "/usr/bin"), Path("/usr/bin")]
    candidates = [Path(given)] if given else [folder / name for folder in folders]
    return next((path for path in candidates if path.is_file()), None)


def _command(result: Path) -> list[str]:
    return [sys.executable, "-m", "diptych.backends.jittor.firstcompile", str(result)]


def _count() -> int:
    """Number of files compiled so far, in all caches with this environment's name."""
    roots = (home() / ".cache" / "jittor").glob(f"jt*/*/*/*/*/*/{os.environ['cache_name']}")
    return sum(
        name.endswith((".o", ".so"))
        for root in roots
        for _, _, names in os.walk(root)
        for name in names
    )


def _import() -> ModuleType:
    """Import Jittor, and undo the import's effects on the whole process."""
    import ssl

    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGCHLD)}
    context, limit = ssl._create_default_https_context, sys.getrecursionlimit()
    with home_not_kept():
        import jittor_utils

        # Its Python part prints information on stdout, which is for results.
        jittor_utils.LOG.i = lambda *_: None
        jittor_utils.DelayProgress.update = lambda *_: None
        import jittor

    ssl._create_default_https_context = context  # Jittor turns off certificate checks
    sys.setrecursionlimit(limit)  # a million frames would turn runaway recursion into a segfault
    if threading.current_thread() is threading.main_thread():
        for number, handler in handlers.items():  # Jittor's exit at once: no checkpoint on Ctrl-C
            signal.signal(number, handler or signal.SIG_DFL)
    _end_pool(jittor_utils)
    quickcompile.use_compiles(jittor)
    return jittor


def _end_pool(utils: Any) -> None:
    """End the seven compiler processes that Jittor's import leaves behind.

    They only serve the import but would live as long as this process, and if a signal reached them
    first, our exit would wait for them forever. Jittor starts new ones when it needs them.
    """
    import atexit

    if utils.pool_size:
        utils.pool_cleanup()
        atexit.unregister(utils.pool_cleanup)
        utils.pool_size = 0
