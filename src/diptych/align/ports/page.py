"""port.json, names.yaml and the page of a port, in English and Chinese."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diptych import __version__
from diptych.align.ports.reasons import told
from diptych.align.ports.sentences import conclusion, hint_texts, note_texts
from diptych.figures.charts import DARK, LIGHT
from diptych.figures.numbers import significant
from diptych.files import write_json, write_text
from diptych.pages import html, png
from diptych.pages.catalogue import Text, known, phrase, same
from diptych.pages.document import Block, Document, Plot, Section, Table, Trace
from diptych.pages.template import Sentence, say, words

if TYPE_CHECKING:
    from diptych.align.ports.prove import PortResult

COLOURS = [(LIGHT.torch, DARK.torch), (LIGHT.jittor, DARK.jittor)]
LEAST = 1e-3  # drawn for a layer without an error
MODES = ("free", "fed")


def write(folder: Path, result: PortResult) -> None:
    """Write the three files, the page last."""
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "names.yaml", result.names)
    write_json(folder / "port.json", result.content)
    write_text(folder / "index.html", html.render(document(result.content), "en"))


def document(content: Mapping[str, Any]) -> Document:
    """The page's content: the first failure on top, then layers, rungs and names."""
    sections = [
        Section("verdict", list(_verdict(content)), phrase("portpage.verdict")),
        Section("layers", list(_layers(content)), phrase("portpage.layers")),
        Section("names", list(_names(content)), phrase("portpage.names")),
        Section(
            "method",
            [
                say("port.method", "portpage.method_floor"),
                say("port.method_layer", "portpage.method_layer"),
            ],
            phrase("portpage.method"),
        ),
    ]
    title = words("portpage.title", reference=content["reference"], subject=content["subject"])
    return Document(title, sections, COLOURS, words("ui.made", version=__version__))


def _verdict(content: Mapping[str, Any]) -> Iterator[Block]:
    yield Sentence("port.conclusion", _capital(conclusion(content)), {})
    fault = content["fault"]
    if fault:
        for text in hint_texts(fault):
            yield Sentence("port.hint", text, {})
        if fault.get("source"):
            yield say("port.source", kind=fault["port_kind"], source=fault["source"])
    for text in note_texts(content):
        yield Sentence("port.note", text, {})
    (a, b), (x, y) = content["frameworks"], content["versions"]
    yield say(
        "port.seconds",
        "portpage.seconds",
        reference=a,
        a=x,
        subject=b,
        b=y,
        seconds=content["seconds"],
    )
    rows = [
        [
            same(r["rung"]),
            known("portcell", r["verdict"]),
            *map(_number, (r["error"], r["floor"], r["margin"])),
        ]
        for r in content["rungs"]
    ]
    head = _head("rung", "verdict", "error", "floor", "margin")
    yield Table(phrase("portpage.rungs_caption"), head, rows)


def _capital(text: Text) -> Text:
    return Text(text.en[:1].upper() + text.en[1:] + ".", text.zh + "。")


def _head(*keys: str) -> list[Text]:
    return [phrase(f"portcolumn.{key}") for key in keys]


def _why(row: Mapping[str, Any]) -> Text:
    return told(row["why"]) if row["why"] else same("")


def _number(value: float | None) -> Text:
    return same("" if value is None else significant(value))


def _layers(content: Mapping[str, Any]) -> Iterator[Block]:
    layers = content["layers"]
    compared = sum(bool(row["modes"]) for row in layers)
    yield say("port.compared", compared=compared, all=len(layers), left=len(layers) - compared)
    if compared:
        yield _graph(layers)
    order = {"fail": 0}
    rows = []
    for row in sorted(layers, key=lambda r: order.get(r["verdict"], 1)):
        mode, worst = max(row["modes"].items(), key=lambda m: m[1]["ratio"], default=("", None))
        cells = [
            same(row["layer"]),
            same(row["port"]),
            same(row["kind"]),
            known("portcell", row["verdict"]),
            same(mode),
        ]
        if worst is None:
            cells += [same(""), same(""), _why(row)]
        else:
            floor = worst["floor"] or 1e-300
            error = None if worst["error"] is None else worst["error"] / floor
            cells += [_number(error), _number(worst["gate"] / floor), _why(row)]
        rows.append(cells)
    head = _head("layer", "port", "kind", "verdict", "mode", "ratio", "allowed", "reason")
    yield Table(phrase("portpage.layers_caption"), head, rows, long=len(rows) > 40)
    kinds = [[same(k), same(str(n))] for k, n in content["operators"].items()]
    if kinds:
        yield Table(phrase("portpage.operators_caption"), _head("kind", "count"), kinds, long=True)


def _graph(layers: Sequence[Mapping[str, Any]]) -> Plot:
    traces = []
    for i, mode in enumerate(MODES):
        rows = [(n, row) for n, row in enumerate(layers, 1) if mode in row["modes"]]
        if rows:
            y = [max(min(row["modes"][mode]["ratio"], 1e9), LEAST) for _, row in rows]
            traces.append(
                Trace(
                    "line",
                    same(mode),
                    f"run{i}",
                    [n for n, _ in rows],
                    y,
                    hover=[row["layer"] for _, row in rows],
                )
            )
    limit = Trace(
        "line",
        phrase("portpage.graph_y"),
        "soft",
        [1, max(2, len(layers))],
        [1.0, 1.0],
        dash="dash",
    )
    plot = Plot(
        "port-layers",
        phrase("portpage.graph_title"),
        phrase("portpage.graph_alt"),
        phrase("portpage.graph_x"),
        phrase("portpage.graph_y"),
        [limit, *traces],
        phrase("portpage.graph_note"),
        log_y=True,
    )
    drawn: Plot = png.drawn(plot, COLOURS)  # type: ignore[assignment]
    return drawn


def _names(content: Mapping[str, Any]) -> Iterator[Block]:
    found = content["matched"]
    yield say(
        "port.matched", weights=found["weights"], of=found["of"], by_itself=found["by_itself"]
    )
    rows = [[known("portcell", u["side"]), same(u["name"]), _why(u)] for u in content["unmatched"]]
    if rows:
        head = _head("side", "weight", "reason")
        yield Table(phrase("portpage.unmatched_caption"), head, rows, long=len(rows) > 20)
