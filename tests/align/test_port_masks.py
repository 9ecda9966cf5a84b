"""Ports with masks, norms and NaN: what is compared with zero, and what is equal to nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from diptych.align.ladder.nudges import nudged
from diptych.align.ports.prove import ports
from diptych.align.ports.sentences import note_texts
from diptych.errors import UserError

pytestmark = [pytest.mark.torch]

REFERENCE = """
import torch
from torch import nn
from torch.nn import functional as F

INPUTS = {"x": {"shape": [3, 5, 6]}}


class Attention(nn.Module):
    masked = True

    def __init__(self):
        super().__init__()
        self.q, self.k, self.v = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 6)
        self.norm, self.out = nn.BatchNorm1d(6), nn.Linear(6, 6)
        if self.masked:
            self.register_buffer("mask", torch.tril(torch.ones(5, 5)))

    def seen(self):
        return self.mask if self.masked else torch.tril(torch.ones(5, 5))

    def forward(self, x):
        weights = self.q(x) @ self.k(x).transpose(1, 2) / 6**0.5
        weights = weights.masked_fill(self.seen() == 0, float("-inf")).softmax(-1)
        return self.out(self.norm((x + weights @ self.v(x)).transpose(1, 2)).transpose(1, 2))


def build():
    return Attention()


def loss(model, x):
    return F.mse_loss(model(x), x)
"""
PORTS = """
import torch
from reference import Attention, F, loss as right


class InCode(Attention):
    masked = False


class WithoutResidual(Attention):
    def forward(self, x):
        weights = self.q(x) @ self.k(x).transpose(1, 2) / 6**0.5
        weights = weights.masked_fill(self.seen() == 0, float("-inf")).softmax(-1)
        return self.out(self.norm((weights @ self.v(x)).transpose(1, 2)).transpose(1, 2))


in_code, without_residual = InCode, WithoutResidual
"""


def test_zeros_and_whole_numbers_are_not_nudged() -> None:
    values = np.array([0, -0.0, np.inf, -np.inf, np.nan, 1, 0.5, 1e-30], np.float32)
    moved = nudged(values, 1, 7)
    assert np.array_equal(moved[:5], values[:5], equal_nan=True) and (moved[5:] != values[5:]).all()
    mask = np.tril(np.ones((5, 5), np.float32))
    assert np.array_equal(nudged(mask, 1, 7), mask)


def test_a_mask_raises_no_floor_and_no_norm_is_blamed_for_its_inputs(tmp_path: Path) -> None:
    """A mask's zeros, moved by a rounding, are no mask; a norm's buffers follow its inputs."""
    (tmp_path / "reference.py").write_text(REFERENCE)
    (tmp_path / "theirs.py").write_text(PORTS)
    (tmp_path / "larger.py").write_text(
        "import torch\nfrom theirs import in_code as build, right\n"
        "def loss(model, x):\n    return 1.05 * right(model, x)\n"
    )
    wanted = [f"{tmp_path / 'theirs.py'}:in_code", f"{tmp_path / 'theirs.py'}:without_residual"]
    sound, other, larger = ports(
        str(tmp_path / "reference.py"), [*wanted, str(tmp_path / "larger.py")]
    )
    assert sound.passed, sound.conclusion
    notes = [text.en for text in note_texts(sound.content)]
    assert any("first mask) have no partner" in note for note in notes), notes
    assert other.fault is not None and other.fault["rung"] == "layers"
    assert (other.fault["where"], other.fault["before"]) == ("between", "norm"), other.fault
    assert larger.fault is not None and larger.fault["rung"] == "loss", larger.conclusion


def test_a_reference_that_computes_nan_is_refused(tmp_path: Path) -> None:
    """NaN is equal to NaN, so any port of it would pass."""
    text = REFERENCE.replace("return self.out(", "return torch.log(-1 - x**2) + self.out(")
    (tmp_path / "reference.py").write_text(text)
    with pytest.raises(UserError, match="the reference's output is NaN on these inputs"):
        ports(str(tmp_path / "reference.py"), [str(tmp_path / "reference.py")])


def test_a_graph_that_computes_nan_is_refused_too(tmp_path: Path) -> None:
    (tmp_path / "reference.py").write_text(
        "import numpy as np\n"
        "FRAMEWORK = 'numpy'\n"
        "INPUTS = {'x': {'shape': [3, 4]}}\n"
        "class Model:\n"
        "    def __init__(self):\n"
        "        self.weights = {'w': np.ones((4, 4), 'float32')}\n"
        "    def __call__(self, x, tap):\n"
        "        return np.log(-1 - (x @ self.weights['w']) ** 2)\n"
        "def build():\n"
        "    return Model()\n"
    )
    with pytest.raises(UserError, match="the reference's output is NaN on these inputs"):
        ports(str(tmp_path / "reference.py"), [str(tmp_path / "reference.py")])


STATES = """
import torch
from torch import nn

INPUTS = {"x": {"shape": [3, 4, 5]}}


class Net(nn.Module):
    def __init__(self, by_state):
        super().__init__()
        self.by_state, self.gru, self.fc = by_state, nn.GRU(5, 6, batch_first=True), nn.Linear(6, 3)

    def forward(self, x):
        steps, last = self.gru(x)
        return self.fc(last[-1] if self.by_state else steps[:, -1])


class Halved(Net):
    def forward(self, x):
        steps = self.gru(x)[0][:, -1]
        return self.fc((steps + steps.detach()) / 2)


by_state, by_step, halved = (lambda: Net(True)), (lambda: Net(False)), (lambda: Halved(False))
"""


@pytest.mark.parametrize("reference, sound", [("by_state", "by_step"), ("by_step", "by_state")])
def test_the_last_state_is_the_last_step(tmp_path: Path, reference: str, sound: str) -> None:
    """Whichever is used; a gradient that comes back halved is found."""
    path = tmp_path / "states.py"
    path.write_text(STATES)
    agreeing, halved = ports(f"{path}:{reference}", [f"{path}:{sound}", f"{path}:halved"])
    assert agreeing.passed, agreeing.conclusion
    assert halved.fault is not None and halved.fault["rung"] == "gradients"
