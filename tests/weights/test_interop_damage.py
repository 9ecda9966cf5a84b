"""A file that is damaged or made to exhaust its reader ends in one line, fast, in little memory."""

from __future__ import annotations

import pickle
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save

from diptych.errors import UserError
from diptych.weights.formats import load_weights, read_pickle_weights
from weight_files import FORMS, as_legacy, as_zip, refused, tensor


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
    tmp_path: Path,
    numel: int,
    offset: int,
    size: tuple[int, ...],
    stride: tuple[int, ...],
    word: str,
) -> None:
    data, numbers = tensor(numel, offset, size, stride), np.arange(4, dtype="<f4").tobytes()
    assert word in refused(tmp_path / "a", as_zip(data, ("data/0", numbers)))
    count = struct.pack("<q", 4)
    refused(tmp_path / "b", as_legacy(data, pickle.dumps(["0"], 2), count + numbers))


def bombs() -> dict[str, bytes]:
    """Small files that make the standard unpickler, or a naive reader, take gigabytes or crash."""
    text = b"X" + struct.pack("<I", 100_000) + b"x" * 100_000
    overlap = bytearray(
        as_zip(tensor(4, 0, (4,), (1,)), *[(f"data/{i}", b"x" * 999) for i in "01"])
    )
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
        "repeated": b"\x80\x02"
        + text
        + b"q\x00"
        + b"c_codecs\nencode\nh\x00U\x06latin1\x86R" * 999,
        "overlap": bytes(overlap),
        "array": b"\x80\x02}U\x01a" + array + b"(K\x01(\x8a\x06\0\0\0\0\0\x01tNN" + b"U\x00tbs.",
    }


@pytest.mark.parametrize("name", bombs())
def test_a_bomb_is_refused_within_little_memory_and_time(tmp_path: Path, name: str) -> None:
    """Of processor time and memory of its own."""
    path = tmp_path / "bomb"
    path.write_bytes(bombs()[name])
    script = (
        "import resource, sys, time\nfrom pathlib import Path\n"
        "from diptych.errors import UserError\n"
        "from diptych.weights.formats import load_weights\n"
        "used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "began = time.process_time()\n"
        "try:\n    load_weights(Path(sys.argv[1]))\n"
        "except UserError as error:\n    print(error)\n"
        "print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - used) // 1024)\n"
        "print(time.process_time() - began)"
    )
    done = subprocess.run([sys.executable, "-c", script, path], check=True, capture_output=True)
    message, megabytes, seconds = done.stdout.decode().splitlines()
    assert message.startswith(str(path)) and int(megabytes) < 300
    assert float(seconds) < 60


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


@pytest.mark.parametrize(
    "content, says",
    [
        (b"a,b\n1,2\n", "not a weights file"),
        (b"data:\n  source: mnist\n", "not a weights file"),
        (b"hello world\n" * 9, "not a weights file"),
        (b"\x89PNG\r\n\x1a\n" + bytes(60), "is a picture"),
        (b"\x93NUMPY\x01" + bytes(60), "is a single NumPy array"),
        (pickle.dumps({1: np.zeros(3)}), "entry 1 is a ndarray"),
    ],
)
def test_a_file_of_another_kind_is_called_so(tmp_path: Path, content: bytes, says: str) -> None:
    assert says in refused(tmp_path / "other", content)


def test_an_empty_graph_is_called_empty(tmp_path: Path) -> None:
    assert "the file is empty" in refused(tmp_path / "x.onnx", b"")


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
