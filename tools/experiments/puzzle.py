"""A puzzle: a hypothesis about an observation that a measurement can refute."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Found = dict[str, Any]
Verdict = tuple[Found, str, str]


@dataclass(frozen=True)
class Puzzle:
    """One hypothesis about one observation.

    Attributes:
        loops: required measurements, as arguments of `tools.experiments.loops`.
        judge: measurements in that order -> numbers, verdict, sentence.
    """

    key: str
    title: str
    seen: str
    hypothesis: str
    prediction: str
    loops: tuple[tuple[str, ...], ...]
    judge: Callable[[list[Found]], Verdict]


def told(seconds: float) -> str:
    """A duration as text, in seconds or milliseconds."""
    return f"{seconds:.1f} s" if seconds >= 1 else f"{seconds * 1000:.0f} ms"
