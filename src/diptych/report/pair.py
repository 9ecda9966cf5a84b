"""The two runs of a comparison and the names they go by."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from matplotlib.figure import Figure

from diptych.figures.charts import Theme
from diptych.runs.reader import Run


@dataclass(frozen=True)
class Pair:
    """The two runs and the names they go by."""

    a: Run
    b: Run
    names: tuple[str, str]

    def coloured(self, theme: Theme) -> list[tuple[Run, str, str]]:
        """(run, name, colour) of both."""
        colours = theme.pair(self.a.backend, self.b.backend)
        return [(self.a, self.names[0], colours[0]), (self.b, self.names[1], colours[1])]


Draw = Callable[[Pair, Theme], Figure]
