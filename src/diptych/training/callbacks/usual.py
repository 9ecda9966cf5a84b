"""The callbacks of every run, by what the user asked to have recorded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from diptych.backends.protocol import Backend
from diptych.config.load import Config
from diptych.network.own import AnyPlan
from diptych.training.callbacks import Callback, Callbacks
from diptych.training.callbacks.journal import Journal
from diptych.training.callbacks.mlflow import Mlflow, load_mlflow
from diptych.training.callbacks.resources import Resources
from diptych.training.callbacks.tensorboard import TensorBoard


@dataclass(frozen=True)
class Recording:
    """What is recorded in addition to the metrics; none of it is part of a run's identity.

    Attributes:
        resources: resources and events beside the metrics.
        histograms: TensorBoard shows the gradients after every so many steps, each for about a
            step's time; 0: never.
        mlflow: where to track the run with MLflow too; None: nowhere.
    """

    resources: bool = True
    histograms: int = 500
    mlflow: str | None = None

    def check(self) -> None:
        """Refuse what cannot be recorded here, before anything is done.

        Raises:
            UserError: MLflow is asked for and not installed.
        """
        if self.mlflow:
            load_mlflow()


def usual(
    recording: Recording,
    run: Path,
    backend: Backend,
    config: Config,
    plan: AnyPlan,
    more: Sequence[Callback] = (),
) -> Callbacks:
    """All callbacks of a run; `more` are asked after the records are written."""
    resources = Resources(run, recording.resources, backend)
    members: list[Callback] = [
        Journal(run),
        TensorBoard(run, plan, recording.histograms, resources.event),
    ]
    if recording.mlflow:
        members.append(Mlflow(recording.mlflow, run, config, backend.name))
    return Callbacks([*members, resources, *more])
