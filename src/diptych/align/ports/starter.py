"""`diptych align port --init FOLDER`: the two files to begin with."""

from __future__ import annotations

import keyword
from pathlib import Path

from diptych.errors import UserError
from diptych.files import write_text

REFERENCE = '''"""The reference: the model that is right.

    diptych align port reference.py subject.py --out port
"""

import torch
from torch import nn

FRAMEWORK = "torch"

# Made from these shapes and ranges; without a range: normal numbers. In the order of forward().
# Or give arrays: --inputs inputs.npz
INPUTS = {inputs}

{make}

# def loss(model, {names}):        # training is compared with it; else a loss on the outputs
#     ...                          # targets: more INPUTS and arguments, which forward() lacks
#
#
# def optimizer(model):            # one update, and steps in lockstep; else plain gradient descent
#     return torch.optim.Adam(model.parameters(), lr=1e-3)
'''
EXAMPLE = """
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1 = nn.Linear(8, 16)
        self.norm = nn.LayerNorm(16)
        self.fc2 = nn.Linear(16, 4)

    def forward(self, x):
        return self.fc2(torch.relu(self.norm(self.fc1(x))))


def build():
    return Net()
"""
GIVEN = """
def build():
    from {module} import {name}

    return {name}()
"""
SUBJECTS = {
    "jittor": '''"""The port, in Jittor. Its weights are replaced by the reference's."""

import jittor as jt
from jittor import nn

FRAMEWORK = "jittor"


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1 = nn.Linear(8, 16)
        self.norm = nn.LayerNorm(16)
        self.fc2 = nn.Linear(16, 4)

    def execute(self, x):
        return self.fc2(nn.relu(self.norm(self.fc1(x))))


def build():
    return Net()


# def loss(model, {names}):
#     ...
#
#
# def optimizer(model):            # not jittor.optim.Adam: its eps acts 31.6 times larger
#     return jt.optim.SGD(model.parameters(), lr=1e-3)
''',
    "torch": '''"""The port: the same model, written anew in PyTorch."""

import torch
from torch import nn

FRAMEWORK = "torch"


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1 = nn.Linear(8, 16)
        self.norm = nn.LayerNorm(16)
        self.fc2 = nn.Linear(16, 4)

    def forward(self, x):
        return self.fc2(torch.relu(self.norm(self.fc1(x))))


def build():
    return Net()
''',
    "numpy": '''"""The port: the same model in NumPy (or anything that NumPy arrays come out of)."""

import numpy as np

FRAMEWORK = "numpy"


class Net:
    def __init__(self):
        # Replaced by the reference's, by name, or by order and shape.
        self.weights = {
            "fc1.weight": np.zeros((16, 8), "float32"),
            "fc1.bias": np.zeros(16, "float32"),
            "norm.weight": np.ones(16, "float32"),
            "norm.bias": np.zeros(16, "float32"),
            "fc2.weight": np.zeros((4, 16), "float32"),
            "fc2.bias": np.zeros(4, "float32"),
        }

    def __call__(self, x, tap=lambda name, array: None):
        w = self.weights
        x = x @ w["fc1.weight"].T + w["fc1.bias"]
        tap("fc1", x)
        mean, var = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
        x = (x - mean) / np.sqrt(var + 1e-5) * w["norm.weight"] + w["norm.bias"]
        tap("norm", x)
        x = np.maximum(x, 0) @ w["fc2.weight"].T + w["fc2.bias"]
        tap("fc2", x)
        return x


def build():
    return Net()
''',
}


def start(folder: Path, model: str | None, framework: str, declared: dict[str, dict]) -> list[Path]:  # type: ignore[type-arg]
    """Write reference.py and subject.py; return their paths.

    Args:
        model: `package.module:Class` of the reference; None: a small example.
        framework: of the port.
        declared: inputs by name; none: one that fits the example.

    Raises:
        UserError: a file is there already, or the framework is not known.
    """
    if framework not in SUBJECTS:
        raise UserError(
            f"--to {framework}: expected one of {', '.join(SUBJECTS)} "
            f"(an ONNX or OpenVINO file needs no Python file)"
        )
    paths = [folder / "reference.py", folder / "subject.py"]
    for path in paths:
        if path.exists():
            raise UserError(f"{path}: is there already; give another folder")
    make = EXAMPLE
    if model is not None:
        module, colon, name = model.partition(":")
        parts = [*module.split("."), name]
        if not colon or any(not p.isidentifier() or keyword.iskeyword(p) for p in parts):
            raise UserError(f"--model {model}: expected package.module:Class")
        make = GIVEN.format(module=module, name=name)
    inputs = declared or {"x": {"shape": [4, 8]}}
    names = ", ".join(inputs)
    folder.mkdir(parents=True, exist_ok=True)
    write_text(paths[0], REFERENCE.format(inputs=repr(inputs), make=make, names=names))
    write_text(paths[1], SUBJECTS[framework].replace("{names}", names))
    return paths
