"""All texts of the pages in both languages: `words/*.yaml`, key -> {en, zh}.

A key is dotted (`time.epoch`); its text is a template that names its numbers in braces. Both
languages are side by side, so that neither is changed without seeing the other.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import yaml

LANGUAGES = ("en", "zh")


@dataclass(frozen=True)
class Text:
    """The same words in English and in Chinese."""

    en: str
    zh: str

    def within(self, language: str) -> str:
        """The words in one language, "en" or "zh"."""
        return self.zh if language == "zh" else self.en


def same(text: str) -> Text:
    """A text that is the same in both languages, such as a name or a number."""
    return Text(text, text)


@cache
def catalogue() -> dict[str, Text]:
    """All texts by dotted key.

    Raises:
        AssertionError: if a key lacks a language or is in two files.
    """
    found: dict[str, Text] = {}
    folder = files("diptych.pages") / "words"
    for file in sorted(folder.iterdir(), key=lambda entry: entry.name):
        if file.name.endswith(".yaml"):
            for key, text in _texts(yaml.safe_load(file.read_text("utf-8")), ""):
                assert key not in found, f"{file.name}: '{key}' stands in another file too"
                found[key] = text
    return found


def _texts(tree: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Text]]:
    for name, value in tree.items():
        key = f"{prefix}{name}"
        assert isinstance(value, Mapping), f"'{key}': expected both languages, en and zh"
        if set(value) & {*LANGUAGES}:
            assert set(value) == {*LANGUAGES}, f"'{key}': expected en and zh, no more"
            yield key, Text(str(value["en"]), str(value["zh"]))
        else:
            yield from _texts(value, f"{key}.")


def phrase(key: str) -> Text:
    """The text of a key, not filled in."""
    return catalogue()[key]


def known(kind: str, name: str) -> Text:
    """The text of "kind.name", or the name itself if the catalogue does not know it."""
    return catalogue().get(f"{kind}.{name.replace(' ', '_')}", same(name))
