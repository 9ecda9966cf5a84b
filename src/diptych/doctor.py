"""`diptych doctor`: what works on this machine, and for what does not, the command that mends it.

Neither framework is loaded into this process: each is tried in a child of its own, as it will
be used. A check says "ok", "warn" (something is missing that not everybody needs), or "fail"
(nothing can be trained or sampled, or the numbers would be wrong).
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from diptych.errors import MachineError, UserError

Status = Literal["ok", "warn", "fail"]
PIP = f"{sys.executable} -m pip install"
PREPARE = "diptych doctor --prepare"
PANELS = {"torch": "PyTorch", "jittor": "Jittor"}

_TRY_TORCH = """
import json, torch
cuda = torch.cuda.is_available()
device = torch.cuda.get_device_name() if cuda else "no CUDA device"
assert float((torch.ones(3) * 2).sum()) == 6
print(json.dumps(f"{torch.__version__}, {device}, {torch.get_num_threads()} threads"))
"""
_TRY_JITTOR = """
import json
from diptych.jittor import setup
jt = setup.load()
assert float((jt.ones(3) * 2).sum()) == 6
device = f"{jt.get_device_count()} CUDA device(s)" if jt.has_cuda else "no CUDA device"
print(json.dumps(f"{jt.__version__}, {device}, compiled in {jt.flags.cache_path}"))
"""


@dataclass(frozen=True)
class Check:
    """One finding: what was looked at, how it is, and the command that mends it ("" if none)."""

    name: str
    status: Status
    detail: str
    fix: str = ""


def diagnose() -> list[Check]:
    """Every check in the order of dependence; takes a few seconds, changes nothing."""
    panels = [_torch(), _jittor()]
    if all(_absent(panel) for panel in panels) or os.environ.get("DIPTYCH_REQUIRE_PANELS") == "1":
        panels = [_required(panel) for panel in panels]
    checks = [_python(), _numpy(), *panels, _compiler(), _onednn(), _cuda(), _mpi()]
    return [*checks, *_data(), _weights(), _disk(), _memory(), _threads()]


def healthy(checks: list[Check]) -> bool:
    """Whether nothing fails; warnings are allowed. The command's exit code is 0 then, else 1."""
    return all(check.status != "fail" for check in checks)


def to_json(checks: list[Check]) -> str:
    """`{"diptych": version, "ok": bool, "checks": [{name, status, detail, fix}, ...]}`."""
    from diptych._version import __version__

    rows = [asdict(check) for check in checks]
    return json.dumps({"diptych": __version__, "ok": healthy(checks), "checks": rows}, indent=2)


def render(checks: list[Check]) -> str:
    """A table for people: status, name and detail, and below each problem its command."""
    width = max((len(check.name) for check in checks), default=0)
    lines = []
    for check in checks:
        lines.append(f"{check.status:4}  {check.name:{width}}  {check.detail}")
        if check.fix:
            lines.append(f"{'':4}  {'':{width}}  mend: {check.fix}")
    bad = [check.name for check in checks if check.status == "fail"]
    lines.append("")
    lines.append(f"not ready: {', '.join(bad)}" if bad else "ready")
    return "\n".join(lines)


def _python() -> Check:
    version = f"{platform.python_version()} in {sys.prefix}"
    if (3, 10) <= sys.version_info[:2] < (3, 13):
        return Check("python", "ok", version)
    fix = "make demo PYTHON=python3.11"
    return Check("python", "fail", f"{version}; 3.10, 3.11 or 3.12 is needed", fix)


def _numpy() -> Check:
    from diptych.jittor import setup

    version = setup.numpy_version()
    if int(version.split(".")[0]) < 2:
        return Check("numpy", "ok", version)
    return Check("numpy", "fail", f"{version}: Jittor is wrong with it", f"{PIP} 'numpy<2'")


def _torch() -> Check:
    if _version("torch") is None:
        return _missing("torch")
    return _tried("torch", _TRY_TORCH, f"{PIP} --force-reinstall 'diptych[torch]'")


def _jittor() -> Check:
    from diptych.jittor import coldstart, setup

    version = setup.jittor_version()
    if version is None:
        return _missing("jittor")
    try:
        setup.check()
        setup.set_environment()
        if not coldstart.is_ready(setup.site()):
            detail = f"{version}, not compiled yet (once, about 4 minutes)"
            return Check("jittor", "warn", detail, PREPARE)
    except (UserError, MachineError) as error:
        problem, _, mend = str(error).rpartition(": ")  # these messages end in their command
        return Check("jittor", "fail", f"{version}: {problem}", mend)
    return _tried("jittor", _TRY_JITTOR, PREPARE)


def _missing(panel: str) -> Check:
    return Check(panel, "warn", f"{PANELS[panel]} is not installed", f"{PIP} 'diptych[{panel}]'")


def _absent(check: Check) -> bool:
    return "is not installed" in check.detail


def _required(check: Check) -> Check:
    return Check(check.name, "fail", check.detail, check.fix) if _absent(check) else check


