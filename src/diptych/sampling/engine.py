"""The engine: a network on a panel that draws images with a sampler.

Image i is a function of (weights, sampler, seed, i): its first noise and the noise of its k-th step
are streams of their own, keyed by (seed, i, k). The batch that computes it changes at most how the
kernels round. The loop itself is `diptych.sampling.solvers.solve`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from diptych.backends.protocol import Backend
from diptych.data.preprocess import PLAIN, Preprocess
from diptych.diffusion.schedule import Level, Schedule
from diptych.errors import UserError
from diptych.network.own import AnyPlan
from diptych.rng import normal_per_image
from diptych.sampling.denoiser import Denoise, Observer, Predictor, watched
from diptych.sampling.memory import check_batch
from diptych.sampling.sampler import Sampler
from diptych.sampling.solvers import dynamic_threshold, limited, solve
from diptych.sampling.solvers.wrappers import image_limited
from diptych.types import Float32, Pixels


@dataclass(frozen=True)
class Engine:
    """A network on a panel with its schedule: what the loop needs to draw images."""

    backend: Backend
    network: Any
    plan: AnyPlan
    schedule: Schedule
    preprocess: Preprocess = PLAIN

    def pixels(self, floats: Float32) -> Pixels:
        """What the network draws as uint8 images of the same shape: the inverse of its data's."""
        return self.preprocess.pixels(floats)

    def floats(self, pixels: Pixels) -> Float32:
        """uint8 images (B, C, H, W) as the network knows them, without any noise."""
        return self.preprocess.still(pixels)

    @property
    def predictor(self) -> Predictor:
        """The network as the loop and `Model.predict` ask it."""
        return Predictor(self.backend, self.network, self.plan)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one image."""
        return self.plan.shape

    @property
    def ends_in_noise(self) -> bool:
        """Whether nothing of the image is left at the noisiest level: zero terminal SNR."""
        return bool(self.schedule.alpha[-1] == 0)

    def draw(
        self,
        sampler: Sampler,
        images: Sequence[int],
        seed: int = 0,
        x_T: Float32 | None = None,
        observe: Observer | None = None,
        predicted: Observer | None = None,
    ) -> Float32:
        """Images by index, (len(images), C, H, W) float32 as the solver left them, unclipped.

        Args:
            sampler: solver, steps and the rest.
            images: indices of the images to draw; index i always gives the same image.
            seed: keys all noise.
            x_T: the first noise, in place of the keyed one.
            observe: sees every step.
            predicted: sees, after every step, the image that its first prediction implies.

        Raises:
            UserError: a sampler that does not fit, a batch too large for memory, or an image that
                is not finite.
        """
        sampler.check(self.schedule)
        twice = 1 + bool(sampler.guided)
        check_batch(self.plan, len(images) * twice, self.backend.name, self.backend.device)
        start = normal_per_image(seed, "initial_noise", images, self.shape) if x_T is None else x_T
        levels = sampler.levels(self.schedule)

        def noise(k: int) -> Any:
            host = normal_per_image(seed, "solver_noise", images, self.shape, k)
            return self.backend.array(host)

        def reached(k: int, level: Level, x: Any) -> None:
            self.backend.submit(x)
            if observe is not None:
                observe(k, level, x)

        solver, denoise = sampler.make(self.schedule), self.denoiser(sampler, images)
        if predicted is not None:
            denoise, observe = watched(denoise, predicted, observe)
        x = solve(solver, denoise, self.backend.array(start), levels, noise, reached)
        return finite(self.backend.numpy(x), images)

    def denoiser(self, sampler: Sampler, images: Sequence[int] = ()) -> Denoise:
        """Predicted noise of these images with the sampler's limit on what they imply.

        Raises:
            UserError: a limit for a network whose images are not in [-1, 1].
        """
        if not self.preprocess.rescaled and (sampler.clip or sampler.threshold is not None):
            raise UserError(
                "this network's images are not in [-1, 1] (data.rescaled is false): clipping and "
                "thresholds would cut them; use a solver without, such as ddim"
            )
        denoise = self.predictor.denoise(sampler.classes, sampler.guidance, images)
        if sampler.threshold is not None:
            return limited(denoise, partial(self.thresholded, quantile=sampler.threshold))
        if sampler.clip == "image":
            return image_limited(denoise, self.backend.clip)
        return limited(denoise, self.backend.clip) if sampler.clip else denoise

    def thresholded(self, x0: Any, quantile: float) -> Any:
        """Images after dynamic thresholding, on the host: both panels get the same bits."""
        return self.backend.array(dynamic_threshold(self.backend.numpy(x0), quantile))


def finite(x: Float32, images: Sequence[int]) -> Float32:
    """These images. Raises UserError where one of them holds nan or infinity."""
    bad = [i for i, row in zip(images, x, strict=True) if not np.isfinite(row).all()]
    if bad:
        raise UserError(
            f"{len(bad)} of {len(x)} images are not finite (the first is number {bad[0]}); check "
            f"the weights with `diptych inspect`, and what the sampler was given"
        )
    return x
