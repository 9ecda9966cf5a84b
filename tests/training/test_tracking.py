"""TensorBoard and MLflow records of a run, written by real trainings with both backends."""

from __future__ import annotations

import sys
import threading
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.compat.proto.graph_pb2 import GraphDef

from conftest import Panel
from diptych.errors import Interrupted, StopTraining, UserError
from diptych.network.graph import network_graph
from diptych.network.parameters import parameter_table
from diptych.network.plan import make_plan
from diptych.runs.watch import read_events
from diptych.training.callbacks import SCALARS, Callbacks, Function, tensorboard
from diptych.training.callbacks.mlflow import Mlflow
from diptych.training.callbacks.tensorboard import (
    TensorBoard,
    gradient_histograms,
    histogram,
    text,
)
from diptych.training.callbacks.usual import Recording
from panel_jobs import NARROW, small
from watch_jobs import computed_layers, events_failing, trained_with_and_without

CONFIG = small(*NARROW, "train.steps=7", "train.log_every=2", "train.grid_every=6")


def test_tensorboard_shows_scalars_grids_histograms_and_the_blueprint(
    panel: Panel, tmp_path: Path
) -> None:
    """Every third step's gradients by part of the network; the losses are those without them."""
    rows, plain = panel.call(trained_with_and_without, panel.name, CONFIG, tmp_path)
    assert [row["loss"] for row in rows] == [row["loss"] for row in plain]
    assert "ended" in rows[0] and "ended" not in plain[0]
    assert not (tmp_path / "off" / "events.jsonl").exists()
    shown = EventAccumulator(str(tmp_path / "on" / "tensorboard"), {"histograms": 0, "tensors": 0})
    shown.Reload()
    tags: Any = shown.Tags()
    assert {"train/loss", "train/lr"} <= set(tags["scalars"]) and tags["images"] == ["samples"]
    parts = {name.partition(".")[0] for name in parameter_table(make_plan(CONFIG))}
    assert {tag.split("/")[1].partition(".")[0] for tag in tags["histograms"]} == parts
    assert [event.step for event in shown.Histograms("gradients/mid")] == [3, 6]
    blueprint = shown.Tensors("blueprint")[0].tensor_proto.string_val[0].decode()
    assert "| `conv_in.weight` | 8x1x3x3 |" in blueprint
    graph: Any = shown.Graph()
    names = [node.name for node in graph.node]
    assert len(set(names)) == len(names) and "down.0/block.0/conv1" in names
    by_name = {node.name: node for node in graph.node}
    conv = by_name["down.1/block.0/conv1"]
    assert conv.attr["weights"].s == b"weight 16x8x3x3, bias 16"
    (shape,) = conv.attr["_output_shapes"].list.shape
    assert [dim.size for dim in shape.dim] == [-1, 16, 7, 7]
    kinds = [event["kind"] for event in read_events(tmp_path / "on")]
    assert kinds.count("histograms") == 2 and kinds.count("grid") == 1


@pytest.mark.parametrize("changes", [("model.num_classes=3",), ("model.resamp_with_conv=false",)])
def test_the_graph_is_the_network_that_runs(panel: Panel, changes: tuple[str, ...]) -> None:
    """Every innermost module, its output's shape, and every edge without an operator between."""
    config = small("model.dropout=0", *changes)
    layers = network_graph(make_plan(config))
    graph = {layer.name: layer for layer in layers}
    computed = panel.call(computed_layers, panel.name, config)
    weights = parameter_table(make_plan(config))
    assert {name.rpartition(".")[0] for name in weights} <= set(computed) <= set(graph)
    for name, (shape, inputs) in computed.items():
        assert graph[name].shape == shape, name
        assert inputs <= set(graph[name].inputs), name
    assert sum(len(inputs) for _, inputs in computed.values()) > 10
    used = {name for layer in layers for name in layer.inputs}
    assert [layer.name for layer in layers if layer.name not in used] == ["conv_out"]
    seen: set[str] = set()
    for layer in layers:  # in order of computation, so without a circle
        assert seen >= set(layer.inputs) and layer.name not in seen
        seen.add(layer.name)


def test_a_failing_event_file_ends_the_record_and_not_the_training(
    panels: dict[str, Panel], tmp_path: Path
) -> None:
    """Every write, flush and close in turn; nothing else is lost, and one line says so."""
    config = small(*NARROW, "train.steps=2", "train.log_every=1", "train.grid_every=0")
    *failed, whole = panels["torch"].call(events_failing, "torch", config, tmp_path)
    assert len(failed) > 6 and whole["lines"] == [] and len(whole["losses"]) == 2
    for found in failed:
        (line,) = found.pop("lines")
        assert "tensorboard: the record ends early (No space left on device); the training" in line
        assert found == {key: value for key, value in whole.items() if key != "lines"}


