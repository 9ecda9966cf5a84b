"""Ports whose loss takes a target, and networks that draw random numbers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import port_jobs
from conftest import Panel
from diptych.align.ports.folds import find_folds
from diptych.align.ports.matching import Entry
from diptych.align.ports.prove import ports
from diptych.align.ports.sentences import note_texts
from diptych.errors import UserError

pytestmark = [pytest.mark.torch]

REFERENCE = """
import torch
from torch import nn

INPUTS = {"x": {"shape": [4, 8]},
          "y": {"shape": [4], "low": 0, "high": 3, "dtype": "int64"}}


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(8, 16), nn.Linear(16, 3)

    def forward(self, x):
        return self.b(torch.relu(self.a(x)))


def build():
    return Net()


def loss(model, x, y):
    return nn.functional.cross_entropy(model(x), y)
"""
SUBJECTS = """
import torch
from reference import Net, loss as right, nn


class Optional(Net):
    def forward(self, images, mask=None, dropped=0.5):
        x = nn.functional.dropout(input=images, p=dropped, training=self.training)
        return super().forward(x if mask is None else x * mask)


def sound():
    return Optional()


sound.loss = lambda net, pictures, target: right(net, pictures, target)


def smoothed():
    return Net()


smoothed.loss = lambda model, x, y: nn.functional.cross_entropy(model(x), y, label_smoothing=0.1)


def no_loss():
    return Net()
"""


def test_a_loss_takes_a_target_that_the_model_does_not(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "reference.py").write_text(REFERENCE)
    (tmp_path / "subjects.py").write_text(SUBJECTS)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    names = ("sound", "smoothed", "no_loss")
    made = ports(tmp_path / "reference.py", [f"{tmp_path / 'subjects.py'}:{n}" for n in names])
    sound, smoothed, without = made
    assert sound.passed and len(sound.content["rungs"]) == 8, sound.conclusion
    told = [text.en for text in note_texts(sound.content)]
    assert "Inputs that loss() alone takes, not the model: y." in told
    assert smoothed.fault and smoothed.fault["rung"] == "loss"
    assert without.passed and len(without.content["rungs"]) == 3
    told = [text.en for text in note_texts(without.content)]
    assert "Rungs are left out: only the reference's file has loss()." in told


BOTH = """
{head}

