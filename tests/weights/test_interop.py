"""Weights files of the real frameworks, read without them, give the numbers that were saved.

torch and Jittor write the files in their own processes; this process loads neither.
"""

from __future__ import annotations

import io
import pickle
import subprocess
import sys
import types
import zipfile
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from diptych.errors import UserError
from diptych.types import Array
from diptych.weights.formats import load_weights, read_pickle_weights

TORCH = """
import sys
import numpy as np, torch
from collections import OrderedDict
from safetensors.torch import save_file
folder = sys.argv[1]
torch.manual_seed(0)
base = torch.randn(6, 8)
weights = OrderedDict(
    conv=torch.randn(4, 3, 3, 3), whole=base, view=base[1:5, 2:7:2], turned=base.t(),
    row=base[-1], last=torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last),
    half=torch.randn(5).half(), brain=torch.randn(4, 7).bfloat16().t(), count=torch.tensor(17),
    double=torch.randn(3).double(), byte=torch.arange(5, dtype=torch.uint8),
    flag=torch.tensor([True, False]),
    short=torch.arange(-2, 2, dtype=torch.int16), scalar=torch.tensor(3.5), empty=torch.zeros(0, 4),
    spread=torch.randn(1, 3).expand(4, 3), parameter=torch.nn.Parameter(torch.randn(3)),
)
np.savez(f"{folder}/weights.npz", **{k: v.detach().float().numpy() for k, v in weights.items()})

def save(value, name):
    torch.save(value, f"{folder}/{name}-zip.ckpt")
    torch.save(value, f"{folder}/{name}-legacy.pth", _use_new_zipfile_serialization=False)

save(weights, "weights")
save_file({k: v.detach().contiguous().clone() for k, v in weights.items()}, f"{folder}/weights.bin")
layers = torch.nn.Conv2d(3, 4, 3), torch.nn.GroupNorm(2, 4)
model = torch.nn.DataParallel(torch.nn.Sequential(*layers))
optimizer = torch.optim.Adam(model.parameters())
model(torch.randn(2, 3, 8, 8)).square().sum().backward()
optimizer.step()
ema = OrderedDict((k, v.detach() * 0.5) for k, v in model.module.named_parameters())
states = [model.state_dict(), optimizer.state_dict(), 3, 1200]
save([*states, ema], "official")
save([*states, OrderedDict(("module." + k, v) for k, v in ema.items())], "prefixed")
save(states, "without-ema")
save({"state_dict": model.state_dict(), "epoch": 3, "best": np.float64(0.5)}, "lightning")
save({"model": model.state_dict(), "ema": ema, "opt": optimizer.state_dict()}, "pair")
save(model.module, "object")
raw = model.module.state_dict()
np.savez(f"{folder}/raw.npz", **{k: v.numpy() for k, v in raw.items()})
"""

JITTOR = """
import sys
import numpy as np
from diptych.backends.jittor import setup
jt, folder = setup.load(), sys.argv[1]
model = jt.nn.Linear(3, 4)
more = {"half": jt.array(np.ones((2, 3), np.float16)), "count": jt.array(np.arange(3))}
weights = {**model.state_dict(), **more}
np.savez(f"{folder}/jittor.npz", **{k: v.numpy() for k, v in weights.items()})
jt.save(weights, f"{folder}/variables.pkl")
jt.save({k: v.numpy() for k, v in weights.items()}, f"{folder}/arrays.pkl")
jt.save(weights, f"{folder}/as-torch.pth")
jt.save([model.state_dict(), {"lr": 0.1}, 2, 500, model.state_dict()], f"{folder}/list.pkl")
"""


