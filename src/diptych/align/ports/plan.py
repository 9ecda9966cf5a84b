"""Shared by every pass of a port's ladder: the rungs, the reference's findings, the names."""

from __future__ import annotations

from dataclasses import dataclass, field

from diptych.align.ports.layouts import Rule

RUNGS = ("weights", "operators", "layers", "loss", "gradients", "update", "lockstep", "resume")
FORWARD = ("weights", "operators", "layers")
UNTRAINED = (*FORWARD, "loss")  # rungs that need no trained weight
OUTPUT = ".output"  # the network's own outputs; no module can have this path


@dataclass
class Plan:
    """Findings of the reference's float64 pass, for all other passes."""

    operators: dict[str, str] = field(default_factory=dict)  # path -> kind, one of each kind
    faint: list[str] = field(default_factory=list)  # norms, whose eps faint inputs show
    training: bool = False  # the mode changes what the network computes
    buffered: list[str] = field(default_factory=list)  # layers with buffers
    parameters: list[str] = field(default_factory=list)
    buffers: list[str] = field(default_factory=list)


@dataclass
class Names:
    """The reference's names in terms of this network's; empty for the reference itself."""

    weights: dict[str, str] = field(default_factory=dict)
    paths: dict[str, str] = field(default_factory=dict)
    rules: dict[str, Rule] = field(default_factory=dict)

    @property
    def own(self) -> bool:
        return not self.weights and not self.paths
