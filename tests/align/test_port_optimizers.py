"""Hints on optimizers: rules that are PyTorch's own, and each planted mistake by its name."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from diptych.align.ports.arrays import given_gradient
from diptych.align.ports.optimizers import changed, mistakes, rule_of, steps_of

WEIGHT = np.linspace(-0.4, 0.5, 60, dtype=np.float32).reshape(6, 10)
GIVEN = [given_gradient("w", WEIGHT.shape, t) for t in (1, 2)]
OPTIMIZERS: list[tuple[str, dict[str, Any]]] = [
    ("Adam", {"lr": 1e-3}),
    ("Adam", {"lr": 1e-3, "weight_decay": 0.1, "betas": (0.5, 0.99)}),
    ("AdamW", {"lr": 1e-3, "weight_decay": 0.05, "eps": 1e-6}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "weight_decay": 5e-4}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True}),
    ("RMSprop", {"lr": 1e-3, "alpha": 0.9, "eps": 1e-6}),
]


def described(kind: str, settings: dict[str, Any]) -> tuple[Any, list[Any]]:
    """(the rule that is read off PyTorch's optimizer, its two steps in float64)."""
    torch = pytest.importorskip("torch")
    w = torch.nn.Parameter(torch.from_numpy(WEIGHT.astype(np.float64)))
    made = getattr(torch.optim, kind)([w], **settings)
    kept = {k: v for k, v in made.param_groups[0].items() if k != "params"}
    found = []
    for g in GIVEN:
        before = w.detach().numpy().copy()
        w.grad = torch.from_numpy(g.astype(np.float64))
        made.step()
        found.append(w.detach().numpy() - before)
    return rule_of({"kind": kind, "settings": kept}), found


@pytest.mark.parametrize(("kind", "settings"), OPTIMIZERS)
def test_the_rules_are_pytorchs(kind: str, settings: dict[str, Any]) -> None:
    rule, steps = described(kind, settings)
    for own, theirs in zip(steps_of(rule, WEIGHT, GIVEN), steps, strict=True):
        np.testing.assert_allclose(own, theirs, rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize(("kind", "settings"), OPTIMIZERS)
def test_each_mistake_is_told_by_its_name(kind: str, settings: dict[str, Any]) -> None:
    """The port's steps are differences of float32 weights, as they are in a climb."""
    rule, steps = described(kind, settings)
    own = np.concatenate([s.ravel() for s in steps])
    told = []
    for hint, each in changed(rule):
        if each == rule:
            continue
        w, got = WEIGHT, []
        for step in steps_of(each, WEIGHT, GIVEN):
            after = (w.astype(np.float64) + step).astype(np.float32)
            got.append((after.astype(np.float64) - w).ravel())
            w = after
        found = list(mistakes(rule, WEIGHT, GIVEN, own, np.concatenate(got)))
        if np.abs(np.concatenate(got) - own).max() < 1e-2 * np.abs(own).max():
            assert found in ([], [hint])  # below the rounding of the weights
        else:
            assert found == [hint], (hint, found)
            told.append(hint["key"])
    assert told


def test_no_hint_on_what_no_rule_explains() -> None:
    rule, steps = described("AdamW", {"lr": 1e-3})
    own = np.concatenate([s.ravel() for s in steps])
    noise = np.random.default_rng(0).normal(size=own.shape) * np.abs(own).max()
    assert not list(mistakes(rule, WEIGHT, GIVEN, own, own + noise))
    assert not list(mistakes(rule, WEIGHT, GIVEN, own, own))
    assert not list(mistakes(replace(rule, lr=0.5), WEIGHT, GIVEN, own, own + noise))
    assert rule_of({"kind": "Lion", "settings": {"lr": 1.0}}) is None
