"""A sweep whose cells are tasks of a cluster; see `diptych.machine.cluster`.

All machines share the run, the output folder and the samples' folder. The weights' hash is compared
on each, and the files of the reference when the cells are read.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from diptych.errors import UserError
from diptych.evaluation.feature_network import Extractor
from diptych.generate.for_scoring import Drawing
from diptych.machine.cluster import Cluster, Task
from diptych.study.sweep.cells import (
    Cells,
    Sweep,
    cell_name,
    cell_path,
    cells_of,
    compute_cell,
    is_there,
)
from diptych.study.sweep.variants import Variant


@dataclass(frozen=True)
class Network:
    """Opener of the feature network on a worker: `function(*arguments)`."""

    function: Callable[..., Extractor]
    arguments: tuple[Any, ...]


@dataclass(frozen=True)
class CellTask:
    """Everything that a worker needs for a cell; the paths are those of a shared file system."""

    sweep: Sweep
    out: Path
    backend: str
    device: str
    pair: tuple[Variant, Drawing]
    request: dict[str, Any]
    network: Network
    samples_out: Path | None


def sweep_on(
    cluster: Cluster,
    sweep: Sweep,
    cells: Cells,
    out: Path,
    backends: Sequence[str],
    device: str,
    open_network: Callable[[str], Network],
    *,
    samples_out: Path | None = None,
) -> int:
    """Compute the missing cells of all backends; the caller holds `out`.

    Args:
        cells: those of `sweep`, in each backend.
        open_network: for a backend, how its feature network is opened.

    Returns:
        How often a cell was tried again after its worker was lost.

    Raises:
        UserError, MachineError: as `run_panel`, and `Cluster.run`.
    """
    gpu = cluster.uses_gpus(device)
    quiet = replace(sweep, settings=replace(sweep.settings, progress=False))
    files: dict[str, Path] = {}
    tasks = []
    for backend in backends:
        for pair in cells.pairs:
            file = cell_path(out, backend, *pair)
            if not is_there(file, cells.request):
                task = CellTask(
                    quiet,
                    out,
                    backend,
                    device,
                    pair,
                    cells.request,
                    open_network(backend),
                    samples_out,
                )
                name = cell_name(backend, *pair)
                files[name] = file
                tasks.append(Task(name, _compute, (task,), backend))

    def check(task: Task, _: Any) -> None:
        if not is_there(files[task.name], cells.request):
            raise UserError(
                f"{files[task.name]}: a worker has written it, and it is not here; give --out a "
                f"folder that all machines of the cluster share"
            )

    return cluster.run(tasks, gpu=gpu, progress=sweep.settings.progress, title="cells", done=check)


def _compute(task: CellTask) -> None:
    """Compute a cell in a worker."""
    here = cells_of(task.sweep).request
    for key, value in task.request.items():
        if here[key] != value:
            raise UserError(f"{task.sweep.source}: has {key}={here[key]} here, not {value}")
    extractor = None
    if task.sweep.scored:
        extractor = _opened(task.network.function, task.network.arguments)
    compute_cell(
        task.sweep,
        task.out,
        task.backend,
        task.device,
        task.pair,
        task.request,
        extractor,
        samples_out=task.samples_out,
        shared=True,
    )


@cache
def _opened(function: Callable[..., Extractor], arguments: tuple[Any, ...]) -> Extractor:
    """The feature network, once in a worker's life."""
    return function(*arguments)