def run(script: str, folder: Path) -> Path:
    done = subprocess.run([sys.executable, "-c", script, folder], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def torch_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(TORCH, tmp_path_factory.mktemp("torch"))


def same(found: dict[str, Array], path: Path) -> None:
    """Bit-equal float32 arrays of our own, under the same names."""
    with np.load(path) as expected:
        assert sorted(found) == sorted(expected.files)
        for name, array in found.items():
            assert array.dtype == np.float32 and array.flags.c_contiguous and array.flags.writeable
            np.testing.assert_array_equal(array, expected[name].astype(np.float32), err_msg=name)
            assert array.shape == expected[name].shape, name


@pytest.mark.torch
@pytest.mark.parametrize(
    "name, kind",
    [
        ("weights-zip.ckpt", "torch-zip/state-dict"),
        ("weights-legacy.pth", "torch-legacy/state-dict"),
        ("weights.bin", "safetensors/state-dict"),
    ],
)
def test_a_state_dict_of_views_and_types_is_read_bit_for_bit(
    torch_files: Path, name: str, kind: str
) -> None:
    loaded = load_weights(torch_files / name)
    assert (loaded.kind, loaded.ema) == (kind, None)
    same(loaded.weights, torch_files / "weights.npz")


@pytest.mark.torch
@pytest.mark.parametrize("form", ["zip.ckpt", "legacy.pth"])
def test_the_official_training_list_gives_its_ema_or_its_model(
    torch_files: Path, form: str
) -> None:
    with np.load(torch_files / "raw.npz") as raw:
        for name in ("official", "prefixed"):
            ema = load_weights(torch_files / f"{name}-{form}")
            assert ema.ema is True and ema.kind.endswith("/official-training")
            for key, array in ema.weights.items():
                np.testing.assert_array_equal(array, raw[key] * np.float32(0.5))
    for name, flag in (("official", True), ("without-ema", True), ("without-ema", False)):
        model = load_weights(torch_files / f"{name}-{form}", raw=flag)
        assert model.ema is False
        same(model.weights, torch_files / "raw.npz")


@pytest.mark.torch
@pytest.mark.parametrize("form", ["zip.ckpt", "legacy.pth"])
def test_a_wrapper_is_opened_where_it_leaves_no_doubt(torch_files: Path, form: str) -> None:
    loaded = load_weights(torch_files / f"lightning-{form}")
    assert loaded.kind.endswith("/wrapper:state_dict") and loaded.ema is None
    same(loaded.weights, torch_files / "raw.npz")
    tree = read_pickle_weights(torch_files / f"lightning-{form}")
    assert isinstance(tree, dict) and (tree["epoch"], tree["best"]) == (3, 0.5)
    assert load_weights(torch_files / f"pair-{form}").ema is True
    raw = load_weights(torch_files / f"pair-{form}", raw=True)
    assert raw.ema is False
    same(raw.weights, torch_files / "raw.npz")
    with pytest.raises(UserError, match=r"asks for 'torch.nn.modules.*executed") as refusal:
        load_weights(torch_files / f"object-{form}")
    assert "\n" not in str(refusal.value)


@pytest.mark.jittor
def test_what_jittor_saves_is_read_bit_for_bit(tmp_path: Path) -> None:
    run(JITTOR, tmp_path)
    for name in ("variables.pkl", "arrays.pkl"):
        loaded = load_weights(tmp_path / name)
        assert loaded.kind == "jittor/state-dict"
        same(loaded.weights, tmp_path / "jittor.npz")
    same(load_weights(tmp_path / "as-torch.pth").weights, tmp_path / "jittor.npz")
    assert load_weights(tmp_path / "list.pkl").kind == "jittor/official-training"
    damaged = bytearray((tmp_path / "variables.pkl").read_bytes())
    damaged[len(damaged) // 2] ^= 1
    (tmp_path / "damaged.pkl").write_bytes(damaged)
    with pytest.raises(UserError, match="checksum"):
        load_weights(tmp_path / "damaged.pkl")


@pytest.fixture
def jittor_names() -> Iterator[type]:
    """A class that pickles under the name that Jittor's variables have."""
    module = types.ModuleType("jittor")

    class Var:
        def __init__(self, value: Array) -> None:
            self.value = value

        def __reduce__(self) -> tuple[object, ...]:
            return Var, (self.value,)

    Var.__module__, Var.__qualname__, Var.__name__ = "jittor", "jittor_core.Var", "jittor_core.Var"
    module.jittor_core = types.SimpleNamespace(Var=Var)  # type: ignore[attr-defined]
    sys.modules["jittor"] = module
    yield Var
    del sys.modules["jittor"]


def test_jittors_variables_are_known_without_jittor(tmp_path: Path, jittor_names: type) -> None:
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    data = pickle.dumps({"w": jittor_names(array), "again": jittor_names(array)}, 4)
    (tmp_path / "a.pkl").write_bytes(data)
    weights = load_weights(tmp_path / "a.pkl").weights
    np.testing.assert_array_equal(weights["w"], array)
    np.testing.assert_array_equal(weights["again"], array)


ARRAYS = hnp.arrays(
    st.sampled_from(["<f4", ">f4", "<f8", "<f2", "i1", "<i4", ">i8", "u1", "?"]),
    hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4),
    elements={"min_value": 0, "max_value": 100},
)


@given(
    arrays=st.dictionaries(st.text(max_size=8), ARRAYS, min_size=1, max_size=4),
    protocol=st.integers(0, pickle.HIGHEST_PROTOCOL),
    turn=st.booleans(),
)
def test_every_pickle_protocol_gives_numpys_arrays_back(
    tmp_path_factory: pytest.TempPathFactory, arrays: dict[str, Array], protocol: int, turn: bool
) -> None:
    path = tmp_path_factory.mktemp("p") / "a.pkl"
    arrays = {name: array.T if turn else array for name, array in arrays.items()}
    data = pickle.dumps(OrderedDict(arrays, last=next(iter(arrays.values()))), protocol)
    for renamed in (data, data.replace(b"numpy.core.", b"numpy._core.") if protocol < 4 else data):
        path.write_bytes(renamed)
        tree = read_pickle_weights(path)
        assert isinstance(tree, dict) and list(tree) == [*arrays, "last"]
        for name, array in arrays.items():
            assert tree[name].dtype == array.dtype
            np.testing.assert_array_equal(tree[name], array)


def test_big_endian_storages_are_turned(tmp_path: Path) -> None:
    data = (
        b"\x80\x02}U\x01actorch._utils\n_rebuild_tensor_v2\n((U\x07storagectorch\nFloatStorage\n"
        b"U\x010U\x03cpuK\x03tQK\x01K\x02\x85K\x01\x85\x89NtRs."
    )
    for order, code in (("big", ">f4"), ("little", "<f4")):
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            archive.writestr("any name/data.pkl", data)
            archive.writestr("any name/byteorder", order)
            archive.writestr("any name/data/0", np.array([1, 2, 3], code).tobytes())
        (tmp_path / order).write_bytes(buffer.getvalue())
        np.testing.assert_array_equal(load_weights(tmp_path / order).weights["a"], [2, 3])


def test_no_framework_is_loaded() -> None:
    check = "import sys, diptych.weights.formats; assert not {'torch', 'jittor'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", check], check=True)


def test_rounding_to_float32_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A conversion says that it changes no number."""
    arrays = {"exact": np.array([0.5, np.nan]), "fine": np.array([0.1]), "count": np.array([3])}
    (tmp_path / "w.pkl").write_bytes(pickle.dumps(arrays))
    load_weights(tmp_path / "w.pkl")
    assert caplog.messages == [f"{tmp_path}/w.pkl: 1 weights rounded to float32, first fine"]
