"""The logs of a report, paired, and cited by their own files and columns."""

from __future__ import annotations

from dataclasses import dataclass

from diptych.logs import Log
from diptych.pages.template import Source
from diptych.report.numbers.logs import LogNumbers, LogPair
from diptych.report.sources.collection import Study


@dataclass(frozen=True)
class LogStudy(Study):
    """Logs as the inputs of a report: every number is cited from the log itself."""

    numbers: tuple[LogNumbers, ...]
    pairs: tuple[LogPair, ...]

    @property
    def logs(self) -> list[Log]:
        """The logs."""
        return [each.log for each in self.numbers]

    def source(self, run: int, file: str, fields: str) -> Source:
        """Cite columns of a log, under their own names."""
        log = self.numbers[run].log
        names = {"data_s": "step_time", "compute_s": "step_time", "memory_mb": "memory"}
        asked = [names.get(field, field) for field in fields.split(", ")]
        own = [log.columns.of[role] for role in asked if role in log.columns.of]
        return self.cite(log.file, ", ".join(dict.fromkeys(own)) or "all")


def numbers_of(
    logs: list[Log], labels: list[str]
) -> tuple[tuple[LogNumbers, ...], tuple[LogPair, ...]]:
    """The numbers of logs, and of the first with each other."""
    numbers = tuple(map(LogNumbers, logs, labels))
    pairs = tuple(
        LogPair(numbers[0], each, (0, i), False, ()) for i, each in enumerate(numbers[1:], start=1)
    )
    return numbers, pairs
