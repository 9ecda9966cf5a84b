"""Training batches as a pure function of the step: no generator carries state.

Step s (from 1) belongs to epoch (s - 1) // steps_per_epoch; an epoch is one keyed permutation of
all images, and its last batch is smaller if the batch size does not divide their number. So a
resumed run gets exactly the batches of an uninterrupted one, and both backends get the same bits.
"""

from __future__ import annotations

import functools
import math

import numpy as np

from diptych import rng
from diptych.backends.protocol import Batch
from diptych.config.load import Config
from diptych.data.decoded import Images
from diptych.data.preprocess import preprocess_of, to_float, to_uint8
from diptych.diffusion.classes import check_labels, class_rows, drop_labels
from diptych.diffusion.objective import min_snr_weights
from diptych.diffusion.schedule import make_schedule
from diptych.network.own import AnyPlan
from diptych.types import Float32, Int64, Pixels

__all__ = ["Batches", "to_float", "to_uint8"]


class Batches:
    """All batches of a run; `batch(step)` makes one."""

    def __init__(
        self, config: Config, plan: AnyPlan, images: Images, labels: Int64 | None = None
    ) -> None:
        """Take (N, C, H, W) images and (N,) labels; a plan with classes needs labels."""
        check_labels(labels, plan.num_classes, config.data.source)
        self.config = config
        self.plan = plan
        self.images = images
        self.preprocess = preprocess_of(config.data)
        self.all_labels = labels if plan.num_classes else None
        self.steps_per_epoch = math.ceil(len(images) / config.train.batch_size)
        schedule = make_schedule(config.diffusion)
        self.alpha = schedule.alpha.astype(np.float32)[:, None, None, None]
        self.sigma = schedule.sigma.astype(np.float32)[:, None, None, None]
        self.embedding = plan.times(np.arange(schedule.timesteps))
        self.weight: Float32 | None = None
        if config.train.weighting == "min-snr":
            table = min_snr_weights(plan.objective, schedule, config.train.min_snr_gamma)
            self.weight = table.astype(np.float32)[:, None, None, None]

    @functools.lru_cache(maxsize=2)  # noqa: B019 - lives as long as the run
    def order(self, epoch: int) -> Int64:
        """The permutation of all images in one epoch."""
        return rng.stream(self.config.seed, "order", epoch).permutation(len(self.images))

    def batch(self, step: int) -> Batch:
        """The batch of a 1-based step."""
        seed, size = self.config.seed, self.config.train.batch_size
        epoch, within = divmod(step - 1, self.steps_per_epoch)
        chosen = self.order(epoch)[within * size : (within + 1) * size]
        x0 = self.x0(step, chosen)
        t = rng.antithetic_timesteps(seed, step, len(x0), len(self.alpha))
        host = self.config.train.noise == "host"
        labels = self.labels(step, chosen)
        return Batch(
            step=step,
            epoch=epoch,
            x0=x0,
            t=t,
            alpha=self.alpha[t],
            sigma=self.sigma[t],
            embedding=self.embedding[t],
            eps=rng.normal(seed, "training_noise", x0.shape, step) if host else None,
            masks=self.masks(step, len(x0)) if host else None,
            labels=labels,
            classes=None if labels is None else class_rows(labels, self.plan.num_classes),
            weight=None if self.weight is None else self.weight[t],
        )

    def labels(self, step: int, chosen: Int64) -> Int64 | None:
        """The chosen images' labels, some of them dropped; None for a plan without classes."""
        if self.all_labels is None:
            return None
        rate, seed = self.config.train.label_dropout, self.config.seed
        return drop_labels(self.all_labels[chosen], self.plan.num_classes, rate, seed, step)

    def x0(self, step: int, chosen: Int64) -> Float32:
        """The chosen images as the network's input in a step, (B, C, H, W) in C order.

        Memory order matters: frameworks choose kernels by it, and the kernels round differently.
        """
        pixels = np.ascontiguousarray(self.images[chosen])
        if self.config.data.random_flip:
            flipped = rng.stream(self.config.seed, "flip", step).random(len(pixels)) < 0.5
            pixels[flipped] = pixels[flipped, ..., ::-1]
        if self.preprocess.plain:
            return to_float(pixels)
        return self.preprocess.floats(pixels, self.config.seed, step)

    def masks(self, step: int, size: int) -> tuple[Pixels, ...] | None:
        """Dropout's keep masks of one step, one per residual block."""
        rate = self.plan.dropout
        if not rate:
            return None
        return tuple(
            rng.keep_mask(
                self.config.seed, step, k, (size, block.out_ch, block.size, block.size), rate
            )
            for k, block in enumerate(self.plan.blocks)
        )
