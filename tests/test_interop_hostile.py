"""A hostile or damaged weights file runs nothing, takes no memory, and ends in one line."""

from __future__ import annotations

import io
import os
import pickle
import struct
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save

from diptych.errors import UserError
from diptych.interop import load_weights, read_pickle_weights

MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
SYSTEM = {"protocol_version": PROTOCOL, "little_endian": True}


def as_zip(data: bytes, *parts: tuple[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in (("data.pkl", data), ("byteorder", b"little"), *parts):
            archive.writestr(f"archive/{name}", content)
    return buffer.getvalue()


def as_legacy(data: bytes, keys: bytes = pickle.dumps([], 2), tail: bytes = b"") -> bytes:
    head = b"".join(pickle.dumps(item, 2) for item in (MAGIC, PROTOCOL, SYSTEM))
    return head + data + keys + tail


FORMS: dict[str, Callable[[bytes], bytes]] = {
    "zip": as_zip,
    "legacy": as_legacy,
    "legacy keys": lambda data: as_legacy(pickle.dumps({}, 2), data),
    "plain": lambda data: data,
}


class Call:
    """Pickles as a call of `function(*arguments)`."""

    def __init__(self, function: object, *arguments: object) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> tuple[object, ...]:
        return self.function, self.arguments


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
    found["dotted"] = b"\x80\x04\x8c\x0bcollections\x8c\x1aOrderedDict.__init__.__call__\x93."
    found["stack"] = b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c" + bytes([len(text)]) + text
    found["stack"] += b"\x85R."
    found["extension"] = b"\x80\x02\x82\x01)R."
    found["call text"] = b"\x80\x02U\x06system)R."
    found["new"] = b"\x80\x02ccollections\nOrderedDict\n)\x81."
    found["build"] = b"\x80\x02ccollections\nOrderedDict\n}U\x08__call__K\x01sb."
    return found


def refused(path: Path, content: bytes) -> str:
    path.write_bytes(content)
    with pytest.raises(UserError) as error:
        load_weights(path)
    message = str(error.value)
    assert message.startswith(str(path)) and "\n" not in message and len(message) < 600
    return message


@pytest.mark.parametrize("form", FORMS)
def test_a_malicious_pickle_is_refused_and_runs_nothing(tmp_path: Path, form: str) -> None:
    marker = tmp_path / "executed"
    for name, data in attacks(marker).items():
        message = refused(tmp_path / "evil.pth", FORMS[form](data))
        assert not marker.exists(), name
        if name.split()[0] in ("system", "eval", "run", "getattr", "hidden", "stack", "inst"):
            assert "nothing of the file was executed" in message, (name, message)
    assert "'posix.system'" in refused(tmp_path / "e", FORMS[form](attacks(marker)["system 4"]))


def test_the_attacks_are_real(tmp_path: Path) -> None:
    """Negative control: the standard unpickler runs them."""
    marker = tmp_path / "executed"
    pickle.loads(attacks(marker)["system 2"])
    assert marker.exists()


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


def tensor(numel: int, offset: int, size: tuple[int, ...], stride: tuple[int, ...]) -> bytes:
    """A pickle of {"a": a float32 tensor} over the storage "0"."""

    def tuple_of(values: tuple[int, ...]) -> bytes:
        return b"(" + b"".join(pickle.dumps(v, 2)[2:-1] for v in values) + b"t"

    return (
        b"\x80\x02}U\x01actorch._utils\n_rebuild_tensor_v2\n((U\x07storagectorch\nFloatStorage\n"
        b"U\x010U\x03cpu" + pickle.dumps(numel, 2)[2:-1] + b"tQ"
        + pickle.dumps(offset, 2)[2:-1] + tuple_of(size) + tuple_of(stride) + b"\x89Nts."
    )  # fmt: skip


@pytest.mark.parametrize(
    "numel, offset, size, stride, word",
    [
        (4, 1, (4,), (1,), "beyond"),
        (4, 0, (2, 3), (3, 1), "beyond"),
        (4, 5, (0,), (1,), "beyond"),
        (4, -1, (2,), (1,), "offset"),
        (4, 0, (-2,), (1,), "shape"),
        (4, 3, (4,), (-1,), "stride"),
        (4, 0, (2, 2), (1,), "strides"),
        (4, 0, (1,) * 33, (1,) * 33, "32"),
        (4, 0, (2**62, 2**62), (0, 0), "damaged"),
        (4, 0, (2**70,), (1,), "beyond 64 bits"),
        (4, 0, (2**33,), (0,), "unfold"),
        (2**40, 0, (4,), (1,), "storage"),
        (-4, 0, (4,), (1,), "number count"),
        pytest.param(2**20_000, 0, (4,), (1,), "beyond 64 bits", id="no int() can print it"),
    ],
)
def test_a_view_out_of_bounds_is_refused(
    tmp_path: Path, numel: int, offset: int, size: tuple[int, ...], stride: tuple[int, ...], word: str
) -> None:
    data, numbers = tensor(numel, offset, size, stride), np.arange(4, dtype="<f4").tobytes()
    assert word in refused(tmp_path / "a", as_zip(data, ("data/0", numbers)))
    count = struct.pack("<q", 4)
    refused(tmp_path / "b", as_legacy(data, pickle.dumps(["0"], 2), count + numbers))


def bombs() -> dict[str, bytes]:
    """Small files that make the standard unpickler, or a naive reader, take gigabytes or crash."""
    text = b"X" + struct.pack("<I", 100_000) + b"x" * 100_000
    overlap = bytearray(as_zip(tensor(4, 0, (4,), (1,)), *[(f"data/{i}", b"x" * 999) for i in "01"]))
    overlap[overlap.rindex(b"PK\x01\x02") + 24 :][:4] = struct.pack("<I", 2**31)
    entry = overlap.rindex(b"PK\x01\x02")
    overlap[entry + 20 : entry + 28] = struct.pack("<II", 2**31, 2**31)
    array = b"cnumpy.core.multiarray\n_reconstruct\n(NNNtR"
    return {
        "memo index": b"\x80\x02Nr\xff\xff\xff\x7f]a.",
        "nested key": b"\x80\x02})" + b"\x85" * 1_000_000 + b"Ns.",
        "long bytes": b"\x80\x05\x8e" + struct.pack("<Q", 2**40) + b"x.",
        "long array": b"\x80\x05\x96" + struct.pack("<Q", 2**62) + b"x.",
        "long text": b"\x80\x04\x8d" + struct.pack("<Q", 2**45) + b"x.",
        "many": b"\x80\x02" + b"}" * 3_000_000 + b".",
        "repeated": b"\x80\x02" + text + b"q\x00" + b"c_codecs\nencode\nh\x00U\x06latin1\x86R" * 999,
        "overlap": bytes(overlap),
        "array": b"\x80\x02}U\x01a" + array + b"(K\x01(\x8a\x06\0\0\0\0\0\x01tNN" + b"U\x00tbs.",
    }


@pytest.mark.parametrize("name", bombs())
def test_a_bomb_is_refused_within_little_memory_and_time(tmp_path: Path, name: str) -> None:
    path, start = tmp_path / "bomb", time.monotonic()
    path.write_bytes(bombs()[name])
    script = (
        "import resource, sys\nfrom pathlib import Path\nfrom diptych.errors import UserError\n"
        "from diptych.interop import load_weights\n"
        "used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "try:\n    load_weights(Path(sys.argv[1]))\n"
        "except UserError as error:\n    print(error)\n"
        "print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - used) // 1024)"
    )
    done = subprocess.run([sys.executable, "-c", script, path], check=True, capture_output=True)
    message, megabytes = done.stdout.decode().splitlines()
    assert message.startswith(str(path)) and int(megabytes) < 300
    assert time.monotonic() - start < 60


def good_files() -> dict[str, bytes]:
    numbers = np.arange(4, dtype="<f4").tobytes()
    data = tensor(4, 0, (2, 2), (2, 1))
    arrays = {"a": np.ones((2, 3), np.float32), "b": np.arange(3), "c": np.float64(2)}
    return {
        "zip": as_zip(data, ("data/0", numbers)),
        "legacy": as_legacy(data, pickle.dumps(["0"], 2), struct.pack("<q", 4) + numbers),
        "plain 2": pickle.dumps(arrays, 2),
        "plain 5": pickle.dumps(arrays, 5),
        "safetensors": save({"a": np.ones((2, 3), np.float32)}),
    }


@pytest.mark.parametrize("name", good_files())
def test_a_file_cut_anywhere_is_refused(tmp_path: Path, name: str) -> None:
    whole = good_files()[name]
    for length in range(len(whole)):
        refused(tmp_path / "cut", whole[:length])
    if not name.startswith("plain"):
        (tmp_path / "whole").write_bytes(whole)
        load_weights(tmp_path / "whole")


@settings(max_examples=400, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=st.sampled_from(sorted(good_files())),
    changes=st.lists(
        st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=4
    ),
)
def test_a_changed_file_gives_weights_or_one_line(
    tmp_path: Path, name: str, changes: list[tuple[float, int]]
) -> None:
    content = bytearray(good_files()[name])
    for place, value in changes:
        content[int(place * len(content))] = value
    _tolerated(tmp_path / "changed", bytes(content))


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=60), form=st.sampled_from(sorted(FORMS)))
def test_arbitrary_bytes_give_one_line(tmp_path: Path, content: bytes, form: str) -> None:
    _tolerated(tmp_path / "bytes", FORMS[form](content))


def _tolerated(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    for read in (read_pickle_weights, load_weights):
        try:
            read(path)
        except UserError as error:
            assert "\n" not in str(error)


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
