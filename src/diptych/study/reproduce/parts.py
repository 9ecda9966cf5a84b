"""A study shared by several processes, on one machine or many, with nothing between them but files.

    part K of N (`--part K/N`) begins with the stages j with j mod N = K, then takes any other

A part takes a stage that nobody does and whose needs are done, one at a time. A stage has a lock,
`stages/.NAME.json.lock`, which the stage's own process keeps too. So a stage that needs others is
done by whichever part is free when they are done, and the stage of a killed part by any other. A
part waits while another one does what is missing, and ends when nothing is left to do or to wait
for. The last one writes the report.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from diptych.errors import MachineError
from diptych.files import Held, hold, hold_part, hold_place, part_at_work, read_json
from diptych.ranks import Part
from diptych.study.reproduce.notes import done, keep, noted
from diptych.study.reproduce.processes import processes
from diptych.study.reproduce.request import StudyRequest
from diptych.study.reproduce.runner import (
    Run,
    checked_stages,
    finish,
    run_group,
    waits_for,
    write_study,
)
from diptych.study.reproduce.stages import Stage

log = logging.getLogger(__name__)

POLL = 1.0  # seconds


def reproduce_part(
    request: StudyRequest, out: Path, part: Part, *, run: Run | None = None
) -> dict[str, Any]:
    """Do stages of a study beside other processes; return the content of study.json.

    Args:
        part: gives this process its name, and the stages that it begins with.
        run: as in `reproduce`.

    Raises:
        UserError: as `reproduce`, or another process is this part.
        MachineError: a stage failed here; no part tries it again in its present start.
        Interrupted: as `reproduce`.
    """
    every = checked_stages(request, out)
    with hold_part(out, str(part)):
        _save(request, out, every)
        failed = _share(request, out, every, part, run)
    with ExitStack() as held:
        # Looked at before the folder is held: of two parts that end at the same time, one would
        # else be turned away by the other, which is turned away by it.
        alone = part_at_work(out) is None
        if alone:
            try:
                held.enter_context(hold(out))
            except Held:
                alone = False
        if alone:
            return finish(request, out, every, failed)
    if failed:  # others are at work, or finish; the last of them writes the report
        raise MachineError(
            f"{out}: failed: {', '.join(failed)}; see their output above. Other parts are at "
            f"work; afterwards the same command runs the missing stages"
        )
    return read_json(out / "study.json")


def _share(
    request: StudyRequest, out: Path, every: list[Stage], part: Part, run: Run | None
) -> list[str]:
    """Do the stages that this process can get; return the names of those that failed here."""
    listed = [stage for stage in every if request.wants(stage.name)]
    order = sorted(listed, key=lambda stage: not part.has(listed.index(stage)))
    before = {stage.name: noted(out, stage) for stage in listed}
    failed: list[str] = []
    waited = ""

    def gave_up(stage: Stage) -> bool:
        """True if the stage has failed since this process started, here or in another part."""
        note = noted(out, stage)
        return note.get("state") == "failed" and note != before[stage.name]

    while True:
        left = [stage for stage in order if not done(out, stage) and not gave_up(stage)]
        ready = [stage for stage in left if stage.skip or not waits_for(out, every, stage)]
        for stage in ready:
            try:
                with hold_place(out / "stages" / f"{stage.name}.json") as lock:
                    if not done(out, stage) and not gave_up(stage):
                        failed += _do(stage, out, run, lock)
            except Held:
                continue
            _save(request, out, every)
            break
        else:
            if not ready:  # all is done, or needs what has failed
                return failed
            names = ", ".join(stage.name for stage in ready)
            if names != waited:
                log.info("waiting for other parts: %s", names)
            waited = names
            time.sleep(POLL)


def _do(stage: Stage, out: Path, run: Run | None, lock: int) -> list[str]:
    if stage.skip:
        keep(out, stage, "skipped", 0.0, {})
        return []

    def with_lock(commands: list[list[str]], folder: Path) -> list[tuple[int, float]]:
        return processes(commands, folder, (lock,))

    return run_group([stage], out, run or with_lock)


def _save(request: StudyRequest, out: Path, every: Sequence[Stage]) -> None:
    """Write study.json from the notes that are there now, one part at a time."""
    while True:
        try:
            with hold_place(out / "study.json"):
                write_study(request, out, every)
            return
        except Held:
            time.sleep(0.02)