def test_a_resumed_training_shows_its_steps_and_its_blueprint_once(tmp_path: Path) -> None:
    """Steps after the last checkpoint are done again: TensorBoard forgets the first ones."""
    for start in (0, 2):
        shown = TensorBoard(tmp_path, make_plan(CONFIG), 0, lambda kind, step: nullcontext())
        shown.start(start)
        shown.rows([{"step": step, **dict.fromkeys(SCALARS, 1.0)} for step in range(start + 1, 5)])
        shown.close(None)
    read = EventAccumulator(str(tmp_path / "tensorboard"), {"tensors": 0})
    read.Reload()
    assert [event.step for event in read.Scalars("train/loss")] == [1, 2, 3, 4]
    assert [event.step for event in read.Tensors("blueprint")] == [0]
    graph: GraphDef = read.Graph()
    assert len(graph.node) == len(network_graph(make_plan(CONFIG)))


def test_histograms_hold_every_finite_number() -> None:
    """Counts, ends and moments; a NaN is left out, and nothing at all is one zero."""
    proto = histogram("x", np.array([1.0, 2.0, np.nan, 4.0])).histo
    assert (proto.num, proto.min, proto.max, sum(proto.bucket)) == (3, 1.0, 4.0, 3)
    assert (proto.sum, proto.sum_squares, len(proto.bucket)) == (7.0, 21.0, 30)
    assert histogram("x", np.array([np.nan])).histo.num == 1
    gradients = {"down.0.block.0.conv1.weight": np.ones(3), "temb.dense.0.bias": np.ones(2)}
    found = gradient_histograms({**gradients, "down.0.block.1.conv1.weight": np.ones(4)})
    assert {value.tag: value.histo.num for value in found} == {
        "gradients/down.0": 7, "gradients/temb": 2,
    }  # fmt: skip
    assert text("a", "b").metadata.plugin_data.plugin_name == "text"


def test_without_mlflow_one_line_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is done."""
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(UserError, match=r"--mlflow: mlflow is not installed; pip install"):
        Recording(mlflow="file:///nowhere").check()
    Recording().check()


def test_a_store_that_does_not_answer_is_told_before_a_run_is_replaced(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", SimpleNamespace(MlflowClient=FakeClient))
    with pytest.raises(UserError, match=r"--mlflow bad: no such store$"):
        Recording(mlflow="bad").check()
    Recording(mlflow="sqlite:///x").check()


def test_a_callback_that_stops_hides_no_row_from_itself_and_the_others() -> None:
    seen: dict[str, list[int]] = {"stops": [], "goes on": []}

    def stops(row: Any) -> None:
        seen["stops"].append(row["step"])
        if row["step"] >= 2:
            raise StopTraining(f"at {row['step']}")

    rows = [{"step": k, "data_s": 0.0, "compute_s": 1.0} for k in range(1, 6)]
    members = [Function(stops), Function(lambda row: seen["goes on"].append(row["step"]))]
    with pytest.raises(StopTraining, match="at 2"):
        Callbacks(members).rows(rows)
    assert seen == {"stops": [1, 2, 3, 4, 5], "goes on": [1, 2, 3, 4, 5]}


class FakeClient:
    """MLflow's client as far as it is used."""

    def __init__(self, tracking_uri: str) -> None:
        if "bad" in tracking_uri:
            raise RuntimeError("no such store\nwith details")
        self.lost: tuple[str, ...] = ()
        self.calls: list[tuple[Any, ...]] = []

    known: tuple[int, ...] = ()  # steps that the store has

    def get_metric_history(self, run_id: str, key: str) -> list[Any]:
        return [SimpleNamespace(step=step) for step in self.known]

    def get_experiment_by_name(self, name: str) -> None:
        return None

    def create_experiment(self, name: str) -> str:
        return "7"

    def create_run(self, where: str, run_name: str) -> Any:
        return SimpleNamespace(info=SimpleNamespace(run_id="r1"))

    def __getattr__(self, name: str) -> Any:
        def call(*words: Any, **named: Any) -> None:
            self.calls.append((name, *words, *named.values()))
            if name == "log_artifact" and "broken" in str(words[1]):
                raise OSError("store is gone")
            if name in self.lost:
                raise OSError("connection refused\nwith details")

        return call


