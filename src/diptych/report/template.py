"""HTML pages of the templates beside this file; nothing on them is loaded from elsewhere."""

from __future__ import annotations

import base64
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from diptych.figures.charts import DARK, LIGHT


def fill(name: str, **given: Any) -> str:
    """A template with both themes and what is given; texts are escaped, gaps are errors."""
    environment = Environment(
        loader=PackageLoader("diptych.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["urlpath"] = quote
    return environment.get_template(name).render(light=LIGHT, dark=DARK, **given)


def data_uri(data: bytes, mime: str = "image/png") -> Markup:
    """Bytes as an address that holds them."""
    return Markup(f"data:{mime};base64," + base64.b64encode(data).decode("ascii"))
