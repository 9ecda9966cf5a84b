"""`diptych align port`: sound ports pass, each planted fault is named at its layer."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

import port_cases
from diptych.align import port
from diptych.align.ports.plan import FORWARD
from diptych.align.ports.prove import PortResult, ports
from diptych.align.ports.sentences import hint_texts, place
from diptych.align.ports.starter import start
from diptych.cli import cli
from diptych.errors import UserError
from diptych.files.scratch import scratch
from waiting import running, until

pytestmark = [pytest.mark.torch]

PORTS = port_cases.PORTS
FORWARD_AND_UPDATE = (*FORWARD, "update")


def _left_out(found: PortResult) -> list[str]:
    """The reasons for rungs and checks that are left out."""
    return [note["reason"] for note in found.content["notes"] if note["key"] == "left_out"]


def save_onnx(
    path: Path,
    nodes: list[Any],
    shape: list[int],
    output: tuple[str, list[int]],
    arrays: dict[str, np.ndarray],
) -> None:
    """A graph of float32 from the input `x` to one output, with these constants."""
    import onnx

    make, kind = onnx.helper, onnx.TensorProto.FLOAT
    graph = make.make_graph(
        nodes,
        "net",
        [make.make_tensor_value_info("x", kind, shape)],
        [make.make_tensor_value_info(output[0], kind, output[1])],
        [onnx.numpy_helper.from_array(a.astype("float32"), n) for n, a in arrays.items()],
    )
    model = make.make_model(graph, opset_imports=[make.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path)


@pytest.fixture(scope="module", autouse=True)
def both_found() -> None:
    port_cases.ready()


@pytest.mark.slow
@pytest.mark.jittor
@pytest.mark.parametrize("model", list(port_cases.CASES))
def test_a_sound_port_passes_and_each_planted_fault_is_named(model: str) -> None:
    sound, *faulty = port_cases.climb(model, [0])
    assert sound.passed, sound.conclusion
    assert sound.content["matched"]["by_itself"] == sound.content["matched"]["of"]
    for fault, found in zip(port_cases.CASES[model], faulty, strict=True):
        assert port_cases.named(fault, found.fault), (fault, found.conclusion)
        hints = [hint["key"] for hint in found.fault["hints"]]
        assert not fault.hint or fault.hint in hints, (fault, hints)


@pytest.fixture(scope="module")
def torch_pair(tmp_path_factory: pytest.TempPathFactory) -> dict[str, PortResult]:
    """A reference and ports of it in PyTorch: sound, cut elsewhere, and faulty."""
    folder = tmp_path_factory.mktemp("pair")
    (folder / "ours.py").write_text(OURS)
    (folder / "theirs.py").write_text(THEIRS)
    names = ("sound", "renamed", "shapes", "raises", "frozen", "dropped", "some", "nan", "wide")
    found = ports(str(folder / "ours.py"), [f"{folder / 'theirs.py'}:{n}" for n in names])
    return dict(zip(names, found, strict=True))


OURS = """
import torch
from torch import nn

INPUTS = {"x": {"shape": [4, 6]}, "y": {"shape": [4, 6]}}


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1, self.norm = nn.Linear(6, 8), nn.LayerNorm(8)
        self.act, self.drop, self.fc2 = nn.SiLU(inplace=True), nn.Dropout(0.5), nn.Linear(8, 3)

    def forward(self, x, y):
        return self.fc2(self.drop(self.act(self.norm(self.fc1(x * y)))))


def build():
    return Net()


def optimizer(model):
    return torch.optim.AdamW(model.parameters(), lr=1e-2)
"""
THEIRS = """
import torch
from ours import Net, build, optimizer
from torch import nn

sound = build


class Together(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(8)), nn.Parameter(torch.zeros(8))

    def forward(self, x):
        return nn.functional.silu(nn.functional.layer_norm(x, (8,), self.weight, self.bias))


class Renamed(nn.Module):
    def __init__(self):
        super().__init__()
        self.out, self.inner, self.mid = nn.Linear(8, 3), nn.Linear(6, 8), Together()

    def forward(self, x, y):
        return self.out(nn.functional.dropout(self.mid(self.inner(x * y)), 0.5, self.training))


