"""Faults in the host's code: settings, data, schedule, sampling, metrics. See `mutations`."""

from __future__ import annotations

import dataclasses
import importlib
import io
from typing import Any

import numpy as np

from diptych.align.ladder.rungs import metric
from diptych.config import load
from diptych.data import preprocess
from diptych.diffusion import objective, schedule, timesteps
from diptych.evaluation import resize as resizing
from diptych.evaluation import statistics
from diptych.network import plan
from diptych.runs import checkpoint
from diptych.sampling import engine, sampler
from diptych.training import batches as data_batches


def hyper_parameter(_: Any, patch: Any) -> None:
    original = load.validate

    def validate(tree: Any, where: str, names: Any = None) -> Any:
        right = original(tree, where, names)
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

    def batch(self: Any, step: int, *rest: Any) -> Any:
        right = original(self, step, *rest)
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
    """Plant the learning rate of changed `train` settings."""
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
        lambda seed, purpose, images, shape, step=0, *rest: original(
            seed, purpose, images, shape, 0, *rest
        ),
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


def epochs_alike(_: Any, patch: Any) -> None:
    original = data_batches.Batches.order
    patch.set(data_batches.Batches, "order", lambda self, epoch: original(self, 0))


def label_dropout_ignored(_: Any, patch: Any) -> None:
    patch.set(data_batches, "drop_labels", lambda labels, *_: labels)


def dequantization_ignored(_: Any, patch: Any) -> None:
    def spread(self: Any, pixels: Any, seed: int, step: int) -> Any:
        return pixels.astype(np.float32) / np.float32(255)

    patch.set(preprocess.Preprocess, "_spread", spread)


def masks_repeat(_: Any, patch: Any) -> None:
    original = data_batches.Batches.masks
    patch.set(data_batches.Batches, "masks", lambda self, _, *given: original(self, 1, *given))


def groups_confused(_: Any, patch: Any) -> None:
    original = checkpoint.load_weights

    def load_weights(path: Any, group: str, *rest: Any) -> Any:
        return original(path, "raw" if group == "ema" else group, *rest)

    patch.set(checkpoint, "load_weights", load_weights)


def cosine_offset(_: Any, patch: Any) -> None:
    def cosine(timesteps: int) -> Any:
        alpha_bar = np.cos(np.arange(timesteps + 1) / timesteps * np.pi / 2) ** 2
        return np.minimum(1.0 - alpha_bar[1:] / alpha_bar[:-1], 0.999)

    patch.set(schedule, "_cosine", cosine)


def terminal_snr_ignored(_: Any, patch: Any) -> None:
    original = schedule.make_schedule

    def make(settings: Any) -> Any:
        return original(settings.model_copy(update={"zero_terminal_snr": False}))

    patch.set(schedule, "make_schedule", make)
    patch.set(data_batches, "make_schedule", make)


def gamma_ignored(_: Any, patch: Any) -> None:
    original = objective.min_snr_weights

    def weights(aim: str, tables: Any, gamma: float) -> Any:
        return original(aim, tables, 5.0)

    patch.set(objective, "min_snr_weights", weights)
    patch.set(data_batches, "min_snr_weights", weights)


def karras_rho(_: Any, patch: Any) -> None:
    patch.set(timesteps, "RHO", 5.0)


def cosines_first(_: Any, patch: Any) -> None:
    original = plan.Plan.times

    def times(self: Any, t: Any) -> Any:
        return np.roll(original(self, t), self.ch // 2, axis=-1)

    patch.set(plan.Plan, "times", times)


def covariance_by_n(_: Any, patch: Any) -> None:
    original = statistics.Statistics.moments

    def moments(self: Any) -> Any:
        right: Any = original(self)
        return dataclasses.replace(right, cov=right.cov * (right.n - 1) / right.n)

    patch.set(statistics.Statistics, "moments", moments)


def score_unsplit(_: Any, patch: Any) -> None:
    original = patch.original(metric, "inception_score")
    patch.set(metric, "inception_score", lambda logits, _, *rest: original(logits, 1, *rest))


def kernel_of_other_subsets(_: Any, patch: Any) -> None:
    original = patch.original(metric, "kernel_distance")
    patch.set(metric, "kernel_distance", lambda *given: original(*given, seed=1))


def fifth_neighbour(_: Any, patch: Any) -> None:
    original = patch.original(metric, "neighbours")
    patch.set(metric, "neighbours", lambda *given: original(*given, k=5))


ROWS = (
    ("hyper_parameter", "config", "Adam's beta2 is another", hyper_parameter),
    ("colours_reversed", "data", "BGR in place of RGB", colours_reversed),
    ("last_batch_dropped", "data", "an epoch's last, smaller batch is left out",
     last_batch_dropped),
    ("flips_inverted", "data", "the other images are flipped", flips_shifted),
    ("epochs_alike", "data", "every epoch has the order of the first", epochs_alike),
    ("label_dropout_ignored", "data", "no label is dropped", label_dropout_ignored),
    ("dequantization_ignored", "data", "pixels are not dequantized", dequantization_ignored),
    ("masks_repeat", "data", "dropout's masks are the same in each step", masks_repeat),
    ("groups_confused", "weights", "the averaged weights are read from the others' file",
     groups_confused),
    ("cosine_offset", "schedule", "the cosine schedule has no offset", cosine_offset),
    ("terminal_snr_ignored", "schedule", "the last timestep keeps something of the image",
     terminal_snr_ignored),
    ("gamma_ignored", "schedule", "min-SNR's gamma is 5, whatever the config says", gamma_ignored),
    ("karras_rho", "schedule", "the spacing karras has rho 5", karras_rho),
    ("cosines_first", "schedule", "the time embedding has cosines before sines", cosines_first),
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
    ("covariance_by_n", "metric", "the covariance is divided by n, not by n - 1", covariance_by_n),
    ("kernel_of_other_subsets", "metric", "the kernel distance is over other subsets",
     kernel_of_other_subsets),
    ("fifth_neighbour", "metric", "precision and recall take the fifth neighbour", fifth_neighbour),
    ("score_unsplit", "metric", "the Inception Score is over all images at once", score_unsplit),
)  # fmt: skip
