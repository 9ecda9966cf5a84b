"""`diptych demo`: the whole story in one command, on data that comes with the package.

Each panel trains and samples in processes of its own, as always; what they leave are folders, and
the comparison reads those.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from diptych.errors import MachineError, UserError
from diptych.files import output_folder, read_json, write_json

PANELS = ("torch", "jittor")
# After so short a training, ancestral sampling with clipping draws cleaner strokes than DDIM.
SAMPLER = ("--solver", "ddpm", "--steps", "200", "--clip")


def run_demo(
    out: Path, *, steps: int | None = None, device: str = "auto", overwrite: bool = False
) -> None:
    """Train, sample and compare both panels below `out`.

    An interrupted demo goes on where it was; a finished one starts anew.

    Raises:
        UserError: the folder holds something that is no demo.
        MachineError: a part failed; what it said stands above.
    """
    note = out / "demo.json"
    begun = note.is_file() and not read_json(note).get("complete")
    with output_folder(out, resume=begun, overwrite=overwrite or (note.is_file() and not begun)):
        _run(out, note, steps, device)


def _run(out: Path, note: Path, steps: int | None, device: str) -> None:
    write_json(note, {"complete": False})
    train_options = ["--device", device, *([] if steps is None else ["--steps", str(steps)])]
    for panel in PANELS:
        say(f"training: {panel}")
        run = out / panel
        diptych("train", "tiny", "--backend", panel, "--out", run, "--resume", *train_options)
        say(f"sampling: {panel}")
        samples = ["--out", out / f"{panel}-samples", "--resume"]
        diptych("sample", run, "--backend", panel, "--device", device, *SAMPLER, *samples)
    say("comparing")
    drawn = [out / f"{panel}-samples" for panel in PANELS]
    runs = [out / panel for panel in PANELS]
    diptych("compare", *runs, "--out", out / "report", "--samples", *drawn, "--overwrite")
    write_json(note, {"complete": True})
    print(f"\nThe two panels side by side: {(out / 'report' / 'index.html').resolve()}")


def say(text: str) -> None:
    """A heading on stderr."""
    print(f"\n== {text}", file=sys.stderr, flush=True)


def diptych(*arguments: object) -> None:
    """One `diptych` command in a process of its own."""
    command = [sys.executable, "-m", "diptych", *map(str, arguments)]
    code = subprocess.run(command).returncode
    if code == 2:
        raise UserError(f"the demo stopped at: diptych {' '.join(command[3:])}")
    if code:
        raise MachineError(
            f"the demo stopped (exit code {code}) at: diptych {' '.join(command[3:])}"
        )