renamed = Renamed


def shapes():
    model = Net()
    model.fc2 = nn.Linear(8, 4)
    return model


class Raises(Net):
    def forward(self, x, y):
        raise ValueError("no such thing")


raises = Raises


def frozen():
    model = Net()
    model.fc1.weight.requires_grad_(False)
    return model


def dropped():
    return Net()


dropped.optimizer = lambda model: torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.1)


def some():
    return Net()


def decayed(model):
    matrices = [w for w in model.parameters() if w.ndim == 2]
    rest = [w for w in model.parameters() if w.ndim == 1]
    groups = [{"params": matrices, "weight_decay": 0.5}, {"params": rest}]
    return torch.optim.AdamW(groups, lr=1e-2)


some.optimizer = decayed


class Nan(Net):
    def forward(self, x, y):
        return super().forward(x, y) * float("nan")


nan = Nan


class Wide(Net):
    def __init__(self):
        super().__init__()
        self.double()

    def forward(self, x, y):
        return super().forward(x.double(), y.double())


wide = Wide
"""


def test_a_port_in_the_same_framework(torch_pair: dict[str, PortResult]) -> None:
    found = torch_pair["sound"]
    assert found.passed, found.conclusion
    assert [r["rung"] for r in found.content["rungs"]] == [
        "weights",
        "operators",
        "layers",
        "loss",
        "gradients",
        "update",
        "lockstep",
        "resume",
    ]
    assert {"key": "dropout", "count": 2} in found.content["notes"]


def test_other_names_and_another_cut_are_no_fault(torch_pair: dict[str, PortResult]) -> None:
    """A norm that brings its activation gives what the reference has one layer later."""
    found = torch_pair["renamed"]
    assert found.passed, found.conclusion
    assert found.content["matched"]["by_itself"] == 6
    layers = {row["layer"]: row for row in found.content["layers"]}
    assert layers["norm"]["verdict"] == "cut elsewhere" and "act" in layers["norm"]["reason"]
    assert layers["act"]["verdict"] == "not compared" and layers["act"]["reason"]
    assert layers["fc2"]["verdict"] == "pass"


def test_faults_of_other_kinds(torch_pair: dict[str, PortResult]) -> None:
    shapes = torch_pair["shapes"].fault
    assert shapes and (shapes["rung"], shapes["layer"]) == ("weights", "fc2")
    assert "the port's has shape (4, 8), not (3, 8)" in shapes["text"]
    wide = torch_pair["wide"].fault
    assert wide and wide["text"] == "is float64 in the port, float32 in the reference"
    raises = torch_pair["raises"]
    assert not raises.passed and "ValueError: no such thing" in raises.conclusion
    frozen = torch_pair["frozen"].fault
    assert frozen and (frozen["layer"], frozen["rung"]) == ("fc1", "weights")
    assert "is frozen (or a buffer) in the port" in frozen["text"]
    decay = torch_pair["dropped"].fault
    assert decay and (decay["rung"], decay["where"]) == ("update", "optimizer")
    assert decay["hints"][0]["key"] == "decay"
    some = torch_pair["some"].fault  # the weights of two layers, not the first of them
    assert some and (some["rung"], some["layer"], some["where"]) == ("update", "", "optimizer")
    nan = torch_pair["nan"].fault
    assert nan and nan["layer"] == "" and nan["after"] == "fc2" and nan["error"] is None
    assert [h["key"] for h in nan["hints"]] == ["not_finite"]


SCALED = """
import torch
from torch import nn

INPUTS = {"x": {"shape": [4, 6], "low": -20, "high": 20}}  # an eps is small beside them


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc, self.norm, self.act = nn.Linear(6, 8), nn.LayerNorm(8), nn.ReLU()
        self.scale = nn.Parameter(torch.tensor(2.6))
        self.register_buffer("table", torch.linspace(-1, 1, 8))
        self.output = nn.Linear(8, 3)

    def forward(self, x):
        return self.output(self.scale * self.act(self.norm(self.fc(x))) + self.table)


def build():
    return Net()
"""
UNSCALED = """
import torch
from scaled import Net, build
from torch import nn

same = build


