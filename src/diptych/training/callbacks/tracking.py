"""What a run shows elsewhere than in its own files: histograms and text for TensorBoard, MLflow.

TensorBoard's events are written without TensorFlow (see `diptych.training.callbacks.journal`).
MLflow is optional:

    pip install 'diptych[mlflow]'     diptych train mnist --out RUN --mlflow sqlite:///mlflow.db

keeps one MLflow run for the run folder, however often it is resumed (RUN/mlflow.json names it).
"""

from __future__ import annotations

import importlib
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from tensorboard.compat.proto.histogram_pb2 import HistogramProto
from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
from tensorboard.compat.proto.types_pb2 import DT_STRING

from diptych.config.load import Config, flatten
from diptych.errors import MachineError, UserError
from diptych.files import read_json, write_json
from diptych.network.plan import Plan, parameter_table

BINS = 30
MLFLOW_SCALARS = ("loss", "grad_norm", "lr", "compute_s", "data_s", "memory_mb")


def histogram(tag: str, values: np.ndarray[Any, Any]) -> Any:
    """One histogram of finite values for TensorBoard, 30 bins between its ends."""
    flat = np.asarray(values, np.float64).ravel()
    flat = flat[np.isfinite(flat)]
    if not flat.size:
        flat = np.zeros(1)
    counts, edges = np.histogram(flat, bins=BINS)
    proto = HistogramProto(
        min=float(flat.min()), max=float(flat.max()), num=flat.size, sum=float(flat.sum()),
        sum_squares=float((flat * flat).sum()), bucket_limit=edges[1:].tolist(),
        bucket=counts.astype(float).tolist(),
    )  # fmt: skip
    return Summary.Value(tag=tag, histo=proto)


def text(tag: str, words: str) -> Any:
    """Markdown for TensorBoard's text page."""
    plugin = SummaryMetadata.PluginData(plugin_name="text")
    shape = TensorShapeProto(dim=[TensorShapeProto.Dim(size=1)])
    tensor = TensorProto(dtype=DT_STRING, string_val=[words.encode()], tensor_shape=shape)
    return Summary.Value(tag=tag, metadata=SummaryMetadata(plugin_data=plugin), tensor=tensor)


def gradient_histograms(gradients: Mapping[str, np.ndarray[Any, Any]]) -> list[Any]:
    """One histogram for each part of the network: down.0, mid, up.1, ..., by the official names."""
    parts: dict[str, list[np.ndarray[Any, Any]]] = {}
    for name, values in gradients.items():
        words = name.split(".")
        part = ".".join(words[:2]) if words[0] in ("down", "up") else words[0]
        parts.setdefault(part, []).append(values.ravel())
    return [histogram(f"gradients/{part}", np.concatenate(all_)) for part, all_ in parts.items()]


def blueprint_text(plan: Plan) -> str:
    """The network as a Markdown table: every weight, its shape, and their number."""
    table = parameter_table(plan)
    total = sum(int(np.prod(each.shape)) for each in table.values())
    rows = [f"| `{name}` | {'x'.join(map(str, each.shape))} |" for name, each in table.items()]
    head = (
        f"{len(table)} weights, {total:,} numbers; images {plan.channels}x{plan.size}x{plan.size}"
    )
    return "\n".join([head, "", "| weight | shape |", "|---|---|", *rows])


class Mlflow:
    """One run of MLflow for one run folder.

    Raises:
        UserError: MLflow is not installed, or refuses the address.
    """

    def __init__(self, uri: str, run: Path, config: Config, backend: str) -> None:
        module = load_mlflow()
        self.folder, self.failed = run, False
        self.sent = 0  # the last step that the store has
        note = run / "mlflow.json"
        before = read_json(note) if note.is_file() else {}
        opened = before.get("run_id") if before.get("uri") == uri else None
        try:
            self.client = module.MlflowClient(tracking_uri=uri)
            self.run_id = str(opened) if opened else self._create(config, backend)
            if opened:
                self._reopen()
        except Exception as error:  # whatever a store raises, it is about the address
            other = f"; to begin another MLflow run, remove {note}" if opened else ""
            raise UserError(f"--mlflow {uri}: {_first_line(error)}{other}") from error
        write_json(note, {"uri": uri, "run_id": self.run_id})
        self.entities = importlib.import_module("mlflow.entities")

    def _reopen(self) -> None:
        self.client.set_terminated(self.run_id, "RUNNING")
        known = self.client.get_metric_history(self.run_id, "train/loss")
        self.sent = max((metric.step for metric in known), default=0)

    def _create(self, config: Config, backend: str) -> str:
        found = self.client.get_experiment_by_name("diptych")
        where = found.experiment_id if found else self.client.create_experiment("diptych")
        created = self.client.create_run(where, run_name=self.folder.name)
        run_id = str(created.info.run_id)
        for key, value in {"backend": backend, **flatten(config)}.items():
            self.client.log_param(run_id, key, value)
        return run_id

    def rows(self, rows: list[dict[str, Any]]) -> None:
        """The journal's rows as metrics, in batches of MLflow's own limit.

        Steps that a resumed training does again are in the store already, and would be there twice.
        Where the store is lost, that is said once, and no row is sent any more: a training does
        not end, nor wait again and again, because its copy elsewhere does.
        """
        rows = [row for row in rows if row["step"] > self.sent]
        if self.failed or not rows:
            return
        try:
            self._send(rows)
        except Exception as error:  # whatever a store raises
            self.failed = True
            print(
                f"diptych: MLflow took no metrics from step {rows[0]['step']} on "
                f"({_first_line(error)}); the training goes on without it, its own records are "
                f"whole",
                file=sys.stderr,
            )

    def _send(self, rows: list[dict[str, Any]]) -> None:
        now = int(time.time() * 1000)
        metric = self.entities.Metric
        found = [
            metric(f"train/{key}", float(row[key]), now, row["step"])
            for row in rows for key in MLFLOW_SCALARS
        ]  # fmt: skip
        for first in range(0, len(found), 1000):
            self.client.log_batch(self.run_id, metrics=found[first : first + 1000])

    def close(self, status: str) -> None:
        """Config, environment and grids as artifacts; `FINISHED`, `KILLED` or `FAILED`.

        Raises:
            MachineError: the store took them not; only where that is news.
        """
        try:
            for name in ("config.yaml", "environment.json", "metrics.jsonl"):
                if (self.folder / name).is_file():
                    self.client.log_artifact(self.run_id, str(self.folder / name))
            for path in sorted((self.folder / "grids").glob("*.png")):
                self.client.log_artifact(self.run_id, str(path), "grids")
            self.client.set_terminated(self.run_id, status)
        except Exception as error:
            if self.failed:
                return
            raise MachineError(
                f"MLflow took no artifacts ({_first_line(error)}); the run itself is whole"
            ) from error


def load_mlflow() -> Any:
    """The module `mlflow`, or one line that says how to get it."""
    try:
        return importlib.import_module("mlflow")
    except ImportError as error:
        raise UserError(
            "--mlflow: MLflow is not installed; pip install 'diptych[mlflow]', or leave it out"
        ) from error


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:160]
