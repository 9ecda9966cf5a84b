"""Scores as text tables, for the terminal and as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Row = Sequence[str]


def render(result: Mapping[str, Any]) -> str:
    """The result of `evaluate` as text for people."""
    scores = result["scores"]
    rows = [
        [
            score["metric"],
            number(score["value"]),
            interval(score["interval"]),
            number(score["split_half"]),
            number(score["std"]),
            score["protocol_id"],
        ]
        for score in scores
    ]
    head = ["metric", "value", "95 % interval", "split-half", "std within", "protocol id"]
    compared = next((s for s in scores if "reference.name" in s["protocol"]), scores[0])
    lines = [aligned(head, rows), "", *_facts(compared)]
    lines += _training(scores)
    beside = [score for score in scores if "held_out" in score.get("details", {})]
    lines += [
        f"{score['metric']:<28} of held-out images {number(score['details']['held_out'])}"
        for score in beside
    ]
    if any(score["interval"] is None for score in scores):
        lines.append("no interval: it takes 3 or more independent sample sets (--repeats 3)")
    if result.get("classes"):
        lines.append(_classes(result["classes"]))
    return "\n".join(lines)


def _facts(score: Mapping[str, Any]) -> list[str]:
    p = score["protocol"]
    sets = max(1, len(score["repeats"]))
    reference = "none"
    if "reference.name" in p:
        split = f":{p['reference.split']}" if p["reference.split"] else ""
        count = "unknown number of" if p["reference.count"] is None else p["reference.count"]
        reference = f"{p['reference.name']}{split} ({count} images)"
    sampler = "unknown sampler"
    if p.get("sampler.solver"):
        sampler = (
            f"{p['sampler.solver']}, {p['sampler.steps']} steps, eta {p['sampler.eta']:g}, "
            f"{p['weights']} weights{_told(p)}"
        )
    network = f"{p['extractor']} {p['extractor_sha256'][:12]}".rstrip()  # pixels have no sha256
    return [
        f"samples    {p['num']} images x {sets} ({sampler})",
        f"reference  {reference}",
        f"features   {network}, protocol {p['protocol']}",
    ]


def _training(scores: Sequence[Mapping[str, Any]]) -> list[str]:
    """The training and held-out images, if a score has them."""
    p = next((s["protocol"] for s in scores if "train.name" in s["protocol"]), None)
    if p is None:
        return []
    named = [
        f"{p[f'{key}.name']}{':' + p[f'{key}.split'] if p[f'{key}.split'] else ''} "
        f"({p[f'{key}.count']} images)"
        for key in ("train", "held_out")
    ]
    return [f"training   {named[0]}, held out {named[1]}"]


def _told(protocol: Mapping[str, Any]) -> str:
    """The class conditioning and guidance of the samples, or an empty text."""
    classes, weight = protocol.get("sampler.classes"), protocol.get("sampler.guidance")
    told = "" if classes is None else f", {len(classes)} classes by turns"
    told += "" if weight is None else f", guidance {weight:g}"
    guide, interval = (protocol.get(f"sampler.{k}") for k in ("guide_sha256", "guidance_interval"))
    told += "" if guide is None else f" by {guide[:12]}"
    return told if interval is None else f"{told} at t={interval[0]}-{interval[1]}"


def _classes(classes: Mapping[str, Any]) -> str:
    shares = " ".join(f"{100 * share:.1f}" for share in classes["histogram"])
    return f"classes    {shares} %; {100 * classes['confident']:.1f} % with probability above 0.9"


def number(value: float | None, digits: int = 4) -> str:
    """A score's number, or a dash."""
    if value is None:
        return "-"
    return f"{value:.{digits}g}" if abs(value) < 1000 else f"{value:.1f}"


def interval(ends: Sequence[float] | None) -> str:
    """An interval, or a dash."""
    return "-" if ends is None else f"{number(ends[0])} to {number(ends[1])}"


def aligned(head: Row, rows: Sequence[Row]) -> str:
    """A table for the terminal: first column left-aligned, the others right-aligned."""
    table = [list(head), *map(list, rows)]
    widths = [max(len(row[i]) for row in table) for i in range(len(head))]
    lines = []
    for row in table:
        cells = [row[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def markdown(head: Row, rows: Sequence[Row]) -> str:
    """A table for a README: columns of words left-aligned, of numbers right-aligned."""
    columns = [[row[i] for row in rows] for i in range(len(head))]
    rule = ["---:" if all(map(_numeric, column)) else "---" for column in columns]
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, rule, *rows)) + "\n"


def _numeric(cell: str) -> bool:
    return not cell.strip("-") or cell.lstrip("-")[0].isdigit()
