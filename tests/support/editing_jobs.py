"""Jobs of the editing tests in a backend's process, as importable functions."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

import diptych
import panel_jobs
from diptych.config.load import Config
from diptych.data import load_dataset
from diptych.diffusion.schedule import CLEAN
from diptych.evaluation.nearest import Nearest, search
from diptych.generate.encode import encode_to
from diptych.generate.inputs import Inputs, read_inputs
from diptych.generate.latents import read_latents
from diptych.generate.roundtrip import EncodeRequest, errors_of, round_trip
from diptych.generate.samples import SampleRequest, sample_to
from diptych.generate.starts import FromImages, from_latents
from diptych.sampling.inversion import make_inversion
from diptych.sampling.sampler import make_sampler
from diptych.sampling.solvers import invert
from diptych.training.batches import to_float

# Weights that no renewal of the zoo changes: the bounds were measured with them.
OLD = Path(__file__).parents[1] / "old_records" / "mnist-torch"
TRAINED: dict[str, Any] = {}


def digits(count: int = 2) -> Any:
    """Pictures (N, 1, 28, 28) uint8."""
    return load_dataset("mnist-10k").images[:count]


def trained(name: str) -> Any:
    """A trained model on a backend, loaded once per process."""
    if name not in TRAINED:
        TRAINED[name] = diptych.load(str(OLD), backend=name, device="cpu")
    return TRAINED[name]


def trip_errors(name: str, settings: list[tuple[int, int]]) -> list[Any]:
    """The error of each image after a round trip, for (steps, refine)."""
    model = trained(name)
    return [round_trip(model, make_inversion(s, refine=r), digits()).error for s, r in settings]


def misordered_trip(name: str, steps: int) -> Any:
    """Round trip errors of a network that gets the upward levels in the wrong order."""
    model, sampler = trained(name), make_sampler("ddim", steps)
    engine = model.engine
    down = [engine.schedule.level(t) for t in sampler.timesteps(engine.schedule)]
    told, denoise = dict(zip(down[::-1], down, strict=True)), engine.denoiser(sampler)
    start = engine.backend.array(to_float(digits()))
    x = invert(lambda x, level: denoise(x, told[level]), start, [CLEAN, *down[::-1]])
    back = model.sample(len(digits()), steps=steps, x_T=engine.backend.numpy(x), as_float=True)
    return errors_of(model, digits(), back)


def python_trip(name: str, steps: int) -> tuple[Any, Any, Any]:
    """Latents by `model.encode`, from uint8 and from floats, and the images they decode to."""
    model, images = trained(name), digits(3).transpose(0, 2, 3, 1)
    from_bytes = model.encode(images, steps, batch=2)
    from_floats = model.encode(to_float(digits(3)), steps, batch=3)
    return from_bytes, from_floats, model.sample(3, steps=steps, x_T=from_bytes)


def inputs_of(config: Config, count: int) -> Inputs:
    size = config.data.image_size
    return read_inputs(["mnist:test"], (1, size, size), count)


def encode_folder(
    name: str, out: Path, count: int = 5, fail_at: int | None = None, **options: Any
) -> Any:
    """`diptych encode` with a fresh small model; `fail_at` stops in that batch."""
    config = panel_jobs.small()
    model = panel_jobs.make(name, config)
    curve = tuple(make_inversion(s) for s in options.pop("curve", ()))
    request = EncodeRequest(inputs_of(config, count), make_inversion(4), curve, batch=2, **options)
    if fail_at is not None:
        whole, calls = model.engine.draw, iter(range(1000))

        def broken(*args: Any, **named: Any) -> Any:
            if next(calls) == fail_at:
                raise KeyboardInterrupt("planted")
            return whole(*args, **named)

        object.__setattr__(model.engine, "draw", broken)
    try:
        return encode_to(model, request, out, resume=True, progress=False)
    except KeyboardInterrupt:
        return None


def decode_folder(name: str, latents: Path, out: Path) -> Any:
    """`diptych sample --latents` with the same model and batches."""
    model = panel_jobs.make(name, panel_jobs.small())
    read = read_latents(latents, model.engine.shape)
    sampler = make_sampler("ddim", read.card["steps"], spacing=read.card["spacing"])
    start = from_latents(read, sampler.timesteps(model.engine.schedule)[0], None)
    request = SampleRequest(sampler, len(start.x), batch=2, start=start)
    return sample_to(model, request, out, progress=False)


def from_images(name: str, out: Path, level: int, steps: int, **options: Any) -> Any:
    """`diptych sample --from` with a fresh small model; return manifest and inputs."""
    config = panel_jobs.small()
    model = panel_jobs.make(name, config)
    sampler = make_sampler("ddim", steps).__class__(steps=steps, level=level)
    timesteps = sampler.timesteps(model.engine.schedule)
    first = model.engine.schedule.level(timesteps[0]) if timesteps else CLEAN
    inputs = inputs_of(config, 2)
    start = FromImages(inputs, 0, first, "x")
    request = SampleRequest(sampler, 3, batch=3, start=start, **options)
    manifest = sample_to(model, request, out, progress=False)
    return manifest, np.asarray(inputs.pixels)


def page_example(name: str) -> tuple[Any, Any]:
    """The example of docs/editing.md with fewer steps: both sets of images."""
    page = Path(__file__).parents[2] / "docs" / "editing.md"
    (code,) = re.findall(r"```python\n(.*?)```", page.read_text("utf-8"), re.S)
    code = code.replace("steps=50", "steps=12")
    load = 'diptych.load("zoo:mnist-torch")'
    assert load in code and "steps=12" in code
    scope: dict[str, Any] = {"trained": trained}
    exec(code.replace(load, f"trained({name!r})"), scope)
    return scope["images"], scope["again"]


def feature_neighbours(name: str) -> tuple[Any, Any]:
    """Nearest neighbours of two digits among twenty that include them, by classifier features."""
    data = load_dataset("mnist-10k")
    few = replace(data, images=data.images[:20], labels=data.labels[:20])
    backend = trained(name).engine.backend
    found = search(Nearest(few, 2, "features"), data.images[[3, 17]], backend)
    return found.index, found.distance


def encode_without_class(name: str) -> tuple[Any, Any, Any]:
    """Latents of a network with classes, and computed by hand without a class and with class 7."""
    model = panel_jobs.make(name, panel_jobs.small("model.num_classes=10"))
    engine, images = model.engine, inputs_of(panel_jobs.small(), 2).pixels
    found = [model.encode(images.transpose(0, 2, 3, 1), 5, refine=0)]
    for told in ({"guidance": 0.0}, {"classes": [7]}):
        sampler = make_sampler("ddim", 5, num_classes=10, **told)
        up = [CLEAN, *map(engine.schedule.level, sampler.timesteps(engine.schedule)[::-1])]
        x = engine.backend.array(engine.floats(images))
        found.append(engine.backend.numpy(invert(engine.denoiser(sampler, range(2)), x, up)))
    return found[0], found[1], found[2]
