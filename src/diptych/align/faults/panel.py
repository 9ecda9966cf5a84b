"""Faults in the backend: operators, layers, loss, gradients, update. See `mutations`."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np


def _call(panel: Any) -> str:
    return "execute" if panel.is_jittor else "forward"


def replace_operator(panel: Any, patch: Any, name: str, made: Callable[[Any], Any]) -> None:
    """Replace a function of `layers`, and the name that `unet` imports."""
    wrong = made(getattr(panel.layers, name))
    patch.set(panel.layers, name, wrong)
    patch.set(panel.part("unet"), name, wrong)


def replace_forward(panel: Any, patch: Any, owner: Any, made: Callable[[Any], Any]) -> None:
    patch.set(owner, _call(panel), made(getattr(owner, _call(panel))))


def transposed_linear(panel: Any, patch: Any) -> None:
    arrays = panel.part("arrays")
    original = arrays.assign

    def assign(target: Any, values: Any) -> None:
        square = values.ndim == 2 and values.shape[0] == values.shape[1]
        original(target, np.ascontiguousarray(values.T) if square else values)

    patch.set(arrays, "assign", assign)


def norm_eps(panel: Any, patch: Any) -> None:
    patch.set(panel.layers, "EPS", 1e-5)


def padding_side(panel: Any, patch: Any) -> None:
    original = panel.layers.Conv2d.__init__

    def init(self: Any, *arguments: Any, **named: Any) -> None:
        original(self, *arguments, **named)
        self.pad = self.pad[::-1]

    patch.set(panel.layers.Conv2d, "__init__", init)


def upsample_mode(panel: Any, patch: Any) -> None:
    def bilinear(x: Any) -> Any:
        if panel.is_jittor:
            from jittor import nn

            return nn.interpolate(x, scale_factor=2, mode="bilinear")
        from torch.nn import functional

        return functional.interpolate(x, scale_factor=2.0, mode="bilinear")

    replace_operator(panel, patch, "upsample", lambda _: bilinear)


def attention_scale(panel: Any, patch: Any) -> None:
    def made(original: Any) -> Any:
        return lambda q, k, v: original(q * q.shape[1] ** 0.25, k, v)

    replace_operator(panel, patch, "attention", made)


def swapped_norms(panel: Any, patch: Any) -> None:
    def made(original: Any) -> Any:
        def forward(self: Any, *arguments: Any) -> Any:
            if self.widens:
                return original(self, *arguments)
            self.norm1, self.norm2 = self.norm2, self.norm1
            try:
                return original(self, *arguments)
            finally:
                self.norm1, self.norm2 = self.norm2, self.norm1

        return forward

    replace_forward(panel, patch, panel.part("unet").ResnetBlock, made)


def keys_for_values(panel: Any, patch: Any) -> None:
    unet = panel.part("unet")

    def made(_: Any) -> Any:
        def forward(self: Any, x: Any) -> Any:
            h = self.norm(x)
            q, k, v = self.q(h), self.k(h), self.v(h)
            return unet.add(x, self.proj_out(unet.attention(q, v, k)))

        return forward

    replace_forward(panel, patch, unet.AttnBlock, made)


def antithetic_off(panel: Any, patch: Any) -> None:
    learner = panel.part("learner").Learner
    original = learner.loss

    def loss(self: Any, batch: Any) -> Any:
        row = np.arange(len(batch.t)) % max(1, len(batch.t) // 2)  # the first half, twice
        names = ("t", "alpha", "sigma", "embedding")
        repeated = {name: getattr(batch, name)[row] for name in names}
        return original(self, dataclasses.replace(batch, **repeated))

    patch.set(learner, "loss", loss)


def loss_denominator(panel: Any, patch: Any) -> None:
    learner = panel.part("learner").Learner
    original = learner.loss

    def loss(self: Any, batch: Any) -> Any:
        return original(self, batch) * (len(batch.x0) / max(1, len(batch.x0) - 1))

    patch.set(learner, "loss", loss)


def dropout_ignored(panel: Any, patch: Any) -> None:
    def made(original: Any) -> Any:
        return lambda self, x, temb, mask: original(self, x, temb, None)

    replace_forward(panel, patch, panel.part("unet").ResnetBlock, made)


def detached(panel: Any, patch: Any) -> None:
    def made(original: Any) -> Any:
        return lambda self, x, temb, mask: original(self, x, temb.detach(), mask)

    replace_forward(panel, patch, panel.part("unet").ResnetBlock, made)


def replace_adam(panel: Any, patch: Any, update: Callable[..., Any]) -> None:
    """Replace `adam_step` by `update(p, g, m, v, n)` on the host; p to v are float64 arrays."""
    assign, read = panel.part("arrays").assign, panel.read

    def adam_step(params: Any, grads: Any, m: Any, v: Any, ema: Any, **n: Any) -> Any:
        host = [[read(x).astype(np.float64) for x in group] for group in (params, grads, m, v)]
        norm = math.sqrt(sum(float((g * g).sum()) for g in host[1]))
        n["clip"] = min(1.0, n["max_norm"] / (norm + 1e-6))
        for i, row in enumerate(zip(*host, strict=True)):
            new = update(*row, n)
            average = read(ema[i]).astype(np.float64)
            average = n["ema_rate"] * average + (1 - n["ema_rate"]) * new[0]
            for target, values in zip((params, m, v, ema), (*new, average), strict=True):
                assign(target[i], values.astype(np.float32))
        return panel.put(np.array([norm], dtype=np.float32))

    for module in ("optim", "learner"):
        patch.set(panel.part(module), "adam_step", adam_step)


def moments(g: Any, m: Any, v: Any, n: Any) -> Any:
    m = n["beta1"] * m + (1 - n["beta1"]) * g
    v = n["beta2"] * v + (1 - n["beta2"]) * g * g
    rate = n["lr"] / (1 - n["beta1"] ** n["step"])
    return m, v, rate, v / (1 - n["beta2"] ** n["step"])


def adam_eps_inside(panel: Any, patch: Any) -> None:
    def update(p: Any, g: Any, m: Any, v: Any, n: Any) -> Any:
        m, v, rate, v_hat = moments(g * n["clip"], m, v, n)
        return p - rate * m / np.sqrt(v_hat + n["eps"]), m, v

    replace_adam(panel, patch, update)


def clip_after(panel: Any, patch: Any) -> None:
    def update(p: Any, g: Any, m: Any, v: Any, n: Any) -> Any:
        m, v, rate, v_hat = moments(g, m, v, n)
        return p - n["clip"] * rate * m / (np.sqrt(v_hat) + n["eps"]), m, v

    replace_adam(panel, patch, update)


def ema_rate(panel: Any, patch: Any) -> None:
    learner = panel.part("learner").Learner
    original = learner.__init__

    def init(self: Any, plan: Any, weights: Any, train: Any, *rest: Any) -> None:
        rate = 0.999 if train.ema_rate != 0.999 else 0.99
        original(self, plan, weights, train.model_copy(update={"ema_rate": rate}), *rest)

    patch.set(learner, "__init__", init)


def _other_plan(panel: Any, patch: Any, changed: Callable[[Any], dict[str, Any]]) -> None:
    """Plant a network that is built from a changed plan."""
    network = panel.part("unet").UNet
    original = network.__init__

    def init(self: Any, plan: Any) -> None:
        original(self, dataclasses.replace(plan, **changed(plan)))

    patch.set(network, "__init__", init)


def norm_groups_ignored(panel: Any, patch: Any) -> None:
    groups = panel.layers.GROUPS  # a narrow network has fewer channels
    _other_plan(panel, patch, lambda plan: {"norm_groups": math.gcd(groups, plan.ch)})


def norm_eps_ignored(panel: Any, patch: Any) -> None:
    _other_plan(panel, patch, lambda _: {"norm_eps": panel.layers.EPS})


def ema_warmup_ignored(panel: Any, patch: Any) -> None:
    learner = panel.part("learner").Learner
    original = learner.__init__

    def init(self: Any, plan: Any, weights: Any, train: Any, *rest: Any) -> None:
        original(self, plan, weights, train.model_copy(update={"ema_warmup": False}), *rest)

    patch.set(learner, "__init__", init)


def learning_rate(panel: Any, patch: Any) -> None:
    learner = panel.part("learner").Learner
    original = learner.step
    patch.set(learner, "step", lambda self, batch, lr: original(self, batch, lr * 1.05))


def stale_batch(panel: Any, patch: Any) -> None:
    learner = panel.part("learner").Learner
    original = learner.step

    def step(self: Any, batch: Any, lr: float) -> Any:
        before = getattr(self, "held_batch", batch)
        self.held_batch = batch
        return original(self, before, lr)

    patch.set(learner, "step", step)


ROWS = (
    ("transposed_linear", "weights", "square linear weights are loaded transposed",
     transposed_linear),
    ("norm_eps", "operators", "GroupNorm's eps is 1e-5", norm_eps),
    ("padding_side", "operators", "the strided convolution pads above and to the left",
     padding_side),
    ("upsample_mode", "operators", "bilinear in place of nearest upsampling", upsample_mode),
    ("attention_scale", "operators", "attention is scaled by C^-0.25", attention_scale),
    ("norm_groups_ignored", "layers", "norms have the official 32 groups, whatever the config says",
     norm_groups_ignored),
    ("norm_eps_ignored", "layers", "norms have the official eps, whatever the config says",
     norm_eps_ignored),
    ("swapped_norms", "layers", "a block's two norms are swapped", swapped_norms),
    ("keys_for_values", "layers", "attention takes keys for values", keys_for_values),
    ("antithetic_off", "loss", "a batch's second half repeats timesteps, unmirrored",
     antithetic_off),
    ("loss_denominator", "loss", "the batch's mean is taken over n - 1", loss_denominator),
    ("dropout_ignored", "loss", "dropout's masks are not applied", dropout_ignored),
    ("detached", "gradients", "no gradient flows into the time embedding", detached),
    ("adam_eps_inside", "update", "Adam's eps is inside the square root", adam_eps_inside),
    ("clip_after", "update", "the update is clipped, not the gradient", clip_after),
    ("ema_warmup_ignored", "update", "the moving average's rate has no warm-up",
     ema_warmup_ignored),
    ("ema_rate", "update", "the moving average's rate is another", ema_rate),
    ("learning_rate", "lockstep", "the learning rate is 5 % too high", learning_rate),
    ("stale_batch", "lockstep", "each step trains on the batch before", stale_batch),
)  # fmt: skip
