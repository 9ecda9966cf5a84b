"""The error of the predicted image, by noise level: models compared without drawing a sample.

    x_t = alpha_t x0 + sigma_t eps        error_t = mean of (x0_hat(x_t) - x0)^2 over the pixels

All models see the same images with the same noise, so the ratio of two models is one of pairs, and
a hundred images tell apart what a score of hundreds of samples does not. It says nothing of a
sampler: a smaller error at every level need not look better.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from diptych import rng
from diptych.config.load import Config
from diptych.config.schema import DataConfig
from diptych.data.dataset import load_configured
from diptych.data.decoded import Images
from diptych.data.sources.spec import parse, test_split
from diptych.data.survey import spread
from diptych.diffusion.classes import check_labels
from diptych.diffusion.schedule import Schedule
from diptych.errors import UserError
from diptych.evaluation.score_table import aligned, number
from diptych.stats import mean_interval
from diptych.training.batches import held_out_rows
from diptych.types import Float32, Float64, Int64, Pixels

KIND = "diptych denoising"
SCHEMA = 1
LEVELS = (0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.85)  # shares of T
LEAST = 3  # images, for an interval
NUM, BATCH = 768, 64
Predict = Callable[[Float32, Int64, Int64 | None], Float32]


@dataclass(frozen=True)
class Pictures:
    """Images that are noised: name and sha256 of their source, pixels (N, C, H, W), labels (N,)."""

    name: str
    sha256: str
    pixels: Pixels | Images
    labels: Int64 | None

    def some(self, num: int | None) -> Pictures:
        """`num` of them (None: NUM, or all), evenly spread, as folders are in the order of classes.

        Raises:
            UserError: there are fewer, or fewer than an interval needs.
        """
        held = len(self.pixels)
        if held < LEAST:
            raise UserError(f"{self.name}: holds {held} images; {LEAST} or more are needed")
        num = min(NUM, held) if num is None else num
        if not LEAST <= num <= held:
            raise UserError(f"--num {num}: expected {LEAST} to {held}, the images of {self.name}")
        rows = np.array(spread(held, num))
        labels = None if self.labels is None else self.labels[rows]
        return replace(self, pixels=np.ascontiguousarray(self.pixels[rows]), labels=labels)


@dataclass(frozen=True)
class Subject:
    """A model: its name, settings, and its prediction of the noise, as `Model.predict`.

    Attributes:
        still: maps pixels to the network's inputs, as `Preprocess.still`.
        facts: of the weights, for the result.
    """

    name: str
    config: Config
    schedule: Schedule
    predict: Predict
    still: Callable[[Pixels], Float32]
    facts: dict[str, Any]

    @classmethod
    def of(cls, name: str, model: Any) -> Subject:
        """The subject of a `diptych.model.Model`."""
        engine = model.engine
        facts = {**model.facts, "backend": engine.backend.name}
        still = engine.preprocess.still
        return cls(name, model.config, engine.schedule, model.predict, still, facts)


def source_of(data: DataConfig, images: str | None) -> DataConfig:
    """The data that a model is judged by: `images`, else its held-out pictures or test split.

    Raises:
        UserError: there are none.
    """
    if images is not None:
        named = parse(images).splits
        return data.model_copy(
            update={"source": images, "held_out": 0, **({} if named else {"split": "train"})}
        )
    if data.held_out:
        return data
    test = test_split(parse(data.source), data.split)
    if test is None:
        raise UserError(
            f"{data.source}: has no test split that is known, and the model held no pictures out; "
            "give pictures that it was not trained on with --images"
        )
    return data.model_copy(update={"source": test, "split": "test"})


def open_pictures(config: Config, images: str | None, data_dir: Path | None = None) -> Pictures:
    """The pictures of a source, as a model sees them; see `source_of`.

    Raises:
        UserError: as `source_of`, or missing data.
    """
    source = source_of(config.data, images)
    data = load_configured(source, data_dir)
    if not source.held_out:
        return Pictures(source.source, data.sha256, data.images, data.labels)
    rows = np.sort(held_out_rows(config, len(data)))
    labels = None if data.labels is None else data.labels[rows]
    return Pictures(f"{source.source}, held out", data.sha256, data.images[rows], labels)


def errors(
    subject: Subject, pictures: Pictures, seed: int, batch: int, progress: bool = True
) -> Float64:
    """Mean squared error of the predicted image in the network's units, (LEVELS, N)."""
    shape, schedule = subject.config.data.shape, subject.schedule
    if pictures.pixels.shape[1:] != shape:
        ours, theirs = ("x".join(map(str, s)) for s in (shape, pictures.pixels.shape[1:]))
        raise UserError(f"{subject.name}: is for images of {ours}, {pictures.name} has {theirs}")
    images, count = subject.still(np.asarray(pictures.pixels)), len(pictures.pixels)
    noise = rng.normal_per_image(seed, "validation_noise", range(count), shape)
    classes, told = subject.config.model.num_classes, None
    if classes and pictures.labels is not None:
        check_labels(pictures.labels, classes, pictures.name)
        told = pictures.labels
    found = np.empty((len(LEVELS), count))
    with tqdm(total=found.size, desc=subject.name, unit="image", disable=not progress) as bar:
        for row, t in zip(found, timesteps(schedule), strict=True):
            alpha, sigma = np.float32(schedule.alpha[t]), np.float32(schedule.sigma[t])
            for first in range(0, count, batch):
                part = slice(first, first + batch)
                x = alpha * images[part] + sigma * noise[part]
                labels = None if told is None else told[part]
                eps = subject.predict(x, np.full(len(x), t), labels)
                gap = (x - sigma * eps) / alpha - images[part]
                row[part] = np.square(gap, dtype=np.float64).mean((1, 2, 3))
                bar.update(len(x))
    return found


