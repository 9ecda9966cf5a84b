"""Set-up: what stands between a fresh machine and `import jittor`, without the long compile.

The compile itself is replaced by a small command; everything around it (stamp, lock, failure,
interruption) is the real code. `make test` has compiled Jittor for real before it comes here.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from unittest import mock

import pytest

from diptych import doctor
from diptych.errors import UserError
from diptych.jittor import coldstart, cuda, onednn, quiet, setup

FAKE_COMPILE = """
import json, pathlib, sys, time
result, runs, core, seconds = sys.argv[1:]
with open(runs, "a") as out: out.write("run\\n")
time.sleep(float(seconds))
pathlib.Path(core).touch()
pathlib.Path(result).write_text(json.dumps({"core": core, "cache": ""}))
"""


@pytest.fixture
def environ() -> Iterator[None]:
    """Whatever a test does to the environment is undone."""
    with mock.patch.dict(os.environ):
        for name in ("nvcc_path", "use_mpi", "cache_name", "cc_path", "OMPI_COMM_WORLD_SIZE"):
            os.environ.pop(name, None)
        yield


def python(program: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )


# What is refused before Jittor could crash or compute wrong numbers


@pytest.mark.parametrize("version", ["2.0.0", "2.3.1", "3.0.0rc1"])
def test_numpy_2_is_refused_with_the_command_that_mends_it(
    monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    monkeypatch.setattr(setup, "numpy_version", lambda: version)
    with pytest.raises(UserError, match=f"NumPy {version}.*pip install 'numpy<2'$"):
        setup.check()
    assert doctor._numpy().status == "fail"


def test_a_process_with_torch_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", ModuleType("torch"))
    with pytest.raises(UserError, match="two processes"):
        setup.check()


@pytest.mark.parametrize(
    "name, command",
    [("jittor_version", "pip install"), ("compiler", "install g\\+\\+"), ("python_config", "-dev")],
)
def test_a_missing_part_is_named_with_its_command(
    monkeypatch: pytest.MonkeyPatch, name: str, command: str
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)  # type: ignore[arg-type]
    monkeypatch.delitem(sys.modules, "torch")
    monkeypatch.setattr(setup, name, lambda: None)
    with pytest.raises(UserError, match=command):
        setup.check()


# The environment that Jittor reads


@pytest.mark.usefixtures("environ")
def test_the_users_settings_win_over_the_defaults() -> None:
    os.environ.update(use_mpi="1", nvcc_path="/my/nvcc", cache_name="mine")
    setup.set_environment()
    assert [os.environ[name] for name in ("use_mpi", "nvcc_path", "cache_name")] == [
        "1",
        "/my/nvcc",
        "mine",
    ]
    assert os.environ["FIX_TORCH_ERROR"] == "0"


@pytest.mark.usefixtures("environ")
def test_mpi_is_on_only_under_mpirun() -> None:
    setup.set_environment()
    assert os.environ["use_mpi"] == "0"
    del os.environ["use_mpi"]
    os.environ["OMPI_COMM_WORLD_SIZE"] = "2"
    setup.set_environment()
    assert os.environ["use_mpi"] == "1"


@pytest.mark.usefixtures("environ")
def test_two_environments_have_two_caches(monkeypatch: pytest.MonkeyPatch) -> None:
    names = set()
    for prefix in ("/a/.venv", "/b/.venv"):
        monkeypatch.setattr(sys, "prefix", prefix)
        os.environ.pop("cache_name", None)
        setup.set_environment()
        names.add(os.environ["cache_name"])
    assert len(names) == 2


def test_only_a_complete_cuda_is_offered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nvcc, lib = tmp_path / "bin" / "nvcc", tmp_path / "lib64"
    for path in (nvcc, lib / "libcudart.so", lib / "libcudnn_ops_infer.so"):
        path.parent.mkdir(exist_ok=True)
        path.touch()
    monkeypatch.setattr(cuda, "_PLACES", ())
    monkeypatch.setattr(cuda.shutil, "which", lambda _: None)
    monkeypatch.setenv("nvcc_path", str(nvcc))
    assert cuda.find_toolkit(driver=True).nvcc == str(nvcc)
    assert cuda.find_toolkit(driver=False).nvcc == ""
    (lib / "libcudart.so").unlink()
    lacking = cuda.find_toolkit(driver=True)
    assert lacking.nvcc == "" and "libcudart.so" in lacking.reason


# oneDNN, placed where Jittor looks


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A pretended environment with oneDNN 2 in it, the only one on this machine."""
    return pretend(tmp_path / "env", monkeypatch)