def row():
    net = Net()
    net.scale = nn.Parameter(torch.tensor([2.6]))
    return net


def trained():
    net = Net()
    table = net.table
    del net.table
    net.table = nn.Parameter(table)
    return net


class Fused(nn.LayerNorm):
    def forward(self, x):
        return torch.relu(super().forward(x))


class FusedNet(Net):
    def __init__(self, eps=1e-6):
        super().__init__()
        self.norm = Fused(8, eps=eps)
        del self.act

    def forward(self, x):
        return self.output(self.scale * self.norm(self.fc(x)) + self.table)


fused = FusedNet


def fused_badly():
    return FusedNet(1e-2)
"""


@pytest.fixture(scope="module")
def scaled(tmp_path_factory: pytest.TempPathFactory) -> dict[str, PortResult]:
    """A number as a weight, a buffer, a layer called `output`, and ports of them."""
    folder = tmp_path_factory.mktemp("scaled")
    (folder / "scaled.py").write_text(SCALED)
    (folder / "unscaled.py").write_text(UNSCALED)
    names = ("same", "row", "trained", "fused", "fused_badly")
    subjects = [f"{folder / 'unscaled.py'}:{n}" for n in names]
    found = ports(str(folder / "scaled.py"), subjects, rungs=["resume"])
    return dict(zip(names, found, strict=True))


def test_a_number_as_a_weight_and_a_layer_called_output(scaled: dict[str, PortResult]) -> None:
    """Shape () stays (), and matches (1,); the network's own output has a name of its own."""
    for name in ("same", "row"):
        assert scaled[name].passed, scaled[name].conclusion
        assert scaled[name].content["matched"]["of"] == 8
    rows = {row["layer"]: row["verdict"] for row in scaled["same"].content["layers"]}
    assert rows["output"] == "pass" and ".output" not in json.dumps(scaled["same"].content)


def test_resume_brings_the_rung_whose_floor_it_takes(scaled: dict[str, PortResult]) -> None:
    rungs = [rung["rung"] for rung in scaled["same"].content["rungs"]]
    assert rungs == ["weights", "layers", "lockstep", "resume"]


def test_a_port_that_trains_a_buffer_is_named(scaled: dict[str, PortResult]) -> None:
    fault = scaled["trained"].fault
    assert fault and (fault["rung"], fault["tensor"]) == ("weights", "table")
    assert "is trained in the port, but frozen (or a buffer) in the reference" in fault["text"]


def test_what_a_layer_cut_elsewhere_hides_is_told(scaled: dict[str, PortResult]) -> None:
    """A norm with its activation passes, but an eps of 1e-6 for 1e-5 shows on faint inputs only."""
    found = scaled["fused"]
    assert found.passed, found.conclusion
    told = _left_out(found)
    assert len(told) == 1 and "'norm' is cut elsewhere" in told[0] and "faint inputs" in told[0]
    row = next(row for row in found.content["layers"] if row["layer"] == "norm")
    assert row["verdict"] == "cut elsewhere" and "not checked: faint inputs" in row["reason"]
    assert not scaled["fused_badly"].passed


IN_JITTOR = """
import jittor as jt
from jittor import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc, self.norm, self.act = nn.Linear(6, 8), nn.LayerNorm(8), nn.ReLU()
        self.scale, self.table = jt.array([1.0]), jt.zeros(8).stop_grad()
        self.output = nn.Linear(8, 3)

    def execute(self, x):
        return self.output(self.scale * self.act(self.norm(self.fc(x))) + self.table)


def build():
    return Net()
"""


@pytest.mark.slow
@pytest.mark.jittor
def test_a_number_as_a_weight_in_jittor(tmp_path: Path) -> None:
    """Jittor has no array without axes; and a table that is not stopped would be trained there."""
    (tmp_path / "scaled.py").write_text(SCALED)
    (tmp_path / "sound.py").write_text(IN_JITTOR)
    (tmp_path / "trained.py").write_text(IN_JITTOR.replace(".stop_grad()", ""))
    subjects = [str(tmp_path / name) for name in ("sound.py", "trained.py")]
    sound, trained = ports(str(tmp_path / "scaled.py"), subjects)
    assert sound.passed, sound.conclusion
    assert trained.fault and (trained.fault["rung"], trained.fault["tensor"]) == (
        "weights",
        "table",
    )


