"""Resources and events of a run (`diptych.runs.watch`) as a callback."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from diptych.backends.protocol import Backend
from diptych.runs.watch import Watch
from diptych.training.callbacks import Callback, Row


class Resources(Callback):
    """The writer of resources.jsonl and events.jsonl; adds each step's cost to its row.

    Args:
        run: the run folder.
        on: False records nothing.
        backend: provides the device to watch and the counters to read.
    """

    def __init__(self, run: Path, on: bool, backend: Backend) -> None:
        self.watch = Watch(run, on, backend.device, backend.counters)

    def start(self, step: int) -> None:
        self.watch.__enter__()

    def begin(self) -> None:
        self.watch.begin()

    def end(self, step: int, seconds: float) -> Row:
        return self.watch.end(step, seconds)

    def rows(self, rows: Sequence[Row]) -> None:
        self.watch.count()

    @contextmanager
    def event(self, kind: str, step: int) -> Iterator[None]:
        with self.watch.event(kind, step):
            yield

    def close(self, error: BaseException | None) -> None:
        self.watch.close()
