"""The page of a comparison: one HTML file that can be mailed, with its figures inside.

The template lays out what it is given; every number comes from the content of compare.json and
every sentence from its `sentences`. Nothing is loaded from elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from diptych.figures.charts import DARK, LIGHT
from diptych.figures.numbers import significant
from diptych.report.tables import tables
from diptych.report.template import data_uri, fill
from diptych.report.wording import Words

# File name -> (section, what it shows).
FIGURES = {
    "difference.png": ("difference", "Relative difference of the losses at every common step"),
    "loss-every-200.png": ("difference", "Losses at every 200th step"),
    "loss.png": ("loss", "Losses at every step"),
    "step-time.png": ("time", "Seconds of every synchronised step"),
    "epoch-time.png": ("time", "Seconds of every complete epoch"),
    "memory.png": ("memory", "Memory over the steps"),
    "grids.png": ("samples", "The first sampled images, side by side"),
}
SECTIONS = {
    "what": "What is compared",
    "loss": "Loss",
    "difference": "Step by step",
    "time": "Time",
    "memory": "Memory",
    "samples": "Samples",
    "runs": "The two runs",
    "method": "How the numbers are made",
}

Content = Mapping[str, Any]


def is_ours(name: str) -> bool:
    """Whether a comparison writes a file of this name."""
    return name in FIGURES or name in ("compare.json", "index.html")


def render(result: Content, drawn: Mapping[str, tuple[bytes, bytes]]) -> str:
    """index.html for the content of compare.json and the light and dark PNG of each figure."""
    sections = [
        {
            "key": key,
            "title": title,
            "sentences": [s["text"] for s in result["sentences"] if s["section"] == key],
            "figures": [
                {"alt": alt, "light": data_uri(drawn[name][0]), "dark": data_uri(drawn[name][1])}
                for name, (section, alt) in FIGURES.items()
                if section == key and name in drawn
            ],
            "tables": list(tables(result, key)),
        }
        for key, title in SECTIONS.items()
    ]
    names = [result["runs"][run]["label"] for run in "ab"]
    panels = [result["runs"][run]["backend"] for run in "ab"]
    return fill(
        "compare.html.j2",
        names=names,
        tiles=tiles(result),
        sections=[s for s in sections if s["sentences"] or s["figures"] or s["tables"]],
        colours=[theme.pair(*panels) for theme in (LIGHT, DARK)],
    )


def tiles(result: Content) -> list[tuple[str, str, str]]:
    """The few numbers at the top: (what, number, what to know of it)."""
    numbers, found = result["numbers"], []

    def worded(template: str, ratio: Content) -> str:
        return Words().vformat(template, (), {"ratio": ratio})

    a, b = (result["runs"][run]["label"] for run in "ab")
    loss = (numbers["difference"] or {}).get("loss")
    if loss:
        where = f"relative, step {loss['max_relative_step']:,} of {loss['compared']:,}"
        found.append(("largest loss difference", significant(loss["max_relative"]), where))
    ratio = numbers["step_time"]["ratio"]
    if ratio:
        known = "95 % interval {ratio:range}" if ratio["low"] is not None else "no interval"
        found.append(
            (f"step time, {b} / {a}", worded("{ratio:ratio}", ratio), worded(known, ratio))
        )
    held = [numbers["memory"][run] for run in "ab"]
    if all(held):
        text = " / ".join(f"{run['peak']:,.0f}" for run in held)
        found.append((f"peak memory, {a} / {b}", text, "MB"))
    pixels = (numbers["samples"] or {}).get("pixels")
    if pixels:
        share = pixels["values_differing"] / pixels["values"]
        most = f"of {pixels['values']:,}, by at most {pixels['max_levels']} of 255"
        found.append(("differing pixel values", f"{significant(100 * share)} %", most))
    return found
