"""Faults in training: ignored settings, the update's details, the device's draws, resuming.

See `mutations`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from diptych.align.faults.panel import moments, replace_adam, replace_forward, replace_operator

Plant = Callable[[Any, Any], None]


def _batch(changed: Callable[[Any], dict[str, Any]]) -> Plant:
    """Plant a loss that is computed on a changed batch."""

    def plant(panel: Any, patch: Any) -> None:
        learner = panel.part("learner").Learner
        original = learner.loss
        patch.set(learner, "loss", lambda self, b: original(self, replace(b, **changed(b))))

    return plant


def _train(**changes: Any) -> Plant:
    """Plant a learner with changed settings of `train`: values, or functions of the right value."""

    def plant(panel: Any, patch: Any) -> None:
        learner = panel.part("learner").Learner
        original = learner.__init__

        def init(self: Any, plan: Any, weights: Any, train: Any, *rest: Any) -> None:
            new = {k: v(getattr(train, k)) if callable(v) else v for k, v in changes.items()}
            original(self, plan, weights, train.model_copy(update=new), *rest)

        patch.set(learner, "__init__", init)

    return plant


def _restored(changed: Callable[[Any, Any], dict[str, Any]]) -> Plant:
    """Plant a learner that restores a changed state."""

    def plant(panel: Any, patch: Any) -> None:
        learner = panel.part("learner").Learner
        original = learner.restore

        def restore(self: Any, state: Any) -> None:
            original(self, replace(state, **changed(self, state)))

        patch.set(learner, "restore", restore)

    return plant


def _zeros(arrays: Any) -> dict[str, Any]:
    return {name: np.zeros_like(array) for name, array in arrays.items()}


def _drawn(name: str, made: Callable[[Any, Any], Any]) -> Plant:
    """Replace one of the device's draws, `draw_noise` or `draw_masks`."""

    def plant(panel: Any, patch: Any) -> None:
        learner = panel.part("learner")
        patch.set(learner, name, made(patch.original(learner, name), panel))

    return plant


def _noise_of_step_1(original: Any, _: Any) -> Any:
    return lambda like, seed, step, images: original(like, seed, 1, images)


def _larger_noise(original: Any, _: Any) -> Any:
    return lambda *given: 1.05 * original(*given)


def _noise_of_one_image(original: Any, _: Any) -> Any:
    return lambda *given: (lambda eps: eps[:1] + 0.0 * eps)(original(*given))


def _dropped_for_kept(original: Any, _: Any = None) -> Any:
    return lambda *given: (lambda masks: masks and [1 - m for m in masks])(original(*given))


def _keyed(module: str, name: str, made: Callable[[Any], Any]) -> Plant:
    """Replace `keyed_noise` or `keyed_masks` of the learner, or of the backend that samples."""

    def plant(panel: Any, patch: Any) -> None:
        owner = panel.part(module)
        patch.set(owner, name, made(patch.original(owner, name)))

    return plant


def _rounded(original: Any) -> Any:
    return lambda *given: (1.0 + 2.0**-23) * original(*given)


# seed, purpose, rows, shape, b, first, device
def _rows_by_position(original: Any) -> Any:
    return lambda seed, purpose, rows, *rest: original(seed, purpose, range(len(rows)), *rest)


def _rows_1(original: Any) -> Any:
    return lambda seed, purpose, rows, *rest: original(seed, purpose, [1], *rest)


def _low_rows(original: Any) -> Any:
    return lambda seed, purpose, rows, *rest: original(
        seed, purpose, [row % 2**32 for row in rows], *rest
    )


def _same_b(original: Any) -> Any:
    return lambda seed, purpose, rows, shape, b, *rest: original(
        seed, purpose, rows, shape, 0, *rest
    )


def _first_0(original: Any) -> Any:
    return lambda seed, purpose, rows, shape, b, first, device: original(
        seed, purpose, rows, shape, b, 0, device
    )


def _masks_from_0(original: Any) -> Any:
    return lambda plan, seed, step, size, first_row, device: original(
        plan, seed, step, size, 0, device
    )


def dropout_unscaled(panel: Any, patch: Any) -> None:
    def made(original: Any) -> Any:
        return lambda x, mask, rate: (1.0 - rate) * original(x, mask, rate)

    replace_operator(panel, patch, "dropout", made)


def class_detached(panel: Any, patch: Any) -> None:
    def made(original: Any) -> Any:
        return lambda self, x: original(self, x).detach()

    replace_forward(panel, patch, panel.layers.Embedding, made)


def gradient_zeroed(panel: Any, patch: Any) -> None:
    learner = panel.part("learner").Learner
    original = learner.differentiate

    def differentiate(self: Any, loss: Any) -> Any:
        lost = list(self.raw).index("mid.block_1.conv2.weight")
        found = original(self, loss)
        return [0.0 * g if i == lost else g for i, g in enumerate(found)]

    patch.set(learner, "differentiate", differentiate)


def norm_half(panel: Any, patch: Any) -> None:
    def update(p: Any, g: Any, m: Any, v: Any, n: Any) -> Any:
        # As if the norm were summed in half precision: 4e-5 too small, as PyTorch's was.
        clip = min(1.0, n["clip"] * (1 + 4e-5))
        m, v, rate, v_hat = moments(g * clip, m, v, n)
        return p - rate * m / (np.sqrt(v_hat) + n["eps"]), m, v

    replace_adam(panel, patch, update)


def uncorrected(panel: Any, patch: Any) -> None:
    def update(p: Any, g: Any, m: Any, v: Any, n: Any) -> Any:
        m, v, _, v_hat = moments(g * n["clip"], m, v, n)
        return p - n["lr"] * m / (np.sqrt(v_hat) + n["eps"]), m, v

    replace_adam(panel, patch, update)


