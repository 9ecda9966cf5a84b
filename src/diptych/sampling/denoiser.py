"""A network as a `denoise`: conditioned on time and class, guided, its output converted to eps.

    out = (1 - w) network(x, t, no class) + w network(x, t, class)

w = 0 and w = 1 take one evaluation per image; any other w takes two, both in one call with a batch
of twice the size. Guiding eps, x0 or v gives the same result: each is an affine function of the
others with coefficients that depend only on x and t, and the weights of the two outputs sum to 1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from diptych.backends.protocol import Backend
from diptych.diffusion.classes import Classes, choose_classes, class_rows, labels_of
from diptych.diffusion.schedule import Level, Schedule
from diptych.errors import UserError
from diptych.network.own import AnyPlan
from diptych.sampling.solvers import Denoiser, from_v, from_x0
from diptych.sampling.solvers.wrappers import image_of, implied
from diptych.types import Array, Float32

Denoise = Callable[[Any, Level], Any]
Observer = Callable[[int, Level, Any], None]
"""Called after each step with (k, the level reached, the images there)."""


@dataclass(frozen=True)
class Predictor:
    """A network on a backend."""

    backend: Backend
    network: Any
    plan: AnyPlan

    def denoise(
        self, classes: Classes | None, guidance: float | None, images: Sequence[int]
    ) -> Denoise:
        """A `denoise` that predicts the noise of the images with these indices.

        Args:
            classes: the n classes; image i gets number i mod n. None: no class.
            guidance: w; None means 1.
            images: indices of the images; needed if there are classes.
        """
        rows = self.rows(classes, guidance, images)

        def predict(x: Any, level: Level) -> Any:
            # All rows share one timestep, so its embedding is one row.
            embedding = self.backend.array(self.plan.times([level.t]))
            if rows is None:
                return self.backend.predict(self.network, x, embedding)
            if classes is None or guidance is None or guidance in (0.0, 1.0):
                return self.backend.predict(self.network, x, embedding, rows)
            both: Any = self.backend.predict(self.network, self.backend.twice(x), embedding, rows)
            count = x.shape[0]
            return (1.0 - guidance) * both[:count] + guidance * both[count:]

        if self.plan.objective == "eps":
            return predict
        made: Denoise = (from_x0 if self.plan.objective == "x0" else from_v)(predict)
        return made

    def rows(self, classes: Classes | None, guidance: float | None, images: Sequence[int]) -> Any:
        """The class rows that condition a call; None if the network has no classes.

        One row if all images share it, else one per image. For guidance, the rows without a class
        come first, then those with one.
        """
        count = self.plan.num_classes
        if not count:
            return None
        labels: npt.ArrayLike = [count]
        if classes is not None and guidance != 0.0:
            plain = guidance in (None, 1.0)
            given = labels_of(classes, images[:1] if plain and len(classes) == 1 else images)
            labels = given if plain else np.concatenate([np.full(len(given), count), given])
        return self.backend.array(class_rows(labels, count))

    def predict(
        self, x: Float32, t: Array, classes: npt.ArrayLike | None, schedule: Schedule
    ) -> Float32:
        """Predict the noise of host images, each at its own timestep; see `Model.predict`."""
        count, put = self.plan.num_classes, self.backend.array
        given = [put(x), put(self.plan.times(t))]
        if classes is not None and not count:
            choose_classes([], None, count)  # refuses
        if count:
            labels = np.full(len(x), count) if classes is None else np.asarray(classes)
            check_integers("classes", labels, len(x), count + 1)
            given.append(put(class_rows(labels, count)))
        out = self.backend.numpy(self.backend.predict(self.network, *given))
        alpha, sigma = (
            table[t].astype(np.float32)[:, None, None, None]
            for table in (schedule.alpha, schedule.sigma)
        )
        if self.plan.objective == "x0":
            out = (x - alpha * out) / sigma
        elif self.plan.objective == "v":
            out = sigma * x + alpha * out
        return out


def check_integers(name: str, values: Array, count: int, end: int) -> None:
    """Raise UserError unless `values` are `count` integers in 0 .. end - 1."""
    if values.shape != (count,) or not np.issubdtype(values.dtype, np.integer):
        raise UserError(f"predict: {name} must be {count} integers, one for each image")
    if count and not (values.min() >= 0 and values.max() < end):
        raise UserError(f"predict: {name} must be in 0 .. {end - 1}")


def watched(
    denoise: Denoise, predicted: Observer, observe: Observer | None
) -> tuple[Denoise, Observer]:
    """Wrap `denoise` and `observe`: `predicted` sees each step's first prediction, as an image."""
    first: list[Callable[[], Any]] = []

    def show(image: Callable[[], Any]) -> None:
        if not first:
            first.append(image)

    def eps(x: Any, level: Level) -> Any:
        found = denoise(x, level)
        show(lambda: implied(denoise, x, found, level))
        return found

    def image(x: Any, level: Level) -> Any:
        found = image_of(denoise, x, level)
        show(lambda: found)
        return found

    def both(k: int, level: Level, x: Any) -> None:
        if observe is not None:
            observe(k, level, x)
        predicted(k, level, first.pop()())

    return Denoiser(eps, image, getattr(denoise, "limit", None)), both
