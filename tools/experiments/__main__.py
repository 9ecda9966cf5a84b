"""Take the missing measurements, judge them, and write the page.

    python -m tools.experiments --out docs [--again] [--only KEY]

OUT/puzzles.json holds measurements and verdicts, OUT/puzzles.md the page. Existing measurements are
kept (--again: repeated). Each runs in its own process, one after the other.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from diptych import __version__
from diptych.errors import MachineError, UserError
from diptych.files import read_json, write_json, write_text
from diptych.runs.provenance import machine_facts
from tools.experiments.page import markdown
from tools.experiments.puzzle import Puzzle
from tools.experiments.puzzles import PUZZLES


def measure(words: tuple[str, ...]) -> dict[str, Any]:
    """Run one loop in its own process.

    Raises:
        MachineError: it failed; its output is printed above.
    """
    print("== " + " ".join(words), file=sys.stderr, flush=True)
    command = [sys.executable, "-m", "tools.experiments.loops", *words]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise MachineError(f"the experiment '{' '.join(words)}' failed; see above")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return {**found, "machine": {**machine_facts(), "diptych": __version__}, "time": time.time()}


def judge(puzzle: Puzzle, loops: dict[str, Any]) -> dict[str, Any]:
    """A puzzle's record: its texts, the numbers, and the verdict computed from them."""
    numbers, verdict, words = puzzle.judge([loops[" ".join(each)] for each in puzzle.loops])
    return {
        "key": puzzle.key, "title": puzzle.title, "seen": puzzle.seen,
        "hypothesis": puzzle.hypothesis, "prediction": puzzle.prediction,
        "measurement": numbers, "verdict": verdict, "words": words, "device": "cpu",
        "loops": [" ".join(each) for each in puzzle.loops],
    }  # fmt: skip


def main() -> None:
    """Run the command in the module's docstring."""
    parser = argparse.ArgumentParser(prog="python -m tools.experiments")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--again", action="store_true")
    parser.add_argument("--only", choices=[puzzle.key for puzzle in PUZZLES], help="one puzzle")
    words = parser.parse_args()
    path = words.out / "puzzles.json"
    loops: dict[str, Any] = read_json(path)["loops"] if path.is_file() else {}
    chosen = [p for p in PUZZLES if words.only in (None, p.key)]
    fresh: set[str] = set()
    for each in (loop for puzzle in chosen for loop in puzzle.loops):
        name = " ".join(each)
        if name not in loops or (words.again and name not in fresh):
            loops[name] = measure(each)
            fresh.add(name)
            write_json(path, {"schema": 1, "kind": "puzzles", "loops": loops, "puzzles": []})
    known = [p for p in PUZZLES if all(" ".join(each) in loops for each in p.loops)]
    record = {"schema": 1, "kind": "puzzles", "loops": loops,
              "puzzles": [judge(puzzle, loops) for puzzle in known]}  # fmt: skip
    write_json(path, record)
    write_text(words.out / "puzzles.md", markdown(record))
    print(words.out / "puzzles.md")


if __name__ == "__main__":
    try:
        main()
    except (UserError, MachineError) as fault:
        print(f"diptych: {fault}", file=sys.stderr)
        sys.exit(fault.exit_code)
