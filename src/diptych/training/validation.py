"""The loss of held-out pictures: a training loss of the EMA weights, with fixed t and noise.

    t_i = floor((i + 1/2) T / n),    i = 0 .. n - 1, in the keyed order of the held-out pictures

Picture i has the same timestep and the same noise at every step, so two values of one run differ by
the weights alone. The unit is that of `train.loss`, with the same weighting; nothing is mirrored,
dropped out or dequantized anew. The sum is made on the host in float64, so both backends only
differ by what their networks predict.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

from diptych import rng
from diptych.backends.protocol import Backend
from diptych.config.load import Config
from diptych.diffusion.classes import class_rows
from diptych.diffusion.objective import target
from diptych.errors import UserError
from diptych.training.batches import Batches
from diptych.types import Int64


class Validation:
    """The held-out pictures of a run, ready to be scored at any step.

    Args:
        config: the run's settings.
        batches: of the run; they hold out the pictures.
        size: pictures in a call of the network, no more than training has in one.
    """

    def __init__(self, config: Config, batches: Batches, size: int) -> None:
        self.config, self.batches, self.size = config, batches, size
        self.rows = batches.held_out
        if config.train.validate_every and not len(self.rows):
            raise UserError("train.validate_every needs held-out pictures; set data.held_out")

    def facts(self) -> dict[str, Any] | None:
        """The record of the split: how many pictures, and a hash of their indices; None: none."""
        if not len(self.rows):
            return None
        return {"images": len(self.rows), "indices_sha256": _sha256(self.rows)}

    def due(self, step: int) -> bool:
        """True if the loss is due after this step."""
        every = self.config.train.validate_every
        return bool(every and step % every == 0)

    def loss(self, backend: Backend, network: Any) -> float:
        """The mean loss of all held-out pictures.

        Args:
            network: made by `backend.network`, of the weights to judge.
        """
        count = len(self.rows)
        total = sum(
            self._sum(backend, network, np.arange(first, min(first + self.size, count)))
            for first in range(0, count, self.size)
        )
        return total / count

    def _sum(self, backend: Backend, network: Any, places: Int64) -> float:
        """The sum of the losses of the held-out pictures at these places."""
        source, plan = self.batches, self.batches.plan
        chosen = self.rows[places]
        x0 = source.preprocess.still(np.ascontiguousarray(source.images[chosen]))
        t = (2 * places + 1) * len(source.alpha) // (2 * len(self.rows))
        alpha, sigma = source.alpha[t], source.sigma[t]
        images = [int(i) for i in places]
        eps = rng.normal_per_image(self.config.seed, "validation_noise", images, x0.shape[1:])
        given = [backend.array(alpha * x0 + sigma * eps), backend.array(source.embedding[t])]
        if source.all_labels is not None:
            rows = class_rows(source.all_labels[chosen], plan.num_classes)
            given.append(backend.array(rows))
        found = backend.numpy(backend.predict(network, *given)).astype(np.float64)
        square = (target(plan.objective, x0, eps, alpha, sigma) - found) ** 2
        if source.weight is not None:
            square = source.weight[t] * square
        pixels = x0[0].size if self.config.train.loss == "mean" else 1
        return float(square.sum()) / pixels


def _sha256(rows: Int64) -> str:
    return hashlib.sha256(np.ascontiguousarray(rows, "<i8").data).hexdigest()