def pretend(prefix: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for file in (prefix / "include" / "dnnl.hpp", prefix / "lib" / "libdnnl.so.2.6"):
        file.parent.mkdir(parents=True)
        file.write_text(prefix.name)
    monkeypatch.setattr(onednn, "_from_wheels", lambda: None)
    monkeypatch.setattr(onednn, "_DEBIAN", (prefix / "no", prefix / "no"))
    monkeypatch.setattr(sys, "prefix", str(prefix))
    return prefix


def test_onednn_is_linked_and_dangling_links_are_renewed(
    tmp_path: Path, library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = onednn.folder(tmp_path / "home")
    onednn.place(target)
    assert (target / "include").resolve() == library / "include"
    assert (target / "lib" / "libmkldnn.so").resolve() == library / "lib" / "libdnnl.so.2.6"
    library.rename(tmp_path / "deleted")
    assert not onednn.is_placed(target)
    other = pretend(tmp_path / "other", monkeypatch)
    onednn.place(target)
    assert (target / "lib" / "libdnnl.so.2").resolve().is_relative_to(other)
    assert sorted(path.name for path in target.rglob("*") if ".new" in path.name) == []


def test_a_working_onednn_is_left_alone(tmp_path: Path, library: Path) -> None:
    target = onednn.folder(tmp_path / "home")
    for file in (target / "include" / "dnnl.hpp", target / "lib" / "libmkldnn.so"):
        file.parent.mkdir(parents=True)
        file.write_text("downloaded")
    onednn.place(target)
    assert (target / "lib" / "libmkldnn.so").read_text() == "downloaded"


def test_onednn_is_copied_where_links_are_not_possible(
    tmp_path: Path, library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = onednn.folder(tmp_path / "home")
    monkeypatch.setattr(Path, "symlink_to", mock.Mock(side_effect=OSError("no links here")))
    onednn.place(target)
    assert onednn.is_placed(target) and not (target / "lib" / "libmkldnn.so").is_symlink()


def test_no_onednn_at_all_names_the_wheel(tmp_path: Path, library: Path) -> None:
    library.rename(tmp_path / "gone")
    with pytest.raises(UserError, match=f"pip install {onednn.WHEEL}"):
        onednn.place(onednn.folder(tmp_path / "home"))


# The compile: once, under a lock


class Fake:
    """A compile that takes `seconds`, and a count of how often it ran."""

    def __init__(self, folder: Path, seconds: float = 0.0) -> None:
        self.runs, self.core, self.seconds = folder / "runs", folder / "core.so", seconds

    def command(self, result: Path) -> list[str]:
        paths = [str(path) for path in (result, self.runs, self.core)]
        return [sys.executable, "-c", FAKE_COMPILE, *paths, str(self.seconds)]

    def count(self) -> int:
        return len(self.runs.read_text().split()) if self.runs.exists() else 0


def test_the_compile_runs_once_and_again_when_its_key_or_its_files_change(tmp_path: Path) -> None:
    fake = Fake(tmp_path)
    site = coldstart.Site(tmp_path / "site", {"compiler": "12"})
    for _ in range(2):
        coldstart.ensure(site, fake.command, fake.count, progress=False)
    assert coldstart.is_ready(site) and fake.count() == 1
    other = coldstart.Site(site.folder, {"compiler": "13"})
    coldstart.ensure(other, fake.command, fake.count, progress=False)
    assert fake.count() == 2 and not coldstart.is_ready(site)
    fake.core.unlink()
    coldstart.ensure(other, fake.command, fake.count, progress=False)
    assert fake.count() == 3
    coldstart.ensure(other, fake.command, fake.count, progress=False, again=True)
    assert fake.count() == 4


@pytest.mark.parametrize("stamp", ["", "{", "[]", '{"key": {}}', '{"key": {}, "result": null}'])
def test_a_damaged_stamp_counts_as_none(tmp_path: Path, stamp: str) -> None:
    site = coldstart.Site(tmp_path, {})
    site.stamp.write_text(stamp)
    assert not coldstart.is_ready(site)


def test_a_failed_compile_is_one_line_with_its_log_and_leaves_no_stamp(tmp_path: Path) -> None:
    site = coldstart.Site(tmp_path, {})
    program = "print('x.cc:1: error: no such header'); print('done'); raise SystemExit(3)"
    with pytest.raises(UserError) as caught:
        coldstart.ensure(site, lambda _: [sys.executable, "-c", program], int, progress=False)
    text = str(caught.value)
    assert "\n" not in text and "no such header" in text and str(site.log) in text
    assert not site.stamp.exists() and not site.owner.exists()


def test_a_compile_that_leaves_without_a_result_is_tried_again(tmp_path: Path) -> None:
    """Jittor exits with 0, and has compiled nothing, after it rebuilt its own helper."""
    fake = Fake(tmp_path)
    commands = iter([lambda _: [sys.executable, "-c", ""], fake.command])
    site = coldstart.Site(tmp_path / "site", {})
    coldstart.ensure(site, lambda result: next(commands)(result), fake.count, progress=False)
    assert coldstart.is_ready(site)


def test_of_two_processes_one_compiles_and_the_other_waits_and_says_so(tmp_path: Path) -> None:
    program = f"""
import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})
from pathlib import Path
from test_setup import Fake, coldstart
fake = Fake(Path({str(tmp_path)!r}), seconds=2)
coldstart.ensure(coldstart.Site(Path({str(tmp_path / "site")!r}), {{}}), fake.command, fake.count)
"""
    both = [
        subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    said = [process.communicate(timeout=60)[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert Fake(tmp_path).count() == 1
    waiting = [text for text in said if "waiting for process" in text]
    assert len(waiting) == 1 and "compiles Jittor" in waiting[0]


def test_an_interrupted_compile_takes_its_children_with_it(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    grandchild = f"echo $$ > {pid}; sleep 60"
    program = f"import subprocess; subprocess.run(['sh', '-c', {grandchild!r}])"

    def interrupt() -> None:
        if pid.exists() and pid.read_text().strip():
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        coldstart.run([sys.executable, "-c", program], tmp_path / "log", tmp_path, interrupt)
    status = Path("/proc", pid.read_text().strip(), "status")
    assert not status.exists() or "zombie" in status.read_text()


# The quiet import


def test_jittors_information_is_dropped_and_its_warnings_are_kept() -> None:
    program = r"""
import os, sys
from diptych.jittor import quiet
quiet.install()
os.write(2, b"\x1b[38;5;2m[i 1122 00:00 16 a.cc:1] chatter\x1b[m\n[w 1122 00:00 16 b.cc] careful\n")
os.write(2, b"\nCompiling Operators(1/3) used: 2s eta: 4s \rCompiling Operators(3/3) used: 6s \r\n")
print("ours", file=sys.stderr)
os.write(2, b"[e 1122 00:00 16 c.cc] last words")
os._exit(7)
"""
    done = python(program)
    assert done.returncode == 7
    assert sorted(done.stderr.splitlines()) == sorted(
        ["[w 1122 00:00 16 b.cc] careful", "ours", "[e 1122 00:00 16 c.cc] last words"]
    )
    assert "chatter" in python(program, log_v="0").stderr  # the user asked for Jittor's own log


@pytest.mark.jittor
def test_loading_jittor_is_quiet_and_leaves_the_process_as_it_was() -> None:
    if doctor._jittor().status != "ok" and os.environ.get("DIPTYCH_REQUIRE_PANELS") != "1":
        pytest.skip("Jittor is not compiled here: diptych doctor --prepare")
    done = python(
        """
import signal, ssl, sys
before = signal.getsignal(signal.SIGINT), ssl._create_default_https_context, sys.getrecursionlimit()
from diptych.jittor import setup
assert "jittor" not in sys.modules
jt = setup.load()
assert setup.load() is jt and "torch" not in sys.modules and (jt.ones(2) * 2).sum().item() == 4
after = signal.getsignal(signal.SIGINT), ssl._create_default_https_context, sys.getrecursionlimit()
assert before == after, (before, after)
signal.raise_signal(signal.SIGINT)
"""
    )
    assert done.stderr.rstrip().endswith("KeyboardInterrupt"), done.stderr
    assert done.stderr.startswith("Traceback") and done.stdout == ""


# The doctor


def test_the_doctors_json_says_what_its_table_says() -> None:
    checks = [doctor.Check("a", "ok", "1"), doctor.Check("b", "fail", "2", "mend b")]
    found = json.loads(doctor.to_json(checks))
    assert found["ok"] is False and set(found) == {"diptych", "ok", "checks"}
    assert found["checks"][1] == {"name": "b", "status": "fail", "detail": "2", "fix": "mend b"}
    table = doctor.render(checks)
    assert "mend: mend b" in table and table.endswith("not ready: b")
    assert doctor.healthy(checks[:1]) and not doctor.healthy(checks)


def test_the_doctor_loads_no_framework_and_gives_a_command_for_each_problem() -> None:
    done = python(
        """
import sys
from diptych import doctor
doctor._tried = lambda name, program, fix: doctor.Check(name, "ok", "")
checks = doctor.diagnose()
assert not {"torch", "jittor", "jittor_utils"} & set(sys.modules)
print(doctor.to_json(checks))
"""
    )
    rows = json.loads(done.stdout)["checks"]
    assert {"python", "numpy", "torch", "jittor", "compiler", "onednn", "cuda", "mpi", "mnist"} < {
        row["name"] for row in rows
    }
    assert all(row["fix"] for row in rows if row["status"] != "ok")


def test_a_missing_panel_fails_only_where_both_are_required(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(doctor, "_torch", lambda: doctor._missing("torch"))
    monkeypatch.setattr(doctor, "_tried", lambda name, *_: doctor.Check(name, "ok", ""))
    for required, status in (("0", "warn"), ("1", "fail")):
        monkeypatch.setenv("DIPTYCH_REQUIRE_PANELS", required)
        found = {check.name: check.status for check in doctor.diagnose()}
        assert found["torch"] == status


def test_the_quiet_filter_is_installed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("log_silent", "1")
    quiet.install()
    assert quiet._filter is None
