"""`diptych doctor`: a report on this machine, with a command that fixes each problem.

Neither framework is loaded into this process: each is tried in its own child process, as in real
use. A status is "ok", "warn" (something is missing that not everybody needs), or "fail" (nothing
can be trained or sampled, or the numbers would be wrong).
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from dataclasses import replace

from diptych.cli.doctor import checks as machine
from diptych.cli.doctor.checks import PREPARE, Check
from diptych.machine.packages import PIP

_TRY_TORCH = """
import json, torch
cuda = torch.cuda.is_available()
none = "no CUDA device" if torch.version.cuda else "a build without CUDA"
device = torch.cuda.get_device_name() if cuda else none
assert float((torch.ones(3) * 2).sum()) == 6
many = torch.distributed if torch.distributed.is_available() else None
engines = [name for name in ("gloo", "nccl") if many and getattr(many, f"is_{name}_available")()]
several = f"several processes: {' and '.join(engines) or 'no engine'}"
print(json.dumps(f"{torch.__version__}, {device}, {torch.get_num_threads()} threads, {several}"))
"""
_TRY_JITTOR = """
import json
from diptych.backends.jittor import setup
jt = setup.load()
assert float((jt.ones(3) * 2).sum()) == 6
device = f"{jt.get_device_count()} CUDA device(s)" if jt.has_cuda else "no CUDA device"
print(json.dumps(f"{jt.__version__}, {device}, compiled in {jt.flags.cache_path}"))
"""


def diagnose() -> list[Check]:
    """Run every check in order of dependence; takes a few seconds, changes nothing."""
    panels = [_torch(), _jittor()]
    if all(panel.absent for panel in panels) or os.environ.get("DIPTYCH_REQUIRE_PANELS") == "1":
        panels = [_required(panel) for panel in panels]
    return [
        machine.python(),
        machine.numpy(),
        *panels,
        machine.compiler(),
        machine.jittor_home(),
        machine.onednn(),
        machine.cuda(),
        machine.mpi(),
        *machine.data(),
        machine.weights(),
        machine.disk(),
        machine.memory(),
        machine.threads(),
    ]


def healthy(checks: list[Check]) -> bool:
    """True if no check failed (warnings are allowed): exit code 0, else 1."""
    return all(check.status != "fail" for check in checks)


def to_json(checks: list[Check]) -> str:
    """`{"diptych": version, "ok": bool, "checks": [{name, status, detail, fix}, ...]}`."""
    from diptych import __version__

    keys = ("name", "status", "detail", "fix")
    rows = [{key: getattr(check, key) for key in keys} for check in checks]
    return json.dumps({"diptych": __version__, "ok": healthy(checks), "checks": rows}, indent=2)


def render(checks: list[Check]) -> str:
    """Render a table for people: status, name and detail; each problem is followed by its fix."""
    width = max((len(check.name) for check in checks), default=0)
    lines = []
    for check in checks:
        lines.append(f"{check.status:4}  {check.name:{width}}  {check.detail}")
        if check.fix:
            lines.append(f"{'':4}  {'':{width}}  fix: {check.fix}")
    bad = [check.name for check in checks if check.status == "fail"]
    lines.append("")
    lines.append(f"not ready: {', '.join(bad)}" if bad else "ready")
    return "\n".join(lines)


def _torch() -> Check:
    if importlib.util.find_spec("torch") is None:
        return _missing("torch")
    return _tried("torch", _TRY_TORCH, f"{PIP} --force-reinstall torch 'numpy<2'")


def _jittor() -> Check:
    from diptych.backends.jittor import coldstart, setup

    version = setup.jittor_version()
    if version is None:
        return _missing("jittor")
    for check in (machine.numpy(), machine.compiler()):
        if check.status == "fail":
            detail = f"{version}; the check '{check.name}' has failed"
            return Check("jittor", "fail", detail, check.fix)
    setup.set_environment()
    if not coldstart.is_ready(setup.site()):
        detail = f"{version}, not compiled yet (once, about 4 minutes)"
        return Check("jittor", "warn", detail, PREPARE)
    return _tried("jittor", _TRY_JITTOR, PREPARE)


def _missing(panel: str) -> Check:
    from diptych.backends import TITLES
    from diptych.backends.jittor import setup

    packages = {"torch": "torch", "jittor": setup.PACKAGES}
    detail, fix = f"{TITLES[panel]} is not installed", f"{PIP} {packages[panel]}"
    return Check(panel, "warn", detail, fix, absent=True)


def _required(check: Check) -> Check:
    return replace(check, status="fail") if check.absent else check


def _tried(name: str, program: str, fix: str) -> Check:
    """Run a small program in a child process; it uses the framework and prints a JSON string."""
    command = [sys.executable, "-c", program]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300
        )
        detail = json.loads(done.stdout.strip().splitlines()[-1])
    except subprocess.TimeoutExpired:
        return Check(
            name,
            "fail",
            "installed, but gave no answer in 300 s (is another process compiling?)",
            fix,
        )
    except (ValueError, IndexError):
        lines = (done.stderr.strip() or f"exit code {done.returncode}").splitlines()
        return Check(name, "fail", f"installed, but does not work: {lines[-1][:200]}", fix)
    return Check(name, "ok", str(detail))
