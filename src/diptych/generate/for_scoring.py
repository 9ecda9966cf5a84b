"""A run in place of samples: it is sampled first, into a folder below the run, and resumably.

The folder's name holds all that the images depend on, so that another number, panel or checkpoint
goes to another folder, and the same request finds its images drawn already.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from diptych.errors import UserError
from diptych.generate.samples import Request, default_folder, sample_to
from diptych.sampling.options import SamplerOptions
from diptych.sampling.sampler import choose_sampler

_NAMED = ("zoo:", "pretrained:")  # weights that are in no folder of the user's


@dataclass(frozen=True)
class Drawing:
    """How a run is sampled for an evaluation; seeds `seed`, `seed` + 1, ... for its repeats.

    What the options leave open is as the model recommends, if it does. A model with classes draws
    every class in turn if none is chosen.
    """

    options: SamplerOptions = field(default_factory=SamplerOptions)
    seed: int = 0
    batch: int = 64
    raw: bool = False


def is_model(source: str) -> bool:
    """Whether `source` names weights (a run, a checkpoint, zoo:NAME ...) and not images."""
    from diptych.data.readers.folder import is_sample_folder
    from diptych.weights.formats import is_diffusers

    if source.startswith(_NAMED):
        return True
    path = Path(source)
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
    """Sample a model `repeats` times, `num` images each; gives the sample folders.

    Args:
        source: a run, a checkpoint, zoo:NAME, pretrained:NAME or a folder of diffusers.
        folder: where the sample folders go; needed for a NAME, else RUN/samples.
        note: told what the model's own sampler decides, before anything is drawn.

    Raises:
        UserError: as `diptych sample`.
    """
    from diptych.model import load
    from diptych.weights.find import find_weights

    if folder is None and source.startswith(_NAMED):
        raise UserError(f"{source}: where do its samples go? Give a folder with --samples-out")
    found = find_weights(source, None, drawing.raw)
    sampler, said = choose_sampler(drawing.options, found.config, found.sampler)
    note(found.note and f"note: {found.note}")
    note(said)
    sha = found.facts()["weights_sha256"][:8]
    first = Request(sampler, num, drawing.seed, drawing.batch)
    requests = [replace(first, seed=drawing.seed + i) for i in range(repeats)]
    outs = []
    for request in requests:
        out = default_folder(Path(source), request)
        name = f"{out.name}-n{num}-{found.kind}-{backend}-{sha}"
        outs.append((folder or out.parent) / name)
    if all(_complete(out) for out in outs):
        return outs  # no need for the framework's slow start
    model = load(source, backend, device=device, raw=drawing.raw)
    for request, out in zip(requests, outs, strict=True):
        if not _complete(out):
            sample_to(model, request, out, resume=True, progress=progress)
    return outs


def _complete(out: Path) -> bool:
    from diptych.files import read_json

    manifest = out / "manifest.json"
    return manifest.is_file() and bool(read_json(manifest).get("complete"))
