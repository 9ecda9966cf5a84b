"""A hostile weights file runs nothing and ends in one line that names the call it tried."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from diptych.errors import UserError
from diptych.weights.formats import load_weights
from weight_files import FORMS, as_zip, refused, tensor


class Call:
    """Pickles as a call of `function(*arguments)`."""

    def __init__(self, function: object, *arguments: object) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> tuple[object, ...]:
        return self.function, self.arguments

    def __call__(self) -> None:
        """So that a call may give what is called next."""


def attacks(marker: Path) -> dict[str, bytes]:
    """name -> pickle that makes the marker file, were it executed."""
    code = f"open({str(marker)!r}, 'w').close()"
    shell = f"touch {marker}"
    calls = {
        "system": Call(os.system, shell),
        "eval": Call(eval, code),
        "exec": Call(exec, code),
        "open": Call(open, str(marker), "w"),
        "run": Call(subprocess.getoutput, shell),
        "getattr": Call(Call(getattr, Call(__import__, "os"), "system"), shell),
        "hidden": {"weights": [1.0, {"deep": (Call(os.system, shell),)}]},
        "key": {"a": np.zeros(2), "b": Call(os.system, shell)},
        "state": Call(np.random.RandomState),
    }
    found = {
        f"{name} {p}": pickle.dumps(value, p) for name, value in calls.items() for p in (0, 2, 4, 5)
    }
    text = shell.encode()
    found["inst"] = b"(S'" + text + b"'\nios\nsystem\n."
    found["obj"] = b"(cos\nsystem\nS'" + text + b"'\no."
    found["dotted"] = b"\x80\x04\x8c\x0bcollections\x8c\x1dOrderedDict.__init__.__call__\x93."
    found["stack"] = b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c" + bytes([len(text)]) + text
    found["stack"] += b"\x85R."
    found["extension"] = b"\x80\x02\x82\x01)R."
    found["call text"] = b"\x80\x02U\x06system)R."
    found["new"] = b"\x80\x02ccollections\nOrderedDict\n)\x81."
    found["build"] = b"\x80\x02ccollections\nOrderedDict\n}U\x08__call__K\x01sb."
    return found


@pytest.mark.parametrize("form", FORMS)
def test_a_malicious_pickle_is_refused_and_runs_nothing(tmp_path: Path, form: str) -> None:
    marker = tmp_path / "executed"
    for name, data in attacks(marker).items():
        message = refused(tmp_path / "evil.pth", FORMS[form](data))
        assert not marker.exists(), name
        if name not in ("call text", "build"):  # those name nothing, and are refused for that
            assert "nothing of the file was executed" in message, (name, message)
    assert "'posix.system'" in refused(tmp_path / "e", FORMS[form](attacks(marker)["system 4"]))


def test_the_attacks_are_real(tmp_path: Path) -> None:
    """Negative control: the standard unpickler runs them."""
    marker = tmp_path / "executed"
    for name in ("system 2", "eval 4", "exec 5", "getattr 5", "hidden 0", "inst", "obj", "stack"):
        pickle.loads(attacks(marker)[name])
        assert marker.exists(), name
        marker.unlink()


@pytest.mark.torch
def test_what_torch_itself_writes_around_an_attack_is_refused(tmp_path: Path) -> None:
    script = """
import os, sys, torch
class Evil:
    def __reduce__(self): return os.system, ("touch " + sys.argv[1] + "/executed",)
for name, new in (("zip", True), ("legacy", False)):
    value = [{"w": torch.zeros(2)}, {}, 1, 2, Evil()]
    torch.save(value, f"{sys.argv[1]}/{name}", _use_new_zipfile_serialization=new)
"""
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=True)
    for name in ("zip", "legacy"):
        assert "posix.system" in refused(tmp_path / name, (tmp_path / name).read_bytes())
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    "content, word",
    [
        (b"", "empty"),
        (b"<!DOCTYPE html><html></html>", "not a weights file"),
        (pickle.dumps([1, 2]), "list of 2 (int, int)"),
        (pickle.dumps({}), "it is empty"),
        (pickle.dumps({"epoch": 3}), "entry 'epoch' is a int"),
        (pickle.dumps({"a": np.array(["x"])}), "dtype 'U1'"),
        (pickle.dumps({"a": np.array([None])}), "dtype 'O8'"),
        (pickle.dumps({"a": np.zeros(2, "c8")}), "dtype 'c8'"),
        (pickle.dumps({"a": np.zeros(2, "f4,i4")}), "dtype 'V8'"),
        (pickle.dumps({"a": np.array([1e300])}), "does not fit float32"),
        (pickle.dumps({k: {"w": np.zeros(2)} for k in "ab"}), "2 sets of weights"),
        (pickle.dumps({"a": np.zeros(2)}) + b"tail", "4 bytes follow"),
        (as_zip(pickle.dumps({})).replace(b"data.pkl", b"code.pkl"), "without one data.pkl"),
        (as_zip(tensor(4, 0, (4,), (1,))), "storage '0' is missing"),
    ],
)
def test_what_is_no_weights_file_is_named(tmp_path: Path, content: bytes, word: str) -> None:
    assert word in refused(tmp_path / "file", content)


def test_a_missing_file_and_a_folder_are_named(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "absent.ckpt", tmp_path / "absent" / "x.ckpt"):
        with pytest.raises(UserError, match="expected a weights file"):
            load_weights(path)
