"""TensorBoard: a run's scalars, grids, gradients and network, written without TensorFlow.

Written in the training's own thread, since an event takes microseconds: TensorBoard's own writer
has a thread, in which a full disk shows as a traceback, or as a wait without end. Histograms, which
take seconds for a large network, are counted in a thread and written with the next rows.
"""

from __future__ import annotations

import io
import logging
import os
import re
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from tensorboard.compat.proto.attr_value_pb2 import AttrValue
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.graph_pb2 import GraphDef
from tensorboard.compat.proto.histogram_pb2 import HistogramProto
from tensorboard.compat.proto.node_def_pb2 import NodeDef
from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
from tensorboard.compat.proto.types_pb2 import DT_STRING
from tensorboard.compat.proto.versions_pb2 import VersionDef
from tensorboard.summary.writer.record_writer import RecordWriter

from diptych.backends.protocol import Batch, Learner
from diptych.figures.grids import to_picture
from diptych.files import machine_faults
from diptych.network.graph import network_graph
from diptych.network.own import AnyPlan
from diptych.network.parameters import parameter_table
from diptych.network.plan import Plan
from diptych.training.callbacks import SCALARS, VALIDATION, Callback, Row
from diptych.types import Pixels

log = logging.getLogger(__name__)

BINS = 30


class TensorBoard(Callback):
    """The writer of RUN/tensorboard/.

    Args:
        run: the run folder.
        plan: the network's plan, shown once as a table and as a graph.
        histograms: show the gradients every this many steps; 0: never.
        event: records slow work, as `Callback.event` does.
    """

    def __init__(
        self,
        run: Path,
        plan: AnyPlan,
        histograms: int,
        event: Callable[[str, int], AbstractContextManager[None]],
    ) -> None:
        self.run, self.plan, self.histograms, self.event_of = run, plan, histograms, event
        self.events: RecordWriter | None = None
        self.pool = ThreadPoolExecutor(1, thread_name_prefix="diptych-histograms")
        self.counted: tuple[int, Future[list[Any]]] | None = None  # the step, its histograms

    def start(self, step: int) -> None:
        folder = self.run / "tensorboard"
        with machine_faults(f"writing {folder}"):
            folder.mkdir(exist_ok=True)
            now = time.time_ns()
            name = f"events.out.tfevents.{now // 10**9}.{socket.gethostname()}.{os.getpid()}.{now}"
            self.events = RecordWriter((folder / name).open("xb"))
        self._write(Event(wall_time=time.time(), file_version="brain.Event:2"))
        # Tells TensorBoard to discard events that an interrupted start wrote after this step.
        start = SessionLog(status=SessionLog.START)
        self._write(Event(step=step + 1, wall_time=time.time(), session_log=start))
        if not step and isinstance(self.plan, Plan):
            self.add(step, [text("blueprint", network_text(self.plan))])
            graph = graph_def(self.plan).SerializeToString()
            self._write(Event(wall_time=time.time(), graph_def=graph))

    def add(self, step: int, values: list[Any]) -> None:
        """Write summaries for a step."""
        self._write(Event(step=step, wall_time=time.time(), summary=Summary(value=values)))

    def _write(self, event: Any) -> None:
        self._guarded(lambda events: events.write(event.SerializeToString()))

    def _guarded(self, act: Callable[[Any], object]) -> None:
        """Use the event file. If that fails, the record ends here, and the training goes on."""
        if self.events is None:
            return
        try:
            act(self.events)
        except OSError as error:
            log.warning(
                "%s: the record ends early (%s); the training goes on",
                self.run / "tensorboard",
                error.strerror or error,
            )
            broken, self.events = self.events, None
            with suppress(OSError):
                broken.close()

    def rows(self, rows: Sequence[Row]) -> None:
        for row in rows:
            values = [Summary.Value(tag=f"train/{key}", simple_value=row[key]) for key in SCALARS]
            if VALIDATION in row:
                values.append(Summary.Value(tag="validation/loss", simple_value=row[VALIDATION]))
            self.add(row["step"], values)
        if self.counted is not None and self.counted[1].done():
            self._add_histograms()
        self._guarded(lambda events: events.flush())

    def stepped(self, learner: Learner, batch: Batch) -> None:
        """Compute the batch's gradients after its step, if due; a thread counts them."""
        if self.histograms and batch.step % self.histograms == 0:
            with self.event_of("histograms", batch.step):
                self._add_histograms()
                gradients = learner.gradients(batch)[1]
                self.counted = batch.step, self.pool.submit(gradient_histograms, gradients)

    def _add_histograms(self) -> None:
        """Write the histograms that were begun, once they are counted."""
        if self.counted is not None:
            (step, counts), self.counted = self.counted, None
            self.add(step, counts.result())

    def image(self, name: str, picture: Pixels, step: int) -> None:
        channels, height, width = picture.shape
        encoded = io.BytesIO()
        to_picture(picture).save(encoded, format="PNG")
        image = Summary.Image(
            height=height,
            width=width,
            colorspace=channels,
            encoded_image_string=encoded.getvalue(),
        )
        self.add(step, [Summary.Value(tag=name, image=image)])

    def close(self, error: BaseException | None) -> None:
        self._add_histograms()
        self.pool.shutdown()
        self._guarded(lambda events: events.close())
        self.events = None


