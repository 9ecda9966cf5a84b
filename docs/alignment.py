"""Regenerate the figures of docs/alignment.md from ladders that were climbed.

    diptych align ladder tiny --mutate all --out LADDERS/tiny
    diptych align ladder mnist --out LADDERS/mnist
    diptych align ladder cifar10 --out LADDERS/cifar10
    diptych align train tiny --seeds 3 --steps 150 --margin 0.05 --out LADDERS/free
    python docs/alignment.py LADDERS

Replaces what stands between the markers `ladders`, `faults` and `free`. No number is typed by hand.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from diptych.evaluation.score_table import markdown
from diptych.files import read_json
from diptych.pages.blocks import write_block

PAGE = Path(__file__).resolve().parent / "alignment.md"
PRESETS = ("tiny", "mnist", "cifar10")
RUNGS = ["rung", "verdict", "PyTorch from truth", "Jittor from truth", "apart", "margin",
         "nearest to its gate"]  # fmt: skip
FAULTS = ["fault", "what it does", "caught by", "first tensor", "error", "allowed"]


def main() -> None:
    """Read the ladders and rewrite the page's blocks."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("ladders", type=Path, help="a folder with tiny, mnist, cifar10 and free")
    folder = parser.parse_args().ladders
    ladders = {name: read_json(folder / name / "align.json") for name in PRESETS}
    parts = [climbed(name, each) for name, each in ladders.items()]
    write_block(PAGE, "ladders", "\n".join([versions(ladders["tiny"]), *parts]))
    write_block(PAGE, "faults", caught(ladders["tiny"]))
    trained = read_json(folder / "free" / "free.json")
    write_block(PAGE, "free", freely(trained))


def versions(ladder: dict[str, Any]) -> str:
    """Versions and devices compared."""
    found = ladder["environment"].items()
    each = ", ".join(f"{name} {one['framework_version']} on {one['device']}" for name, one in found)
    return f"Measured with {each}.\n"


def climbed(name: str, ladder: dict[str, Any]) -> str:
    """The table of one ladder."""
    rows = []
    for rung in ladder["rungs"]:
        worst = rung["worst"]
        near = f"`{worst['tensor']}` ({worst['panel']})" if worst and rung["margin"] else ""
        apart = [short(rung["distance"][panel]) for panel in ("torch", "jittor")]
        margin = f"{rung['margin']:.2g}" if rung["margin"] else ""
        rows.append([rung["rung"], rung["verdict"], *apart, short(rung["apart"]), margin, near])
    data = ladder["data"]
    shown = f"{ladder['seconds']:.0f} s, {ladder['steps']} steps in lockstep, data: {data}"
    return f"`{name}`, {shown}:\n\n{markdown(RUNGS, rows)}"


def caught(ladder: dict[str, Any]) -> str:
    """The table of planted faults."""
    rows = []
    for each in ladder["mutations"]:
        exact = each["gate"] == 0
        rows.append([
            f"`{each['name']}`", each["what"], each["caught_by"] or "nothing",
            f"`{each['tensor']}`", "differs" if exact else short(each["error"]),
            "nothing" if exact else short(each["gate"]),
        ])  # fmt: skip
    return markdown(FAULTS, rows)


def freely(trained: dict[str, Any]) -> str:
    """The verdict of free training, and how far the seeds of one panel are apart."""
    spread = f"{trained['seed_sd']['torch']:.1%}"
    return (f"> {trained['conclusion']}\n\nOne panel's losses scatter by {spread} over the seeds, "
            "which is what an unpaired comparison would have had\nto see through.\n")  # fmt: skip


def short(value: float | None) -> str:
    """Two digits."""
    return "" if value is None else f"{float(f'{value:.2g}'):g}"


if __name__ == "__main__":
    main()
