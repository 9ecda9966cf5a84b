"""Files are written whole or not at all, and folders are not overwritten by accident."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from diptych.errors import MachineError, UserError
from diptych.files import (
    LOCK,
    Held,
    atomic_path,
    check_file,
    check_folder,
    check_free,
    check_replaceable,
    claim_folder,
    expanded,
    hold,
    hold_part,
    hold_place,
    locks,
    machine_faults,
    output_folder,
    read_json,
    sha256_of,
    write_json,
    write_text,
)
from diptych.files.scratch import scratch
from full_disk import room_for
from waiting import running, until


def names(folder: Path) -> list[str]:
    """Everything below a folder, hidden files too."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def write_then(path: Path, fault: BaseException) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text("half")
        raise fault


# Atomic writes


def test_a_file_appears_whole_in_a_folder_that_is_made(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "file.txt"
    with atomic_path(path) as temporary:
        assert temporary.parent == path.parent, "os.replace works within one file system"
        temporary.write_text("whole")
        assert not path.exists()
    assert path.read_text() == "whole" and names(path.parent) == ["file.txt"]


@pytest.mark.parametrize(
    "fault",
    [ValueError("bug"), KeyboardInterrupt(), SystemExit(1), UserError("x"), MachineError("y")],
)
def test_an_exception_leaves_nothing_behind_and_the_old_file_as_it_was(
    tmp_path: Path, fault: BaseException
) -> None:
    path = tmp_path / "file.txt"
    with pytest.raises(type(fault)) as raised:
        write_then(path, fault)
    assert raised.value is fault and names(tmp_path) == []
    path.write_text("old")
    with pytest.raises(type(fault)):
        write_then(path, fault)
    assert path.read_text() == "old" and names(tmp_path) == ["file.txt"]


def test_a_folder_is_atomic_too(tmp_path: Path) -> None:
    path = tmp_path / "folder"
    with pytest.raises(RuntimeError), atomic_path(path) as temporary:
        (temporary / "inner").mkdir(parents=True)
        (temporary / "inner" / "file").write_text("half")
        raise RuntimeError
    assert names(tmp_path) == []
    with atomic_path(path) as temporary:
        (temporary / "inner").mkdir(parents=True)
        (temporary / "inner" / "file").write_text("whole")
    assert names(tmp_path) == ["folder", "folder/inner", "folder/inner/file"]


def test_what_is_written_reaches_the_disk_before_it_gets_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []

    def noted(name: str) -> None:
        real = getattr(os, name)

        def call(*given: Any) -> None:
            done.append(name)
            real(*given)

        monkeypatch.setattr(os, name, call)

    noted("fsync")
    noted("replace")
    write_text(tmp_path / "file.txt", "text")
    assert done == ["fsync", "replace"]


@pytest.mark.parametrize("call", ["replace", "fsync"])
@pytest.mark.parametrize(
    "number, kind, said",
    [
        (errno.ENOSPC, MachineError, "the disk is full; free some space"),
        (errno.EDQUOT, MachineError, "the disk is full"),
        (errno.EIO, MachineError, "Input/output error"),
        (errno.EACCES, UserError, "no permission to write; choose another folder"),
        (errno.EROFS, UserError, "no permission to write"),
        (errno.EISDIR, UserError, "a file is in the way"),
    ],
)
def test_the_systems_refusal_becomes_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    call: str,
    number: int,
    kind: type[Exception],
    said: str,
) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(number, os.strerror(number))

    path = tmp_path / "file.txt"
    path.write_text("old")
    monkeypatch.setattr(os, call, refuse)
    with pytest.raises(kind) as error:
        write_text(path, "new")
    assert f"writing {path}: {said}" in str(error.value) and "\n" not in str(error.value)
    assert path.read_text() == "old" and names(tmp_path) == ["file.txt"]


def test_a_disk_that_fills_up_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    path.write_text("old")
    with room_for(10_000), pytest.raises(MachineError, match="the disk is full"):
        write_text(path, "x" * 50_000)
    assert path.read_text() == "old" and names(tmp_path) == ["file.txt"]


def test_a_file_in_the_way_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="file: is a file; give a folder"):
        write_text(tmp_path / "file" / "below.txt", "text")


def test_faults_that_are_not_the_systems_pass_through() -> None:
    with pytest.raises(ZeroDivisionError), machine_faults("trying"):
        raise ZeroDivisionError


# JSON and hashes


def test_json_round_trip(tmp_path: Path) -> None:
    value = {"a": [1, 2.5, None], "b": {"c": "é"}}
    write_json(tmp_path / "x.json", value)
    assert read_json(tmp_path / "x.json") == value
    assert (tmp_path / "x.json").read_text("utf-8").endswith("}\n")


