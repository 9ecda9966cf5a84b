"""Sentences, each made only of a template and the numbers that fill it.

`say` renders a template of the catalogue in both languages from exactly the numbers that are kept
beside the sentence. So the text can be made again from the record, and a changed number changes
its sentence.
"""

from __future__ import annotations

import math
import string
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from diptych.figures.numbers import seconds, significant
from diptych.pages.catalogue import Text, phrase

Numbers = Mapping[str, Any]
SHOWN_STEPS = 12
ABOUT = {
    "matched": "what", "unmatched": "what", "torn": "what", "machines": "what", "worlds": "what",
    "slow": "time",
}  # fmt: skip


@dataclass(frozen=True)
class Source:
    """The source of numbers: a file, by a path that a reader can follow, and fields in it."""

    path: str
    fields: str


@dataclass(frozen=True)
class Sentence:
    """One sentence, all the numbers in it, and their records."""

    key: str
    words: Text
    numbers: dict[str, Any]
    sources: tuple[Source, ...] = ()

    def by(self, *sources: Source) -> Sentence:
        """The sentence with the records that its numbers come from."""
        return replace(self, sources=sources)

    @property
    def section(self) -> str:
        """The sentence's section: the first part of its key, or the section that it maps to."""
        first = self.key.partition(".")[0]
        return ABOUT.get(first, first)


def cite(sentences: Iterable[Sentence], *sources: Source) -> list[Sentence]:
    """The sentences with the records that their numbers come from."""
    return [sentence.by(*sources) for sentence in sentences]


def steps_listed(steps: Sequence[int], language: str = "en") -> str:
    """List step numbers, the first SHOWN_STEPS of them, and count the rest."""
    zh = language == "zh"
    shown = ("、" if zh else ", ").join(f"{step:,}" for step in steps[:SHOWN_STEPS])
    rest = len(steps) - SHOWN_STEPS
    if zh:
        return f"第 {shown} 步" + (f"，另有 {rest:,} 步" * (rest > 0))
    return ("step " if len(steps) == 1 else "steps ") + shown + (f" and {rest:,} more" * (rest > 0))


class Words(string.Formatter):
    """Formatter for the templates' format specifications, in one language."""

    def __init__(self, language: str = "en") -> None:
        self.language = language

    def format_field(self, value: Any, format_spec: str) -> str:
        if isinstance(value, Text):
            return value.within(self.language)
        if format_spec in ("ratio", "range"):
            return self._interval(value, format_spec)
        if format_spec.startswith("sig") and format_spec[3:].isdigit():
            return significant(value, int(format_spec[3:]))
        if format_spec == "share":
            percent = significant(100.0 * value, 2 if value < 0.0995 else 3)
            return f"{'100' if value >= 0.9995 else percent} %"
        zh = self.language == "zh"
        simple: dict[str, Callable[[Any], str]] = {
            "seconds": seconds,
            "listed": lambda x: steps_listed(x, self.language),
            "mb": lambda x: f"{x:,.0f} MiB",
            "count": lambda x: f"{x:,}",
            "steps": lambda x: f"{x:,} 步" if zh else f"{x:,} step" + "s" * (x != 1),
            "plus": lambda x: ("+" if x > 0 else "") + significant(x, 2),
            "signed": lambda x: f"{x:+.3g}",
            "names": lambda x: (" 与 " if zh else " and ").join(x),
            "listing": lambda x: ("、" if zh else ", ").join(x),
        }
        if format_spec in simple:
            return simple[format_spec](value)
        return str(super().format_field(value, format_spec))

    def _interval(self, value: Numbers, what: str) -> str:
        # Enough decimals to tell both ends apart, and from 1.
        low, high = value["low"], value["high"]
        gaps = [] if low is None else [high - low, abs(low - 1), abs(high - 1)]
        least = min((gap for gap in gaps if gap > 0), default=1.0)
        decimals = min(6, max(2, math.ceil(-math.log10(least))))
        if what == "ratio":
            return f"{value['b_over_a']:.{decimals}f}"
        between = " 至 " if self.language == "zh" else " to "
        return f"{low:.{decimals}f}{between}{high:.{decimals}f}"


def fill(template: Text, /, **numbers: Any) -> Text:
    """Fill the template in both languages; `numbers` must be exactly those that it names."""
    for form in (template.en, template.zh):
        named = {n.split("[")[0] for _, n, _, _ in string.Formatter().parse(form) if n}
        assert named == set(numbers), f"{form}: {named ^ set(numbers)}"
    return Text(
        *(
            Words(language).vformat(template.within(language), (), numbers)
            for language in ("en", "zh")
        )
    )


def words(template: str, /, **numbers: Any) -> Text:
    """Fill the catalogue's template of this key with its numbers."""
    return fill(phrase(template), **numbers)


def say(key: str, template: str = "", /, **numbers: Any) -> Sentence:
    """Make a sentence from the catalogue's `template` (by default that of `key`) and `numbers`."""
    return Sentence(key, words(template or key, **numbers), numbers)


def about(label: str, template: str, /, key: str = "", **numbers: Any) -> Sentence:
    """Make a sentence about one run; its key (by default the template's) ends with the label."""
    return say(f"{key or template}.{label}", template, run=label, **numbers)


def pick(numbers: Numbers, names: str, **others: str) -> dict[str, Any]:
    """Pick numbers under their own or new names: pick(found, "n p5", last="last_step")."""
    return {n: numbers[n] for n in names.split()} | {k: numbers[n] for k, n in others.items()}


def joined(parts: Sequence[Text], en: str = "; ", zh: str = "；") -> Text:
    """Join texts with each language's separator."""
    return Text(en.join(part.en for part in parts), zh.join(part.zh for part in parts))


def ratio_sentence(
    key: str, what: tuple[str | Text, str, str], ratio: Mapping[str, Any], a: str, b: str
) -> Sentence:
    """A sentence on B's number over A's; it claims a direction only if the interval excludes 1.

    Args:
        what: the number's name, the word for a ratio above 1, and that for one below, as keys of
            the catalogue's terms; the name may also be a Text.
        ratio: the result of `diptych.stats.ratio`.
    """
    name, above, below = (w if isinstance(w, Text) else phrase(f"term.{w}") for w in what)
    if ratio["low"] is None:
        return say(key, "ratio.short", a=a, b=b, what=name, ratio=ratio)
    if ratio["low"] <= 1 <= ratio["high"]:
        return say(key, "ratio.none", a=a, b=b, what=name, ratio=ratio)
    word = above if ratio["low"] > 1 else below
    return say(key, "ratio.shown", a=a, b=b, what=name, ratio=ratio, word=word)
