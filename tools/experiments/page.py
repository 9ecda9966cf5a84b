"""docs/puzzles.md, generated from puzzles.json; nothing on it is typed by hand."""

from __future__ import annotations

from typing import Any

HEAD = """# Three puzzles, tested

Two published reproductions of diffusion models in Jittor and PyTorch left three observations
without an explanation. Each leads to hypotheses that a measurement can refute.
"""
LIMITS = """**All measurements were made on a CPU**, with a network for 14x14 images. The
observations come from other machines and larger images, one of them from a GPU. A hypothesis that
holds shows that the mechanism exists, not that it caused the observation. One that fails was not
seen on a CPU, which does not rule it out elsewhere. Times are processor seconds, which a busy
machine does not stretch; wall times are named as such.

`python -m tools.experiments --out docs` writes this page from [puzzles.json](puzzles.json), which
holds every number.
"""
WORDS = {
    "holds": "holds on a CPU",
    "fails": "fails on a CPU",
    "open": "open: the measurement does not decide",
}


def markdown(record: dict[str, Any]) -> str:
    """The page of a record, as Markdown."""
    seen = {p["title"].split(":")[0]: p["seen"] for p in record["puzzles"]}
    rows = [f"| [{p['title']}](#{_anchor(p['title'])}) | {p['verdict']} |"
            for p in record["puzzles"]]  # fmt: skip
    parts = [
        HEAD,
        _table("observation | seen", [f"| {name} | {text} |" for name, text in seen.items()]),
        _table("hypothesis | verdict on a CPU", rows),
        LIMITS,
    ]
    parts += [_section(puzzle) for puzzle in record["puzzles"]]
    parts.append(_method(record))
    return "\n".join(parts)


def _table(head: str, rows: list[str]) -> str:
    return "\n".join([f"| {head} |", "|---|---|", *rows, ""])


def _section(puzzle: dict[str, Any]) -> str:
    loops = ", ".join(f"`{name}`" for name in puzzle["loops"])
    return (
        f"## {puzzle['title']}\n\n"
        f"- **Hypothesis:** {puzzle['hypothesis']}\n"
        f"- **Prediction:** {puzzle['prediction']}\n"
        f"- **Measured** ({loops}): {puzzle['words']}\n"
        f"- **Verdict:** {WORDS[puzzle['verdict']]}.\n"
    )


def _method(record: dict[str, Any]) -> str:
    machines = {
        f"{m['cpu']}, {m['cores']} cores, Python {m['python']}, Diptych {m['diptych']}"
        for m in (loop["machine"] for loop in record["loops"].values())
    }
    return (
        "## How it was measured\n\n"
        "Each loop runs in its own process, one after the other "
        "([loops.py](../tools/experiments/loops.py)). Verdicts are computed from the numbers "
        "([puzzles.py](../tools/experiments/puzzles.py), "
        "[sampling.py](../tools/experiments/sampling.py)). "
        f"Machine: {'; '.join(sorted(machines))}.\n"
    )


def _anchor(title: str) -> str:
    kept = "".join(c for c in title.lower() if c.isalnum() or c in " -")
    return kept.replace(" ", "-")