def timesteps(schedule: Schedule) -> list[int]:
    """The timestep of each of LEVELS."""
    return [int(level * schedule.timesteps) for level in LEVELS]


def denoise(
    subjects: Sequence[Subject],
    pictures: Pictures,
    seed: int = 0,
    batch: int = BATCH,
    progress: bool = True,
) -> dict[str, Any]:
    """Compare models; the first is what the others are divided by.

    Returns:
        Plain JSON values. `models` has `errors`, the mean of each level, and `ratio`, the geometric
        mean over levels and images of a model's error over the first one's, with its 95 %
        `interval` over images; None for the first.

    Raises:
        UserError: models of different schedules or pixels, or images that do not fit.
    """
    if not 0 <= seed < 2**63:
        raise UserError(f"--seed is {seed}; it must be 0 or more, and less than 2**63")
    first = subjects[0]
    for other in subjects[1:]:
        for key in ("diffusion.schedule", "diffusion.timesteps", "diffusion.beta_start",
                    "diffusion.beta_end", "diffusion.zero_terminal_snr",
                    "data.rescaled", "data.logit_transform"):  # fmt: skip
            section, name = key.split(".")
            a, b = (getattr(getattr(s.config, section), name) for s in (first, other))
            if a != b:
                raise UserError(
                    f"{other.name}: has {key}={b}, {first.name} has {a}; their levels of noise "
                    "are not the same, so their errors cannot be compared"
                )
    found = [errors(each, pictures, seed, batch, progress) for each in subjects]
    return {
        "schema": SCHEMA,
        "kind": KIND,
        "images": pictures.name,
        "images_sha256": pictures.sha256,
        "num": len(pictures.pixels),
        "seed": seed,
        "timesteps": timesteps(first.schedule),
        "models": [
            {
                "model": subject.name,
                **subject.facts,
                "classes": bool(subject.config.model.num_classes) and pictures.labels is not None,
                "errors": each.mean(1).tolist(),
                "ratio": None if each is found[0] else ratio(found[0], each),
            }
            for subject, each in zip(subjects, found, strict=True)
        ],
    }


def ratio(first: Float64, other: Float64) -> dict[str, Any]:
    """The geometric mean of other / first, and its 95 % interval over the images."""
    tiny = np.finfo(np.float64).tiny
    gaps = np.log((other + tiny) / (first + tiny)).mean(0)
    return {
        "value": float(np.exp(gaps.mean())),
        "interval": [float(np.exp(end)) for end in mean_interval(list(gaps))],
    }


def render(result: dict[str, Any]) -> str:
    """The table, and a sentence for each model after the first."""
    models = result["models"]
    head = ["t", *(each["model"] for each in models)]
    rows = [
        [str(t), *(number(each["errors"][i], 3) for each in models)]
        for i, t in enumerate(result["timesteps"])
    ]
    lines = [
        f"error of the predicted image, {result['num']:,} images of {result['images']}",
        "",
        aligned(head, rows),
    ]
    for each in models:
        if each["ratio"] is None:
            continue
        low, high = each["ratio"]["interval"]
        word = "larger" if low > 1 else "smaller" if high < 1 else ""
        said = f"the error is {word}" if word else "no difference is shown"
        lines.append(
            f"{each['model']} / {models[0]['model']}: {each['ratio']['value']:.5f} "
            f"({low:.5f} to {high:.5f}); {said}"
        )
    if len({each["classes"] for each in models}) > 1:
        lines.append("Conditional models receive the class labels.")
    return "\n".join(lines).rstrip()
