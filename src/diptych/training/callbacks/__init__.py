"""All that watches a training from beside it, and never reaches its numbers: one object.

Resources and events (`diptych.runs.watch`), histograms of the gradients and the blueprint for
TensorBoard, and MLflow (`diptych.training.callbacks.tracking`).
"""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from diptych.backends.protocol import Backend, Batch, Learner
from diptych.config.load import Config
from diptych.errors import Interrupted, MachineError
from diptych.network.plan import Plan
from diptych.runs.watch import Watch
from diptych.training.callbacks.journal import Journal
from diptych.training.callbacks.tracking import (
    Mlflow,
    blueprint_text,
    gradient_histograms,
    load_mlflow,
    text,
)


@dataclass(frozen=True)
class Observe:
    """What is observed; none of it is part of a run's identity.

    Attributes:
        resources: record resources and events beside the metrics.
        histograms: of the gradients after every so many steps, each for about a step's time;
            0: none.
        mlflow: where to track the run with MLflow too; None: nowhere.
    """

    resources: bool = True
    histograms: int = 500
    mlflow: str | None = None

    def check(self) -> None:
        """Refuse what cannot be observed here, before anything is done.

        Raises:
            UserError: MLflow is asked for and not installed.
        """
        if self.mlflow:
            load_mlflow()


class Observer:
    """Observes one call of `train`."""

    def __init__(
        self, observe: Observe, run: Path, backend: Backend, config: Config, plan: Plan
    ) -> None:
        self.observe = observe
        self.watch = Watch(run, observe.resources, backend.device, backend.counters)
        self.mlflow: Mlflow | None = None
        if observe.mlflow:
            self.mlflow = Mlflow(observe.mlflow, run, config, backend.name)
        self.blueprint = blueprint_text(plan)
        self.begin, self.end, self.count = self.watch.begin, self.watch.end, self.watch.count

    def follow(self, journal: Journal, step: int) -> None:
        """Show the blueprint where the run begins, and hear of the journal's rows."""
        self.journal = journal
        if not step:
            journal.event(step, [text("blueprint", self.blueprint)])
        if self.mlflow:
            journal.followers.append(self.mlflow.rows)

    def event(self, kind: str, step: int) -> AbstractContextManager[None]:
        """What is done inside is noted as an event."""
        return self.watch.event(kind, step)

    def gradients(self, learner: Learner, batch: Batch) -> None:
        """Histograms of the gradients that the batch has after its step, where they are due."""
        if self.observe.histograms and batch.step % self.observe.histograms == 0:
            with self.event("histograms", batch.step):
                found = gradient_histograms(learner.gradients(batch)[1])
                self.journal.event(batch.step, found)

    def __enter__(self) -> Observer:
        self.watch.__enter__()
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self.watch.__exit__(kind, error, trace)
        if self.mlflow is None:
            return
        stopped = isinstance(error, (Interrupted, KeyboardInterrupt))
        try:
            self.mlflow.close("KILLED" if stopped else "FAILED" if error else "FINISHED")
        except MachineError as fault:  # the run is whole; its copy elsewhere is not
            print(f"diptych: {fault}", file=sys.stderr)