def test_json_that_no_reader_could_read_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "x.json", {"loss": float("nan")})
    assert names(tmp_path) == []


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"3", b"\xff\xfe", b'{"a": 1} x'])
def test_damaged_json_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(content)
    with pytest.raises(
        UserError, match=r"x\.json: (cannot be read as JSON|expected a JSON object)"
    ):
        read_json(path)
    with pytest.raises(UserError, match=r"none\.json: not found"):
        read_json(tmp_path / "none.json")


def test_sha256_of_a_file_of_many_blocks(tmp_path: Path) -> None:
    content = os.urandom(3 * 2**20 + 17)
    (tmp_path / "x").write_bytes(content)
    assert sha256_of(tmp_path / "x") == hashlib.sha256(content).hexdigest()


# Output folders


def holding(folder: Path) -> Path:
    folder.mkdir()
    (folder / "kept.json").write_text(json.dumps({}))
    return folder


@pytest.mark.parametrize("rule", [check_folder, claim_folder])
def test_a_folder_with_files_is_refused_unless_asked_for(
    tmp_path: Path, rule: Callable[..., None]
) -> None:
    full = holding(tmp_path / "full")
    with pytest.raises(UserError, match=r"not empty; go on with --resume, or .* --overwrite"):
        rule(full)
    assert names(full) == ["kept.json"]
    rule(full, resume=True)
    assert names(full) == ["kept.json"]
    with pytest.raises(UserError, match="exclude each other"):
        rule(full, resume=True, overwrite=True)


def test_checking_changes_nothing_and_claiming_does(tmp_path: Path) -> None:
    new, full = tmp_path / "a" / "new", holding(tmp_path / "full")
    with pytest.raises(UserError, match="would delete them all"):
        claim_folder(full, overwrite=True)
    (full / "manifest.json").write_text("{}")  # now it is one of ours
    check_folder(new)
    check_folder(full, overwrite=True)
    assert names(tmp_path) == ["full", "full/kept.json", "full/manifest.json"]
    claim_folder(new)
    claim_folder(full, overwrite=True)
    assert names(tmp_path) == ["a", "a/new", "full"]
    claim_folder(new)


@pytest.mark.parametrize("mark", ["align.json", "sweep.json", "cells/torch-ddim-10-eta0.json"])
def test_ladders_and_sweeps_are_ours_too(tmp_path: Path, mark: str) -> None:
    """Or their own --overwrite would refuse what they have left."""
    (tmp_path / mark).parent.mkdir(exist_ok=True)
    (tmp_path / mark).write_text("{}")
    claim_folder(tmp_path, overwrite=True)
    assert names(tmp_path) == []


@pytest.mark.parametrize("rule", [check_folder, claim_folder])
@pytest.mark.parametrize("asked", [{}, {"resume": True}, {"overwrite": True}])
def test_a_file_is_no_folder(
    tmp_path: Path, rule: Callable[..., None], asked: dict[str, bool]
) -> None:
    (tmp_path / "file").write_text("precious")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(UserError, match="file: is a file; give a folder"):
            rule(path, **asked)
    assert (tmp_path / "file").read_text() == "precious"


@pytest.mark.parametrize("rule", [check_folder, claim_folder])
def test_a_folder_that_cannot_be_written_is_refused_before_anything_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rule: Callable[..., None]
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write everywhere
    with pytest.raises(UserError, match="no permission to write; choose another folder"):
        rule(tmp_path / "a" / "new")
    assert names(tmp_path) == []


CHECKS: tuple[Callable[[Path], None], ...] = (
    check_folder,
    check_replaceable,
    lambda path: check_file(path, overwrite=True),
    lambda path: check_free(path, True, lambda name: True),
)


@pytest.mark.parametrize("check", CHECKS)
def test_a_place_that_cannot_be_made_is_refused_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, check: Callable[[Path], None]
) -> None:
    (tmp_path / "file").write_text("precious")
    (tmp_path / "link").symlink_to("nowhere")
    (tmp_path / "loop").symlink_to("loop")
    check(tmp_path / "new" / "deep" / "x")
    for path in (tmp_path / "file" / "x", tmp_path / "file" / "deep" / "x"):
        with pytest.raises(UserError, match="file: is a file; give a folder"):
            check(path)
    with pytest.raises(UserError, match="link: is a link to nothing; give a folder"):
        check(tmp_path / "link" / "x")
    with pytest.raises(UserError, match="Too many levels of symbolic links"):
        check(tmp_path / "loop" / "x")
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write everywhere
    with pytest.raises(UserError, match="no permission to write; choose another folder"):
        check(tmp_path / "a" / "x")
    assert names(tmp_path) == ["file", "link", "loop"]


