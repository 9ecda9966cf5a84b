"""align.json and index.html of a climb: a section a rung, with its evidence.

The page has the look of a comparison's (`diptych.report.page`) and is one file with its figures
inside. Its sentences are made from the numbers of align.json.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from diptych.align import figures
from diptych.align.ladder.climb import Climb
from diptych.align.ladder.judge import Verdict
from diptych.figures import charts
from diptych.figures.numbers import seconds, significant
from diptych.files import write_json, write_text
from diptych.report.template import data_uri, fill

WORST = 12  # tensors in a rung's table


def write(out: Path, result: dict[str, Any], climb: Climb | None) -> None:
    """Both files into `out`; the page last."""
    write_json(out / "align.json", result)
    write_text(out / "index.html", render(result, climb))


def render(result: dict[str, Any], climb: Climb | None) -> str:
    """The page."""
    verdicts = {v.rung: v for v in climb.verdicts} if climb else {}
    sections = [_summary(result)]
    for rung in result["rungs"]:
        verdict = verdicts.get(rung["rung"])
        sections.append(
            {
                "key": rung["rung"],
                "title": f"{rung['rung'].capitalize()}: {rung['verdict']}",
                "sentences": list(sentences(rung)),
                "figures": list(_figures(verdict, climb)) if verdict and climb else [],
                "tables": list(_tables(rung, verdict)),
            }
        )
    sections.append(_method(result))
    names = [figures.NAMES.get(name, name) for name in result["backends"]]
    return fill(
        "compare.html.j2",
        names=names,
        tiles=tiles(result),
        sections=sections,
        colours=[theme.pair(*result["backends"]) for theme in (charts.LIGHT, charts.DARK)],
    )


def tiles(result: dict[str, Any]) -> list[tuple[str, str, str]]:
    """The numbers at the top."""
    rungs = result["rungs"]
    passed = sum(r["verdict"] == "pass" for r in rungs)
    margins = [(r["margin"], r["rung"]) for r in rungs if r["margin"] is not None]
    found = [("rungs that pass", f"{passed} of {len(rungs)}", result["preset"])]
    if margins:
        least, where = min(margins)
        found.append(("smallest margin", significant(least), f"of what is allowed; {where}"))
    faults = result["mutations"]
    if faults:
        caught = sum(m["verdict"] == "pass" for m in faults)
        found.append(("planted faults caught", f"{caught} of {len(faults)}", "at their own rung"))
    found.append(("time", seconds(result["seconds"]), "all subjects together"))
    return found


def sentences(rung: dict[str, Any]) -> Iterator[str]:
    """What a rung's numbers say."""
    yield f"Claim: {rung['claim']}."
    if rung.get("mutation_survived"):
        yield "A fault planted for this rung survived, so its passing proves nothing."
    if rung["gate"] == "exact":
        yield f"{rung['tensors']} entries are compared bit by bit."
    else:
        apart = ", ".join(
            f"{figures.NAMES.get(p, p)} {significant(d)}" for p, d in rung["distance"].items()
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


def _figures(verdict: Verdict, climb: Climb) -> Iterator[dict[str, Any]]:
    drawn: list[tuple[str, Callable[[charts.Theme], Figure]]] = []
    if verdict.rung == "layers":
        for mode in ("free", "fed"):
            drawn.append((f"Error of each layer, {mode}",
                          lambda t, m=mode: figures.layer_errors(verdict, m, t)))  # type: ignore[misc] # fmt: skip
    if verdict.rung == "lockstep" and "curves" in climb.kept:
        curves = climb.kept["curves"]
        drawn.append(("Losses in lockstep", lambda t: figures.losses(curves, t)))
        drawn.append(("Difference of the losses", lambda t: figures.envelope(curves, t)))
    worst = climb.kept.get(f"worst/{verdict.rung}")
    if worst is not None and worst[0].error > 0 and worst[1].size > 1:
        drawn.append(
            (
                "Error within the worst tensor",
                lambda t: figures.heat_map(worst[0], worst[1], worst[2], t),
            )
        )
    with charts.settings():
        for alt, draw in drawn:
            light, dark = (data_uri(charts.png(draw(t))) for t in (charts.LIGHT, charts.DARK))
            yield {"alt": alt, "light": light, "dark": dark}


def _tables(rung: dict[str, Any], verdict: Verdict | None) -> Iterator[dict[str, Any]]:
    head = ["tensor", "panel", "measure", "error", "floor", "allowed"]
    findings = [] if verdict is None else [f for f in verdict.findings if f.error > 0 or f.text]
    rows = [
        [f.name, f.panel, f.text or f.measure, significant(f.error), significant(f.floor),
         significant(f.gate)]
        for f in sorted(findings, key=lambda f: f.ratio, reverse=True)[:WORST]
    ]  # fmt: skip
    if verdict is None:
        rows = [
            [f["tensor"], f["panel"], f.get("text", f["measure"]),
             *(significant(f[k]) if f[k] is not None else "" for k in ("error", "floor", "gate"))]
            for f in rung["failed"] or ([rung["worst"]] if rung["worst"] else [])
        ]  # fmt: skip
    if rows:
        yield {"caption": "Tensors nearest to their gate", "head": head, "rows": rows, "long": True}


def _summary(result: dict[str, Any]) -> dict[str, Any]:
    rows = [
        [r["rung"], r["verdict"], *(significant(r[k]) if r[k] is not None else ""
                                    for k in ("error", "floor", "margin"))]
        for r in result["rungs"]
    ]  # fmt: skip
    head = ["rung", "verdict", "error", "floor", "margin"]
    tables = [{"caption": "All rungs", "head": head, "rows": rows, "long": False}]
    if result["mutations"]:
        faults = [
            [m["name"], m["what"], m["panel"], m["caught_by"] or m["verdict"], m["tensor"] or ""]
            for m in result["mutations"]
        ]
        head = ["planted fault", "what it does", "into", "caught by", "first tensor"]
        tables.append({"caption": "Planted faults", "head": head, "rows": faults, "long": False})
    text = result["conclusion"]
    return {"key": "verdict", "title": "Verdict", "sentences": [text[0].upper() + text[1:] + "."],
            "figures": [], "tables": tables}  # fmt: skip


def _method(result: dict[str, Any]) -> dict[str, Any]:
    lines = [
        "A floor is measured in this very run: the other panel's distance from a float64 "
        "reference, and its own change after one rounding of its input.",
        "An error passes up to k floors; k stands in one file with its reason and date. The margin "
        "is what is allowed over what was found: 1 or more passes.",
    ]
    if result["data"] == "synthetic":
        lines.append(
            "The preset's images are not on this machine: synthetic ones took their place."
        )
    return {"key": "method", "title": "How it is judged", "sentences": lines, "figures": [],
            "tables": []}  # fmt: skip
