"""The page of a report: one HTML file that opens from disk, with everything inside.

The template lays out blocks; every word comes from the catalogue, every number from records.
plotly.js (the basic bundle, MIT, see `assets/`) is embedded once; nothing is loaded from elsewhere.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from importlib.resources import files
from typing import Any

from markupsafe import Markup

from diptych._version import __version__
from diptych.figures.charts import DARK, LIGHT
from diptych.report.blocks import Plot, Section, Table
from diptych.report.catalogue import Text, catalogue
from diptych.report.chapters_short import Tile
from diptych.report.markdown import FILES
from diptych.report.static import palette
from diptych.report.template import data_uri, fill
from diptych.report.wording import Source, words

PLOTLY = "plotly-basic.min.js"
# The names of figures and pictures: those of `plots`, and what chapters number or name by run.
DRAWN = (
    r"loss|loss-every-200|difference|step-time|step-time-distribution|epoch-time|memory|memory-held|split"
    r"|processor|sampling-time|(score|sweep|grid|progress|sampling|training)-.+"
)


def render(
    title: Text,
    sections: Sequence[Section],
    tiles: Sequence[Tile],
    order: Mapping[str, int],
    colours: Sequence[tuple[str, str]],
    language: str,
) -> str:
    """index.html.

    Args:
        order: the number of every record's file.
        colours: of each run, on light and on dark paper.
        language: which one is shown first, "en" or "zh".
    """
    plots = [block for section in sections for block in section.blocks if isinstance(block, Plot)]
    return fill(
        "report.html.j2",
        title=title,
        language=language,
        sections=[_Shown(section) for section in sections],
        tiles=tiles,
        ui={k.removeprefix("ui."): v for k, v in catalogue().items() if k.startswith("ui.")},
        made=words("ui.made", version=__version__),
        light_colours=palette(colours, LIGHT),
        dark_colours=palette(colours, DARK),
        kind=lambda block: type(block).__name__,
        uri=data_uri,
        numbered=lambda sources: list(_numbered(sources, order)),
        title_json=_json(asdict(title)),
        figures_json=_json({plot.name: _figure(plot) for plot in plots}),
        plotly=Markup(_own("assets", PLOTLY)),
        js=Markup(_own("templates", "report.js")),
    )


class _Shown:
    """A section as the template takes it: tables of records get anchors."""

    def __init__(self, section: Section) -> None:
        self.key, self.title = section.key, section.title
        self.blocks: list[Any] = [
            _Grid(block, section.key == "records") if isinstance(block, Table) else block
            for block in section.blocks
        ]


class _Grid:
    """A table, and whether its rows are what the numbers in the text point to."""

    def __init__(self, table: Table, anchors: bool) -> None:
        self.caption, self.head, self.rows = table.caption, table.head, table.rows
        self.sources, self.long, self.anchors = table.sources, table.long, anchors


def _numbered(sources: Sequence[Source], order: Mapping[str, int]) -> Iterator[tuple[int, str]]:
    for source in dict.fromkeys(sources):
        shown = "/".join(source.path.split("/")[-2:])
        yield order[source.path], f"{shown}: {source.fields}"


def _figure(plot: Plot) -> dict[str, Any]:
    names = ("x", "y", "log_x", "log_y", "from_zero", "stacked", "y_range")
    found = {name: getattr(plot, name) for name in names}
    found |= {name: asdict(found[name]) for name in ("x", "y")}
    found["texts"] = any(isinstance(x, str) for trace in plot.traces for x in trace.x)
    found["traces"] = [asdict(trace) for trace in plot.traces]
    return found


def _json(value: Any) -> Markup:
    """JSON that may stand in a script element."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return Markup(text.replace("<", "\\u003c"))


def _own(folder: str, name: str) -> str:
    return (files("diptych.report") / folder / name).read_text("utf-8")


def is_ours(name: str) -> bool:
    """Whether a report writes a file of this name."""
    stem, ending = os.path.splitext(name)
    drawn = ending in (".png", ".gif") and re.fullmatch(DRAWN, stem)
    return bool(drawn) or name in ("index.html", "report.json", *FILES.values())
