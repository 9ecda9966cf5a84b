"""A study whose parts are tasks of a cluster; see `diptych.machine.cluster` and `parts`.

All machines share the study's folder, and its data lie in the same place on each. A part that is
lost with its worker is begun again: it takes what is left, once the stage's own process has ended.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from diptych.errors import MachineError, UserError
from diptych.files import read_json
from diptych.machine.cluster import Cluster, Task
from diptych.ranks import Part
from diptych.study.reproduce.parts import reproduce_part
from diptych.study.reproduce.processes import GRACE
from diptych.study.reproduce.request import StudyRequest
from diptych.study.reproduce.runner import Run, checked_stages


def reproduce_on(
    cluster: Cluster, request: StudyRequest, out: Path, *, run: Run | None = None
) -> tuple[dict[str, Any], int]:
    """Share the stages of a study among the workers, a part for each training at most.

    Args:
        run: as in `reproduce`, importable by the workers.

    Returns:
        The content of study.json, and how often a part was begun again after its worker was lost.

    Raises:
        UserError, MachineError: as `reproduce`, and `Cluster.run`. A stage that fails does not
            keep the other parts from theirs.
    """
    checked_stages(request, out)
    gpu = cluster.uses_gpus(request.device)
    workers = sum(node.gpus if gpu else node.cpus for node in cluster.nodes)
    count = max(1, min(workers, len(request.seeds) * len(request.backends)))
    tasks = []
    for part in (Part(number, count) for number in range(count)):
        tasks.append(Task(f"part {part.number} of {count}", _share, (request, out, part, run), ""))
    failed: list[str] = []

    def done(_: Task, error: str | None) -> None:
        failed.extend([] if error is None else [error])

    again = cluster.run(tasks, gpu=gpu, title="parts", grace=GRACE, done=done)
    if failed:
        raise MachineError(failed[0])
    if not (out / "study.json").is_file():
        raise UserError(
            f"{out}: workers have done the study, and it is not here; give --out a folder that all "
            f"machines of the cluster share"
        )
    return read_json(out / "study.json"), again


def _share(request: StudyRequest, out: Path, part: Part, run: Run | None) -> str | None:
    """A part's stages in a worker; returns what failed among them."""
    try:
        reproduce_part(request, out, part, run=run)
    except MachineError as error:
        return str(error)
    return None
