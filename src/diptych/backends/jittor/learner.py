"""Training, Jittor backend; its mirror is `diptych.backends.torch.learner`.

    x_t  = alpha[t] * x0 + sigma[t] * eps           Ho et al. 2020, algorithm 1
    loss = mean over the batch of weight * (sum or mean over pixels of (eps - network(x_t, t))**2)

with the image or the velocity in place of eps if the plan predicts that
(`diptych.diffusion.objective`); then gradients clipped by their total norm, Adam, and an
exponential moving average of the weights. A step reads no device value: loss and norm are returned
as device scalars.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import jittor as jt
import numpy as np

from diptych.backends.jittor.arrays import (
    add_all,
    build,
    draw_masks,
    draw_noise,
    load,
    put,
    read,
    read_all,
    weights_of,
)
from diptych.backends.jittor.collective import all_sum
from diptych.backends.jittor.compiler import compile_network
from diptych.backends.jittor.draws import keyed_masks, keyed_noise
from diptych.backends.jittor.optim import adam_step
from diptych.backends.jittor.own import gradients as own_gradients
from diptych.backends.jittor.own import seed as seed_framework
from diptych.backends.jittor.precision import Arithmetic
from diptych.backends.jittor.recompute import recompute
from diptych.backends.protocol import Batch, State, unmarked
from diptych.config.load import TrainConfig
from diptych.diffusion.objective import target
from diptych.network.own import AnyPlan, OwnPlan
from diptych.ranks import ALONE, Ranks
from diptych.types import Weights


class Learner:
    """See `diptych.backends.protocol.Learner`."""

    def __init__(
        self,
        plan: AnyPlan,
        weights: Weights | None,
        train: TrainConfig,
        seed: int,
        arithmetic: Arithmetic,
        ranks: Ranks = ALONE,
    ) -> None:
        if train.precision != arithmetic.precision:
            raise ValueError(
                f"precision is {train.precision}, the backend's {arithmetic.precision}"
            )
        self.plan = plan
        self.train = train
        self.seed = seed
        self.arithmetic = arithmetic
        self.device = arithmetic.device
        self.ranks = ranks
        self.count = 0
        self.network = build(plan, weights, self.device).train()
        if train.checkpoint_activations:
            recompute(plan, self.network)
        if train.compile:
            compile_network(self.network)
        self.captured = None  # only PyTorch replays
        self.raw = weights_of(self.network)
        self.ema = {name: array.clone().stop_grad() for name, array in self.raw.items()}
        self.adam_m = {name: jt.zeros_like(array).stop_grad() for name, array in self.raw.items()}
        self.adam_v = {name: jt.zeros_like(array).stop_grad() for name, array in self.raw.items()}

    def step(self, batch: Batch, lr: float) -> tuple[jt.Var, jt.Var]:
        loss, gradients = self.summed(batch)
        norm = self.update(gradients, lr)
        # Without stop_grad each unread loss would keep its whole graph: 240 MB per step at 28x28.
        return loss.stop_grad(), norm.stop_grad()

    def summed(self, batch: Batch) -> tuple[jt.Var, list[jt.Var]]:
        """Loss and gradients of the whole batch, of which this rank may have a part or no row."""
        if self.ranks.alone:
            return self.accumulated(batch)
        if len(batch.x0):
            loss, gradients = self.accumulated(batch)
        else:
            gradients = [jt.zeros_like(array) for array in self.raw.values()]
            loss = put(np.zeros(1, np.float32), self.device).sum()
        *gradients, loss = all_sum([*gradients, loss], self.ranks)
        return loss, gradients

    def accumulated(self, batch: Batch) -> tuple[jt.Var, list[jt.Var]]:
        """Loss and gradients of these images, summed over `train.accumulate` micro-batches."""
        first, *others = batch.split(self.train.accumulate)
        loss, gradients = self.part(first)
        for part in others:
            more, found = self.part(part)
            *gradients, loss = add_all([*gradients, loss], [*found, more])
        return loss, gradients

    def part(self, batch: Batch) -> tuple[jt.Var, list[jt.Var]]:
        """Loss and gradients of one micro-batch."""
        loss = self.loss(batch)
        return loss, self.differentiate(loss)

    def differentiate(self, loss: jt.Var) -> list[jt.Var]:
        if isinstance(self.plan, OwnPlan):
            return own_gradients(loss, list(self.raw.values()))
        return list(jt.grad(loss, list(self.raw.values())))

    def update(
        self, gradients: list[jt.Var], lr: float, mark: Callable[[str], None] = unmarked
    ) -> jt.Var:
        self.count += 1
        return adam_step(
            list(self.raw.values()),
            gradients,
            list(self.adam_m.values()),
            list(self.adam_v.values()),
            list(self.ema.values()),
            lr=lr,
            beta1=self.train.beta1,
            beta2=self.train.beta2,
            eps=self.train.eps,
            step=self.count,
            max_norm=self.train.grad_clip or math.inf,
            ema_rate=self.train.ema_rate_at(self.count),
            mark=mark,
        )

    def gradients(self, batch: Batch) -> tuple[float, Weights]:
        loss, gradients = self.accumulated(batch)
        return float(read(loss)), read_all(dict(zip(self.raw, gradients, strict=True)))

    def loss(self, batch: Batch) -> jt.Var:
        """The batch's loss as a device scalar with its graph."""
        return self.loss_of(self.inputs(batch), self.divisor(batch))

    def divisor(self, batch: Batch) -> int:
        """Divisor of the sum over all pixels of the whole batch."""
        return batch.count * (batch.x0[0].size if self.train.loss == "mean" else 1)

    def inputs(self, batch: Batch) -> list[Any]:
        """All that the loss needs, on the device; an own network's draws are keyed here."""
        x0 = put(batch.x0, self.device)
        eps, masks = self.draws(batch, x0)
        if isinstance(self.plan, OwnPlan):
            turn = self.ranks.rank + self.ranks.world * batch.micro
            seed_framework(self.seed, batch.step, turn)
        host = batch.alpha, batch.sigma, batch.embedding, batch.classes, batch.weight
        given = [None if array is None else put(array, self.device) for array in host]
        return [x0, eps, *given, *(masks or ())]

    def loss_of(self, given: Sequence[Any], divisor: int) -> jt.Var:
        """The loss of `inputs`."""
        x0, eps, alpha, sigma, embedding, classes, weight, *masks = given
        wanted = target(self.plan.objective, x0, eps, alpha, sigma)
        called = embedding, masks or None, classes
        found = self.arithmetic.call(self.network, alpha * x0 + sigma * eps, *called)
        error = wanted - found
        square = error * error
        if weight is not None:
            square = weight * square
        return square.sum(3).sum(2).sum() / divisor

    def draws(self, batch: Batch, x0: jt.Var) -> tuple[jt.Var, Sequence[jt.Var] | None]:
        """Noise and dropout masks: the host's, or drawn here by step (`keyed`, `device`)."""
        count, row = len(batch.x0), batch.rows.start
        if batch.eps is None and self.train.noise == "keyed":
            shape, first = batch.x0.shape, row * batch.x0[0].size
            eps = keyed_noise(
                self.seed, "training_noise", [batch.step], shape, 0, first, self.device
            )
            return eps[0], keyed_masks(self.plan, self.seed, batch.step, count, row, self.device)
        if batch.eps is None:
            eps = draw_noise(x0, self.seed, batch.step, batch.count)
            drawn = draw_masks(self.plan, batch.count, self.device)
            if batch.part is None:
                return eps, drawn
            return eps[batch.rows], None if drawn is None else [mask[batch.rows] for mask in drawn]
        masks = batch.masks
        on_device = None if masks is None else [put(mask, self.device) for mask in masks]
        return put(batch.eps, self.device), on_device

    def averaged(self) -> Weights:
        return read_all(self.ema)

    def state(self) -> State:
        groups = (self.raw, self.ema, self.adam_m, self.adam_v)
        return State(self.count, *(read_all(group) for group in groups))

    def restore(self, state: State) -> None:
        self.count = state.step
        pairs = (
            (self.raw, state.raw),
            (self.ema, state.ema),
            (self.adam_m, state.adam_m),
            (self.adam_v, state.adam_v),
        )
        for group, values in pairs:
            load(group, values)
