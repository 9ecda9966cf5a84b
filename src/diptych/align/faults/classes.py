"""Faults in a network's conditioning and target: labels, objective, guidance. See `mutations`.

They cover the host and the backend; the backend's are planted into its learner.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from diptych.sampling import denoiser
from diptych.training import batches as data_batches


def labels_shifted(_: Any, patch: Any) -> None:
    original = data_batches.Batches.__init__

    def init(self: Any, settings: Any, plan: Any, images: Any, labels: Any = None) -> None:
        original(self, settings, plan, images, labels if labels is None else np.roll(labels, 1))

    patch.set(data_batches.Batches, "__init__", init)


def label_shifted(panel: Any, patch: Any) -> None:
    learner = panel.part("learner").Learner
    original = learner.loss

    def loss(self: Any, batch: Any) -> Any:
        if batch.classes is None:
            return original(self, batch)
        return original(self, dataclasses.replace(batch, classes=np.roll(batch.classes, 1, axis=1)))

    patch.set(learner, "loss", loss)


def velocity_sign(panel: Any, patch: Any) -> None:
    learner = panel.part("learner")
    original = patch.original(learner, "target")

    def target(objective: str, x0: Any, eps: Any, alpha: Any, sigma: Any) -> Any:
        return original(objective, x0, eps, alpha, -sigma if objective == "v" else sigma)

    patch.set(learner, "target", target)


def guidance_shifted(_: Any, patch: Any) -> None:
    original = denoiser.Predictor.denoise

    def denoise(self: Any, classes: Any, guidance: Any, images: Any) -> Any:
        return original(self, classes, None if guidance is None else 1.0 + guidance, images)

    patch.set(denoiser.Predictor, "denoise", denoise)


ROWS = (
    ("labels_shifted", "data", "each image has the label of the one before", labels_shifted),
    ("label_shifted", "loss", "class k is looked up in row k + 1", label_shifted),
    ("velocity_sign", "loss", "v is alpha eps + sigma x0", velocity_sign),
    ("guidance_shifted", "solver", "guidance w counts from the unguided class: 1 + w",
     guidance_shifted),
)  # fmt: skip
