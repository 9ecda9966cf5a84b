"""The engine: a network on a backend that generates images with a sampler.

Image i is a function of (weights, sampler, seed, i): its initial noise and the noise of its k-th
step are separate streams, keyed by (seed, i, k). The other images of its batch can only change how
the kernels round. The loop itself is `diptych.sampling.solvers.solve`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from diptych.backends.protocol import Backend
from diptych.data.preprocess import PLAIN, Preprocess
from diptych.diffusion.schedule import Level, Schedule, starts_in_noise
from diptych.errors import UserError
from diptych.network.own import AnyPlan
from diptych.rng import normal_per_image
from diptych.sampling.denoiser import Denoise, Observer, Predictor, watched
from diptych.sampling.guidance import guided, within
from diptych.sampling.memory import check_batch
from diptych.sampling.sampler import Sampler
from diptych.sampling.solvers import dynamic_threshold, limited, solve
from diptych.sampling.solvers.wrappers import image_limited
from diptych.types import Float32, Pixels


def no_guide(name: str) -> Predictor:
    """Refuse a guide, where no model could be loaded."""
    raise UserError(f"guide {name}: only a model that was loaded, or made by Model.of, takes one")


@dataclass(frozen=True)
class Engine:
    """A network on a backend, with its schedule and the preprocessing of its data.

    guide: loads the guide of a sampler, on the same backend.
    """

    backend: Backend
    network: Any
    plan: AnyPlan
    schedule: Schedule
    preprocess: Preprocess = PLAIN
    guide: Callable[[str], Predictor] = no_guide

    def pixels(self, floats: Float32) -> Pixels:
        """Convert the network's output to uint8 images of the same shape, undoing `preprocess`."""
        return self.preprocess.pixels(floats)

    def floats(self, pixels: Pixels) -> Float32:
        """Convert uint8 images (B, C, H, W) to the network's input range, without random noise."""
        return self.preprocess.still(pixels)

    @property
    def predictor(self) -> Predictor:
        """The network, as called by the loop and by `Model.predict`."""
        return Predictor(self.backend, self.network, self.plan)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one image."""
        return self.plan.shape

    @property
    def ends_in_noise(self) -> bool:
        """True if nothing of the image is left at the noisiest level (zero terminal SNR)."""
        return bool(self.schedule.alpha[-1] == 0)

    @property
    def starts_in_noise(self) -> bool:
        """True if the network can start at such a level; see `schedule.starts_in_noise`."""
        return starts_in_noise(self.schedule, self.plan.objective)

    def draw(
        self,
        sampler: Sampler,
        images: Sequence[int],
        seed: int = 0,
        x_T: Float32 | None = None,
        observe: Observer | None = None,
        predicted: Observer | None = None,
    ) -> Float32:
        """Generate images by index, (len(images), C, H, W), float32, the solver's unclipped result.

        Args:
            sampler: the solver and all other settings.
            images: indices of the images; index i always gives the same image.
            seed: keys all noise.
            x_T: initial noise, in place of the keyed noise.
            observe: called after every step.
            predicted: called after every step with the image implied by its first prediction.

        Raises:
            UserError: the sampler does not fit the schedule, the batch does not fit in memory, or
                an image is not finite.
        """
        sampler.check(self.schedule)
        backend = self.backend
        check_batch(
            self.plan,
            len(images),
            backend.name,
            backend.device,
            backend.free_memory,
            guided=sampler.doubled,
        )
        put = backend.array
        start = self.noise(sampler, seed, "initial_noise", images) if x_T is None else put(x_T)
        levels = sampler.levels(self.schedule)

        def noise(k: int) -> Any:
            return self.noise(sampler, seed, "solver_noise", images, k)

        def reached(k: int, level: Level, x: Any) -> None:
            self.backend.submit(x)
            if observe is not None:
                observe(k, level, x)

        solver, denoise = sampler.make(self.schedule), self.denoiser(sampler, images)
        if predicted is not None:
            denoise, observe = watched(denoise, predicted, observe)
        x = solve(solver, denoise, start, levels, noise, reached)
        return finite(self.backend.numpy(x), images)

    def noise(
        self, sampler: Sampler, seed: int, purpose: str, images: Sequence[int], step: int = 0
    ) -> Any:
        """Noise of these images on the device: drawn there or on the host, as the sampler says."""
        if sampler.noise == "keyed":
            return self.backend.keyed_noise(seed, purpose, images, self.shape, step)
        return self.backend.array(normal_per_image(seed, purpose, images, self.shape, step))

    def denoiser(self, sampler: Sampler, images: Sequence[int] = ()) -> Denoise:
        """A `denoise` for these images, with the sampler's limit on the implied images.

        Raises:
            UserError: the sampler sets a limit, but the network's images are not in [-1, 1].
        """
        if not self.preprocess.rescaled and (sampler.clip or sampler.threshold is not None):
            raise UserError(
                "this network's images are not in [-1, 1] (data.rescaled is false): clipping and "
                "thresholds would cut them; use a solver without, such as ddim"
            )
        denoise = self._guided(sampler, images)
        if sampler.threshold is not None:
            return limited(denoise, partial(self.thresholded, quantile=sampler.threshold))
        if sampler.clip == "image":
            return image_limited(denoise, self.backend.clip)
        return limited(denoise, self.backend.clip) if sampler.clip else denoise

    def _guided(self, sampler: Sampler, images: Sequence[int]) -> Denoise:
        """The network's prediction, guided at the timesteps that the sampler says."""
        classes, weight, interval = sampler.classes, sampler.guidance, sampler.guidance_interval
        own = self.predictor
        if not sampler.guided or (sampler.guide is None and interval is None):
            return own.denoise(classes, weight, images)
        plain = own.denoise(classes, 1.0, images)
        if sampler.guide is None:
            denoise = own.denoise(classes, weight, images)
        else:
            guide = self.guide(sampler.guide)
            told = classes if guide.plan.num_classes else None
            denoise = guided(plain, guide.denoise(told, 1.0, images), float(weight or 1.0))
        return denoise if interval is None else within(interval, denoise, plain)

    def thresholded(self, x0: Any, quantile: float) -> Any:
        """Apply dynamic thresholding on the host, so that both backends get the same bits."""
        return self.backend.array(dynamic_threshold(self.backend.numpy(x0), quantile))


def finite(x: Float32, images: Sequence[int]) -> Float32:
    """Return `x` unchanged. Raises UserError if one of these images holds nan or infinity."""
    bad = [i for i, row in zip(images, x, strict=True) if not np.isfinite(row).all()]
    if bad:
        raise UserError(
            f"{len(bad)} of {len(x)} images are not finite (the first is number {bad[0]}); check "
            f"the weights with `diptych inspect`, and what the sampler was given"
        )
    return x
