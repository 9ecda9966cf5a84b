"""Faults of the host's side: settings, data, schedule, sampling. See `mutations`."""

from __future__ import annotations

import dataclasses
import importlib
import io
from typing import Any

import numpy as np

from diptych.align.ladder.rungs import metric
from diptych.config import load
from diptych.diffusion import schedule
from diptych.evaluation import resize as resizing
from diptych.sampling import engine, sampler
from diptych.training import batches as data_batches


def hyper_parameter(_: Any, patch: Any) -> None:
    original = load.validate

    def validate(tree: Any, where: str) -> Any:
        right = original(tree, where)
        beta2 = 0.99 if right.train.beta2 != 0.99 else 0.999
        return right.model_copy(update={"train": right.train.model_copy(update={"beta2": beta2})})

    patch.set(load, "validate", validate)


def colours_reversed(_: Any, patch: Any) -> None:
    original = data_batches.to_float
    patch.set(data_batches, "to_float", lambda images: original(images[:, ::-1]))


def last_batch_dropped(_: Any, patch: Any) -> None:
    original = data_batches.Batches.__init__

    def init(self: Any, settings: Any, plan: Any, images: Any, labels: Any = None) -> None:
        original(self, settings, plan, images, labels)
        self.steps_per_epoch = max(1, len(images) // settings.train.batch_size)

    patch.set(data_batches.Batches, "__init__", init)


def flips_shifted(_: Any, patch: Any) -> None:
    original = data_batches.Batches.batch

    def batch(self: Any, step: int) -> Any:
        right = original(self, step)
        if not self.config.data.random_flip:
            return right
        return dataclasses.replace(right, x0=right.x0[..., ::-1].copy())

    patch.set(data_batches.Batches, "batch", batch)


def schedule_shifted(_: Any, patch: Any) -> None:
    original = schedule.make_schedule

    def make(settings: Any) -> Any:
        right = original(settings)
        tables = [np.append(t[1:], t[-1]) for t in (right.beta, right.alpha, right.sigma)]
        return schedule.Schedule(*tables)

    patch.set(schedule, "make_schedule", make)
    patch.set(data_batches, "make_schedule", make)


def _rate_of_others(patch: Any, **changes: Any) -> None:
    """The learning rate that other settings of `train` have."""
    training: Any = importlib.import_module("diptych.training.loop")
    original = training.learning_rate

    def rate(settings: Any, last: int, step: int) -> Any:
        return original(settings.model_copy(update=changes), last, step)

    patch.set(training, "learning_rate", rate)


def warm_up_ignored(_: Any, patch: Any) -> None:
    _rate_of_others(patch, warmup_steps=0)


def decay_ignored(_: Any, patch: Any) -> None:
    _rate_of_others(patch, lr_decay="none")


def decay_to_zero(_: Any, patch: Any) -> None:
    _rate_of_others(patch, lr_final=0.0)


def spacing_mistaken(_: Any, patch: Any) -> None:
    original = patch.original(sampler, "choose_timesteps")

    def choose(name: str, steps: int, tables: Any) -> Any:
        return original("quad" if name == "uniform" else name, steps, tables)

    patch.set(sampler, "choose_timesteps", choose)


def last_alpha(_: Any, patch: Any) -> None:
    patch.set(sampler, "CLEAN", schedule.Level(-1, (1 - 1e-4) ** 0.5, 1e-2))


def noise_reused(_: Any, patch: Any) -> None:
    original = patch.original(engine, "normal_per_image")
    patch.set(
        engine,
        "normal_per_image",
        lambda seed, purpose, images, shape, step=0: original(seed, purpose, images, shape),
    )


def jpeg(_: Any, patch: Any) -> None:
    original = metric.images

    def images(seed: int, which: int) -> Any:
        from PIL import Image

        found = []
        for picture in original(seed, which):
            buffer = io.BytesIO()
            Image.fromarray(picture).save(buffer, format="JPEG", quality=75)
            found.append(np.asarray(Image.open(buffer)))
        return np.stack(found)

    patch.set(metric, "images", images)


def resize_mistaken(_: Any, patch: Any) -> None:
    original = resizing.resize
    patch.set(resizing, "resize", lambda images, _, size: original(images, "tf1-bilinear", size))


ROWS = (
    ("hyper_parameter", "config", "Adam's beta2 is another", hyper_parameter),
    ("colours_reversed", "data", "BGR in place of RGB", colours_reversed),
    ("last_batch_dropped", "data", "an epoch's last, smaller batch is left out",
     last_batch_dropped),
    ("flips_inverted", "data", "the other images are flipped", flips_shifted),
    ("schedule_shifted", "schedule", "the noise schedule is off by one step", schedule_shifted),
    ("warm_up_ignored", "update", "the learning rate starts at its full height",
     warm_up_ignored),
    ("decay_ignored", "update", "the learning rate does not decay", decay_ignored),
    ("decay_to_zero", "update", "the learning rate decays to 0, not to its last value",
     decay_to_zero),
    ("spacing_mistaken", "solver", "quadratic spacing in place of uniform", spacing_mistaken),
    ("last_alpha", "solver", "the last step ends at the first noise level, not at the clean image",
     last_alpha),
    ("noise_reused", "solver", "every step of a stochastic chain adds the same noise",
     noise_reused),
    ("jpeg", "metric", "images reach the metric through JPEG", jpeg),
    ("resize", "metric", "images are resized from their corners, as TensorFlow 1 does",
     resize_mistaken),
)  # fmt: skip
