"""A sampling job whose parts are tasks of a cluster; see `diptych.machine.cluster`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from diptych.errors import UserError
from diptych.generate.samples import SampleRequest, sample_to
from diptych.machine.cluster import Cluster, Task
from diptych.model import Model, load
from diptych.ranks import Part
from diptych.runs.records import Begun

MOST = 256  # parts: a lost worker costs at most this share, and each part leaves a record


@dataclass(frozen=True)
class Weights:
    """The arguments of `diptych.load`, the same in every worker."""

    source: str
    options: tuple[tuple[str, Any], ...]


def sample_on(
    cluster: Cluster,
    weights: Weights,
    backend: str,
    request: SampleRequest,
    out: Path,
    device: str,
    *,
    resume: bool = False,
    npz: bool = False,
    progress: bool = True,
) -> tuple[dict[str, Any], int]:
    """Draw the images of `request` into `out`, part by part.

    Returns:
        The manifest, and how often a part was tried again after its worker was lost.

    Raises:
        UserError, MachineError: as `sample_to`, and `Cluster.run`.
    """
    gpu = cluster.uses_gpus(device)
    count = _parts(out, request, cluster, gpu)
    tasks = []
    for number in range(count):
        part = Part(number, count)
        arguments = (weights, backend, device, request, out, part, resume, npz)
        tasks.append(Task(f"part {number} of {count}", _draw, arguments, backend))
    again = cluster.run(tasks, gpu=gpu, progress=progress, title="parts")
    file = out / "manifest.json"
    if not file.exists():
        raise UserError(
            f"{out}: workers have drawn images, and they are not here; give --out a folder that "
            f"all machines of the cluster share"
        )
    return Begun.content(file), again


def _parts(out: Path, request: SampleRequest, cluster: Cluster, gpu: bool) -> int:
    """The number of parts: that of a folder begun before, else a part for each batch, up to MOST.

    The size of a batch that the workers choose is not known here; then four parts a worker.
    """
    file = out / "manifest.json"
    if file.exists() and not (begun := Begun.read(file)).complete:
        return begun.parts or 1
    if request.batch is None:
        workers = sum(node.gpus if gpu else node.cpus for node in cluster.nodes)
        return min(MOST, request.num, 4 * workers)
    return min(MOST, math.ceil(request.num / request.batch))


def _draw(
    weights: Weights,
    backend: str,
    device: str,
    request: SampleRequest,
    out: Path,
    part: Part,
    resume: bool,
    npz: bool,
) -> None:
    """Draw a part in a worker."""
    model = _loaded(weights.source, backend, device, weights.options)
    sample_to(model, request, out, resume=resume, npz=npz, progress=False, part=part)


@cache
def _loaded(source: str, backend: str, device: str, options: tuple[tuple[str, Any], ...]) -> Model:
    """The model, once in a worker's life."""
    return load(source, backend, device=device, **dict(options))