BARE = """
import torch
from torch import nn

INPUTS = {"x": {"shape": [4, 6]}}


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.act = nn.Softmax(-1)

    def forward(self, x):
        mask = torch.triu(torch.full((4, 6), float("-inf")), 1)
        return self.act(x + mask), mask


def build():
    return Net()


def optimizer(model):
    return torch.optim.Adam(model.parameters())
"""


def test_a_reference_without_trained_weights(tmp_path: Path) -> None:
    """The rungs of training are left out by name; a mask of -inf on both sides is no difference."""
    (tmp_path / "bare.py").write_text(BARE)
    found = port(str(tmp_path / "bare.py"), str(tmp_path / "bare.py"), rungs=FORWARD_AND_UPDATE)
    assert found.passed, found.conclusion
    assert [rung["rung"] for rung in found.content["rungs"]] == list(FORWARD)
    reason = "update, for no weight that the reference has is trained"
    assert reason in _left_out(found)


PLAIN = """
import numpy as np

FRAMEWORK = "numpy"
INPUTS = {"x": {"shape": [4, 6]}}
TURNED = False


class Net:
    def __init__(self):
        self.weights = {"fc.weight": np.ones((5, 6), "float32"), "scale": np.float32(2.6)}

    def __call__(self, x, tap):
        y = x @ self.weights["fc.weight"].T
        tap("fc", y)
        tap("output", y)
        y = y * self.weights["scale"]
        return y.T if TURNED else y


def build():
    return Net()
"""
OF_PLAIN = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc, self.scale = nn.Linear(6, 5, bias=False), nn.Parameter(torch.ones(1))

    def forward(self, x):
        return self.fc(x) * self.scale


def build():
    return Net()
"""


def test_a_turned_output_is_a_fault_unless_a_rule_is_declared(tmp_path: Path) -> None:
    (tmp_path / "plain.py").write_text(PLAIN)
    (tmp_path / "turned.py").write_text(PLAIN.replace("TURNED = False", "TURNED = True"))
    both = [str(tmp_path / name) for name in ("plain.py", "turned.py")]
    found = port(*both)
    assert found.fault and (found.fault["rung"], found.fault["tensor"]) == ("layers", "free/output")
    assert "has shape (5, 4), the reference's (4, 5)" in found.fault["text"]
    (tmp_path / "names.yaml").write_text("rules:\n  output: transpose\n")
    assert port(*both, names=tmp_path / "names.yaml").passed


def test_a_reference_in_numpy_and_a_port_of_modules(tmp_path: Path) -> None:
    """Only what the reference traced is climbed."""
    (tmp_path / "plain.py").write_text(PLAIN)
    (tmp_path / "modules.py").write_text(OF_PLAIN)
    found = port(str(tmp_path / "plain.py"), str(tmp_path / "modules.py"))
    assert found.passed, found.conclusion
    assert [rung["rung"] for rung in found.content["rungs"]] == ["weights", "layers"]
    assert "numpy computes no gradients here" in _left_out(found)


@pytest.mark.parametrize("runtime", ["", "openvino:"])
def test_a_number_in_a_graph_is_a_weight(tmp_path: Path, runtime: str) -> None:
    """It is found by its value among the constants of the graph's code."""
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("openvino" if runtime else "onnxruntime")
    (tmp_path / "plain.py").write_text(PLAIN)
    make = onnx.helper
    nodes = [
        make.make_node("MatMul", ["x", "w"], ["fc"], "/fc/MatMul"),
        make.make_node("Add", ["fc", "none"], ["same"], "/Add"),
        make.make_node("Mul", ["same", "number"], ["y"], "/Mul"),
    ]
    subjects = []
    for name, scale in (("sound", 2.6), ("wrong", 2.7)):
        arrays = {"w": np.ones((6, 5)), "none": np.array(0.0), "number": np.array(scale)}
        save_onnx(tmp_path / f"{name}.onnx", nodes, [4, 6], ("y", [4, 5]), arrays)
        subjects.append(f"{runtime}{tmp_path / name}.onnx")
    sound, wrong = ports(str(tmp_path / "plain.py"), subjects)
    assert sound.passed, sound.conclusion
    assert sound.content["matched"]["of"] == 2 and not sound.content["unmatched"]
    assert wrong.fault and (wrong.fault["rung"], wrong.fault["tensor"]) == ("weights", "scale")


