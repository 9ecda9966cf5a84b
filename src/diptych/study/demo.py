"""`diptych demo`: training, sampling and comparison in one command, on packaged data.

Each backend trains and samples in its own processes, as always; they write folders, and the
comparison reads those.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path

from diptych.backends import BACKENDS
from diptych.errors import MachineError, UserError
from diptych.files import output_folder, read_json, write_json
from diptych.machine.children import run_child

log = logging.getLogger(__name__)

# After such a short training, ancestral sampling with clipping gives cleaner strokes than DDIM.
SAMPLER = ("--solver", "ddpm", "--steps", "200", "--clip")


def run_demo(
    out: Path, *, steps: int | None = None, device: str = "auto", overwrite: bool = False
) -> Path:
    """Train, sample and compare both panels below `out`; gives the page.

    An interrupted demo resumes; a finished one starts over.

    Raises:
        UserError: the folder holds something that is not a demo.
        MachineError: a part failed; its output is printed above.
    """
    note = out / "demo.json"
    begun = note.is_file() and not read_json(note).get("complete")
    with output_folder(out, resume=begun, overwrite=overwrite or (note.is_file() and not begun)):
        return _run(out, note, steps, device)


def _run(out: Path, note: Path, steps: int | None, device: str) -> Path:
    write_json(note, {"complete": False})
    train_options = ["--device", device, *([] if steps is None else ["--steps", str(steps)])]
    for panel in BACKENDS:
        say(f"training: {panel}")
        run = out / panel
        diptych("train", "tiny", "--backend", panel, "--out", run, "--resume", *train_options)
        say(f"sampling: {panel}")
        samples = ["--out", out / f"{panel}-samples", "--resume"]
        diptych("sample", run, "--backend", panel, "--device", device, *SAMPLER, *samples)
    say("comparing")
    drawn = [out / f"{panel}-samples" for panel in BACKENDS]
    runs = [out / panel for panel in BACKENDS]
    diptych("compare", *runs, "--out", out / "report", "--samples", *drawn, "--overwrite")
    write_json(note, {"complete": True})
    return (out / "report" / "index.html").resolve()


def say(text: str) -> None:
    """A heading."""
    log.info("\n== %s", text)


def diptych(*arguments: object) -> None:
    """Run one `diptych` command in its own process."""
    command = [sys.executable, "-m", "diptych", *map(str, arguments)]
    code = run_child(command)
    if code == 2:
        raise UserError(f"the demo stopped at: diptych {' '.join(command[3:])}")
    if code:
        raise MachineError(
            f"the demo stopped (exit code {code}) at: diptych {' '.join(command[3:])}"
        )
