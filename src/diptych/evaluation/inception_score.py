"""The Inception Score: how sure a classifier is of each image, and how varied its answers are.

    IS = exp( mean over images of KL( p(y | x) || p(y) ) ),      p(y) = the mean of p(y | x)

over ten parts of the images, permuted by RandomState(2020); mean and standard deviation (ddof 0)
over the parts, in float64, from logits without bias, as torch-fidelity computes it. Salimans et al.
2016, arXiv:1606.03498. It uses no reference, and its value depends on N.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import log_softmax

from diptych.errors import UserError
from diptych.types import Floating

SPLITS, SEED = 10, 2020


@dataclass(frozen=True)
class InceptionScore:
    """Mean and standard deviation (ddof 0) over the parts."""

    mean: float
    std: float


def inception_score(
    logits: Floating,
    splits: int = SPLITS,
    shuffle: bool = True,
) -> InceptionScore:
    """IS of classifier outputs (N, K); without `shuffle` the images keep their order.

    Raises:
        UserError: fewer images than parts.
    """
    count = len(logits)
    if count < splits:
        raise UserError(f"{splits} parts cannot be made of {count} images; take more images")
    if shuffle:
        logits = logits[np.random.RandomState(SEED).permutation(count)]
    edges = [i * count // splits for i in range(splits + 1)]
    parts = [_score(logits[edges[i] : edges[i + 1]]) for i in range(splits)]
    return InceptionScore(float(np.mean(parts)), float(np.std(parts)))


def _score(logits: Floating) -> float:
    log_p = log_softmax(logits.astype(np.float64), axis=1)
    p = np.exp(log_p)
    marginal = p.mean(axis=0, keepdims=True)
    # A class that no image has contributes nothing: 0 log 0 = 0.
    log_marginal = np.log(np.maximum(marginal, np.finfo(np.float64).tiny))
    return float(np.exp(np.mean(np.sum(p * (log_p - log_marginal), axis=1))))
