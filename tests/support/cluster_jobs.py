"""Tasks of the tests of clusters, importable by Ray's workers."""

from __future__ import annotations

import logging
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from diptych.errors import UserError
from diptych.study.reproduce import runner
from fake_features import Fake
from studies import Fake as Stages


def facts() -> dict[str, object]:
    """Facts of a worker about itself."""
    time.sleep(0.2)
    return {
        "pid": os.getpid(),
        "folder": os.getcwd(),
        "threads": os.environ.get("OMP_NUM_THREADS"),
        "panel": os.environ.get("DIPTYCH_WORKER"),
        "frameworks": sorted({"torch", "jittor"} & set(sys.modules)),
        "statistics": os.environ.get("RAY_USAGE_STATS_ENABLED"),
    }


def warn() -> int:
    logging.getLogger("diptych.test").warning("a damaged\nimage")
    return 3


def refuse(text: str) -> None:
    raise UserError(text)


def die(times: int, folder: Path) -> str:
    """End the worker with SIGKILL, the first `times` times."""
    count = len(list(folder.glob("died-*")))
    if count < times:
        (folder / f"died-{count}").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return "alive"


def open_network(name: str, marks: str = "") -> Fake:
    """A feature network; opening it kills the worker, as often as files are in `marks`."""
    for mark in sorted(Path(marks).iterdir()) if marks else ():
        mark.unlink()
        os.kill(os.getpid(), signal.SIGKILL)
    return Fake(name)


def _page(out: Path) -> None:
    with out.with_name("pages").open("a") as lines:
        lines.write("page\n")


class StudyStages(Stages):
    """Stages that list themselves in a file; the page is a line in another. A stage named in a file
    `kill` ends its worker, once."""

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Arrived in a worker, which must not write a page of these runs."""
        self.__dict__.update(state)
        runner.report_study = _page  # type: ignore[attr-defined]

    def __call__(self, commands: list[list[str]], folder: Path) -> list[tuple[int, float]]:
        mark = self.out.with_name("kill")
        ended = super().__call__(commands, folder)
        if mark.is_file() and mark.read_text() == self.ran[-1][0]:
            mark.unlink()
            os.kill(os.getpid(), signal.SIGKILL)
        with self.out.with_name("ran").open("a") as lines:
            lines.write(f"{self.ran[-1][0]}\n")
        return ended