def test_numpy_ports_on_both_sides(tmp_path: Path) -> None:
    """The files of --init pass as they are; then one constant is changed."""
    run = CliRunner()
    folder = tmp_path / "made"
    made = run.invoke(cli, ["align", "port", "--init", str(folder), "--to", "numpy"])
    assert made.exit_code == 0 and "subject.py" in made.output
    text = (folder / "subject.py").read_text()
    (folder / "wrong.py").write_text(text.replace("1e-5", "1e-3"))
    given = {"x": np.random.default_rng(0).standard_normal((4, 8)).astype("float32")}
    np.savez(tmp_path / "inputs.npz", **given)
    sound, wrong = ports(
        str(folder / "reference.py"),
        [str(folder / n) for n in ("subject.py", "wrong.py")],
        tmp_path / "inputs.npz",
    )
    assert sound.passed, sound.conclusion
    assert wrong.fault and (wrong.fault["rung"], wrong.fault["layer"]) == ("layers", "norm")
    back = port(str(folder / "wrong.py"), str(folder / "subject.py"), given)
    assert back.fault and back.fault["layer"] == "norm"


JAX = """
import numpy as np

FRAMEWORK = "numpy"
SHIFT = 0


class Net:
    def __init__(self):
        draw = np.random.default_rng(0).standard_normal
        self.weights = {
            "params/Conv_0/kernel": draw((3, 3, 3, 8)), "params/Conv_0/bias": draw(8),
            "params/Dense_0/kernel": draw((8, 10)), "params/Dense_0/bias": draw(10),
        }

    def __call__(self, image, tap):
        w = self.weights
        x = np.pad(image.transpose(0, 2, 3, 1), ((0, 0), (1, 1), (1, 1), (0, 0)))
        x = np.lib.stride_tricks.sliding_window_view(x, (3, 3), axis=(1, 2))
        x = np.einsum("bhwcij,ijco->bhwo", x, w["params/Conv_0/kernel"])
        x = x + w["params/Conv_0/bias"]
        tap("params/Conv_0", x)
        x = np.maximum(x, 0)[:, SHIFT:].mean((1, 2))
        x = x @ w["params/Dense_0/kernel"] + w["params/Dense_0/bias"]
        tap("params/Dense_0", x)
        return x


def build():
    return Net()
"""
TORCH = """
import torch
from torch import nn

INPUTS = {"image": {"shape": [2, 3, 7, 6]}}


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.features, self.head = nn.Conv2d(3, 8, 3, padding=1), nn.Linear(8, 10)

    def forward(self, image):
        return self.head(torch.relu(self.features(image)).mean((2, 3)))


def build():
    return Net()
"""


def test_a_port_from_jax_in_numpy(tmp_path: Path) -> None:
    """Other names, channels last, other layouts of weights by one declared rule."""
    (tmp_path / "ours.py").write_text(TORCH)
    (tmp_path / "jaxlike.py").write_text(JAX)
    (tmp_path / "shifted.py").write_text(JAX.replace("SHIFT = 0", "SHIFT = 1"))
    leaky = JAX.replace("np.maximum(x, 0)", "np.maximum(x, 0.002 * x)")
    (tmp_path / "leaky.py").write_text(leaky)
    (tmp_path / "names.yaml").write_text('rules: {"*": jax}\n')
    subjects = [str(tmp_path / name) for name in ("jaxlike.py", "shifted.py", "leaky.py")]
    found = ports(str(tmp_path / "ours.py"), subjects, names=tmp_path / "names.yaml")
    sound, shifted, slope = found
    assert sound.passed, sound.conclusion
    layers = {row["layer"]: row for row in sound.content["layers"]}
    assert layers["features"]["port"] == "params/Conv_0" and layers["head"]["verdict"] == "pass"
    assert sound.content["matched"]["by_itself"] == 4
    assert shifted.fault and (shifted.fault["rung"], shifted.fault["layer"]) == ("layers", "head")
    # A small error may come from the code before the layer: it is no sign of few digits.
    assert slope.fault and slope.fault["layer"] == "head" and not slope.fault["hints"]


