"""The result of a climb as JSON values, as a table for the terminal, and as one last line."""

from __future__ import annotations

from typing import Any

from diptych.align.ladder.climb import Climb
from diptych.align.ladder.floors import gate_kind
from diptych.align.ladder.judge import FAIL, PASS, Verdict, as_json
from diptych.align.ladder.rungs import LADDER
from diptych.figures.numbers import significant

SCHEMA = 1


def content(climb: Climb) -> dict[str, Any]:
    """The content of align.json."""
    request = climb.request
    survivors = {m["rung"] for m in climb.mutants if m["verdict"] == FAIL}
    return {
        "schema": SCHEMA,
        "kind": "align",
        "preset": request.name,
        "config_identity": request.config.identity(),
        "backends": list(request.judged),
        "precision": request.precision,
        "deterministic": request.deterministic,
        "steps": request.steps,
        "data": next(iter(climb.about.values()))["data"],
        "environment": {name: about["environment"] for name, about in climb.about.items()},
        "passed": climb.passed,
        "first_failure": _first(climb),
        "rungs": [
            rung_content(v, list(request.judged), v.rung in survivors) for v in climb.verdicts
        ],
        "mutations": climb.mutants,
        "seconds": climb.seconds,
        "conclusion": conclusion(climb),
    }


def rung_content(verdict: Verdict, panels: list[str], survived: bool) -> dict[str, Any]:
    """One rung's entry in align.json."""
    claim = LADDER[verdict.rung].claim if verdict.rung in LADDER else "traced arrays agree"
    gate, worst = verdict.gate, verdict.worst
    numbers: dict[str, Any] = {"error": None, "floor": None, "margin": None, "worst": None}
    if worst is not None:
        row = as_json(worst)
        numbers = {"error": row["error"], "floor": row["floor"], "margin": margin(verdict),
                   "worst": row}  # fmt: skip
    first = verdict.first_failure
    return {
        "rung": verdict.rung,
        "claim": claim,
        "verdict": FAIL if survived else verdict.verdict,
        "mutation_survived": survived,
        "gate": gate_kind(verdict.rung),
        "k": gate.k,
        "k_reason": gate.reason,
        "k_date": gate.date,
        **numbers,
        "tensors": len({f.name for f in verdict.findings}),
        "distance": {panel: verdict.distance(panel) for panel in panels},
        "apart": verdict.apart,
        "seconds": verdict.seconds,
        "first_failure": as_json(first) if first else None,
        **({"layers": layer_notes(verdict)} if verdict.rung == "layers" else {}),
        "failed": [as_json(f) for f in verdict.findings if f.failed][:50],
    }


def margin(verdict: Verdict) -> float | None:
    """gate / error of the worst tensor: 1 or more passes; None if it has no error or has a text."""
    worst = verdict.worst
    if worst is None or worst.error == 0 or worst.text:
        return None
    return worst.gate / worst.error if worst.error < float("inf") else 0.0


def layer_notes(verdict: Verdict) -> dict[str, Any]:
    """The first layers that fail on the reference's inputs and free-running, and their meaning."""
    found: dict[str, Any] = {"fed": None, "free": None, "meaning": "every layer agrees"}
    for f in verdict.findings:
        mode, _, path = f.name.partition("/")
        kind = {"free": "free", "fed": "fed", "faint": "fed"}.get(mode)
        if f.failed and kind is None and found["free"] is None and found["fed"] is None:
            found["meaning"] = f"every layer agrees; a network with {mode} does not"
        elif f.failed and kind is not None and found[kind] is None:
            found[kind] = path
    if found["fed"]:
        found["meaning"] = f"{found['fed']} is wrong by itself: it fails on the reference's inputs"
    elif found["free"]:
        found["meaning"] = (
            f"from {found['free']} on activations differ, but every layer is right by itself: "
            f"look at what connects them"
        )
    return found


def _first(climb: Climb) -> dict[str, Any] | None:
    verdict = climb.first_failure
    if verdict is None or verdict.first_failure is None:
        return None
    return {"rung": verdict.rung, **as_json(verdict.first_failure)}


def conclusion(climb: Climb) -> str:
    """The last line: everything passes, or the first failure."""
    verdict = climb.first_failure
    if verdict is not None and verdict.first_failure is not None:
        return f"first failure: rung '{verdict.rung}', {describe(verdict)}"
    lost = [m for m in climb.mutants if m["verdict"] == FAIL]
    if lost:
        m = lost[0]
        by = m["caught_by"]
        instead = f"'{by}' failed before it" if by else "nothing caught it"
        return f"first failure: rung '{m['rung']}', planted '{m['name']}' survived: {instead}"
    climbed = [v for v in climb.verdicts if v.verdict == PASS]
    killed = sum(m["verdict"] == PASS for m in climb.mutants)
    planted = f"; {killed} of {killed} planted faults caught" if killed else ""
    return f"all {len(climbed)} rungs pass{planted}"


def describe(verdict: Verdict) -> str:
    """The first failing tensor of a rung in words."""
    first = verdict.first_failure
    assert first is not None
    if verdict.rung == "layers":
        notes = layer_notes(verdict)
        path = notes["fed"] or notes["free"]
        if path is not None:
            first = next(
                (f for f in verdict.findings if f.failed and f.name.partition("/")[2] == path),
                first,
            )
    if first.text:
        return f"tensor '{first.name}' of {first.panel} {first.text}"
    if first.measure == "bits":
        share = significant(100 * first.error)
        return f"tensor '{first.name}' of {first.panel}: {share} % of its values differ"
    return (
        f"tensor '{first.name}' of {first.panel}: {first.measure} error "
        f"{significant(first.error)}, allowed {significant(first.gate)}"
    )


HEAD = ("rung", "verdict", "error", "floor", "margin", "worst tensor")


def table(climb: Climb) -> str:
    """The rungs' table for the terminal, and one of the planted faults if there are any."""
    text = rung_table(content(climb)["rungs"])
    if climb.mutants:
        faults: list[tuple[str, ...]] = [
            ("planted fault", "into", "must fail", "caught by", "tensor", "")
        ]
        faults += [
            (
                m["name"],
                m["panel"],
                m["rung"],
                m["caught_by"] or m["verdict"],
                m["tensor"] or "",
                "" if m["verdict"] != FAIL else "SURVIVED",
            )
            for m in climb.mutants
        ]
        text += "\n\n" + _columns(faults)
    return text


def rung_table(rungs: list[dict[str, Any]]) -> str:
    """A table with one line per rung."""
    rows: list[tuple[str, ...]] = [HEAD]
    for rung in rungs:
        worst = rung["worst"] or {}
        name = f"{worst['tensor']} ({worst['panel']})" if worst and rung["error"] != 0 else ""
        rows.append(
            (
                rung["rung"],
                rung["verdict"],
                _number(rung["error"]),
                _number(rung["floor"]),
                _number(rung["margin"]),
                name,
            )
        )
    return _columns(rows)


def _number(value: float | None) -> str:
    return "" if value is None else significant(value)


def _columns(rows: list[tuple[str, ...]]) -> str:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) for row in rows]
    return "\n".join(line.rstrip() for line in lines)