def test_an_output_file_is_no_folder_and_replaces_nothing_unasked(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("precious")
    with pytest.raises(UserError, match="is a folder; give a file in it"):
        check_file(tmp_path, overwrite=True)
    with pytest.raises(UserError, match="replace it with --overwrite"):
        check_file(tmp_path / "file", overwrite=False)
    check_file(tmp_path / "file", overwrite=True)


def test_a_place_without_a_name_can_be_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with hold_place(Path()):
        assert names(tmp_path) == ["..lock"]
    assert names(tmp_path) == []


def test_one_process_at_a_time_holds_a_folder(tmp_path: Path) -> None:
    code = "import sys; from diptych.files import hold; from pathlib import Path\n"
    code += "with hold(Path(sys.argv[1])): print('held')"
    other = [sys.executable, "-c", code, str(tmp_path / "run")]
    with hold(tmp_path / "run"):
        refused = subprocess.run(other, capture_output=True, text=True)
    assert "locks.Held: " in refused.stderr and "another process is at work" in refused.stderr
    assert f"({os.getpid()}: " in refused.stderr.replace("process ", "")
    assert subprocess.run(other, capture_output=True, text=True).stdout == "held\n"
    assert names(tmp_path) == []  # what was made and stayed empty goes
    assert names(holding(tmp_path / "kept")) == ["kept.json"]
    with hold(tmp_path / "kept"):
        pass
    assert names(tmp_path / "kept") == ["kept.json"]


def run_python(code: str, *arguments: object, **options: Any) -> subprocess.Popen[str]:
    """A process that runs `code` with what it needs imported."""
    head = "import os, signal, subprocess, sys, time; from pathlib import Path\n"
    head += "from diptych.files import *; path = Path(sys.argv[1])\n"
    command = [sys.executable, "-c", head + code, *map(str, arguments)]
    return subprocess.Popen(
        command, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options
    )


def test_a_killed_process_blocks_nobody_and_its_half_files_go(tmp_path: Path) -> None:
    code = "with hold(path), atomic_path(path / 'a' / 'x.png') as half:\n"
    code += " half.write_text('half'); print('there', flush=True); time.sleep(600)"
    other = run_python(code, tmp_path)
    assert other.stdout is not None and other.stdout.readline() == "there\n"
    with pytest.raises(UserError, match=rf"at work in it \(process {other.pid}: "), hold(tmp_path):
        pass
    other.kill()
    other.communicate()
    assert names(tmp_path) == [".lock", "a", f"a/.x.png.{other.pid}.tmp"]
    with output_folder(tmp_path, resume=True):
        assert names(tmp_path) == [".lock", "a"]


def test_a_temporary_of_a_process_at_work_stays(tmp_path: Path) -> None:
    """Of one that holds a folder inside, as `sample` does while a training is resumed; or none."""
    inside = tmp_path / "samples" / "ddim"
    inside.mkdir(parents=True)
    (inside / ".00001.png.99999999.tmp").write_text("of another machine")
    (tmp_path / f".score.json.{os.getppid()}.tmp").write_text("of a process without a lock")
    (tmp_path / ".old.json.99999999.tmp").write_text("of a dead one")
    (tmp_path / "config.yaml").write_text("")
    with hold(tmp_path), hold(inside):
        claim_folder(tmp_path, resume=True)
        left = [name for name in names(tmp_path) if name.endswith(".tmp")]
        assert sorted(left) == [f".score.json.{os.getppid()}.tmp",
                                "samples/ddim/.00001.png.99999999.tmp"]  # fmt: skip
        with pytest.raises(UserError, match="ddim: another process is at work in it"):
            claim_folder(tmp_path, overwrite=True)
        assert (tmp_path / "config.yaml").exists()
    with hold(tmp_path):
        claim_folder(tmp_path, overwrite=True)
    assert names(tmp_path) == []


def test_a_child_takes_part_in_the_lock_that_it_was_given(tmp_path: Path) -> None:
    """And keeps others out if its parent is killed."""
    inner = "with hold(path): print('in', flush=True); time.sleep(600)"
    code = f"inner = {inner!r}\nwith hold(path) as lock:\n"
    code += " head = 'import sys, time; from pathlib import Path; from diptych.files import *;'\n"
    code += " command = [sys.executable, '-c', head + 'path = Path(sys.argv[1])\\n' + inner]\n"
    code += " child = subprocess.Popen([*command, str(path)], **inherited(lock))\n"
    code += " print(child.pid, flush=True); child.wait()"
    parent = run_python(code, tmp_path)
    assert parent.stdout is not None
    first = [parent.stdout.readline().strip() for _ in range(2)]
    assert "in" in first
    parent.kill()
    parent.wait()
    with pytest.raises(UserError, match="another process is at work"), hold(tmp_path):
        pass
    child = int(next(word for word in first if word != "in"))
    os.kill(child, signal.SIGKILL)
    parent.communicate()
    until(lambda: not running(child))  # it closes its output before its lock
    with hold(tmp_path):
        pass


def test_who_only_looks_at_a_lock_turns_nobody_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Looking takes the lock for a moment, beside others that look; who wants it waits so long."""
    (tmp_path / ".lock").touch()
    looks = [(tmp_path / ".lock").open() for _ in range(2)]
    for file in looks:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)  # as `hold_part` and `hold_place` do
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        looks.pop().close()

    monkeypatch.setattr(locks, "time", SimpleNamespace(monotonic=lambda: 0.0, sleep=sleep))
    with hold(tmp_path):
        assert len(slept) == 2 and looks == []
        now = itertools.count(step=locks.MOMENT)
        clock = SimpleNamespace(monotonic=lambda: next(now), sleep=slept.append)
        monkeypatch.setattr(locks, "time", clock)
        with pytest.raises(Held), hold(tmp_path):  # held for longer than a moment
            pass
        assert len(slept) == 3
        with pytest.raises(Held), hold_part(tmp_path, "part-0-of-2"):
            pass
        assert locks.part_at_work(tmp_path) is None


@pytest.mark.parametrize("third", [True, False])
def test_a_lock_that_its_holder_removed_meanwhile_holds_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, third: bool
) -> None:
    """Two that open the same lock, which then goes, would else hold the folder beside a third."""
    real = fcntl.flock

    def late(file: Any, how: int) -> None:
        (tmp_path / ".lock").unlink()  # the holder before us ends between our opening and this
        if third:
            (tmp_path / ".lock").touch()
        real(file, how)

    monkeypatch.setattr("diptych.files.locks.fcntl.flock", late)
    with pytest.raises(UserError, match="another process"), hold(tmp_path):
        pass


def test_a_held_folder_is_empty_to_its_holder_and_stays_held_when_it_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with hold(tmp_path):
        check_folder(tmp_path)
        (tmp_path / "config.yaml").write_text("")
        claim_folder(tmp_path, overwrite=True)
        assert names(tmp_path) == [".lock"]
        with pytest.raises(UserError, match="another process"), hold(tmp_path):
            pass
    assert names(tmp_path) == []

    def without(file: object, how: int) -> None:
        raise OSError(errno.ENOLCK, "no locks here")

    monkeypatch.setattr("diptych.files.locks.fcntl.flock", without)
    with hold(tmp_path), hold(tmp_path):
        pass


def test_temporary_folders_of_killed_processes_are_removed_and_no_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    code = """if True:
        import sys
        from diptych.files.scratch import scratch
        with scratch("port") as folder:
            (folder / "seed-0").mkdir()
            print(folder, flush=True)
            sys.stdin.read()
    """
    started = [
        subprocess.Popen(
            [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env={**os.environ, "TMPDIR": str(tmp_path)},
        )
        for _ in range(2)
    ]  # fmt: skip
    try:
        killed, living = (Path(each.stdout.readline().strip()) for each in started if each.stdout)
        started[0].kill()
        started[0].wait()
        others = [tmp_path / f"diptych-port-{name}" for name in ("new", "beginning", "link")]
        for folder in others[:2]:
            folder.mkdir()
        (others[1] / LOCK).touch()  # not yet named
        others[2].symlink_to(killed)
        theirs = tmp_path / "somebody's"
        shutil.copytree(killed, theirs)
        assert killed.is_dir() and living.is_dir()
        with scratch("align"):
            assert killed.is_dir()  # of another kind
        with scratch("port") as own:
            assert not killed.exists()
            with scratch("port"):
                assert own.is_dir() and living.is_dir()
        assert not own.exists() and theirs.is_dir() and all(map(os.path.lexists, others))
        started[1].communicate("")
        assert not living.exists()
    finally:
        for each in started:
            each.kill()
            each.communicate()


def test_a_home_folder_that_is_not_known_is_one_line() -> None:
    assert expanded("~") == Path.home() and expanded("a/b") == Path("a/b")
    with pytest.raises(UserError, match=r"^~nobody-here/x: this home folder is not known"):
        expanded("~nobody-here/x")