def test_the_command_writes_the_page_and_the_names(tmp_path: Path) -> None:
    (tmp_path / "ours.py").write_text(OURS)
    (tmp_path / "theirs.py").write_text(THEIRS)
    out = tmp_path / "out"
    words = [
        "align",
        "port",
        str(tmp_path / "ours.py"),
        f"{tmp_path / 'theirs.py'}:nan",
        "--out",
        str(out),
        "--json",
        "--quiet",
    ]
    done = subprocess.run([sys.executable, "-m", "diptych", *words], capture_output=True, text=True)
    assert done.returncode == 3, done.stderr[-2000:]
    content = json.loads(done.stdout)
    assert json.loads((out / "port.json").read_text()) == content
    assert "first failure: rung 'layers', the network itself, after 'fc2'" in done.stderr
    page = (out / "index.html").read_text()
    assert "First failure" in page and "首个失败" in page and "NaN" in page
    assert '"fc1.weight": "fc1.weight"  # by name' in (out / "names.yaml").read_text()


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The convolutional example as ONNX, and one whose norm has another eps."""
    onnx = pytest.importorskip("onnx")
    folder = tmp_path_factory.mktemp("graph")
    made = subprocess.run(
        [sys.executable, "-W", "ignore", str(PORTS / "cnn_onnx.py"), str(folder / "cnn.onnx")],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(PORTS)},
    )
    assert made.returncode == 0, made.stderr[-2000:]
    model = onnx.load(folder / "cnn.onnx")
    norms = [n for n in model.graph.node if n.op_type == "BatchNormalization"]
    norms[2].attribute[0].f = 1e-3
    assert norms[2].attribute[0].name == "epsilon"
    onnx.save(model, folder / "eps.onnx")
    return folder


@pytest.mark.parametrize("runtime", ["", "openvino:"])
def test_a_graph_is_compared_value_by_value(graph: Path, runtime: str) -> None:
    """The third norm, layer1.bn2, is named; its weights are found by their values."""
    pytest.importorskip("openvino" if runtime else "onnxruntime")
    sound, wrong = ports(
        str(PORTS / "cnn_torch.py"), [f"{runtime}{graph / n}" for n in ("cnn.onnx", "eps.onnx")]
    )
    assert sound.passed, sound.conclusion
    assert sound.content["matched"]["by_itself"] == sound.content["matched"]["of"] == 32
    assert f"{runtime[:-1] or 'onnx'} computes forward only" in _left_out(sound)
    assert wrong.fault and (wrong.fault["rung"], wrong.fault["layer"]) == ("layers", "layer1.bn2")
    assert wrong.fault["where"] == "value" and "or what leads to it" in wrong.conclusion


@pytest.mark.parametrize("runtime", ["", "openvino:"])
def test_a_graph_that_cannot_be_run_is_refused(graph: Path, runtime: str) -> None:
    """A file that was cut off, one that is no graph, and inputs that are too many."""
    pytest.importorskip("openvino" if runtime else "onnxruntime")
    whole = (graph / "cnn.onnx").read_bytes()
    (graph / "cut.onnx").write_bytes(whole[: len(whole) // 2])
    (graph / "words.onnx").write_text("weights")
    two = {"x": {"shape": [2, 3, 32, 32]}, "y": {"shape": [2]}}
    (graph / "two.py").write_text(TWO)
    for name in ("cut.onnx", "words.onnx"):
        with pytest.raises(UserError, match=f"{name}: .* cannot run it"):
            port(str(graph / "two.py"), f"{runtime}{graph / name}", two)
    with pytest.raises(UserError, match=r"takes \(.*\), but the inputs are \(x, y\)"):
        port(str(graph / "two.py"), f"{runtime}{graph / 'cnn.onnx'}", two)


TWO = """
FRAMEWORK = "numpy"


class Model:
    weights = {}

    def __call__(self, x, y):
        return x