class Still(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(8, 8)

    def {call}(self, x):
        return self.inner(x)


class Noise(Still):
    always = True

    def {call}(self, x):
        if self.always or self.{mode}:
            x = x + 0.1 * {randn}(x.shape)
        return self.inner(x)


class Sometimes(Noise):
    always = False


class Outer(Still):
    def __init__(self):
        super().__init__()
        self.first, self.noise = nn.Linear(8, 8), Noise()

    def {call}(self, x):
        return self.noise(self.first(x))


class Rare(Still):
    def {call}(self, x):
        if self.{mode} and random.random() < 0.2:
            x = x + 1
        return self.inner(x)


class Counts(Still):
    calls = 0

    def {call}(self, x):
        self.calls += 1
        return self.inner(x) + self.calls


class Buffered(Still):
    def __init__(self):
        super().__init__()
        {buffer}

    def {call}(self, x):
        self.kept = 0.9 * self.kept + x.mean()  # another array in its place
        return self.inner(x) + self.kept


class Labelled(Still):
    def {call}(self, x, mask=None, labels=None):
        return self.inner(x if mask is None else x * mask)


def of(kind, loss=lambda model, x, y: model(x).mean()):
    def make():
        return kind()

    make.loss = loss
    return make


still, noise, sometimes, outer = map(of, (Still, Noise, Sometimes, Outer))
rare, counts, buffered, labelled = map(of, (Rare, Counts, Buffered, Labelled))
listed = of(lambda: nn.Sequential(nn.Linear(8, 8)))
masked = of(Labelled, lambda model, a, b: model(a, mask=b).mean())
scaled = of(Labelled, lambda model, a, b: model(2 * a).mean())
both = of(Labelled, lambda model, a, b: model(2 * a, 3 * b).mean())
nothing = of(Still, lambda model, x, y: None)
many = of(Still, lambda model, x, y: model(x))
few = of(Still, lambda model, x: model(x).mean())
drawn = of(Still, lambda model, x, y: model(x + {randn}(x.shape)).mean())
alone = of(Still, None)
"""
HEADS = {
    "torch": {"head": "import random\nimport torch\nfrom torch import nn", "call": "forward",
              "mode": "training", "randn": "torch.randn",
              "buffer": 'self.register_buffer("kept", torch.zeros(()))'},
    "jittor": {"head": "import random\nimport jittor as jt\nfrom jittor import nn",
               "call": "execute", "mode": "is_training()", "randn": "jt.randn",
               "buffer": "self.kept = jt.zeros(1).stop_grad()"},
}  # fmt: skip
KEPT = "draws random numbers or keeps state in"
PLACES = {
    "noise": f"{KEPT} evaluation mode, in the code before layer 'inner' (Linear), so it cannot be",
    "sometimes": f"{KEPT} training mode, in the code before layer 'inner' (Linear)",
    "outer": f"{KEPT} evaluation mode, in the code before layer 'noise.inner' (Linear)",
    "rare": f"{KEPT} training mode, ",
    "counts": f"{KEPT} evaluation mode, ",
    "drawn": f"{KEPT} loss(), ",
    "alone": "the model takes (x), but the inputs are (x, y); an input that only the loss takes",
    "nothing": "loss() gave NoneType, expected one number",
    "many": "loss() gave shape (4, 8), expected one number",
    "few": "loss() is given the model and all inputs (x, y), and takes (model, x)",
}


@pytest.mark.jittor
def test_random_numbers_are_refused_with_their_place(panel: Panel, tmp_path: Path) -> None:
    (tmp_path / "made.py").write_text(BOTH.format(**HEADS[panel.name]))
    makers = ["still", "labelled", "listed", "buffered", "scaled", "masked", "both", *PLACES]
    found = panel.call(port_jobs.asked, panel.name, tmp_path / "made.py", makers)
    for maker in ("still", "labelled", "listed", "buffered", "scaled"):
        assert found[maker] == ["x"], (maker, found[maker])
    assert found["masked"] == found["both"] == ["x", "y"]  # as their losses call them
    for maker, place in PLACES.items():
        assert place in found[maker], (maker, found[maker])


SHARED = """
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.c = nn.Linear(8, 8), nn.Linear(8, 8)
        self.b = self.a

    def forward(self, x):
        return self.c(self.b(self.a(x)))
"""


def test_a_layer_of_two_names_ties_its_arrays(panels, tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(SHARED)
    found = panels["torch"].call(port_jobs.aliases, "torch", tmp_path / "net.py", "Net")
    assert found == {"a.weight": ["b.weight"], "a.bias": ["b.bias"]}


FOLDED = """
import torch
from torch import nn

INPUTS = {"x": {"shape": [2, 3, 8, 8]}}


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.one_norm = nn.Conv2d(3, 6, 3, bias=False), nn.BatchNorm2d(6)
        self.two, self.two_norm = nn.Conv2d(6, 6, 3), nn.BatchNorm2d(6, eps=1e-3)
        self.up, self.up_norm = nn.ConvTranspose2d(6, 6, 2, 2), nn.BatchNorm2d(6)
        self.head = nn.Linear(6, 4)

    def forward(self, x):
        x = torch.relu(self.one_norm(self.one(x)))
        x = torch.relu(self.two_norm(self.two(x)))
        return self.head(torch.relu(self.up_norm(self.up(x))).mean((2, 3)))


def build():
    torch.manual_seed(0)
    net = Net()
    for norm in (net.one_norm, net.two_norm, net.up_norm):
        for array in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
            nn.init.uniform_(array, 0.5, 1.5)
    return net.eval()


if __name__ == "__main__":
    torch.onnx.export(build(), (torch.zeros(2, 3, 8, 8),), "folded.onnx", dynamo=False)
"""


@pytest.mark.parametrize("runtime", ["", "openvino:"])
def test_batch_norms_that_an_exporter_folded(tmp_path: Path, runtime: str) -> None:
    """The products are compared: a wrong shift fails, and so does another eps."""
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("openvino" if runtime else "onnxruntime")
    (tmp_path / "net.py").write_text(FOLDED)
    subprocess.run([sys.executable, "-W", "ignore", "net.py"], cwd=tmp_path, check=True)
    model = onnx.load(tmp_path / "folded.onnx")
    norms = [n for n in model.graph.node if n.op_type == "BatchNormalization"]
    assert len(norms) == 1  # it folds none into a transposed convolution
    shifts = [t for t in model.graph.initializer if "Conv" in t.name and list(t.dims) == [6]]
    wrong = onnx.numpy_helper.to_array(shifts[1]).copy()
    wrong[2] += 0.01
    shifts[1].CopyFrom(onnx.numpy_helper.from_array(wrong, shifts[1].name))
    onnx.save(model, tmp_path / "shifted.onnx")
    graphs = [f"{runtime}{tmp_path / name}.onnx" for name in ("folded", "shifted")]
    sound, shifted = ports(tmp_path / "net.py", graphs)
    assert sound.passed, sound.conclusion
    told = [text.en for text in note_texts(sound.content)]
    assert any("folded into the weights of the layers before them: 2 (" in text for text in told)
    compared = {row["layer"] for row in sound.content["layers"] if row["modes"]}
    assert {"one_norm", "two_norm", "up_norm", "head", "output"} <= compared
    assert shifted.fault and shifted.fault["layer"] == "two_norm", shifted.conclusion
    assert "is folded into 'two', whose shift with it is off by" in shifted.conclusion
    (tmp_path / "eps.py").write_text(FOLDED.replace("eps=1e-3", "eps=1e-2"))
    (other,) = ports(tmp_path / "eps.py", graphs[:1])
    assert other.fault and other.fault["rung"] == "weights"
    assert other.fault["layer"] == "two_norm", other.conclusion
    assert "is folded into 'two', whose weights with it are off by" in other.conclusion


def test_a_weight_that_is_nan_is_no_fold() -> None:
    draw = np.random.default_rng(0).uniform
    weights = {"c.weight": draw(1, 2, (4, 3, 1, 1)), "n.running_mean": draw(1, 2, 4),
               "n.running_var": draw(1, 2, 4)}  # fmt: skip
    entries = [Entry(name, a.shape, after="c") for name, a in weights.items() if name[0] == "n"]
    scale = 1 / np.sqrt(weights["n.running_var"] + 1e-5)
    held = {"w": weights["c.weight"] * scale.reshape(-1, 1, 1, 1),
            "b": -weights["n.running_mean"] * scale}  # fmt: skip
    assert find_folds(entries, weights, held, {}).pairs == {"c.weight": "w", "c.bias": "b"}
    held["w"][0] = np.nan
    assert not find_folds(entries, weights, held, {}).pairs


ENCODER = """
import torch
from torch import nn

INPUTS = {"x": {"shape": [2, 5, 8]}}


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.q, self.k, self.v, self.o = (nn.Linear(8, 8) for _ in range(4))

    def forward(self, x):
        weights = (self.q(x) @ self.k(x).transpose(1, 2)).softmax(-1)
        return x + self.o(weights @ self.v(x))


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.q, self.blocks = nn.Linear(8, 8), nn.Sequential(Block(), Block())

    def forward(self, x):
        return self.blocks(torch.tanh(self.q(x)))


def build():
    torch.manual_seed(0)
    return Net()


if __name__ == "__main__":
    torch.onnx.export(build(), (torch.zeros(2, 5, 8),), "whole.onnx", dynamo=False)
    net = build()
    net.blocks[0].q.forward = lambda x: 2 * nn.functional.linear(x, net.blocks[0].q.weight)
    torch.onnx.export(net, (torch.zeros(2, 5, 8),), "wrong.onnx", dynamo=False)
"""


@pytest.mark.parametrize("runtime", ["", "openvino:"])
def test_square_weights_that_an_exporter_turned(tmp_path: Path, runtime: str) -> None:
    """They are found by their values; and a layer is not taken for one of its name further in."""
    pytest.importorskip("openvino" if runtime else "onnxruntime")
    (tmp_path / "net.py").write_text(ENCODER)
    subprocess.run([sys.executable, "-W", "ignore", "net.py"], cwd=tmp_path, check=True)
    graphs = [f"{runtime}{tmp_path / name}.onnx" for name in ("whole", "wrong")]
    sound, wrong = ports(tmp_path / "net.py", graphs)
    assert sound.passed, sound.conclusion
    assert sound.content["matched"]["weights"] == 18
    assert not wrong.passed and "blocks.0" in wrong.conclusion, wrong.conclusion


def test_a_file_that_imports_no_framework_is_asked_for_it(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text("from elsewhere import build\n")
    with pytest.raises(UserError, match=r"imports no framework itself; write FRAMEWORK"):
        ports(tmp_path / "net.py", [tmp_path / "net.py"])
