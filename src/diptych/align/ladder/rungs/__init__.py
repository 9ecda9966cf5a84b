"""The rungs in order, each with its claim and its gate.

A later rung depends on the earlier ones (except those that it lists in `beside`): with different
weights no gradient can agree. So the first failing rung is the one to look at.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from diptych.errors import UserError, nearest


@dataclass(frozen=True)
class Step:
    """One rung: its claim, its gate, and the function that traces it."""

    name: str
    claim: str
    gate: Literal["exact", "floor", "growth"]
    home: str  # module:function below this package
    nudged: bool = True  # nudged passes measure its floor
    beside: tuple[str, ...] = ()  # earlier rungs that it does not depend on

    def trace(self, bench: Any) -> None:
        """Trace this rung on a bench."""
        module, _, function = self.home.partition(":")
        getattr(importlib.import_module(f"{__name__}.{module}"), function)(bench)


# Sampling depends on the network but not on its training; the metrics depend on neither.
_TRAINING = ("loss", "gradients", "update", "lockstep", "resume")
_NETWORK = ("operators", "layers", *_TRAINING, "solver")

LADDER: dict[str, Step] = {
    step.name: step
    for step in (
        Step("config", "every setting is the same", "exact", "exact:trace_config", False),
        Step("data", "pixels, flips, order, timesteps and noise are the same bits", "exact",
             "exact:trace_data", False),
        Step("weights", "weights have the same names, shapes and bits, in and out", "exact",
             "exact:trace_weights", False),
        Step("schedule", "the noise schedule's tables are the same bits", "exact",
             "exact:trace_schedule", False),
        Step("operators", "each operator agrees, forward and backward", "floor",
             "operators:trace_operators"),
        Step("layers", "each layer agrees, alone and in the network", "floor",
             "layers:trace_layers"),
        Step("loss", "the loss agrees, for each image and timestep", "floor",
             "training:trace_loss"),
        Step("gradients", "each weight's gradient agrees, in size and direction", "floor",
             "training:trace_gradients"),
        Step("update", "one update agrees: clipping, Adam, warm-up, moving average", "floor",
             "update:trace_update"),
        Step("lockstep", "training stays together, step by step", "growth",
             "training:trace_lockstep"),
        Step("resume", "training resumes to the same bits", "exact", "resume:trace_resume", False),
        Step("solver", "sampling agrees, from coefficients to pixels", "growth",
             "solver:trace_solver", beside=_TRAINING),
        Step("metric", "features, statistics and scores agree", "floor", "metric:trace_metric",
             beside=_NETWORK),
    )
}  # fmt: skip


def choose(names: Sequence[str]) -> tuple[str, ...]:
    """The named rungs in the ladder's order; all if none is named.

    Raises:
        UserError: if a name is unknown.
    """
    for name in names:
        if name not in LADDER:
            raise UserError(f"rung '{name}' is not known{nearest(name, list(LADDER))}")
    return tuple(name for name in LADDER if not names or name in names)
