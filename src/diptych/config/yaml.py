"""A YAML reader that reads `1e-4` as a number and refuses duplicate keys.

Plain YAML 1.1 reads `1e-4` as a string, and keeps the last of two equal keys.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

FAULTS = (yaml.YAMLError, ValueError, RecursionError)
"""The errors that reading may raise."""


def read_yaml(text: str) -> Any:
    """Parse YAML text into a value. Raises one of `FAULTS`."""
    return yaml.load(text, Loader=_Loader)


class _Loader(yaml.SafeLoader):
    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                message = f"key '{key}' stands twice"
                raise yaml.constructor.ConstructorError(None, None, message, node.start_mark)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"),
    list("-+0123456789"),
)