def _tried(name: str, program: str, fix: str) -> Check:
    """Run a small program that uses the framework and prints one JSON string."""
    command = [sys.executable, "-c", program]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300
        )
        detail = json.loads(done.stdout.strip().splitlines()[-1])
    except subprocess.TimeoutExpired:
        return Check(name, "fail", "installed, but does not answer within 300 s", fix)
    except (ValueError, IndexError):
        lines = (done.stderr.strip() or f"exit code {done.returncode}").splitlines()
        return Check(name, "fail", f"installed, but does not work: {lines[-1][:200]}", fix)
    return Check(name, "ok", str(detail))


def _compiler() -> Check:
    from diptych.jittor import setup

    path = setup.compiler()
    if path is None:
        return Check("compiler", "fail", "no C++ compiler (g++)", "sudo apt install g++")
    if setup.python_config() is None:
        short = "python{}.{}".format(*sys.version_info)
        detail = f"{path}; no C headers of Python ({short}-config)"
        return Check("compiler", "fail", detail, f"sudo apt install {short}-dev")
    return Check("compiler", "ok", f"{_first_line([path, '--version'])} at {path}")


def _onednn() -> Check:
    from diptych.jittor import onednn, setup

    folder = onednn.folder(setup.home())
    if onednn.is_placed(folder):
        return Check("onednn", "ok", str((folder / "lib" / "libmkldnn.so").resolve()))
    source = onednn.find()
    if source is not None:
        return Check("onednn", "warn", f"in {source.origin}, not yet placed for Jittor", PREPARE)
    status: Status = "warn" if setup.jittor_version() is None else "fail"
    return Check("onednn", status, "not found; Jittor needs it", f"{PIP} {onednn.WHEEL}")


def _cuda() -> Check:
    from diptych.jittor import cuda

    if not cuda.has_driver():
        return Check("cuda", "ok", "no NVIDIA driver: both panels run on the CPU")
    found = cuda.find_toolkit()
    if found.nvcc:
        return Check("cuda", "ok", f"driver loaded; Jittor uses {found.nvcc}")
    detail = f"driver loaded, but no toolkit for Jittor ({found.reason}): it runs on the CPU"
    return Check("cuda", "warn", detail, f"{sys.executable} -m jittor_utils.install_cuda")


def _mpi() -> Check:
    path = shutil.which("mpirun")
    if path and shutil.which("mpicc"):
        return Check("mpi", "ok", f"{_first_line([path, '--version'])} at {path}")
    detail = "no mpirun and mpicc; needed only for several Jittor processes"
    return Check("mpi", "warn", detail, "sudo apt install openmpi-bin libopenmpi-dev")


def _data() -> Iterator[Check]:
    from diptych.data import sources

    mends = {"fashion_mnist": "sudo apt install dataset-fashion-mnist"}
    for name in sources.SOURCES:
        try:
            found = sources.find(name)
        except (UserError, MachineError) as error:
            yield Check(name, "warn", str(error), f"unset {sources.ENVIRONMENT}")
            continue
        if found is not None:
            yield Check(name, "ok", str(found.origin))
        else:
            mend = mends.get(name, f"export {sources.ENVIRONMENT}=/folder/that/holds/{name}")
            yield Check(name, "warn", "not on this machine; downloaded when first used", mend)


def _weights() -> Check:
    import platformdirs

    from diptych import __file__ as package

    zoo = Path(package).with_name("zoo")
    names = sorted({path.stem for path in zoo.rglob("*.safetensors")})
    cache = platformdirs.user_cache_dir("diptych")
    if not os.access(_existing(Path(cache)), os.W_OK):
        return Check("weights", "warn", f"{cache} cannot be written", f"sudo chown $USER {cache}")
    return Check("weights", "ok", f"zoo: {', '.join(names) or 'empty'}; cache: {cache}")


def _disk() -> Check:
    from diptych.jittor import setup

    home = setup.home()
    free = shutil.disk_usage(_existing(home)).free / 2**30
    detail = f"{free:.1f} GiB free at {home}"
    if free >= 2:
        return Check("disk", "ok", detail)
    fix = "export HOME=/path/on/a/larger/disk"
    return Check("disk", "warn" if free > 0.2 else "fail", detail, fix)


def _memory() -> Check:
    import psutil

    memory = psutil.virtual_memory()
    detail = f"{memory.available / 2**30:.1f} of {memory.total / 2**30:.1f} GiB available"
    if memory.available >= 2 * 2**30:
        return Check("memory", "ok", detail)
    return Check("memory", "warn", detail, "diptych train mnist --set train.batch_size=16 ...")


def _threads() -> Check:
    cores = len(os.sched_getaffinity(0))
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    detail = f"{cores} cores usable" + (f", OMP_NUM_THREADS={wanted}" if wanted else "")
    if wanted.isdigit() and int(wanted) > cores:
        return Check("threads", "warn", detail, f"export OMP_NUM_THREADS={cores}")
    return Check("threads", "ok", detail)


def _version(name: str) -> str | None:
    from importlib import metadata

    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _first_line(command: list[str]) -> str:
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    except OSError as error:
        return str(error)
    return (done.stdout.strip().splitlines() or ["no version"])[0]


def _existing(path: Path) -> Path:
    """The path, or its nearest parent that exists."""
    return next((each for each in (path, *path.parents) if each.exists()), Path("/"))
