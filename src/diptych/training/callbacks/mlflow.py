"""MLflow tracking, optional:

    pip install 'diptych[mlflow]'     diptych train mnist --out RUN --mlflow sqlite:///mlflow.db

keeps one MLflow run per run folder, however often it is resumed (RUN/mlflow.json names it).
"""

from __future__ import annotations

import importlib
import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from diptych.config.load import Config, flatten
from diptych.errors import Interrupted, StopTraining, UserError
from diptych.files import read_json, write_json
from diptych.machine.packages import require
from diptych.training.callbacks import SCALARS, VALIDATION, Callback, Row

log = logging.getLogger(__name__)

EXPERIMENT = "diptych"


class Mlflow(Callback):
    """One MLflow run for one run folder.

    Raises:
        UserError: MLflow is not installed, or rejects the address.
    """

    def __init__(self, uri: str, run: Path, config: Config, backend: str) -> None:
        module = load_mlflow()
        self.folder, self.failed = run, False
        self.sent = 0  # the last step in the store
        note = run / "mlflow.json"
        before = read_json(note) if note.is_file() else {}
        opened = before.get("run_id") if before.get("uri") == uri else None
        try:
            self.client = module.MlflowClient(tracking_uri=uri)
            self.run_id = str(opened) if opened else self._create(config, backend)
            if opened:
                self._reopen()
        except Exception as error:  # any error of the store concerns the address
            other = f"; to begin another MLflow run, remove {note}" if opened else ""
            raise UserError(f"--mlflow {uri}: {_first_line(error)}{other}") from error
        write_json(note, {"uri": uri, "run_id": self.run_id})
        self.entities = importlib.import_module("mlflow.entities")

    def _reopen(self) -> None:
        self.client.set_terminated(self.run_id, "RUNNING")
        known = self.client.get_metric_history(self.run_id, "train/loss")
        self.sent = max((metric.step for metric in known), default=0)

    def _create(self, config: Config, backend: str) -> str:
        found = self.client.get_experiment_by_name(EXPERIMENT)
        where = found.experiment_id if found else self.client.create_experiment(EXPERIMENT)
        created = self.client.create_run(where, run_name=self.folder.name)
        run_id = str(created.info.run_id)
        for key, value in {"backend": backend, **flatten(config)}.items():
            self.client.log_param(run_id, key, value)
        return run_id

    def rows(self, rows: Sequence[Row]) -> None:
        """Send the journal's rows as metrics, in batches up to MLflow's limit.

        Steps repeated after a resume are skipped: the store has them already. If the store fails,
        one warning is logged and no more rows are sent: the training neither ends nor keeps
        waiting because its remote copy failed.
        """
        rows = [row for row in rows if row["step"] > self.sent]
        if self.failed or not rows:
            return
        try:
            self._send(rows)
        except Exception as error:  # any error of the store
            self.failed = True
            log.warning(
                "MLflow took no metrics from step %s on (%s); the training goes on without it, "
                "its own records are whole",
                rows[0]["step"],
                _first_line(error),
            )

    def _send(self, rows: Sequence[Row]) -> None:
        now = int(time.time() * 1000)
        metric = self.entities.Metric
        found = [
            metric(f"train/{key}", float(row[key]), now, row["step"])
            for row in rows
            for key in SCALARS
        ] + [
            metric("validation/loss", float(row[VALIDATION]), now, row["step"])
            for row in rows
            if VALIDATION in row
        ]
        for first in range(0, len(found), 1000):
            self.client.log_batch(self.run_id, metrics=found[first : first + 1000])

    def close(self, error: BaseException | None) -> None:
        """Upload config, environment and grids, and set the status; a failure is a warning."""
        stopped = isinstance(error, (Interrupted, StopTraining, KeyboardInterrupt))
        try:
            for name in ("config.yaml", "environment.json", "metrics.jsonl"):
                if (self.folder / name).is_file():
                    self.client.log_artifact(self.run_id, str(self.folder / name))
            for path in sorted((self.folder / "grids").glob("*.png")):
                self.client.log_artifact(self.run_id, str(path), "grids")
            status = "KILLED" if stopped else "FAILED" if error else "FINISHED"
            self.client.set_terminated(self.run_id, status)
        except Exception as fault:  # any error of the store
            if not self.failed:  # else an earlier failure was reported
                log.warning(
                    "MLflow took no artifacts (%s); the run itself is whole", _first_line(fault)
                )


def check_store(uri: str) -> None:
    """Raise UserError if no MLflow store answers at this address."""
    try:
        load_mlflow().MlflowClient(tracking_uri=uri).get_experiment_by_name(EXPERIMENT)
    except UserError:
        raise
    except Exception as error:  # any error of the store concerns the address
        raise UserError(f"--mlflow {uri}: {_first_line(error)}") from error


def load_mlflow() -> Any:
    """Import `mlflow`. Raises UserError with the install command if it is missing."""
    return require("mlflow", "mlflow", where="--mlflow", instead="or leave it out")


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:160]