def histogram(tag: str, values: np.ndarray[Any, Any]) -> Any:
    """A TensorBoard histogram of the finite values: 30 bins between the extremes."""
    flat = np.asarray(values, np.float64).ravel()
    flat = flat[np.isfinite(flat)]
    if not flat.size:
        flat = np.zeros(1)
    counts, edges = np.histogram(flat, bins=BINS)
    proto = HistogramProto(
        min=float(flat.min()),
        max=float(flat.max()),
        num=flat.size,
        sum=float(flat.sum()),
        sum_squares=float((flat * flat).sum()),
        bucket_limit=edges[1:].tolist(),
        bucket=counts.astype(float).tolist(),
    )
    return Summary.Value(tag=tag, histo=proto)


def text(tag: str, words: str) -> Any:
    """Markdown for TensorBoard's text page."""
    plugin = SummaryMetadata.PluginData(plugin_name="text")
    shape = TensorShapeProto(dim=[TensorShapeProto.Dim(size=1)])
    tensor = TensorProto(dtype=DT_STRING, string_val=[words.encode()], tensor_shape=shape)
    return Summary.Value(tag=tag, metadata=SummaryMetadata(plugin_data=plugin), tensor=tensor)


def gradient_histograms(gradients: Mapping[str, np.ndarray[Any, Any]]) -> list[Any]:
    """One histogram per part of the network: down.0, mid, up.1, ..., by the official names."""
    parts: dict[str, list[np.ndarray[Any, Any]]] = {}
    for name, values in gradients.items():
        words = name.split(".")
        part = ".".join(words[:2]) if words[0] in ("down", "up") else words[0]
        parts.setdefault(part, []).append(values.ravel())
    return [histogram(f"gradients/{part}", np.concatenate(all_)) for part, all_ in parts.items()]


def graph_def(plan: Plan) -> Any:
    """The network for TensorBoard's Graphs page: a node per layer (`down.0/block.0/conv1`), with
    the shapes of its output (the batch is -1) and of its weights."""
    weights: dict[str, list[str]] = {}
    for name, parameter in parameter_table(plan).items():
        owner, _, kind = name.rpartition(".")
        sizes = "x".join(map(str, parameter.shape))
        weights.setdefault(owner, []).append(f"{kind} {sizes}")
    nodes = []
    for layer in network_graph(plan):
        sides = [TensorShapeProto.Dim(size=size) for size in (-1, *layer.shape)]
        shape = AttrValue.ListValue(shape=[TensorShapeProto(dim=sides)])
        attributes = {"_output_shapes": AttrValue(list=shape)}
        if layer.name in weights:
            attributes["weights"] = AttrValue(s=", ".join(weights[layer.name]).encode())
        path, *inputs = [re.sub(r"\.(?!\d)", "/", name) for name in (layer.name, *layer.inputs)]
        nodes.append(NodeDef(name=path, op=layer.kind, input=inputs, attr=attributes))
    return GraphDef(node=nodes, versions=VersionDef(producer=22))


def network_text(plan: Plan) -> str:
    """The network as a Markdown table: every weight with its shape, and the totals."""
    table = parameter_table(plan)
    total = sum(int(np.prod(each.shape)) for each in table.values())
    rows = [f"| `{name}` | {'x'.join(map(str, each.shape))} |" for name, each in table.items()]
    head = f"{len(table)} weights, {total:,} numbers; images {'x'.join(map(str, plan.shape))}"
    return "\n".join([head, "", "| weight | shape |", "|---|---|", *rows])
