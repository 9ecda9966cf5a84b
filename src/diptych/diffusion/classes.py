"""Class conditioning: labels in training, classes in sampling, classifier-free guidance.

    labels      0 .. K-1, and K for 'no class'; K = model.num_classes
    rows        row i is the label's row of the (K + 1) identity: float32, zeros and one 1
    in training a label becomes K with probability train.label_dropout, drawn from a keyed stream
    guidance    out = out_none + w (out_class - out_none)      w = 1: the class; w = 0: no class

Label dropout lets one network learn both predictions that guidance needs. The rows are made on the
host, like the time embedding, so that both backends start from the same bits. Source: Ho &
Salimans 2022, arXiv:2207.12598, section 3, with w = 1 + (their w).
"""

from __future__ import annotations

import hashlib
import math
import operator
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from diptych.errors import UserError, refused
from diptych.rng import stream
from diptych.types import Float32, Int64

Classes = tuple[int, ...]


def class_rows(labels: npt.ArrayLike, num_classes: int) -> Float32:
    """One-hot rows (B, K + 1), float32, of labels (B,) in 0 .. K.

    Raises:
        ValueError: a label outside 0 .. K.
    """
    rows = np.asarray(labels, dtype=np.int64)
    if rows.size and not (rows.min() >= 0 and rows.max() <= num_classes):
        raise ValueError(f"labels must lie in 0 .. {num_classes} (the last is 'no class')")
    return np.eye(num_classes + 1, dtype=np.float32)[rows]


def drop_labels(labels: Int64, num_classes: int, rate: float, seed: int, step: int) -> Int64:
    """The labels (B,) of one training step, each replaced by K with probability `rate`."""
    dropped = stream(seed, "label_dropout", step).random(len(labels)) < rate
    return np.where(dropped, num_classes, labels)


def check_labels(labels: Int64 | None, num_classes: int, source: str) -> None:
    """Refuse data without labels, or with more classes than the network has.

    Raises:
        UserError: names the problem and the setting that fixes it.
    """
    if not num_classes:
        return
    if labels is None:
        raise UserError(
            f"data.source {source} has no labels, model.num_classes is {num_classes}; use "
            f"--set model.num_classes=0, or labelled data"
        )
    found = int(labels.max()) + 1
    if found > num_classes:
        raise UserError(
            f"model.num_classes is {num_classes}, but {source} has labels up to {found - 1}; use "
            f"--set model.num_classes={found}"
        )


def parse_classes(text: str | None) -> list[int] | str | None:
    """Parse `7`, `0,1,2` or `all` from the command line; None if not given.

    Raises:
        UserError: anything else.
    """
    if text is None or text.strip() == "all":
        return None if text is None else "all"
    try:
        return [int(part) for part in text.split(",")]
    except ValueError as error:
        raise UserError(f"--class {text}: give a class, a list such as 0,1,2, or all") from error


def choose_classes(
    classes: Sequence[int] | str | None,
    guidance: float | None,
    num_classes: int,
    *,
    guided: bool = False,
) -> tuple[Classes | None, float | None]:
    """Check classes and guidance; a network without classes has none.

    Args:
        classes: image i gets `classes[i mod n]`; None or "all": every class in turn. A text is
            read as on the command line.
        guidance: the scale w; None means 1.
        num_classes: K of the network.
        guided: another network guides, so that guidance needs no classes.

    Returns:
        The classes and w; (None, None) for a network without classes and guide.

    Raises:
        UserError: classes or guidance for a network without classes, a class out of range, or a
            guidance that is negative or not a number.
    """
    if not num_classes and not (guided and classes is None):
        if classes is not None or guidance is not None:
            asked = "guidance" if classes is None else "a class"
            raise UserError(
                f"{asked} is asked for, but this model was trained without classes; leave it out, "
                f"{'guide by another model with --guide, ' * (asked == 'guidance')}"
                f"or train one with --set model.num_classes=10"
            )
        return None, None
    chosen = _chosen(classes, num_classes) if num_classes else None
    outside = [c for c in chosen or () if not 0 <= c < num_classes]
    if outside or chosen == ():
        wrong = f"class {outside[0]} is not known" if outside else "no class is given"
        raise UserError(f"{wrong}; this model has the classes 0 to {num_classes - 1}")
    weight = 1.0 if guidance is None else float(guidance)
    if not (math.isfinite(weight) and weight >= 0):
        raise UserError(f"guidance is {weight}; it must be 0 (no class) or more; 1 is the class")
    return chosen, weight


def _chosen(classes: Sequence[int] | str | None, num_classes: int) -> Classes:
    if isinstance(classes, str):
        classes = parse_classes(classes)
    if classes is None or isinstance(classes, str):
        return tuple(range(num_classes))
    try:
        return tuple(map(operator.index, classes))
    except TypeError:
        raise refused("classes", classes, "'all' or whole numbers, as in [0, 1, 2]") from None


def labels_of(classes: Classes, images: Sequence[int]) -> Int64:
    """The class of each image index i, (len(images),) int64: `classes[i mod n]`."""
    return np.asarray([classes[i % len(classes)] for i in images], dtype=np.int64)


def short_name(classes: Classes) -> str:
    """A short form for folder names: `7`, `0-1-2`, `0to9`; for long lists a count and a hash."""
    if len(classes) > 2 and classes == tuple(range(len(classes))):
        return f"0to{len(classes) - 1}"
    text = "-".join(map(str, classes))
    if len(text) <= 24:
        return text
    return f"{len(classes)}x{hashlib.sha256(text.encode()).hexdigest()[:8]}"
