"""The page: one template in both languages, with the report's style, words and figures."""

from __future__ import annotations

import json
from dataclasses import asdict
from functools import cache
from importlib.resources import files

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from diptych.align.ladder.rungs import LADDER
from diptych.config.load import preset_names
from diptych.figures.charts import DARK, LIGHT
from diptych.pages.catalogue import catalogue
from diptych.pages.html import PLOTLY
from diptych.pages.png import palette
from diptych.sampling.options import SOLVERS, SPACINGS
from diptych.studio.asked import MOST_IMAGES

COLOURS = [(LIGHT.torch, DARK.torch), (LIGHT.jittor, DARK.jittor)]


@cache
def render(language: str) -> str:
    """The page, shown in "en" or "zh" until the reader chooses."""
    texts = catalogue()
    words = {k.removeprefix("studio."): v for k, v in texts.items() if k.startswith("studio.")}
    ui = {k.removeprefix("ui."): v for k, v in texts.items() if k.startswith("ui.")}
    environment = Environment(
        loader=ChoiceLoader([PackageLoader("diptych.studio"), PackageLoader("diptych.pages")]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    told = {key: asdict(text) for key, text in words.items()}
    return environment.get_template("studio.html.j2").render(
        w=words,
        ui=ui,
        language=language,
        light=LIGHT,
        dark=DARK,
        light_colours=palette(COLOURS, LIGHT),
        dark_colours=palette(COLOURS, DARK),
        solvers=SOLVERS,
        spacings=SPACINGS,
        presets=preset_names(),
        rungs=LADDER,
        most=MOST_IMAGES,
        words_json=Markup(json.dumps(told, ensure_ascii=False).replace("<", "\\u003c")),
    )


@cache
def asset(name: str) -> bytes:
    """A script of the page."""
    if name == "studio.js":
        return (files("diptych.studio") / "templates" / name).read_bytes()
    if name == "wipe.js":
        return (files("diptych.pages") / "templates" / name).read_bytes()
    return (files("diptych.pages") / "assets" / PLOTLY).read_bytes()