build = Model
"""


SLOW = """
import os
from pathlib import Path

FRAMEWORK = "numpy"
INPUTS = {"x": {"shape": [2]}}


def build():
    Path(__file__).with_name(f"{os.getpid()}.pid").touch()
    sum(range(10**11))  # keeps Python's lock, as a framework does that compiles
"""


@pytest.mark.skipif(sys.platform != "linux", reason="workers are looked up in /proc")
def test_the_workers_end_with_the_process_that_started_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even if that one is killed, and can end nobody; the next check removes what it left."""
    (tmp_path / "slow.py").write_text(SLOW)
    slow = str(tmp_path / "slow.py")
    code = f"from diptych.align import port; port({slow!r}, {slow!r})"
    (tmp_path / "tmp").mkdir()
    environment = {**os.environ, "TMPDIR": str(tmp_path / "tmp")}
    caller = subprocess.Popen([sys.executable, "-c", code], env=environment)
    workers: list[int] = []
    try:
        children = Path(f"/proc/{caller.pid}/task/{caller.pid}/children")

        def at_work() -> bool:
            """Both workers are there, and one of them builds its model."""
            assert caller.poll() is None
            workers[:] = [int(n) for n in children.read_text().split()]
            return len(workers) == 2 and any((tmp_path / f"{n}.pid").exists() for n in workers)

        until(at_work)
    finally:
        caller.kill()
        caller.wait()
    try:
        until(lambda: not any(running(n) for n in workers))
    finally:
        for each in filter(running, workers):
            os.kill(each, signal.SIGKILL)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    (left,) = (tmp_path / "tmp").iterdir()
    with scratch("port"):  # as the next check does
        assert not left.exists()


LAST = """
import numpy as np
import torch
from torch import nn

INPUTS = {"x": {"shape": [2, 3, 6, 6]}}


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.last = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 2, 3)

    def forward(self, x):
        return self.last(torch.relu(self.stem(x)))


def build():
    net = Net()
    held = np.load(__file__.replace("ours.py", "weights.npz"))
    net.load_state_dict({n: torch.from_numpy(held[n]) for n in held.files})
    return net
"""


def test_a_last_bias_that_openvino_hides_behind_the_output(tmp_path: Path) -> None:
    """The convolution's own value is the one before its bias: the output's stands for it."""
    onnx, _ = pytest.importorskip("onnx"), pytest.importorskip("openvino")
    draw = np.random.default_rng(0).standard_normal
    shapes = {"stem.weight": (4, 3, 3, 3), "stem.bias": (4,), "last.weight": (2, 4, 3, 3)}
    held = {n: draw(s).astype("float32") for n, s in {**shapes, "last.bias": (2,)}.items()}
    np.savez(tmp_path / "weights.npz", **held)
    (tmp_path / "ours.py").write_text(LAST)
    make = onnx.helper
    nodes = [
        make.make_node("Conv", ["x", "stem.weight", "stem.bias"], ["/stem/out"], "/stem/Conv"),
        make.make_node("Relu", ["/stem/out"], ["/Relu_out"], "/Relu"),
        make.make_node("Conv", ["/Relu_out", "last.weight", "last.bias"], ["9"], "/last/Conv"),
    ]
    subjects = []
    for name, moved in (("sound", 0.0), ("wrong", 0.1)):
        arrays = {n: a + (moved if n == "last.bias" else 0) for n, a in held.items()}
        save_onnx(tmp_path / f"{name}.onnx", nodes, [2, 3, 6, 6], ("9", [2, 2, 2, 2]), arrays)
        subjects.append(f"openvino:{tmp_path / name}.onnx")
    sound, wrong = ports(str(tmp_path / "ours.py"), subjects)
    assert sound.passed, sound.conclusion
    layers = {row["layer"]: row for row in sound.content["layers"]}
    assert layers["last"]["verdict"] == "cut elsewhere" and "output" in layers["last"]["reason"]
    assert wrong.fault and wrong.fault["layer"] == "last"


