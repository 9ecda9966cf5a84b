"""Of a port's two sides, what a test looks at in the framework's own process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from diptych.align.ports.framework import Framework
from diptych.align.ports.modules import Network
from diptych.align.ports.repeats import check_repeatable
from diptych.align.ports.targets import Target
from diptych.errors import UserError

INPUTS = {"x": np.ones((4, 8), np.float32), "y": np.ones((4, 8), np.float32)}


def asked(name: str, file: Path, makers: list[str]) -> dict[str, Any]:
    """For each maker of a file: the inputs that its model takes, or why it is refused."""
    found: dict[str, Any] = {}
    for maker in makers:
        try:
            network = Network(Framework(name), Target(maker, name, str(file), maker), 0)
            taken = network.taken(INPUTS)
            check_repeatable(network, INPUTS, loss=True)
            found[maker] = taken
        except UserError as error:
            found[maker] = str(error)
    return found


def aliases(name: str, file: Path, maker: str) -> dict[str, list[str]]:
    """The further names of arrays that a network has twice."""
    return Network(Framework(name), Target(maker, name, str(file), maker), 0).aliases
