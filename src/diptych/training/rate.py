"""The learning rate of each step."""

from __future__ import annotations

import logging
import math

from diptych.config.load import TrainConfig

log = logging.getLogger(__name__)


def learning_rate(settings: TrainConfig, last: int, step: int) -> float:
    """The learning rate of a 1-based step: linear warm-up, then decay to lr * lr_final.

        warm-up   lr * min(1, step / warmup_steps)
        decay     lr * (lr_final + (1 - lr_final) * f(p)),  p = share of the steps after the warm-up
                  linear f = 1 - p;  cosine f = (1 + cos(pi p)) / 2

    It only depends on the step, so a resumed run has the rates of an uninterrupted one.

    Args:
        last: the run's last step, where p is 1; unused without decay.

    Source of the cosine: Loshchilov and Hutter 2017, arXiv:1608.03983, equation 5, no restarts.
    """
    warmup = settings.warmup_steps
    rate = settings.lr * min(1.0, step / warmup) if warmup else settings.lr
    if settings.lr_decay == "none" or step <= warmup:
        return rate
    p = min(1.0, (step - warmup) / max(1, last - warmup))
    share = 1 - p if settings.lr_decay == "linear" else (1 + math.cos(math.pi * p)) / 2
    return settings.lr * (settings.lr_final + (1 - settings.lr_final) * share)


def warn_of_warmup(settings: TrainConfig, last: int) -> None:
    """Say so if the run ends before its learning rate has risen, and a decay never begins."""
    if settings.lr_decay != "none" and settings.warmup_steps >= last:
        log.warning(
            "train.warmup_steps=%d, but the run has %d steps: the learning rate only rises, to "
            "%.2g of %.2g, and train.lr_decay=%s never begins; shorten the warm-up for a run this "
            "short",
            settings.warmup_steps,
            last,
            learning_rate(settings, last, last),
            settings.lr,
            settings.lr_decay,
        )
