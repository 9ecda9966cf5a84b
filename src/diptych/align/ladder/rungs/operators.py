"""The operators one by one: forward, gradient of each input, gradient of each weight.

Inputs are chosen to show what ordinary ones hide: faint values make a norm's eps matter, values
far from zero lose digits in a norm that computes E[x^2] - E[x]^2, an odd size shows on which side a
strided convolution pads, and images that are no squares show height taken for width.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from diptych.align.process.workbench import Workbench
from diptych.types import Array

B, C = 2, 64
PICTURE = (B, C, 8, 8)
RATE = 0.25


@dataclass(frozen=True)
class Case:
    """A layer (with `init`) or a function of `diptych.*.layers`, and its float inputs."""

    operator: str
    inputs: dict[str, tuple[int, ...]]
    init: tuple[Any, ...] | None = None
    scale: float = 1.0
    offset: float = 0.0
    attributes: dict[str, Any] = field(default_factory=dict)  # set on the layer after it is built


CASES: dict[str, Case] = {
    "conv 3x3": Case("Conv2d", {"x": PICTURE}, (C, 32, 3)),
    "conv 3x3, one channel": Case("Conv2d", {"x": (B, 1, 14, 14)}, (1, 32, 3)),
    "conv strided": Case("Conv2d", {"x": PICTURE}, (C, 32, 3, 2, (0, 1))),
    "conv strided, odd size": Case("Conv2d", {"x": (B, 32, 7, 7)}, (32, 32, 3, 2, (0, 1))),
    "conv 1x1": Case("Conv2d", {"x": PICTURE}, (C, 32, 1, 1, (0, 0))),
    "norm": Case("GroupNorm", {"x": PICTURE}, (C,)),
    "norm, silu": Case("GroupNorm", {"x": PICTURE}, (C, True)),
    "norm, silu, shift": Case("GroupNorm", {"x": PICTURE, "shift": (B, C)}, (C, True)),
    "norm, faint": Case("GroupNorm", {"x": PICTURE}, (C,), scale=3e-3),
    "norm, offset": Case("GroupNorm", {"x": PICTURE}, (C,), offset=30.0),
    "norm, eps 1e-3": Case("GroupNorm", {"x": PICTURE}, (C,), scale=3e-2, attributes={"eps": 1e-3}),
    "norm, 1 group": Case("GroupNorm", {"x": PICTURE}, (C,), attributes={"groups": 1}),
    "norm, 8 groups, silu, shift": Case(
        "GroupNorm", {"x": PICTURE, "shift": (B, C)}, (C, True), attributes={"groups": 8}
    ),
    "linear": Case("Linear", {"x": (8, 32)}, (32, 128)),
    "silu": Case("silu", {"x": (8, 128)}, scale=4.0),
    "attention": Case("attention", dict.fromkeys("qkv", PICTURE), scale=1.5),
    "upsample": Case("upsample", {"x": (B, C, 4, 4)}),
    "upsample, no square": Case("upsample", {"x": (B, C, 4, 6)}),
    "avg_pool": Case("avg_pool", {"x": PICTURE}),
    "concat": Case("concat", {"a": PICTURE, "b": (B, 32, 8, 8)}),
    "add": Case("add", {"a": PICTURE, "b": PICTURE}),
    "dropout": Case("dropout", {"x": PICTURE}),
}


def trace_operators(bench: Workbench) -> None:
    """Trace each case's y, and its gradients for inputs and weights."""
    for name, case in CASES.items():
        given = {
            key: bench.normal(f"{name}/{key}", shape, case.scale) + np.float32(case.offset)
            for key, shape in case.inputs.items()
        }
        for key, values in evaluate(bench, name, case, given).items():
            bench.add(f"{name}/{key}", values)


def evaluate(bench: Workbench, name: str, case: Case, given: dict[str, Array]) -> dict[str, Array]:
    """y and all gradients of one case, on the host."""
    panel = bench.panel
    operator = getattr(panel.layers, case.operator)
    wanted = {key: panel.leaf(values) for key, values in given.items()}
    arguments: list[Any] = list(wanted.values())
    if case.init is not None:
        operator = operator(*case.init)
        for attribute, value in case.attributes.items():
            assert hasattr(operator, attribute), attribute
            setattr(operator, attribute, value)
        for part in ("weight", "bias"):
            shape = tuple(getattr(operator, part).shape)
            scale = 0.1 if len(shape) > 1 else 0.5
            centre = 1.0 if part == "weight" and len(shape) == 1 else 0.0
            values = bench.normal(f"{name}/{part}", shape, scale) + np.float32(centre)
            setattr(operator, part, panel.parameter(values))
            wanted[part] = getattr(operator, part)
    if case.operator == "dropout":
        mask = np.abs(bench.normal(f"{name}/mask", case.inputs["x"])) > 0.3
        arguments += [panel.put(mask.astype(np.uint8)), RATE]
    y = panel.compute(operator, *arguments)
    host = panel.read(y)
    g = bench.normal(f"{name}/g", host.shape)
    found = panel.gradients(y, list(wanted.values()), g)
    return {"y": host, **{f"d{key}": value for key, value in zip(wanted, found, strict=True)}}
