"""Hints on an optimizer: which usual mistake gives the port's two steps.

The gradients of both steps are given, so each rule can be computed anew: the reference's own
(its kind and settings are read from PyTorch's optimizer) with one thing changed. Rules: Adam
(Kingma & Ba 2015), AdamW (Loshchilov & Hutter 2019), SGD and RMSprop as PyTorch documents them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from diptych.align.ports.guesses import explains
from diptych.types import Array


@dataclass(frozen=True)
class Rule:
    """An optimizer's update, Adam's, SGD's or RMSprop's."""

    kind: str
    lr: float
    decay: float = 0.0
    decoupled: bool = False  # the decay is taken from the weight, not added to its gradient
    eps: float = 1e-8
    inside: bool = False  # eps under the root
    corrected: bool = True  # Adam's bias correction
    betas: tuple[float, float] = (0.9, 0.999)  # RMSprop's alpha is the second
    momentum: float = 0.0
    dampening: float = 0.0
    nesterov: bool = False


KINDS = ("Adam", "AdamW", "SGD", "RMSprop")


def rule_of(about: Mapping[str, Any]) -> Rule | None:
    """The rule of a PyTorch optimizer that is described; None if it is not one of `KINDS`."""
    kind, own = about.get("kind"), about.get("settings", {})
    unlike = ("amsgrad", "maximize", "centered")
    if kind not in KINDS or any(own.get(k) for k in unlike):
        return None
    if kind == "RMSprop" and own.get("momentum"):
        return None
    betas = own.get("betas", (0.0, own.get("alpha", 0.99)))
    return Rule(
        {"AdamW": "Adam"}.get(kind, kind),
        float(own["lr"]),
        float(own.get("weight_decay", 0.0)),
        kind == "AdamW" or bool(own.get("decoupled_weight_decay")),
        float(own.get("eps", 0.0)),
        betas=(float(betas[0]), float(betas[1])),
        momentum=float(own.get("momentum", 0.0)),
        dampening=float(own.get("dampening", 0.0)),
        nesterov=bool(own.get("nesterov")),
    )


def steps_of(rule: Rule, weight: Array, gradients: Sequence[Array]) -> list[Array]:
    """Each step's change of the weight, in float64."""
    w = weight.astype(np.float64)
    m, v = np.zeros_like(w), np.zeros_like(w)
    b1, b2 = rule.betas
    found = []
    for t, each in enumerate(gradients, 1):
        g = each.astype(np.float64)
        if not rule.decoupled:
            g = g + rule.decay * w
        if rule.kind == "SGD":
            m = g if t == 1 else rule.momentum * m + (1 - rule.dampening) * g
            step = -rule.lr * (g + rule.momentum * m if rule.nesterov else m)
        else:
            m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g * g
            corrected = rule.kind == "Adam" and rule.corrected
            c1, c2 = (1 - b1**t, 1 - b2**t) if corrected else (1.0, 1.0)
            root = np.sqrt(v / c2 + rule.eps) if rule.inside else np.sqrt(v / c2) + rule.eps
            step = -rule.lr * (m / c1 if rule.kind == "Adam" else g) / root
        if rule.decoupled:
            step = step - rule.lr * rule.decay * w
        w = w + step
        found.append(step)
    return found


def changed(rule: Rule) -> Iterator[tuple[dict[str, Any], Rule]]:
    """(hint, rule) of the usual mistakes."""
    if rule.decay:
        yield {"key": "no_decay"}, replace(rule, decay=0.0)
        key = "decay_coupled" if rule.decoupled else "decay_decoupled"
        yield {"key": key}, replace(rule, decoupled=not rule.decoupled)
        yield {"key": "decay_unscaled"}, replace(rule, decoupled=True, decay=rule.decay / rule.lr)
    for decay in (1e-2, 1e-4, 5e-4):
        if rule.kind == "Adam" and not rule.decay:
            yield {"key": "decay_added", "decay": decay}, replace(rule, decay=decay, decoupled=True)
    if rule.kind == "SGD":
        if rule.momentum:
            yield {"key": "no_momentum"}, replace(rule, momentum=0.0, nesterov=False)
            yield {"key": "dampened"}, replace(rule, dampening=rule.momentum)
            key = "no_nesterov" if rule.nesterov else "nesterov"
            yield {"key": key}, replace(rule, nesterov=not rule.nesterov)
        return
    yield {"key": "eps_inside"}, replace(rule, inside=True)
    for eps in (1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8, 1e-10):  # less does not show
        yield {"key": "optimizer_eps", "eps": eps, "own": rule.eps}, replace(rule, eps=eps)
    for b2 in (0.9, 0.95, 0.98, 0.99, 0.999, 0.9999):
        fact = {"key": "beta2", "beta": b2, "own": rule.betas[1]}
        yield fact, replace(rule, betas=(rule.betas[0], b2))
    if rule.kind == "Adam":
        yield {"key": "no_correction"}, replace(rule, corrected=False)
        for b1 in (0.0, 0.5, 0.8, 0.9, 0.95):
            fact = {"key": "beta1", "beta": b1, "own": rule.betas[0]}
            yield fact, replace(rule, betas=(b1, rule.betas[1]))


def mistakes(
    rule: Rule, weight: Array, gradients: Sequence[Array], own: Array, got: Array
) -> Iterator[dict[str, Any]]:
    """Hints on the port's steps `got`, where the reference's are `own`; both one after another."""

    def both(each: Rule) -> Array:
        return np.concatenate([s.ravel() for s in steps_of(each, weight, gradients)])

    error = float(np.abs(got - own).max())
    if not error or float(np.abs(both(rule) - own).max()) > 0.05 * error:
        return  # the reference does more than its rule: a wrapper, a clip
    fits = []
    for hint, each in changed(rule):
        guess = both(each)
        if each != rule and explains(own, got, guess):
            fits.append((float(np.abs(got - guess).max()), hint))
    if fits:
        yield min(fits, key=lambda f: f[0])[1]