def test_mlflow_follows_a_run_and_its_resumption(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Against a stand-in: params once, metrics by step, artifacts, and one run for two starts."""
    entities = SimpleNamespace(Metric=lambda *words: words)
    monkeypatch.setitem(sys.modules, "mlflow", SimpleNamespace(MlflowClient=FakeClient))
    monkeypatch.setitem(sys.modules, "mlflow.entities", entities)
    (tmp_path / "grids").mkdir()
    (tmp_path / "grids" / "step-1.png").touch()
    (tmp_path / "config.yaml").touch()
    first = Mlflow("sqlite:///x", tmp_path, CONFIG, "torch")
    row = {"step": 3, **dict.fromkeys(("loss", "grad_norm", "lr"), 0.5),
           **dict.fromkeys(("compute_s", "data_s", "memory_mb"), 1.0)}  # fmt: skip
    first.rows([row])
    first.close(None)
    calls: Any = first.client.calls
    assert ("log_param", "r1", "backend", "torch") in calls
    metrics = next(call[2] for call in calls if call[0] == "log_batch")
    assert metrics[0][:2] == ("train/loss", 0.5) and metrics[0][3] == 3
    assert [Path(call[2]).name for call in calls if call[0] == "log_artifact"] == [
        "config.yaml", "step-1.png",
    ]  # fmt: skip
    monkeypatch.setattr(FakeClient, "known", (1, 2, 3))
    again = Mlflow("sqlite:///x", tmp_path, CONFIG, "torch")
    again.rows([row])  # done again after a crash
    again.rows([row, {**row, "step": 4}])
    sent: Any = [call[2] for call in again.client.calls if call[0] == "log_batch"]
    assert [{metric[3] for metric in metrics} for metrics in sent] == [{4}]
    assert again.run_id == "r1" and not any(c[0] == "log_param" for c in again.client.calls)
    with pytest.raises(UserError, match=r"no such store$"):
        Mlflow("bad", tmp_path, CONFIG, "torch")
    (tmp_path / "grids" / "broken.png").touch()
    again.close(None)
    assert "MLflow took no artifacts (store is gone); the run itself is whole" in caplog.text
    (tmp_path / "grids" / "broken.png").unlink()
    for error, status in ((None, "FINISHED"), (Interrupted("", 15), "KILLED"),
                          (StopTraining(), "KILLED"), (UserError(""), "FAILED")):  # fmt: skip
        again.close(error)
        assert again.client.calls[-1] == ("set_terminated", "r1", status)


def test_a_store_that_is_lost_ends_no_training(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Said once; no row is sent after it; at the end it is tried again, and nothing more said."""
    entities = SimpleNamespace(Metric=lambda *words: words)
    monkeypatch.setitem(sys.modules, "mlflow", SimpleNamespace(MlflowClient=FakeClient))
    monkeypatch.setitem(sys.modules, "mlflow.entities", entities)
    tracked = Mlflow("sqlite:///x", tmp_path, CONFIG, "torch")
    tracked.client.lost = ("log_batch", "set_terminated")
    for step in (3, 4):
        tracked.rows([{"step": step, **dict.fromkeys(SCALARS, 1.0)}])
    tracked.close(None)
    assert len(caplog.records) == 1
    said = caplog.text
    assert "from step 3 on (connection refused); the training" in said
    calls = [call[0] for call in tracked.client.calls]
    assert calls.count("log_batch") == 1 and calls.count("set_terminated") == 1


def test_a_step_does_not_wait_for_its_histograms(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are counted in a thread, and written with later rows, or at the end."""
    counting = threading.Event()

    def slow(gradients: Any) -> list[Any]:
        assert counting.wait(300)
        return gradient_histograms(gradients)

    monkeypatch.setattr(tensorboard, "gradient_histograms", slow)
    learner: Any = SimpleNamespace(gradients=lambda batch: (0.0, {"mid.w": np.arange(4.0)}))
    batch: Any = SimpleNamespace(step=1)
    board = tensorboard.TensorBoard(tmp_path, make_plan(CONFIG), 1, lambda *_: nullcontext())
    board.start(1)
    board.stepped(learner, batch)
    board.rows([])  # not counted yet
    assert board.counted is not None
    counting.set()
    board.close(None)
    shown = EventAccumulator(str(tmp_path / "tensorboard"), {"histograms": 0})
    shown.Reload()
    (event,) = shown.Histograms("gradients/mid")
    assert event.step == 1 and event.histogram_value.num == 4
