"""safetensors whose header says what is not so, and bytes of any kind: read right, or one line."""

from __future__ import annotations

import json
import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from diptych.errors import UserError
from diptych.weights.formats import load_weights
from weight_files import as_zip, refused


def file_of(header: str | dict[str, Any], data: bytes) -> bytes:
    text = (header if isinstance(header, str) else json.dumps(header)).encode()
    return struct.pack("<Q", len(text)) + text + data


def tensor(dtype: str, shape: list[int], begin: int, end: int) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


ONES = np.ones(4, "<f4").tobytes()


@pytest.mark.parametrize(
    "header, data, words",
    [
        ({"a": tensor("F32", [4], 0, 12)}, ONES[:12], "damaged or truncated"),
        ({"a": tensor("F32", [4], 0, 16)}, ONES[:12], "damaged or truncated"),
        ({"a": tensor("F32", [4], 0, 16)}, ONES + b"tail", "damaged or truncated"),
        ({"a": tensor("F32", [3], 0, 16)}, ONES, "damaged or truncated"),
        ({"a": tensor("F32", [2], 0, 8), "b": tensor("F32", [2], 4, 12)}, ONES[:12], "damaged"),
        ({"a": tensor("F32", [2], 0, 8), "b": tensor("F32", [2], 0, 8)}, ONES[:8], "damaged"),
        ({"a": tensor("F32", [2], 8, 16)}, ONES, "damaged"),
        ({"a": tensor("F32", [-4], 0, 16)}, ONES, "damaged"),
        ({"a": tensor("F32", [2**40, 2**40], 0, 16)}, ONES, "damaged"),
        ({"a": tensor("F8_E4M3", [16], 0, 16)}, ONES, "'F8_E4M3'; expected plain numbers"),
        ({"a": tensor("F8_E5M2", [16], 0, 16)}, ONES, "'F8_E5M2'; expected plain numbers"),
        ({"a": tensor("Q4", [16], 0, 16)}, ONES, "damaged"),
        ({"a": {"dtype": "F32", "shape": [4]}}, ONES, "damaged"),
        ({"a": [1]}, ONES, "damaged"),
        ("[1]", ONES, "not a weights file"),
        ('{"a": %s, "a": %s}' % ((json.dumps(tensor("F32", [4], 0, 16)),) * 2), ONES, "twice"),
        ('{"a": ' + "[" * 100_000, ONES, "levels"),
        ('{"a": NaN}', ONES, "not finite"),
        ({"a": tensor("F32", [4], 0, 16)}, np.array([7, 1, 0, 3], "<i4").tobytes(), "integers"),
        ({"a": tensor("F32", [4], 0, 16)}, np.ones(4, ">f4").tobytes(), "the other order"),
        ({}, b"", "holds no weights"),
    ],
)  # fmt: skip
def test_a_header_that_is_not_so_is_refused(
    tmp_path: Path, header: Any, data: bytes, words: str
) -> None:
    assert words in refused(tmp_path / "w.safetensors", file_of(header, data))


@pytest.mark.parametrize(
    "name, dtype", [("I32", "<i4"), ("I64", "<i8"), ("U8", "u1"), ("F16", "<f2"), ("F64", "<f8")]
)
def test_other_kinds_of_numbers_are_read_as_what_they_are(
    tmp_path: Path, name: str, dtype: str
) -> None:
    values = np.array([1, 2, 250, 7]).astype(dtype)
    path = tmp_path / "w.safetensors"
    path.write_bytes(file_of({"a": tensor(name, [2, 2], 0, values.nbytes)}, values.tobytes()))
    np.testing.assert_array_equal(load_weights(path).weights["a"], [[1, 2], [250, 7]])


def test_bfloat16_is_read_exactly(tmp_path: Path) -> None:
    values = np.array([1.0, -2.5, 3e38, 1e-30], np.float32)
    high = (values.view(np.uint32) >> 16).astype("<u2")
    path = tmp_path / "w.safetensors"
    path.write_bytes(file_of({"a": tensor("BF16", [4], 0, 8)}, high.tobytes()))
    expected = (high.astype(np.uint32) << 16).view(np.float32)
    np.testing.assert_array_equal(load_weights(path).weights["a"], expected)


# Whatever comes

LATER = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
offsets = st.integers(-1, 40) | st.integers()
tensors = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["F32", "F64", "BF16", "F8_E4M3", "I64", "BOOL", "X", 3]),
        "shape": st.lists(st.integers(-1, 5) | st.integers(), max_size=4) | st.none(),
        "data_offsets": st.lists(offsets, min_size=1, max_size=3) | st.text(),
    }
)
headers = st.dictionaries(st.text(max_size=5) | st.just("__metadata__"), tensors, max_size=4)


def harmless(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    try:
        found = load_weights(path)
    except UserError as error:
        assert str(error).startswith(str(path)) and "\n" not in str(error)
    else:
        assert all(array.dtype == np.float32 for array in found.weights.values())


@LATER
@given(headers, st.binary(max_size=40))
def test_any_header_is_read_or_refused(tmp_path: Path, header: Any, data: bytes) -> None:
    harmless(tmp_path / "w", file_of(header, data))


@LATER
@given(st.binary(max_size=100), st.sampled_from(["zip", "pickle", "safetensors", "plain"]))
def test_any_bytes_are_read_or_refused(tmp_path: Path, data: bytes, form: str) -> None:
    made = {"zip": as_zip(data), "pickle": b"\x80\x02" + data + b".", "plain": data,
            "safetensors": struct.pack("<Q", len(data)) + b"{" + data}[form]  # fmt: skip
    harmless(tmp_path / "w", made)


trees = st.recursive(
    st.none() | st.integers() | st.floats() | st.text(max_size=9) | st.binary(max_size=9)
    | st.just(np.ones(3, "f4")) | st.just(np.arange(4)),
    lambda inner: st.lists(inner, max_size=4)
    | st.tuples(inner, inner)
    | st.dictionaries(st.text(max_size=5) | st.integers() | st.just("model"), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


@LATER
@given(trees, st.sampled_from([0, 2, 4, 5]), st.data())
def test_any_pickle_whole_or_changed_is_read_or_refused(
    tmp_path: Path, tree: Any, protocol: int, data: st.DataObject
) -> None:
    content = bytearray(pickle.dumps(tree, protocol))
    harmless(tmp_path / "w", bytes(content))
    for _ in range(data.draw(st.integers(0, 4))):
        place = data.draw(st.integers(0, len(content) - 1))
        content[place] = data.draw(st.integers(0, 255))
    harmless(tmp_path / "w", bytes(content))