def weight_decay(panel: Any, patch: Any) -> None:
    def update(p: Any, g: Any, m: Any, v: Any, n: Any) -> Any:
        m, v, rate, v_hat = moments(g * n["clip"], m, v, n)
        return (1 - 0.01 * n["lr"]) * p - rate * m / (np.sqrt(v_hat) + n["eps"]), m, v

    replace_adam(panel, patch, update)


def average_of_before(panel: Any, patch: Any) -> None:
    """Plant a moving average that takes the weights from before the step."""
    assign, read = panel.part("arrays").assign, panel.read
    module = panel.part("learner")
    original = patch.original(module, "adam_step")

    def adam_step(params: Any, grads: Any, m: Any, v: Any, ema: Any, **n: Any) -> Any:
        before = [
            (read(p).astype(np.float64), read(e).astype(np.float64))
            for p, e in zip(params, ema, strict=True)
        ]
        norm = original(params, grads, m, v, ema, **n)
        for e, (p, old) in zip(ema, before, strict=True):
            assign(e, (old + (1 - n["ema_rate"]) * (p - old)).astype(np.float32))
        return norm

    for name in ("optim", "learner"):
        patch.set(panel.part(name), "adam_step", adam_step)


def count_ahead(panel: Any, patch: Any) -> None:
    learner = panel.part("learner").Learner
    original = learner.__init__

    def init(self: Any, *given: Any) -> None:
        original(self, *given)
        self.count = 1

    patch.set(learner, "__init__", init)


def _half(values: Any) -> Any:
    return values.astype(np.float16).astype(np.float32)


ROWS = (
    ("keyed_noise_repeats", "data", "keyed noise is the same in each step",
     _keyed("learner", "keyed_noise", _rows_1)),
    ("keyed_noise_rounded", "data", "keyed noise is off by one rounding",
     _keyed("learner", "keyed_noise", _rounded)),
    ("keyed_step_of_32_bits", "data", "the upper half of a step's number is lost",
     _keyed("learner", "keyed_noise", _low_rows)),
    ("keyed_slice_ignored", "data", "a slice of a batch has the noise of the batch's first rows",
     _keyed("learner", "keyed_noise", _first_0)),
    ("keyed_masks_inverted", "data", "keyed masks drop what they should keep",
     _keyed("learner", "keyed_masks", _dropped_for_kept)),
    ("keyed_masks_of_slice", "data", "a slice of a batch has the masks of the batch's first rows",
     _keyed("learner", "keyed_masks", _masks_from_0)),
    ("keyed_by_position", "data", "an image's keyed noise goes by its place in the batch",
     _keyed("backend", "keyed_noise", _rows_by_position)),
    ("keyed_solver_step_ignored", "data", "every step of a chain adds the same keyed noise",
     _keyed("backend", "keyed_noise", _same_b)),
    ("dropout_unscaled", "operators", "what dropout keeps is not scaled up", dropout_unscaled),
    ("weight_squared", "loss", "each image's weight is squared",
     _batch(lambda b: {} if b.weight is None else {"weight": b.weight**2})),
    ("alpha_squared", "loss", "noisy images have alpha bar in place of its root",
     _batch(lambda b: {"alpha": b.alpha**2})),
    ("half_precision_time", "loss", "the time embedding is rounded to float16",
     _batch(lambda b: {"embedding": _half(b.embedding)})),
    ("half_precision_images", "loss", "images are rounded to float16",
     _batch(lambda b: {"x0": _half(b.x0)})),
    ("sum_ignored", "loss", "the loss is the mean over pixels, whatever the config says",
     _train(loss="mean")),
    ("device_noise_scaled", "loss", "the device's noise is 5 % too large",
     _drawn("draw_noise", _larger_noise)),
    ("device_noise_repeats", "loss", "the device's noise is the same in each step",
     _drawn("draw_noise", _noise_of_step_1)),
    ("device_noise_shared", "loss", "the device's noise is the same for each image",
     _drawn("draw_noise", _noise_of_one_image)),
    ("device_masks_inverted", "loss", "the device's masks drop what they should keep",
     _drawn("draw_masks", _dropped_for_kept)),
    ("class_detached", "gradients", "no gradient flows into the classes' vectors", class_detached),
    ("gradient_zeroed", "gradients", "one weight has no gradient", gradient_zeroed),
    ("norm_inexact", "update", "the clipping factor is off by 4e-5", norm_half),
    ("uncorrected", "update", "Adam's mean is not corrected for its start", uncorrected),
    ("weight_decay", "update", "weights decay by 1 %", weight_decay),
    ("average_of_before", "update", "the moving average takes the weights before the step",
     average_of_before),
    ("clip_setting_ignored", "lockstep", "the total norm is limited to 1, whatever the config says",
     _train(grad_clip=1.0)),
    ("never_clipped", "lockstep", "gradients are not clipped", _train(grad_clip=None)),
    ("betas_ignored", "lockstep", "Adam's betas are 0.9 and 0.999, whatever the config says",
     _train(beta1=0.9, beta2=0.999)),
    ("adam_eps_ignored", "lockstep", "Adam's eps is 1e-8, whatever the config says",
     _train(eps=1e-8)),
    ("count_ahead", "lockstep", "the first step counts as the second", count_ahead),
    ("moments_forgotten", "resume", "resuming starts with fresh moments",
     _restored(lambda _, s: {"adam_m": _zeros(s.adam_m), "adam_v": _zeros(s.adam_v)})),
    ("step_forgotten", "resume", "resuming counts Adam's steps from 0",
     _restored(lambda _, s: {"step": 0})),
    ("average_forgotten", "resume", "resuming starts the moving average at the weights",
     _restored(lambda _, s: {"ema": s.raw})),
)  # fmt: skip
