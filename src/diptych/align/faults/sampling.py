"""Faults in sampling: solvers, limits on the image, noise, pixels. See `mutations`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from diptych.data import preprocess
from diptych.sampling import denoiser, engine, inversion
from diptych.sampling.solvers import ddim_inverse, dpmpp, kinds


def clip_range(panel: Any, patch: Any) -> None:
    backend = type(panel.backend)
    original = backend.clip
    patch.set(backend, "clip", lambda self, x: 1.1 * original(self, (1 / 1.1) * x))


def clip_ignored(_: Any, patch: Any) -> None:
    patch.set(engine, "limited", lambda denoise, limit: denoise)


def threshold_ignored(_: Any, patch: Any) -> None:
    patch.set(engine.Engine, "thresholded", lambda self, x0, quantile: x0)


def eta_squared(_: Any, patch: Any) -> None:
    original = patch.original(kinds, "Ddim")
    patch.set(kinds, "Ddim", lambda eta: original(eta**2))


def dpmpp_coefficient(_: Any, patch: Any) -> None:
    original = dpmpp.image_weights

    def image_weights(*given: Any) -> Any:
        first, *others = original(*given)
        return [1.001 * first, *others]

    patch.set(dpmpp, "image_weights", image_weights)


def dpmpp_extrapolation(_: Any, patch: Any) -> None:
    original = patch.original(dpmpp, "_two")

    def two(total: float, *given: Any) -> Any:
        now, before = original(total, *given)
        return [total + 2.0 * (now - total), 2.0 * before]

    patch.set(dpmpp, "_two", two)


def dpmpp_sde_noise(_: Any, patch: Any) -> None:
    rule = dpmpp.DpmSolverPPSde
    original = rule.noise_scale
    patch.set(rule, "noise_scale", lambda self, now, after: 0.99 * original(self, now, after))


def _bent(name: str) -> Callable[[Any, Any], None]:
    """Plant a solver all of whose coefficients are 0.1 % too large."""

    def plant(_: Any, patch: Any) -> None:
        rule = patch.original(kinds, name)
        original = rule.step
        patch.set(rule, "step", lambda self, s: 1.001 * original(self, s))

    return plant


def noise_by_position(_: Any, patch: Any) -> None:
    original = patch.original(engine, "normal_per_image")

    def normal(seed: int, purpose: str, images: Any, *rest: Any) -> Any:
        return original(seed, purpose, range(len(images)), *rest)

    patch.set(engine, "normal_per_image", normal)


class _Late:
    """A plan whose network is conditioned on the next timestep, t + 1."""

    def __init__(self, plan: Any) -> None:
        self.plan = plan

    def __getattr__(self, name: str) -> Any:
        return getattr(self.plan, name)

    def times(self, t: Any) -> Any:
        return self.plan.times(np.asarray(t) + 1)


def time_shifted(_: Any, patch: Any) -> None:
    original = denoiser.Predictor.denoise

    def denoise(self: Any, *given: Any) -> Any:
        late: Any = _Late(self.plan)
        return original(replace(self, plan=late), *given)

    patch.set(denoiser.Predictor, "denoise", denoise)


def one_class(_: Any, patch: Any) -> None:
    original = patch.original(denoiser, "labels_of")
    patch.set(denoiser, "labels_of", lambda classes, images: original(classes[:1], images))


def pixels_truncated(_: Any, patch: Any) -> None:
    def to_uint8(images: Any) -> Any:
        return ((np.clip(images, -1, 1) + 1) * np.float32(127.5)).astype(np.uint8)

    patch.set(preprocess, "to_uint8", to_uint8)


def inverse_coefficients(_: Any, patch: Any) -> None:
    original = patch.original(ddim_inverse, "flow")
    patch.set(ddim_inverse, "flow", lambda *given: 1.001 * original(*given))


def refining_ignored(_: Any, patch: Any) -> None:
    original = patch.original(inversion, "invert")

    def invert(denoise: Any, x: Any, levels: Any, refine: int, *rest: Any) -> Any:
        return original(denoise, x, levels, 0, *rest)

    patch.set(inversion, "invert", invert)


def implied_sign(_: Any, patch: Any) -> None:
    original = denoiser.Predictor.predict

    def predict(self: Any, x: Any, t: Any, classes: Any, tables: Any) -> Any:
        found = original(self, x, t, classes, tables)
        if self.plan.objective != "v":
            return found
        sigma = tables.sigma[t].astype(np.float32)[:, None, None, None]
        return 2 * sigma * x - found

    patch.set(denoiser.Predictor, "predict", predict)


RULES = ("Ddpm", "Deis", "Euler", "Heun", "Ipndm", "Plms", "Pndm", "UniPC")
ROWS = (
    ("clip_range", "solver", "images are clipped to [-1.1, 1.1]", clip_range),
    ("clip_ignored", "solver", "images are not clipped", clip_ignored),
    ("threshold_ignored", "solver", "dynamic thresholding is passed over", threshold_ignored),
    ("eta_squared", "solver", "DDIM's eta is squared", eta_squared),
    ("dpmpp_coefficient", "solver", "dpmpp: the newest image weighs 0.1 % more", dpmpp_coefficient),
    ("dpmpp_extrapolation", "solver", "dpmpp, dpmpp-sde: extrapolated twice as far",
     dpmpp_extrapolation),
    ("dpmpp_sde_noise", "solver", "dpmpp-sde: 1 % less noise", dpmpp_sde_noise),
    *((f"{name.lower()}_coefficients", "solver", f"{name}: coefficients are 0.1 % too large",
       _bent(name)) for name in RULES),
    ("inverse_coefficients", "solver", "encoding: coefficients are 0.1 % too large",
     inverse_coefficients),
    ("refining_ignored", "solver", "encoding: steps are not refined", refining_ignored),
    ("implied_sign", "solver", "the noise that v implies has its sign the other way", implied_sign),
    ("noise_by_position", "solver", "an image's noise is that of its row, not of its number",
     noise_by_position),
    ("time_shifted", "solver", "the sampler gives the network the timestep after", time_shifted),
    ("one_class", "solver", "all images are of the first class asked for", one_class),
    ("pixels_truncated", "solver", "pixels are cut to whole numbers, not rounded",
     pixels_truncated),
)  # fmt: skip
