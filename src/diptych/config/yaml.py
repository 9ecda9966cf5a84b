"""YAML as it is meant, within bounds: `1e-4` is a number, and a key occurs once.

YAML 1.1 reads `1e-4` as a string, and takes the last of two equal keys. A short text can also name
a value again and again (`*alias`), so that a few hundred bytes stand for billions of values; the
values are therefore counted, aliases at their full size, before anything is built.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

FAULTS = (yaml.YAMLError, ValueError, RecursionError)
"""What reading may raise."""
MOST_BYTES = 2**20
MOST_VALUES = 20_000  # a config has about 60, a name map of a large network 2,000
MOST_LEVELS = 32
MOST_DIGITS = 100
# libyaml's parser, where PyYAML was built with it, reads ten times as fast.
_BASE: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def read_yaml(text: str) -> Any:
    """The value that the text holds.

    Raises:
        One of `FAULTS`: not YAML, a key twice, an unknown tag, an alias of itself, more than
        `MOST_BYTES`, `MOST_VALUES`, `MOST_LEVELS` or `MOST_DIGITS`.
    """
    _check_bounds(text)
    return yaml.load(text, Loader=_Loader)


def _check_bounds(text: str) -> None:
    if len(text) > MOST_BYTES:
        raise ValueError(f"longer than {MOST_BYTES:,} characters")
    count = 0
    sizes: dict[str, int] = {}  # of the values that have an anchor, and are whole
    opened: list[tuple[str | None, int]] = []
    for event in yaml.parse(text, Loader=_BASE):
        if isinstance(event, yaml.AliasEvent):
            if event.anchor not in sizes:
                raise ValueError(f"alias '*{event.anchor}' names nothing before it, or itself")
            count += sizes[event.anchor]
        elif isinstance(event, yaml.NodeEvent):
            count += 1
            if isinstance(event, yaml.CollectionStartEvent):
                opened.append((event.anchor, count - 1))
            elif event.anchor:
                sizes[event.anchor] = 1
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before = opened.pop()
            if anchor:
                sizes[anchor] = count - before
        if count > MOST_VALUES:
            raise ValueError(f"more than {MOST_VALUES:,} values, aliases counted in full")
        if len(opened) > MOST_LEVELS:
            raise ValueError(f"more than {MOST_LEVELS} levels of lists and mappings")


class _Loader(_BASE):  # type: ignore[misc]
    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag == "tag:yaml.org,2002:merge":
                continue
            if key.value in seen:
                message = f"key '{key.value}' occurs twice"
                raise yaml.constructor.ConstructorError(None, None, message, node.start_mark)
            seen.add(key.value)
        found: dict[Any, Any] = super().construct_mapping(node, deep)
        return found

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        if len(node.value) > MOST_DIGITS:
            raise ValueError(f"a number of more than {MOST_DIGITS} digits")
        return int(super().construct_yaml_int(node))


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"),
    list("-+0123456789"),
)
