"""docs/puzzles.md, generated from puzzles.json; nothing on it is typed by hand."""

from __future__ import annotations

from typing import Any

HEAD = """# Three puzzles, tried

Two published reproductions of diffusion models in Jittor beside PyTorch left three observations
without an explanation. Here each becomes hypotheses that could fail, and measurements. Written
by `python -m tools.experiments --out docs` from [puzzles.json](puzzles.json), which holds every
number.

**All of it was measured on a CPU**, with a network for 14x14 images; the observations were made
elsewhere, with larger ones, one of them on a GPU. What holds here shows that the mechanism exists,
not that it was at work there; what fails here was not seen on a CPU, which does not rule it out
there. Times are processor seconds, which a busy machine does not stretch;
those said to be by the clock are stretched.
"""
WORDS = {
    "holds": "The prediction holds on a CPU.",
    "fails": "The prediction fails on a CPU.",
    "open": "Open: the measurement does not decide.",
}


def markdown(record: dict[str, Any]) -> str:
    """The page of a record, as Markdown."""
    rows = [f"| [{p['title']}](#{_anchor(p['title'])}) | {p['verdict']} |"
            for p in record["puzzles"]]  # fmt: skip
    parts = [HEAD, "| hypothesis | verdict |\n|---|---|\n" + "\n".join(rows) + "\n"]
    parts += [_section(puzzle) for puzzle in record["puzzles"]]
    parts.append(_method(record))
    return "\n".join(parts)


def _section(puzzle: dict[str, Any]) -> str:
    loops = ", ".join(f"`{name}`" for name in puzzle["loops"])
    return (
        f"## {puzzle['title']}\n\n"
        f"- **Seen:** {puzzle['seen']}\n"
        f"- **Hypothesis:** {puzzle['hypothesis']}\n"
        f"- **Prediction:** {puzzle['prediction']}\n"
        f"- **Measured** ({loops}): {puzzle['words']}\n"
        f"- **Verdict:** {puzzle['verdict']}. {WORDS[puzzle['verdict']]}\n"
    )


def _method(record: dict[str, Any]) -> str:
    machines = {
        f"{m['cpu']}, {m['cores']} cores, Python {m['python']}, Diptych {m['diptych']}"
        for m in (loop["machine"] for loop in record["loops"].values())
    }
    return (
        "## How it was measured\n\n"
        "Each loop is a process of its own, one after the other "
        "([loops.py](../tools/experiments/loops.py)); verdicts are computed from the numbers "
        "([puzzles.py](../tools/experiments/puzzles.py), "
        "[sampling.py](../tools/experiments/sampling.py)). "
        f"Machine: {'; '.join(sorted(machines))}.\n"
    )


def _anchor(title: str) -> str:
    kept = "".join(c for c in title.lower() if c.isalnum() or c in " -")
    return kept.replace(" ", "-")
