"""The align.json and index.html of a climb, with one section and its evidence per rung.

The page is a document of `diptych.pages`, in English. Its sentences come from the numbers in
align.json.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from diptych import __version__
from diptych.align import figures
from diptych.align.ladder.climb import Climb
from diptych.align.ladder.judge import Verdict
from diptych.backends import TITLES
from diptych.figures.charts import DARK, LIGHT
from diptych.figures.numbers import seconds, significant
from diptych.files import write_json, write_text
from diptych.pages import html, png
from diptych.pages.catalogue import same
from diptych.pages.document import Block, Document, Gallery, Plot, Section, Table
from diptych.pages.template import Sentence, words
from diptych.runs.records import Ladder

WORST = 12  # tensors in a rung's table
RUNG = ("rung", "verdict", "error", "floor", "margin")
TENSOR = ("tensor", "panel", "measure", "error", "floor", "allowed")
FAULT = ("planted fault", "what it does", "into", "caught by", "first tensor")
COLOURS = {"torch": (LIGHT.torch, DARK.torch), "jittor": (LIGHT.jittor, DARK.jittor)}
METHOD = (
    "A floor is measured in this very run: the other panel's distance from a float64 reference, "
    "and its own change after one rounding of its input.",
    "An error passes up to k floors; k is kept in one file with its reason and date. The margin is "
    "the allowed error over the measured one: 1 or more passes.",
)
SYNTHETIC = "The preset's images are not on this machine: synthetic ones took their place."


def write(out: Path, result: dict[str, Any], climb: Climb | None) -> None:
    """Write both files into `out`, the page last."""
    write_json(out / "align.json", Ladder.checked(result) if climb else result)
    write_text(out / "index.html", html.render(document(result, climb), "en", languages=("en",)))


def document(result: dict[str, Any], climb: Climb | None) -> Document:
    """The page's content."""
    panels = [panel for panel in result["backends"] if panel in COLOURS]
    colours = {panel: f"run{i}" for i, panel in enumerate(panels)}
    colours = dict.fromkeys(result["backends"], "soft") | colours
    runs = [COLOURS[panel] for panel in panels]
    verdicts = {v.rung: v for v in climb.verdicts} if climb else {}
    sections = [Section("verdict", list(_summary(result)), same("Verdict"))]
    for rung in result["rungs"]:
        verdict = verdicts.get(rung["rung"])
        blocks: list[Block] = [_said(line) for line in sentences(rung)]
        if verdict and climb:
            blocks += [png.drawn(b, runs) for b in _figures(verdict, climb, colours)]
        blocks += _tensors(rung, verdict)
        title = same(f"{rung['rung'].capitalize()}: {rung['verdict']}")
        sections.append(Section(rung["rung"], blocks, title))
    lines = [*METHOD, *([SYNTHETIC] if result["data"] == "synthetic" else [])]
    sections.append(Section("method", [_said(line) for line in lines], same("How it is judged")))
    names = " and ".join(TITLES.get(name, name) for name in result["backends"])
    title = same(f"{names}: the ladder of checks")
    return Document(title, sections, runs, words("ui.made", version=__version__))


def _said(line: str) -> Sentence:
    return Sentence("align", same(line), {})


def sentences(rung: dict[str, Any]) -> Iterator[str]:
    """Sentences on a rung's numbers."""
    yield f"Claim: {rung['claim']}."
    if rung.get("mutation_survived"):
        yield "A fault planted for this rung survived, so its passing proves nothing."
    if rung["gate"] == "exact":
        yield f"{rung['tensors']} entries are compared bit by bit."
    else:
        apart = ", ".join(
            f"{TITLES.get(p, p)} {significant(d)}" for p, d in rung["distance"].items()
        )
        yield (
            f"Largest distance from the float64 truth over {rung['tensors']} tensors: {apart}; "
            f"the two are {significant(rung['apart'])} from each other."
        )
        yield f"Allowed are {rung['k']:g} floors ({rung['k_date']}: {rung['k_reason']})."
    if rung["first_failure"]:
        first = rung["first_failure"]
        yield f"First failure: '{first['tensor']}' of {first['panel']}."
    if "layers" in rung:
        yield f"{rung['layers']['meaning'].capitalize()}."


def _figures(verdict: Verdict, climb: Climb, colours: figures.Colours) -> Iterator[Plot | Gallery]:
    if verdict.rung == "layers":
        for mode in figures.MODES:
            yield figures.layer_errors(verdict, mode, colours)
    if verdict.rung == "lockstep" and "curves" in climb.kept:
        yield figures.losses(climb.kept["curves"], colours)
        yield figures.envelope(climb.kept["curves"], colours)
    worst = climb.kept.get(f"worst/{verdict.rung}")
    if worst is not None and worst[0].error > 0 and worst[1].size > 1:
        yield figures.heat_map(verdict.rung, *worst)


def _table(caption: str, head: Sequence[str], rows: Sequence[Sequence[Any]], long: bool) -> Table:
    body = [[same(str(cell)) for cell in row] for row in rows]
    return Table(same(caption), [same(cell) for cell in head], body, long=long)


def _shown(values: Sequence[float | None]) -> list[str]:
    return ["" if value is None else significant(value) for value in values]


def _tensors(rung: dict[str, Any], verdict: Verdict | None) -> Iterator[Table]:
    """The tensors nearest to their gate; without a verdict (a port), those in align.json."""
    if verdict is None:
        kept = rung["failed"] or ([rung["worst"]] if rung["worst"] else [])
        rows = [
            [
                f["tensor"],
                f["panel"],
                f.get("text", f["measure"]),
                *_shown([f[key] for key in ("error", "floor", "gate")]),
            ]
            for f in kept
        ]
    else:
        found = [f for f in verdict.findings if f.error > 0 or f.text]
        found = sorted(found, key=lambda f: f.ratio, reverse=True)[:WORST]
        rows = [
            [f.name, f.panel, f.text or f.measure, *_shown([f.error, f.floor, f.gate])]
            for f in found
        ]
    if rows:
        yield _table("Tensors nearest to their gate", TENSOR, rows, long=True)


def _summary(result: dict[str, Any]) -> Iterator[Block]:
    text = result["conclusion"]
    yield _said(f"{text[0].upper()}{text[1:]}; {seconds(result['seconds'])} in all.")
    rows = [
        [r["rung"], r["verdict"], *_shown([r[key] for key in RUNG[2:]])] for r in result["rungs"]
    ]
    yield _table(f"All rungs ({result['preset']})", RUNG, rows, long=False)
    if result["mutations"]:
        faults = [
            [m["name"], m["what"], m["panel"], m["caught_by"] or m["verdict"], m["tensor"] or ""]
            for m in result["mutations"]
        ]
        yield _table("Planted faults", FAULT, faults, long=True)
