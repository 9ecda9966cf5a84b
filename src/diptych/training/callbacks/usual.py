"""The default callbacks of a run, chosen by the requested records."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from diptych.backends.protocol import Backend
from diptych.config.load import Config
from diptych.network.own import AnyPlan
from diptych.training.callbacks import Callback, Callbacks
from diptych.training.callbacks.journal import Journal
from diptych.training.callbacks.mlflow import Mlflow, check_store
from diptych.training.callbacks.resources import Resources
from diptych.training.callbacks.tensorboard import TensorBoard


@dataclass(frozen=True)
class Recording:
    """Records in addition to the metrics; they are not part of a run's identity.

    Attributes:
        resources: record resources and events.
        histograms: show the gradients in TensorBoard every this many steps, each time at the cost
            of about one step; 0: never. Never with several ranks, and never of a user's own
            network, whose layers may keep statistics of every call.
        mlflow: address of an MLflow store that also tracks the run; None: none.
    """

    resources: bool = True
    histograms: int = 500
    mlflow: str | None = None

    def check(self) -> None:
        """Refuse records that cannot be written here, before any work or loss.

        Raises:
            UserError: MLflow is requested, and is not installed or does not answer.
        """
        if self.mlflow:
            check_store(self.mlflow)


def usual(
    recording: Recording,
    run: Path,
    backend: Backend,
    config: Config,
    plan: AnyPlan,
    more: Sequence[Callback] = (),
) -> Callbacks:
    """Make all callbacks of a run; `more` are called after the records are written."""
    resources = Resources(run, recording.resources, backend)
    members: list[Callback] = [
        Journal(run),
        TensorBoard(run, plan, recording.histograms, resources.event),
    ]
    if recording.mlflow:
        members.append(Mlflow(recording.mlflow, run, config, backend.name))
    return Callbacks([*members, resources, *more])
