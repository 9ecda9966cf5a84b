"""A trained network ready to predict and to sample: `diptych.load` and what it gives."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from diptych.backends import protocol as backends
from diptych.config.load import Config
from diptych.data.preprocess import preprocess_of
from diptych.diffusion.schedule import make_schedule
from diptych.errors import UserError
from diptych.network.plan import make_plan
from diptych.sampling.denoiser import check_integers
from diptych.sampling.engine import Engine
from diptych.sampling.inversion import encode, make_inversion
from diptych.sampling.sampler import make_sampler
from diptych.types import Array, Float32
from diptych.weights.find import Source, find_weights
from diptych.weights.formats import read_config

FAR_OUTSIDE = 10.0  # of [-1, 1]: such floats are counts of 0 .. 255


def load(
    source: str | Path,
    backend: str = "torch",
    *,
    config: Config | str | Path | None = None,
    device: str = "auto",
    raw: bool = False,
) -> Model:
    """A trained model on one panel.

    Args:
        source: a run folder (its newest checkpoint), a checkpoint folder, `zoo:NAME`,
            `pretrained:NAME`, a folder of diffusers, or a file of weights (.safetensors, .ckpt,
            .pth, .pkl; nothing in it is executed), which needs `config` where it says none.
        backend: `torch` or `jittor`.
        config: a preset's name, a YAML file of ours or of the official DDIM code, or a `Config`.
        device: `auto`, `cpu`, `cuda` or `cuda:INDEX`.
        raw: the weights as trained, in place of their moving average.

    Raises:
        UserError: anything missing, damaged or not fitting, in one line.
    """
    if config is not None and not isinstance(config, Config):
        config = read_config(str(config), for_training=False)
    return Model(find_weights(str(source), config, raw), backends.load(backend, device))


class Model:
    """A network with weights on one panel.

    Attributes:
        config: of the network and its training.
        weights: name -> array, float32.
        facts: what the weights are: EMA or raw, sha256, where from.
        engine: draws images with any sampler, batch by batch.
    """

    def __init__(self, source: Source, backend: backends.Backend) -> None:
        plan = make_plan(source.config)
        self.config = source.config
        self.weights = source.weights
        self.facts = source.facts()
        self.engine = Engine(
            backend,
            backend.network(plan, source.weights),
            plan,
            make_schedule(source.config.diffusion),
            preprocess_of(source.config.data),
        )

    def predict(
        self, x: Float32, t: npt.ArrayLike, classes: npt.ArrayLike | None = None
    ) -> Float32:
        """The noise that the network sees in images, (B, C, H, W) float32, whatever it predicts.

        Args:
            x: noisy images, (B, C, H, W), float32.
            t: timesteps, (B,) integers in 0 .. T-1.
            classes: (B,) integers in 0 .. K; K, as where not given, is 'no class'.

        Raises:
            UserError: another shape, timesteps or classes out of range.
        """
        x, t = np.asarray(x, dtype=np.float32), np.asarray(t)
        self._check_images(x, None)
        check_integers("t", t, len(x), self.engine.schedule.timesteps)
        return self.engine.predictor.predict(x, t, classes, self.engine.schedule)

    def sample(
        self,
        num: int,
        solver: str | None = None,
        steps: int | None = None,
        eta: float | None = None,
        spacing: str | None = None,
        seed: int = 0,
        x_T: Float32 | None = None,
        as_float: bool = False,
        *,
        clip: bool | Literal["image"] | None = None,
        batch: int = 64,
        order: int | None = None,
        threshold: float | None = None,
        classes: Sequence[int] | str | None = None,
        guidance: float | None = None,
    ) -> Array:
        """Draw images; image i depends on (weights, sampler, seed, i) alone.

        Args:
            num: how many, 1 or more.
            solver: a name of `diptych.sampling.solvers.kinds`, such as `ddim`, `ddpm` or
                `dpmpp`; where not given `dpmpp-sde`, or `ddim` if eta or x_T is given.
            steps: solver steps; where not given 15 for `dpmpp-sde`, all timesteps for the ddpm
                family, 50 for the others.
            eta: DDIM's noise, 0 or more; 0 for ddim where not given.
            spacing: a name of `diptych.diffusion.timesteps`, such as `logsnr`; where not given
                `uniform`, or `trailing` where the schedule ends in noise alone.
            seed: keys all noise.
            x_T: the first noise, (num, C, H, W), in place of the keyed one.
            as_float: give float32 (num, C, H, W) as the solver left them, unclipped.
            clip: clip each predicted image to [-1, 1]; "image", only for `ddim`: and keep the
                predicted noise, as diffusers does.
            batch: images computed at once.
            order: 2 or 3, for `dpmpp` and `unipc`.
            threshold: dynamic thresholding at this quantile, in place of `clip`.
            classes: image i gets `classes[i mod n]`; every class in turn where not given.
            guidance: 0 draws without class, 1 (where not given) with it, more exaggerates it.

        Returns:
            uint8 (num, H, W, C), or float32 (num, C, H, W) with `as_float`.

        Raises:
            UserError: settings out of range, or `x_T` of another shape.
        """
        if num < 1 or batch < 1 or not 0 <= seed < 2**63:
            raise UserError(
                f"sample: num and batch must be 1 or more, seed 0 .. 2**63 - 1 "
                f"(given: num {num}, batch {batch}, seed {seed})"
            )
        timesteps = self.engine.schedule.timesteps
        if solver is None and x_T is not None:
            solver = "ddim"  # whoever gives the noise wants the image that it leads to
        sampler = make_sampler(
            solver, steps, eta, spacing, clip, timesteps, order, threshold, classes, guidance,
            num_classes=self.engine.plan.num_classes, ends_in_noise=self.engine.ends_in_noise,
        )  # fmt: skip
        if x_T is not None:
            x_T = np.asarray(x_T, dtype=np.float32)
            self._check_images(x_T, num)
        parts = []
        for images in batches_of(num, min(batch, num)):
            given = None if x_T is None else x_T[np.minimum(images, num - 1)]
            parts.append(self.engine.draw(sampler, images, seed, given))
        drawn = np.concatenate(parts)[:num]
        return drawn if as_float else self.engine.pixels(drawn).transpose(0, 2, 3, 1)

    def encode(
        self,
        images: Array,
        steps: int = 50,
        spacing: str | None = None,
        *,
        refine: int = 1,
        batch: int = 64,
    ) -> Float32:
        """The noise that deterministic DDIM would turn into these images: its inversion.

        `model.sample(len(x_T), steps=steps, x_T=x_T)` turns it back, the better the more steps; a
        network with classes is asked without one, so give `guidance=0` there.

        Args:
            images: uint8 (N, H, W, C), or float32 (N, C, H, W) in [-1, 1].
            steps, spacing: those of the sampler that is to decode.
            refine: more network calls a step, each of which makes the round trip more exact.
            batch: images computed at once.

        Returns:
            x_T, float32 (N, C, H, W).

        Raises:
            UserError: images of another shape, or settings out of range.
        """
        x = np.asarray(images)
        x = self.engine.floats(np.moveaxis(x, -1, 1)) if x.dtype == np.uint8 and x.ndim == 4 else x
        self._check_images(x, None)
        if self.engine.preprocess.rescaled and np.abs(x).max(initial=0.0) > FAR_OUTSIDE:
            raise UserError(
                f"encode: images reach {np.abs(x).max():g}; give uint8, or floats in [-1, 1]"
            )
        timesteps = self.engine.schedule.timesteps
        inversion = make_inversion(
            steps, spacing, refine, timesteps, ends_in_noise=self.engine.ends_in_noise
        )
        if not len(x) or batch < 1:
            raise UserError(f"encode: images and batch must be 1 or more, not {len(x)}, {batch}")
        x = np.ascontiguousarray(x, dtype=np.float32)
        parts = [
            encode(self.engine, inversion, x[np.minimum(rows, len(x) - 1)])
            for rows in batches_of(len(x), min(batch, len(x)))
        ]
        return np.concatenate(parts)[: len(x)]

    def _check_images(self, x: Float32, num: int | None) -> None:
        shape = (len(x) if num is None else num, *self.engine.shape)
        if x.shape != shape:
            raise UserError(f"images are {x.shape}, this network needs {shape}")


def batches_of(num: int, batch: int) -> list[list[int]]:
    """Indices 0 .. num-1 in whole batches: the last one runs past the end.

    Every batch has the same size, so that the kernels round every image alike; what is drawn past
    the end is dropped.
    """
    return [list(range(first, first + batch)) for first in range(0, num, batch)]
