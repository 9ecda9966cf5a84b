"""`diptych demo`: the whole story in one command, on data that comes with the package.

Each panel trains and samples in processes of its own, as always; what they leave are folders, and
the comparison reads those.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from diptych.errors import MachineError, UserError
from diptych.files import claim_folder

PANELS = ("torch", "jittor")


def run_demo(
    out: Path, *, steps: int | None = None, device: str = "auto", resume: bool, overwrite: bool
) -> None:
    """Train, sample and compare both panels below `out`; a second call goes on or starts anew.

    Raises:
        UserError: the folder holds something that is no demo.
        MachineError: a step failed; what it said stands above.
    """
    claim_folder(out, resume=resume, overwrite=overwrite)
    length = [] if steps is None else ["--steps", str(steps)]
    for panel in PANELS:
        say(f"training: {panel}")
        diptych("train", "tiny", "--backend", panel, "--out", out / panel, *length,
                "--device", device, "--resume")  # fmt: skip
        say(f"sampling: {panel}")
        diptych("sample", out / panel, "--backend", panel, "--out", out / f"{panel}-samples",
                "--device", device, "--resume")  # fmt: skip
    say("comparing")
    diptych("compare", *(out / panel for panel in PANELS), "--out", out / "report",
            "--samples", *(out / f"{panel}-samples" for panel in PANELS), "--overwrite")  # fmt: skip
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
