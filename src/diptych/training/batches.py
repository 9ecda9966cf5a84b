"""Training batches as a pure function of the step: no generator carries state.

Step s (from 1) belongs to epoch (s - 1) // steps_per_epoch; an epoch is one keyed permutation of
all images but the held-out ones, and its last batch is smaller if the batch size does not divide
their number. So a
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
from diptych.errors import UserError
from diptych.network.own import AnyPlan
from diptych.ranks import ALONE, Ranks
from diptych.types import Float32, Int64, Pixels

__all__ = ["Batches", "to_float", "to_uint8"]


def held_out_number(asked: float, count: int) -> int:
    """Number of `count` pictures that `data.held_out` means.

    Raises:
        UserError: all of them, or a share that comes to none.
    """
    number = round(asked * count) if asked < 1 else int(asked)
    if asked and not 0 < number < count:
        raise UserError(
            f"data.held_out={asked} of {count} pictures holds out {number}; hold out at least one, "
            "and leave at least one to train on"
        )
    return number


def held_out_rows(config: Config, count: int) -> Int64:
    """The numbers of the pictures that are not trained on, in a keyed order; empty if there are
    none. The seed and the number of pictures determine them.

    Raises:
        UserError: as `held_out_number`.
    """
    number = held_out_number(config.data.held_out, count)
    return rng.stream(config.seed, "held_out").permutation(count)[:number]


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
        self.held_out = held_out_rows(config, len(images))
        self.trained_on: Int64 | None = None  # None: all
        if len(self.held_out):
            self.trained_on = np.setdiff1d(np.arange(len(images)), self.held_out)
        self.count = len(images) - len(self.held_out)
        self.steps_per_epoch = math.ceil(self.count / config.train.batch_size)
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
        """The images of one epoch in their order, by their number in the data set."""
        order = rng.stream(self.config.seed, "order", epoch).permutation(self.count)
        return order if self.trained_on is None else self.trained_on[order]

    def batch(self, step: int, ranks: Ranks = ALONE) -> Batch:
        """The batch of a 1-based step, or a rank's rows of it.

        A row's numbers do not depend on the ranks: everything random is drawn for the whole batch,
        in one stream, and cut afterwards. Only the rank's own images are read.
        """
        seed, size = self.config.seed, self.config.train.batch_size
        epoch, within = divmod(step - 1, self.steps_per_epoch)
        chosen = self.order(epoch)[within * size : (within + 1) * size]
        count, rows = len(chosen), ranks.rows(len(chosen))
        x0 = self.x0(step, chosen, rows)
        t = rng.antithetic_timesteps(seed, step, count, len(self.alpha))[rows]
        host = self.config.train.noise == "host"
        labels = self.labels(step, chosen, rows)
        noise = rng.normal(seed, "training_noise", (count, *x0.shape[1:]), step) if host else None
        return Batch(
            step=step,
            epoch=epoch,
            x0=x0,
            t=t,
            alpha=self.alpha[t],
            sigma=self.sigma[t],
            embedding=self.embedding[t],
            eps=None if noise is None else noise[rows],
            masks=self.masks(step, count, rows) if host else None,
            labels=labels,
            classes=None if labels is None else class_rows(labels, self.plan.num_classes),
            weight=None if self.weight is None else self.weight[t],
            part=None if ranks.alone else (rows.start, count),
        )

    def labels(self, step: int, chosen: Int64, rows: slice) -> Int64 | None:
        """The rows' labels, some of them dropped; None for a plan without classes."""
        if self.all_labels is None:
            return None
        rate, seed = self.config.train.label_dropout, self.config.seed
        found = self.all_labels[chosen]
        return drop_labels(found, self.plan.num_classes, rate, seed, step)[rows]

    def x0(self, step: int, chosen: Int64, rows: slice = slice(None)) -> Float32:
        """The rows of the chosen images as the network's input in a step, (B, C, H, W), C order.

        Memory order matters: frameworks choose kernels by it, and the kernels round differently.
        """
        plain = self.preprocess.plain
        read = rows if plain else slice(None)  # dequantization draws noise for the whole batch
        pixels = np.ascontiguousarray(self.images[chosen[read]])
        if self.config.data.random_flip:
            flipped = rng.stream(self.config.seed, "flip", step).random(len(chosen))[read] < 0.5
            pixels[flipped] = pixels[flipped, ..., ::-1]
        if plain:
            return to_float(pixels)
        return self.preprocess.floats(pixels, self.config.seed, step)[rows]

    def masks(self, step: int, size: int, rows: slice) -> tuple[Pixels, ...] | None:
        """The rows of the keep masks of dropout in one step, one per residual block."""
        rate = self.plan.dropout
        if not rate:
            return None
        return tuple(
            rng.keep_mask(self.config.seed, step, k, (size, *block.shape), rate)[rows]
            for k, block in enumerate(self.plan.blocks)
        )
