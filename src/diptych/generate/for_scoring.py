"""Samples of a run for scoring: drawn first, into a folder below the run, and resumable.

The folder's name encodes everything the images depend on: another number, backend or checkpoint
goes to another folder, and a repeated request reuses its images.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from diptych.config.load import Config, flatten
from diptych.diffusion.schedule import make_schedule
from diptych.errors import UserError
from diptych.generate.samples import IDENTITY, SampleRequest, default_folder, sample_to
from diptych.runs.folder import compare_start
from diptych.sampling.options import SamplerOptions
from diptych.sampling.sampler import choose_sampler
from diptych.weights.find import find_weights
from diptych.weights.guides import guide_facts

_NAMED = ("zoo:", "pretrained:")  # weights outside the user's folders


@dataclass(frozen=True)
class Drawing:
    """Sampling settings for an evaluation; repeats use seeds `seed`, `seed` + 1, ...

    Options not given follow the model's recommendation, if there is one. A model with classes draws
    every class in turn if none is chosen.
    """

    options: SamplerOptions = field(default_factory=SamplerOptions)
    seed: int = 0
    batch: int | None = 64  # images at once; None: `Model.batch`
    raw: bool = False
    precision: str = "fp32"
    deterministic: bool = False

    def __post_init__(self) -> None:
        if self.batch is not None and self.batch < 1:
            raise UserError(f"--sample-batch is {self.batch}; it must be 1 or more")


def is_model(source: str) -> bool:
    """True if `source` is a model (a run, a saved folder, a graph, zoo:NAME ...), not images."""
    from diptych.data.readers.folder import is_sample_folder
    from diptych.weights.formats import is_diffusers
    from diptych.weights.formats.graphs import is_graph

    if source.startswith(_NAMED):
        return True
    path = Path(source)
    if path.is_file():
        return is_graph(path)
    if not path.is_dir() or is_sample_folder(path):
        return False
    return (path / "config.yaml").is_file() or is_diffusers(path)


def draw(
    source: str,
    drawing: Drawing,
    num: int,
    repeats: int,
    backend: str,
    device: str,
    *,
    folder: Path | None = None,
    progress: bool = True,
    note: Callable[[str | None], None] = lambda text: None,
) -> list[Path]:
    """Sample a model `repeats` times, `num` images each; return the sample folders.

    Args:
        source: a run, a checkpoint, zoo:NAME, pretrained:NAME, a folder of diffusers, or an ONNX or
            OpenVINO file.
        folder: parent of the sample folders; required for a NAME or a file, else RUN/samples by
            default.
        note: receives notes on the weights and on recommended settings, before drawing.

    Raises:
        UserError: as `diptych sample`.
    """
    from diptych.model import load

    if folder is None and (source.startswith(_NAMED) or Path(source).is_file()):
        raise UserError(f"{source}: where do its samples go? Give a folder with --samples-out")
    found = find_weights(source, None, drawing.raw)
    sampler, said = choose_sampler(drawing.options, found.config, found.sampler)
    note(found.note and f"note: {found.note}")
    note(said)
    guide = guide_facts(sampler.guide, found.config)
    sha = found.facts()["weights_sha256"][:8]
    first = SampleRequest(sampler, num, drawing.seed, drawing.batch)
    requests = [replace(first, seed=drawing.seed + i) for i in range(repeats)]
    outs = []
    for request in requests:
        out = default_folder(Path(source), request, drawing.precision)
        name = f"{out.name}-n{num}-{found.kind}-{backend}-{sha}"
        outs.append((folder or out.parent) / name)
    done = [_complete(out) for out in outs]
    for request, out, there in zip(requests, outs, done, strict=True):
        if there:
            facts = {**found.facts(), **guide, "backend": backend, "precision": drawing.precision}
            _check_drawn(out, request, found.config, facts)
    if all(done):
        return outs  # without the framework's slow start
    model = load(
        source,
        backend,
        device=device,
        raw=drawing.raw,
        precision=drawing.precision,
        deterministic=drawing.deterministic,
    )
    for request, out in zip(requests, outs, strict=True):
        if not _complete(out):
            sample_to(model, request, out, resume=True, progress=progress)
    return outs


def _check_drawn(out: Path, request: SampleRequest, config: Config, facts: dict[str, Any]) -> None:
    """Refuse complete samples of another schedule or preprocessing, which the folder's name omits.

    Raises:
        UserError: the first setting that differs.
    """
    now = {
        **request.sampler.card(make_schedule(config.diffusion)),
        "start": None, "num": request.num,
        "seed": request.seed, "batch": request.batch, **facts, "config": flatten(config),
    }  # fmt: skip
    keys = [key for key in IDENTITY if key != "batch" or request.batch is not None]
    _, difference = compare_start(out, now, keys)
    if difference:
        raise UserError(
            f"{out}: {difference}; remove that folder to draw its images again, or choose another "
            f"--samples-out"
        )


def _complete(out: Path) -> bool:
    """True if a folder's sampling was finished and all its images are there."""
    from diptych.data.readers.folder import sample_names

    try:
        return sample_names(out) is not None
    except UserError:
        return False
