"""Callbacks: what looks on while a run trains, and never reaches its numbers.

    rows of metrics.jsonl (`journal`), TensorBoard (`tensorboard`), MLflow (`mlflow`), resources and
    events (`resources`), and the user's own functions (`Function`)

`usual` makes those of a run; `Callbacks` is all of them as one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from diptych.backends.protocol import Batch, Learner
from diptych.types import Pixels

Row = dict[str, Any]


class Callback:
    """One looker-on. Every method may be left out; here they do nothing."""

    def start(self, step: int) -> None:
        """The run goes on after `step`; 0: it begins."""

    def begin(self) -> None:
        """A step's computing begins."""

    def end(self, step: int, seconds: float) -> Row:
        """A step's computing took `seconds`; gives further keys for its row."""
        return {}

    def stepped(self, learner: Learner, batch: Batch) -> None:
        """A step is done, and its row is waiting."""

    def rows(self, rows: Sequence[Row]) -> None:
        """Rows in the order of their steps, every number read: see `Rows`."""

    def image(self, name: str, picture: Pixels, step: int) -> None:
        """A picture (C, H, W) was drawn from the weights after `step`."""

    @contextmanager
    def event(self, kind: str, step: int) -> Iterator[None]:
        """Something that interrupts the steps is done inside."""
        yield

    def close(self, error: BaseException | None) -> None:
        """The training ends; `error` is what ended it before its last step, or nothing."""


class Callbacks(Callback):
    """Several as one, each asked in turn."""

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
        for each in self.members:
            each.stepped(learner, batch)

    def rows(self, rows: Sequence[Row]) -> None:
        for each in self.members:
            each.rows(rows)

    def image(self, name: str, picture: Pixels, step: int) -> None:
        for each in self.members:
            each.image(name, picture, step)

    @contextmanager
    def event(self, kind: str, step: int) -> Iterator[None]:
        with ExitStack() as stack:
            for each in self.members:
                stack.enter_context(each.event(kind, step))
            yield

    def close(self, error: BaseException | None) -> None:
        with ExitStack() as stack:  # each is closed, whatever another one raises
            for each in reversed(self.members):
                stack.callback(each.close, error)


class Function(Callback):
    """A function of the user's, called with each row: a copy, with `seconds` of the whole step."""

    def __init__(self, function: Callable[[Row], object]) -> None:
        self.function = function

    def rows(self, rows: Sequence[Row]) -> None:
        for row in rows:
            self.function({**row, "seconds": row["data_s"] + row["compute_s"]})
