"""A document as one HTML file that opens from disk, with everything inside.

The template lays out blocks; every word comes from the catalogue, every number from records.
plotly.js (the basic bundle, MIT, see `assets/`) is embedded once, unless the page is static: then
each figure is a picture on light and on dark paper, and no script runs.
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
from diptych.report.document import Document, Plot
from diptych.report.render.png import palette
from diptych.report.text.catalogue import LANGUAGES, catalogue
from diptych.report.text.template import Source

PLOTLY = "plotly-basic.min.js"
FIELDS = ("x", "y", "log_x", "log_y", "from_zero", "stacked", "x_range", "y_range")


def render(
    document: Document, language: str, *, static: bool = False, languages: Sequence[str] = LANGUAGES
) -> str:
    """index.html.

    Args:
        language: which one is shown first, "en" or "zh".
        static: without scripts, in the one language.
        languages: those that the page can be switched to.
    """
    plots = [] if static else document.plots()
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
        "js": Markup(_own("templates", "report.js")),
    }
    environment = Environment(
        loader=PackageLoader("diptych.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["urlpath"] = quote
    return environment.get_template("report.html.j2").render(**given)


def _data_uri(data: bytes, mime: str = "image/png") -> Markup:
    """Bytes as an address that holds them."""
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
    """JSON that may stand in a script element."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return Markup(text.replace("<", "\\u003c"))


def _own(folder: str, name: str) -> str:
    return (files("diptych.report") / folder / name).read_text("utf-8")
