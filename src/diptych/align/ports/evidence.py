"""Traces of a port and of its reference, as a verdict reads them, and the names of tensors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from diptych.align.ladder.floors import bare
from diptych.align.ladder.trace import Rung, read_trace
from diptych.align.ports.matching import SHOWN_OUTPUT
from diptych.align.ports.plan import OUTPUT
from diptych.files import read_json
from diptych.types import Array

PORT = "port"  # the side that is judged, in verdicts
ROOT = ""  # the path of the whole network


class Evidence:
    """The traces of one subject and of the reference, read rung by rung.

    Args:
        turned: a rule allows another layout of the network's own outputs.
    """

    def __init__(self, folder: Path, k: int, turned: bool = False) -> None:
        self.turned = turned
        self.about = read_json(folder / "reference.json")
        self.subject = read_json(folder / f"subject-{k}" / "subject.json")
        self.raised = self.subject.get("raised")
        self.truth = read_trace(folder / "reference-float64")
        self.own = [
            read_trace(folder / f"reference-{n}") for n in ("float32", "nudge-1", "nudge-2")
        ]
        self.port = None if self.raised else read_trace(folder / f"subject-{k}")
        self.calls: dict[str, Any] = self.about["calls"]
        self.order = list(self.calls)

    @property
    def weights(self) -> dict[str, Array]:
        """The reference's weights."""
        return self.truth.rung("weights").arrays

    def rungs(self) -> list[str]:
        """The rungs that the subject climbed."""
        return list(self.subject.get("rungs", ()))

    def passes(self, name: str) -> tuple[Rung, Rung, list[Rung]]:
        """(truth, the port's, the reference's own passes)."""
        assert self.port is not None
        if name == "resume":  # a network against itself
            return Rung(), self.port.rung(name), []
        return self.truth.rung(name), self.port.rung(name), [t.rung(name) for t in self.own]


def shown(tensor: str) -> str:
    """A tensor's name as it is told: the network's own output is `free/output`."""
    return tensor.replace(f"/{OUTPUT}", f"/{SHOWN_OUTPUT}")


def base_of(tensor: str) -> str:
    """`training: fed/a.b#2~1` -> `a.b#2`."""
    return bare(tensor).partition("/")[2].partition("~")[0]
