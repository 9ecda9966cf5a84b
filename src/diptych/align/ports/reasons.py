"""Reasons for what is not compared or has no numbers: a key and its facts, told in two languages.

    {"key": "no_shape", "whose": "port", "shape": [10]}     the port has nothing left of shape (10,)

Processes that load a framework write them into JSON; the texts stand with those of the pages.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from diptych.pages.catalogue import Text, phrase, same
from diptych.pages.template import words

Why = dict[str, Any]
_SIDES = ("reference", "port")


def why(key: str, **facts: Any) -> Why:
    """A reason; facts are texts, numbers, shapes, sides, or reasons themselves."""
    return {"key": key, **facts}


def told(reason: Mapping[str, Any]) -> Text:
    """The reason in words."""
    return words(f"why.{reason['key']}", **{k: _fact(v) for k, v in reason.items() if k != "key"})


def _fact(value: Any) -> Any:
    if isinstance(value, Mapping):
        return told(value)
    if isinstance(value, list | tuple):
        return same(str(tuple(value)))
    return phrase(f"portcell.{value}") if value in _SIDES else value
