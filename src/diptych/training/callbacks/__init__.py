"""Callbacks: observers of a training run that never affect its numbers.

    rows of metrics.jsonl (`journal`), TensorBoard (`tensorboard`), MLflow (`mlflow`), resources and
    events (`resources`), and the user's own functions (`Function`)

`usual` makes the callbacks of a run; `Callbacks` combines them into one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, TypeVar

from diptych.backends.protocol import Batch, Learner
from diptych.errors import StopTraining
from diptych.types import Pixels

T = TypeVar("T")
Row = dict[str, Any]
# Of a row, as other programs show them; the loss of held-out images is only in some rows.
SCALARS = ("loss", "grad_norm", "lr", "compute_s", "data_s", "memory_mb")
VALIDATION = "validation_loss"


class Callback:
    """An observer of a run. Every method is optional and does nothing by default.

    `rows`, `stepped` and `image` may raise `StopTraining`: the run is saved after the step at hand.
    """

    def start(self, step: int) -> None:
        """Called before the first step; the run continues after `step`, or begins if it is 0."""

    def begin(self) -> None:
        """Called before a step is computed."""

    def end(self, step: int, seconds: float) -> Row:
        """Called after a step's `seconds` of data and computation; returns more of its row."""
        return {}

    def stepped(self, learner: Learner, batch: Batch) -> None:
        """Called when a step is done and its row is waiting."""

    def rows(self, rows: Sequence[Row]) -> None:
        """Called with rows in step order, all device scalars read; see `Rows`."""

    def image(self, name: str, picture: Pixels, step: int) -> None:
        """Called with a picture (C, H, W) generated from the weights after `step`."""

    @contextmanager
    def event(self, kind: str, step: int) -> Iterator[None]:
        """Context of work that interrupts the steps, such as a checkpoint."""
        yield

    def close(self, error: BaseException | None) -> None:
        """Called at the end; `error` ended the training before its last step, or is None."""


class Callbacks(Callback):
    """Several callbacks as one, called in turn."""

    def __init__(self, members: Sequence[Callback]) -> None:
        self.members = tuple(members)

    def start(self, step: int) -> None:
        for each in self.members:
            each.start(step)

    def begin(self) -> None:
        for each in self.members:
            each.begin()

    def end(self, step: int, seconds: float) -> Row:
        found: Row = {}
        for each in self.members:
            found |= each.end(step, seconds)
        return found

    def stepped(self, learner: Learner, batch: Batch) -> None:
        all_of(lambda each: each.stepped(learner, batch), self.members)

    def rows(self, rows: Sequence[Row]) -> None:
        all_of(lambda each: each.rows(rows), self.members)

    def image(self, name: str, picture: Pixels, step: int) -> None:
        all_of(lambda each: each.image(name, picture, step), self.members)

    @contextmanager
    def event(self, kind: str, step: int) -> Iterator[None]:
        with ExitStack() as stack:
            for each in self.members:
                stack.enter_context(each.event(kind, step))
            yield

    def close(self, error: BaseException | None) -> None:
        with ExitStack() as stack:  # closes each, even if another raises
            for each in reversed(self.members):
                stack.callback(each.close, error)


class Function(Callback):
    """A user's function, called with a copy of each row plus `seconds` of the whole step."""

    def __init__(self, function: Callable[[Row], object]) -> None:
        self.function = function

    def rows(self, rows: Sequence[Row]) -> None:
        all_of(
            lambda row: self.function({**row, "seconds": row["data_s"] + row["compute_s"]}), rows
        )


def all_of(call: Callable[[T], object], items: Iterable[T]) -> None:
    """Call it with each; a `StopTraining` is raised in the end, so that nobody misses a step."""
    asked: StopTraining | None = None
    for each in items:
        try:
            call(each)
        except StopTraining as stop:
            asked = asked or stop
    if asked is not None:
        raise asked
