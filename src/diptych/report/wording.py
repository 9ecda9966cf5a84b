"""A sentence is a template and the numbers that fill it, and nothing else.

`say` renders a template from exactly the numbers that are kept beside the sentence, so that the
text can be made again from the record, and a number that changes changes its sentence.
"""

from __future__ import annotations

import math
import string
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Numbers = Mapping[str, Any]
SHOWN_STEPS = 12


@dataclass(frozen=True)
class Sentence:
    """One sentence, the section it belongs to, and all the numbers in it."""

    key: str
    section: str
    text: str
    numbers: dict[str, Any]


def significant(value: float, digits: int = 2) -> str:
    """A number with so many significant digits: 0.031, 712, 1,230, 3.1e-6."""
    if value == 0 or not math.isfinite(value):
        return "0" if value == 0 else str(value)
    mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
    power = int(exponent)
    if power < -3 or power > 6:
        return f"{mantissa}e{power}"
    return f"{float(f'{value:.{digits - 1}e}'):,.{max(0, digits - 1 - power)}f}"


def seconds(value: float) -> str:
    """A duration with three significant digits, in the unit that suits it."""
    for unit, size, upto in (("ms", 1e-3, 0.9995), ("s", 1.0, 119.5), ("min", 60.0, 7170.0)):
        if value < upto:
            return f"{significant(value / size, 3)} {unit}"
    return f"{significant(value / 3600.0, 3)} h"


def steps_listed(steps: Sequence[int]) -> str:
    """Step numbers in words, the first SHOWN_STEPS of them."""
    shown = ", ".join(f"{step:,}" for step in steps[:SHOWN_STEPS])
    rest = len(steps) - SHOWN_STEPS
    return ("step " if len(steps) == 1 else "steps ") + shown + (f" and {rest:,} more" * (rest > 0))


class Words(string.Formatter):
    """The format specifications that the templates use."""

    def format_field(self, value: Any, format_spec: str) -> str:
        if format_spec in ("ratio", "range"):
            return self._interval(value, format_spec)
        if format_spec.startswith("sig"):
            return significant(value, int(format_spec[3:]))
        if format_spec == "share":
            percent = significant(100.0 * value, 2 if value < 0.0995 else 3)
            return f"{'100' if value >= 0.9995 else percent} %"
        simple: dict[str, Callable[[Any], str]] = {
            "seconds": seconds,
            "listed": steps_listed,
            "mb": lambda x: f"{x:,.0f} MB",
            "count": lambda x: f"{x:,}",
            "steps": lambda x: f"{x:,} step" + "s" * (x != 1),
            "plus": lambda x: ("+" if x > 0 else "") + significant(x, 2),
        }
        if format_spec in simple:
            return simple[format_spec](value)
        return str(super().format_field(value, format_spec))

    def _interval(self, value: Numbers, what: str) -> str:
        # As many decimals as show both ends apart, and on which side of 1 they lie.
        low, high = value["low"], value["high"]
        gaps = [] if low is None else [high - low, abs(low - 1), abs(high - 1)]
        least = min((gap for gap in gaps if gap > 0), default=1.0)
        decimals = min(6, max(2, math.ceil(-math.log10(least))))
        if what == "ratio":
            return f"{value['b_over_a']:.{decimals}f}"
        return f"{low:.{decimals}f} to {high:.{decimals}f}"


def say(key: str, section: str, template: str, **numbers: Any) -> Sentence:
    """The sentence that `template` and `numbers` make; `numbers` hold only what it names."""
    named = {n.split("[")[0] for _, n, _, _ in string.Formatter().parse(template) if n}
    assert named == set(numbers), f"{key}: {named ^ set(numbers)}"
    return Sentence(key, section, Words().vformat(template, (), numbers), numbers)


def ratio_sentence(
    key: str, what: tuple[str, str, str], ratio: Mapping[str, Any], a: str, b: str
) -> Sentence:
    """B's number over A's; a direction is claimed only where the interval leaves out 1.

    Args:
        key: of the form "section.name".
        what: the number's name, and the word for a ratio above 1 and for one below.
        ratio: as `diptych.report.interval.ratio` gives it.
    """
    name, above, below = what
    section = key.split(".")[0]
    if ratio["low"] is None:
        template = (
            "The {what} of {b} is {ratio:ratio} times that of {a}; there are too few steps for an "
            "interval, so no difference is shown."
        )
        return say(key, section, template, a=a, b=b, what=name, ratio=ratio)
    template = (
        "The {what} of {b} is {ratio:ratio} times that of {a} (95 % interval {ratio:range} by "
        "bootstrap over blocks of steps)"
    )
    if ratio["low"] <= 1 <= ratio["high"]:
        template += "; the interval includes 1, so no difference is shown."
        return say(key, section, template, a=a, b=b, what=name, ratio=ratio)
    template += "; the interval leaves out 1: {b} was {word} in these two runs."
    word = above if ratio["low"] > 1 else below
    return say(key, section, template, a=a, b=b, what=name, ratio=ratio, word=word)