REFUSED = """

def needs(width):
    return Net()


def kind():
    return Net


class Nothing(Net):
    def forward(self, *inputs):
        super().forward(*inputs)


nothing = Nothing


def ends():
    import os

    os._exit(0)


def stops():
    raise SystemExit("no GPU")
"""


@pytest.mark.parametrize(
    "model", ["Net", ":Net", "a b:Net", "pkg.:Net", "pkg:Net.inner", "pkg:class"]
)
def test_a_model_that_no_import_can_name_is_refused(tmp_path: Path, model: str) -> None:
    with pytest.raises(UserError, match="expected package"):
        start(tmp_path / "made", model, "torch", {})
    assert not (tmp_path / "made").exists()


def test_what_cannot_be_used_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "ours.py").write_text(OURS)
    bad = str(tmp_path / "ours.py")
    cases = [
        ((bad, bad + ":bild"), {}, "no function 'bild'; did you mean 'build'"),
        ((bad, bad), {"rungs": ["layer"]}, "rung 'layer' is not known"),
        ((bad, bad), {"steps": 0}, "steps must be 4"),
        ((bad, bad), {"inputs": {"x": np.array(["a"])}}, "holds no numbers"),
        ((bad, bad), {"inputs": tmp_path / "none.npz"}, "not a readable .npz"),
        ((bad, bad), {"inputs": {"x": np.array([np.nan])}}, "not finite"),
        ((bad, bad), {"inputs": 5}, "inputs: expected arrays or declarations"),
        ((bad, bad), {"inputs": tmp_path / "ours.py"}, "not a readable .npz"),
        ((bad, bad), {"inputs": tmp_path / "one.npy"}, "not a readable .npz"),
        ((bad, bad), {"inputs": tmp_path / "cut.npz"}, "not a readable .npz"),
        ((bad, bad), {"seed": -1}, "seed: expected a whole number, 0 or more"),
        ((bad, bad), {"steps": "5"}, "steps: expected a whole number"),
        ((bad, bad), {"out": tmp_path}, "not empty|overwrite=True"),
        ((bad, None), {}, "subject: expected a path"),
        ((bad, bad + ":needs"), {}, "'needs' must take no arguments"),
        ((bad, bad + ":kind"), {}, "gave a type, expected a network"),
        ((bad, bad + ":nothing"), {}, "returned a NoneType, expected an array"),
        ((bad + ":stops", bad), {}, r"reference: .*ours.py:\d+: SystemExit: no GPU"),
        ((bad + ":ends", bad), {}, "reference: its code ended the process before the work was"),
        ((bad, bad + ":ends"), {}, "subject: its code ended the process before the work was"),
        ((str(tmp_path / "bare.py"), bad), {}, 'FRAMEWORK = "torch"'),
    ]
    np.save(tmp_path / "one.npy", np.ones(2))
    (tmp_path / "cut.npz").write_bytes(b"PK" + bytes(50))
    (tmp_path / "bare.py").write_text("from ours import INPUTS, build")
    with (tmp_path / "ours.py").open("a") as file:
        file.write(REFUSED)
    for arguments, named, says in cases:
        with pytest.raises(UserError, match=says):
            port(*arguments, **named)


def test_every_place_of_a_fault_is_worded() -> None:
    """Whatever is known of it: a graph whose first value fails has no layer before."""
    wheres = ("layer", "between", "behind", "value", "optimizer", "loss", "lockstep", "resume")
    for where, name, after, before, kind in itertools.product(
        (*wheres, "raised"), ("", "conv"), ("", "stem"), ("", "norm"), ("", "Conv2d")
    ):
        fault = {"layer": name, "where": where, "after": after, "before": before, "kind": kind}
        said = place(fault)
        assert said.en and said.zh
        if where == "value" and name:
            assert "conv" in said.en and ("stem" in said.en) == bool(after)


def test_hints_are_worded_in_both_languages() -> None:
    fault = {
        "hints": [
            {"key": "eps", "eps": 1e-3, "own": 1e-5},
            {"key": "adam_eps", "eps": 3e-7, "times": 31.6},
        ]
    }
    texts = list(hint_texts(fault))
    assert "Hint, not a claim" in texts[0].en and "提示" in texts[0].zh
    assert "31.6" in texts[1].en and "31.6" in texts[1].zh
