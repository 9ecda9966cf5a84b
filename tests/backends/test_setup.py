"""Set-up before `import jittor` on a new machine: refusals, environment variables, placed files."""

from __future__ import annotations

import ctypes
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

import pytest

import setup_jobs
from diptych.backends.jittor import cuda, onednn, quickcompile, setup
from diptych.cli.doctor import checks
from diptych.errors import UserError
from full_disk import room_for


@pytest.fixture
def environ() -> Iterator[None]:
    """Whatever a test does to the environment is undone."""
    with mock.patch.dict(os.environ):
        for name in ("nvcc_path", "use_mpi", "cache_name", "cc_path", "OMPI_COMM_WORLD_SIZE"):
            os.environ.pop(name, None)
        yield


# What is refused before Jittor could crash or compute wrong numbers


@pytest.mark.parametrize("version", ["2.0.0", "2.3.1", "3.0.0rc1"])
def test_numpy_2_is_refused_with_the_command_that_mends_it(
    monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    monkeypatch.setattr(setup, "numpy_version", lambda: version)
    with pytest.raises(UserError, match=f"NumPy {version}.*pip install 'numpy<2'$"):
        setup.check()
    assert checks.numpy().status == "fail"


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


def test_every_dependency_has_an_exact_pin() -> None:
    """Else a clone made next year installs something that nobody has tried."""
    constraints = Path(__file__).parents[2] / "constraints.txt"
    pinned = {line.split("==")[0] for line in constraints.read_text().split("\n") if "==" in line}
    required = metadata.requires("diptych") or []
    wanted = {re.split(r"[ ;<>=!\[]", text)[0].lower() for text in required} - {"diptych"}
    assert len(wanted) > 20 and wanted <= pinned


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
    os.environ["OMPI_COMM_WORLD_SIZE"] = "2"  # of a process that this one starts by mpirun
    setup.set_environment()
    assert os.environ["use_mpi"] == "1"


@pytest.mark.usefixtures("environ")
def test_jittor_fetches_no_nccl_by_itself() -> None:
    setup.set_environment()
    assert os.environ.pop("use_nccl") == "0"
    os.environ.update(nccl_include_path="/my/include", nccl_lib_path="/my/lib")
    setup.set_environment()
    assert os.environ["use_nccl"] == "1"


@pytest.mark.usefixtures("environ")
def test_two_environments_have_two_caches(monkeypatch: pytest.MonkeyPatch) -> None:
    names = set()
    for prefix in ("/a/.venv", "/b/.venv"):
        monkeypatch.setattr(sys, "prefix", prefix)
        os.environ.pop("cache_name", None)
        setup.set_environment()
        names.add(os.environ["cache_name"])
    assert len(names) == 2


@pytest.fixture
def toolkit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A complete toolkit, as Jittor's own installer leaves one, and no other on the machine."""
    place = tmp_path / ".cache" / "jittor" / "jtcuda" / "cuda12.2_cudnn8_linux"
    for name in ("bin/nvcc", "lib64/libcudart.so", "lib64/libcudnn_ops_infer.so"):
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).touch()
    monkeypatch.setattr(cuda, "_PLACES", ())
    monkeypatch.setattr(cuda.shutil, "which", lambda _: None)
    monkeypatch.delenv("nvcc_path", raising=False)
    return place


