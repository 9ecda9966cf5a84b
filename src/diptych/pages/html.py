"""A document as one self-contained HTML file that opens from disk.

The template lays out blocks; all words come from the catalogue, all numbers from records.
plotly.js (the basic bundle, MIT, see `assets/`) is embedded once, unless the page is static: then
each figure is a light and a dark picture, and no script runs.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from importlib.resources import files
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from diptych.figures.charts import DARK, LIGHT
from diptych.pages.catalogue import LANGUAGES, catalogue
from diptych.pages.document import Document, Gallery, Plot
from diptych.pages.png import palette
from diptych.pages.template import Source

PLOTLY = "plotly-basic.min.js"
FIELDS = ("x", "y", "log_x", "log_y", "from_zero", "stacked", "x_range", "y_range")


def render(
    document: Document, language: str, *, static: bool = False, languages: Sequence[str] = LANGUAGES
) -> str:
    """Render index.html.

    Args:
        language: the language shown first, "en" or "zh".
        static: without scripts, in that language only.
        languages: the languages that the page can switch to.
    """
    plots = [] if static else document.plots()
    blocks = [block for section in document.sections for block in section.blocks]
    pairs = any(block.pairs for block in blocks if isinstance(block, Gallery))
    given = {
        "document": document,
        "language": language,
        "languages": [] if static or len(languages) < 2 else languages,
        "static": static,
        "ui": {k.removeprefix("ui."): v for k, v in catalogue().items() if k.startswith("ui.")},
        "light": LIGHT,
        "dark": DARK,
        "light_colours": palette(document.colours, LIGHT),
        "dark_colours": palette(document.colours, DARK),
        "kind": lambda block: type(block).__name__,
        "uri": _data_uri,
        "numbered": lambda sources: list(_numbered(sources, document.order)),
        "title_json": _json(asdict(document.title)),
        "figures_json": _json({plot.name: _figure(plot) for plot in plots}),
        "plotly": Markup(_own("assets", PLOTLY) if plots else ""),
        "js": Markup(_own("templates", "page.js")),
        "wipe": Markup(_own("templates", "wipe.js") if pairs and not static else ""),
    }
    environment = Environment(
        loader=PackageLoader("diptych.pages"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["urlpath"] = quote
    return environment.get_template("page.html.j2").render(**given)


def _data_uri(data: bytes, mime: str = "image/png") -> Markup:
    """Bytes as a data URI."""
    return Markup(f"data:{mime};base64," + base64.b64encode(data).decode("ascii"))


def _numbered(sources: Sequence[Source], order: Mapping[str, int]) -> Iterator[tuple[int, str]]:
    fields: dict[str, dict[str, None]] = {}
    for source in sources:
        fields.setdefault(source.path, {})[source.fields] = None
    for path, named in fields.items():
        yield order[path], f"{'/'.join(path.split('/')[-2:])}: {', '.join(named)}"


def _figure(plot: Plot) -> dict[str, Any]:
    found = {name: getattr(plot, name) for name in FIELDS}
    found |= {name: asdict(found[name]) for name in ("x", "y")}
    found["texts"] = any(isinstance(x, str) for trace in plot.traces for x in trace.x)
    found["traces"] = [asdict(trace) for trace in plot.traces]
    return found


def _json(value: Any) -> Markup:
    """JSON that is safe inside a script element."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return Markup(text.replace("<", "\\u003c"))


def _own(folder: str, name: str) -> str:
    return (files("diptych.pages") / folder / name).read_text("utf-8")
