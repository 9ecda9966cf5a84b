"""Jobs of the tests of classes and prediction types in a backend's process; see `work`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

import diptych
import panel_jobs
from diptych import backends
from diptych.config.load import Config
from diptych.data import load_dataset
from diptych.errors import UserError
from diptych.figures.grids import read_png
from diptych.generate.for_scoring import Drawing, draw
from diptych.generate.samples import SampleRequest, sample_to
from diptych.network.parameters import initial_weights
from diptych.network.plan import make_plan
from diptych.sampling.options import SamplerOptions
from diptych.sampling.sampler import make_sampler
from diptych.training.batches import Batches
from diptych.weights.find import find_weights

TOLD = ["model.num_classes=10", "train.label_dropout=0.3"]


def batches(config: Config) -> Batches:
    """The batches of a config on the packaged images and labels."""
    data = load_dataset("mnist-10k", image_size=config.data.image_size)
    return Batches(config, make_plan(config), data.images, data.labels)


def gradients(name: str, config: Config) -> Any:
    """Loss and gradients of the first batch at fresh weights."""
    backend, plan = backends.load(name, "cpu"), make_plan(config)
    learner = backend.learner(plan, initial_weights(plan, 0), config.train, config.seed)
    return learner.gradients(batches(config).batch(1))


def predictions(name: str, config: Config, x: Any, t: Any, labels: Any) -> list[Any]:
    """Predicted noise with these labels, with explicit 'no class', and with no labels given."""
    model = panel_jobs.make(name, config)
    none = np.full(len(x), config.model.num_classes)
    return [model.predict(x, t, labels), model.predict(x, t, none), model.predict(x, t)]


def guided(name: str, config: Config, options: list[dict[str, Any]]) -> list[Any]:
    """Floats (8, C, H, W) of one fresh model for each set of options."""
    model = panel_jobs.make(name, config)
    return [model.sample(8, steps=4, as_float=True, **each) for each in options]


def train_and_draw(
    name: str, config: Config, run: Path, halves: bool, **options: Any
) -> dict[str, Any]:
    """Train a few steps, with `halves` also resumed halfway, and generate images."""
    import diptych

    panel_jobs.run(name, config, run / "whole")
    model = diptych.load(run / "whole", backend=name, device="cpu")
    same = True
    if halves:
        shorter = config.train.model_copy(update={"steps": 2})
        panel_jobs.run(name, config.model_copy(update={"train": shorter}), run / "halves")
        panel_jobs.run(name, config, run / "halves", resume=True)
        other = find_weights(str(run / "halves")).weights
        same = all(np.array_equal(model.weights[key], other[key]) for key in other)
    images = model.sample(4, as_float=True, **options)
    return {"resumed to the same bits": same, "images": images}


def sets_of(name: str, run: Path, **drawing: Any) -> list[Path]:
    """The sample folders that `diptych evaluate RUN` would score."""
    made = Drawing(SamplerOptions(steps=3, **drawing))
    return draw(str(run), made, 4, 1, name, "cpu", progress=False)


def guided_by(name: str, source: str, settings: dict[str, Any], out: Path) -> Any:
    """uint8 (4, H, W, C) of a model drawn into a folder with a guide, in four steps."""
    model = diptych.load(source, name, device="cpu")
    sampler = make_sampler("ddim", 4, **settings, num_classes=model.engine.plan.num_classes)
    sample_to(model, SampleRequest(sampler, 4), out, progress=False)
    return np.stack([read_png(out / f"{i:05d}.png").transpose(1, 2, 0) for i in range(4)])


def guided_in_python(name: str, source: str, settings: dict[str, Any]) -> Any:
    """The same images from `Model.sample`."""
    return diptych.load(source, name, device="cpu").sample(4, "ddim", 4, **settings)


def refused_guide(name: str, source: str, guide: str, out: Path) -> str:
    """The refusal of a guide of other images, with which a folder is to be drawn."""
    model = diptych.load(source, name, device="cpu")
    try:
        sample_to(model, SampleRequest(make_sampler(guide=guide), 4), out, progress=False)
    except UserError as error:
        return str(error)
    return "nothing was refused"


def guide_replaced(name: str, folder: Path) -> list[str]:
    """The hashes that two manifests hold, where the guide's folder was replaced in between."""
    guide = diptych.load("zoo:mnist-conditional/guide", name, device="cpu").save(folder / "guide")
    model = diptych.load("zoo:mnist-torch", name, device="cpu")
    found = []
    for k in range(2):
        out = folder / f"out{k}"
        sampler = make_sampler("ddim", 2, guide=str(guide))
        found.append(sample_to(model, SampleRequest(sampler, 1), out, progress=False))
        other = diptych.load("zoo:mnist-torch/guide", name, device="cpu")
        other.save(guide, overwrite=True)
    return [manifest["guide_sha256"] for manifest in found]