def test_only_a_complete_cuda_is_offered(
    toolkit: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nvcc, nowhere = toolkit / "bin" / "nvcc", tmp_path / "nowhere"
    assert cuda.find_toolkit(tmp_path, driver=True).nvcc == str(nvcc)
    assert cuda.find_toolkit(nowhere, driver=True).reason == "no nvcc"
    monkeypatch.setenv("nvcc_path", str(nvcc))
    assert cuda.find_toolkit(nowhere, driver=True).nvcc == str(nvcc)
    assert cuda.find_toolkit(tmp_path, driver=False).nvcc == ""
    (toolkit / "lib64" / "libcudart.so").unlink()
    lacking = cuda.find_toolkit(tmp_path, driver=True)
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


# Kernels compiled in one go, from compiled headers


class FakeJittor:
    """As much of Jittor as its compiler's flags."""

    def __init__(self, cache: Path, compiler: str, flags: str = "-O1 -shared -lm") -> None:
        self.flags = mock.Mock(
            cc_type="g++", cc_path=compiler, cc_flags=flags, cache_path=str(cache),
            python_path=sys.executable,
        )  # fmt: skip


def test_headers_are_used_where_they_compiled_and_only_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quickcompile, "TEXT", "#include <cmath>\n")
    jittor = FakeJittor(tmp_path, "g++")
    quickcompile.prepare_compiles(jittor)
    quickcompile.use_compiles(jittor)
    header = tmp_path / quickcompile.NAME
    assert jittor.flags.cc_flags.split()[-1] == f'--include="{header}"'
    kernel = tmp_path / "kernel.cc"
    kernel.write_text("double f(double x) { return std::sin(x); }\n")
    for more in ([], ["-g"]):  # as the tuner compiles
        done = subprocess.run(
            ["g++", "-O1", *more, f"--include={header}", "-Winvalid-pch", "-Werror", "-H", "-c",
             str(kernel), "-o", str(tmp_path / "kernel.o")],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert f"! {header}.gch" in done.stderr  # GCC's mark of one that it uses


def test_kernels_without_a_mark_are_compiled_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those with one, and every other call of Python, go to the interpreter of before."""
    folder = tmp_path / "a b"
    folder.mkdir()
    monkeypatch.setattr(quickcompile, "TEXT", "#include <cmath>\n")
    jittor = FakeJittor(folder, "g++")
    quickcompile.prepare_compiles(jittor)
    quickcompile.use_compiles(jittor)
    tuner, other = folder / "asm_tuner.py", folder / "other.py"
    for path in (tuner, other):
        path.write_text("import sys; print(sys.argv[1:])")

    def run(program: Path, text: str) -> str:
        (folder / "k_op.cc").write_text(text)
        command = (f'{jittor.flags.python_path} "{program}" --cc_path="g++" "{folder}/k_op.cc" '
                   f'{jittor.flags.cc_flags} -fPIC -o "{folder}/k_op.so"')  # fmt: skip
        return subprocess.run(
            command, shell=True, check=True, capture_output=True, text=True
        ).stdout

    code = 'extern "C" double f(double x) { return std::sin(x); }\n'
    assert run(tuner, code) == ""
    assert ctypes.CDLL(str(folder / "k_op.so")).f is not None
    marked = run(tuner, f"//@begin replace\n{code}//@end\n")
    assert marked == run(other, code) and marked.startswith("['--cc_path=g++', ")
    (folder / "bin").mkdir()
    (folder / "bin" / "grep").symlink_to("none")  # where it cannot look, the tuner does
    monkeypatch.setenv("PATH", str(folder / "bin"))
    assert run(tuner, code) == marked


def test_headers_that_do_not_compile_are_said_and_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that uses them since before goes on: script and header stay."""
    before = FakeJittor(tmp_path, "g++")
    monkeypatch.setattr(quickcompile, "TEXT", "#include <cmath>\n")
    assert quickcompile.prepare_compiles(before) is None
    quickcompile.use_compiles(before)
    monkeypatch.setattr(quickcompile, "TEXT", '#include "none-such.h"\n')
    jittor = FakeJittor(tmp_path, "g++")
    assert "none-such.h" in str(quickcompile.prepare_compiles(jittor))
    quickcompile.use_compiles(jittor)
    assert "--include" not in jittor.flags.cc_flags and not list(tmp_path.glob("*.gch"))
    assert jittor.flags.python_path == sys.executable
    (tmp_path / "asm_tuner.py").touch()
    (tmp_path / "k_op.cc").write_text("int k;\n")
    assert {path.name for path in tmp_path.glob("diptych_*")} == {
        quickcompile.NAME, quickcompile.SCRIPT
    }  # fmt: skip
    command = f"{before.flags.python_path} {tmp_path}/asm_tuner.py --cc_path=g++ {tmp_path}/k_op.cc"
    subprocess.run(
        f"{command} {before.flags.cc_flags} -fPIC -o {tmp_path}/k_op.so", shell=True, check=True
    )


def test_a_full_disk_does_not_stop_the_first_compile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quickcompile, "TEXT", "#include <cmath>\n")
    with room_for(500):
        said = quickcompile.prepare_compiles(FakeJittor(tmp_path, "g++"))
    assert said is not None and said.startswith("Jittor's kernels compile slowly, ")
    assert not list(tmp_path.glob("*.gch")) and not list(tmp_path.glob("*.new"))


def test_this_environment_s_kernels_are_compiled_so(panels: Any, tmp_path: Path) -> None:
    compiler, flags, python, folder = panels["jittor"].call(setup_jobs.compiler_flags)
    header = f"{folder}/{quickcompile.NAME}"
    assert f'--include="{header}"' in flags and python == f'/bin/sh "{folder}/diptych_compile.sh"'
    (tmp_path / "k_op.cc").write_text("int k;\n")
    command = f'{compiler} "{tmp_path}/k_op.cc" {flags} -H -fsyntax-only'
    done = subprocess.run(command, shell=True, check=True, capture_output=True, text=True)
    assert f"! {header}.gch\n" in done.stderr
