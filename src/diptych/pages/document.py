"""Building blocks of a page's sections: sentences, tables, figures, commands, pictures.

Blocks know nothing of HTML, Markdown or drawing: a page, a README and a PNG share the same blocks.
A figure is a list of traces; a colour is a name ("run0", "ink", "soft"), that the page
and the PNGs look up in their theme.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from diptych.pages.catalogue import Text, phrase, same
from diptych.pages.template import Sentence, Source

NONE = same("\N{EN DASH}")
EMPTY = same("")
Looks = dict[str, Any]  # further fields of a figure or a trace
# Axes of amounts, on which a difference shows as a share of the whole.
FROM_ZERO = ("seconds", "milliseconds", "percent", "share", "megabytes")


@dataclass(frozen=True)
class Table:
    """A table of texts, with row headings in the first column; a `long` table is folded."""

    caption: Text
    head: Sequence[Text]
    rows: Sequence[Sequence[Text]]
    sources: tuple[Source, ...] = ()
    long: bool = False


@dataclass(frozen=True)
class Trace:
    """One line, band, cloud of dots or group of bars.

    Attributes:
        kind: "line", "dots", "bars" or "points" (values with intervals, `low` to `high`).
        x: numbers, or texts of a category axis.
        y: numbers; None if missing.
        low, high: the band behind a line, or the intervals of points.
        dash: "solid", "dash", "dot" or "dashdot".
        marker: marker of points, one of `traces.MARKERS`.
        under: drawn wide and pale, so that it stays visible under another line.
        hover: a text for each value, shown under the pointer.
    """

    kind: str
    label: Text
    colour: str
    x: Sequence[Any]
    y: Sequence[float | None]
    low: Sequence[float | None] | None = None
    high: Sequence[float | None] | None = None
    dash: str = "solid"
    marker: str = "circle"
    under: bool = False
    hover: Sequence[str] | None = None


@dataclass(frozen=True)
class Plot:
    """A figure: drawn by the page, and as PNG for print, Markdown and pages without scripts.

    Attributes:
        name: name of its file, without extension.
        x_range, y_range: range shown initially; None shows everything.
        png, dark: PNG bytes on light and on dark paper; filled in after all figures are known.
    """

    name: str
    title: Text
    alt: Text
    x: Text
    y: Text
    traces: Sequence[Trace]
    note: Text = EMPTY
    log_x: bool = False
    log_y: bool = False
    from_zero: bool = False
    stacked: bool = False
    x_range: tuple[float, float] | None = None
    y_range: tuple[float, float] | None = None
    sources: tuple[Source, ...] = ()
    png: bytes = b""
    dark: bytes = b""


@dataclass(frozen=True)
class Code:
    """Commands ready to be typed, and their description."""

    caption: Text
    text: str
    sources: tuple[Source, ...] = ()


@dataclass(frozen=True)
class Picture:
    """An embedded image: PNG or GIF bytes, and the colour of its title."""

    name: str
    title: Text
    alt: Text
    data: bytes
    colour: str = "soft"

    @property
    def mime(self) -> str:
        """MIME type of its bytes."""
        return "image/gif" if self.data[:3] == b"GIF" else "image/png"


@dataclass(frozen=True)
class Gallery:
    """Pictures side by side; `pairs` of them, by index, are also shown one over the other."""

    caption: Text
    pictures: Sequence[Picture]
    sources: tuple[Source, ...] = ()
    pairs: Sequence[tuple[int, int]] = ()


Block = Sentence | Table | Plot | Code | Gallery


@dataclass
class Section:
    """One chapter; its heading comes from the catalogue unless given. A `long` chapter is
    folded."""

    key: str
    blocks: list[Block] = field(default_factory=list)
    heading: Text | None = None
    long: bool = False

    @property
    def title(self) -> Text:
        """Its heading."""
        return self.heading or phrase(f"heading.{self.key}")

    def sentences(self) -> list[Sentence]:
        """Its sentences only."""
        return [block for block in self.blocks if isinstance(block, Sentence)]


@dataclass(frozen=True)
class Document:
    """The content from which a page, Markdown and JSON are made.

    Attributes:
        order: the number of every record's file, in the order of the page.
        colours: colours of each run, on light and on dark paper.
        made: the last line, which names the program that made the document.
    """

    title: Text
    sections: Sequence[Section]
    colours: Sequence[tuple[str, str]]
    made: Text
    order: Mapping[str, int] = field(default_factory=dict)

    def plots(self) -> list[Plot]:
        """All figures."""
        return [b for section in self.sections for b in section.blocks if isinstance(b, Plot)]


def numbered(sections: Sequence[Section]) -> dict[str, int]:
    """A number for every cited file, in the order of the page."""
    paths = [s.path for section in sections for block in section.blocks for s in block.sources]
    return {path: n for n, path in enumerate(dict.fromkeys(paths), start=1)}


def plot(
    name: str,
    x: Text | str,
    y: Text | str,
    traces: Sequence[Trace],
    note: Text | str,
    sources: tuple[Source, ...],
    key: str = "",
    **looks: Any,
) -> Plot:
    """A figure with its title and description from the catalogue, under `key` or else its name.

    Args:
        x, y, note: texts, or their keys; an axis of FROM_ZERO begins there.
        looks: further fields of `Plot`.
    """

    def text(kind: str, given: Text | str) -> Text:
        return given if isinstance(given, Text) else phrase(f"{kind}.{given}")

    key = key or name.replace("-", "_")
    title = looks.pop("title", None) or phrase(f"figure.{key}")
    looks.setdefault("from_zero", y in FROM_ZERO)
    ends = text("axis", x), text("axis", y)
    return Plot(
        name,
        title,
        phrase(f"alt.{key}"),
        *ends,
        traces,
        text("note", note),
        sources=sources,
        **looks,
    )


def head(*keys: str) -> list[Text]:
    """The cells of a table's first row."""
    return [phrase(f"column.{key}") for key in keys]


WORDS = {"yes": "cell.affirmed", "no": "cell.denied", "none": "cell.none"}
# Title of a row, or its key, and one cell per run.
GridRow = tuple[Text | str, Sequence[Text | str | None]]


def _cell(value: Text | str | None) -> Text:
    if value is None or isinstance(value, Text):
        return value or NONE
    return phrase(WORDS[value]) if value in WORDS else same(value)


def cells_of(rows: Iterable[Sequence[Any]]) -> list[list[Text]]:
    """A table's rows of texts, names and numbers, with a dash for an empty cell."""
    return [[_cell(value) for value in row] for row in rows]


def grid_of(
    caption: Text | str,
    names: Sequence[str],
    rows: Iterable[GridRow],
    sources: tuple[Source, ...] = (),
    long: bool = False,
) -> Table:
    """A table with one column per run; rows without any known value are left out.

    Args:
        caption: a text or its key; so is the first item of each row.
    """
    body = [
        [title if isinstance(title, Text) else phrase(f"row.{title}"), *map(_cell, cells)]
        for title, cells in rows
        if any(cell is not None for cell in cells)
    ]
    caption = caption if isinstance(caption, Text) else phrase(f"caption.{caption}")
    return Table(caption, [EMPTY, *map(same, names)], body, sources, long)
