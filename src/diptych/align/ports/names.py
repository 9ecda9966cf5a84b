"""Translation of one network's names to another's: parameters, and the modules that follow.

A map is a JSON or YAML file {reference's name: port's name}, with whole parameter names or
prefixes that end before a dot; the longest match applies. Names that it leaves out are kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from diptych.config.yaml import FAULTS, MOST_BYTES, read_yaml
from diptych.errors import UserError, nearest
from diptych.files import read_bytes

Shape = tuple[int, ...]


def read_map(path: Path) -> dict[str, Any]:
    """Read a mapping from a YAML or JSON file, of anything to anything.

    Raises:
        UserError: if it cannot be read, or is no mapping.
    """
    try:
        tree = read_yaml(read_bytes(path, "a YAML file", MOST_BYTES).decode("utf-8"))
    except FAULTS as error:
        line = " ".join(str(error).split())
        raise UserError(f"{path}: the name map cannot be read ({line})") from error
    if not isinstance(tree, dict):
        raise UserError(f"{path}: expected a mapping of the reference's names to the port's")
    return dict(tree)


def read_names(path: Path | None) -> dict[str, str]:
    """Read a name map from a file; empty if `path` is None.

    Raises:
        UserError: if it cannot be read, or is not a mapping of names.
    """
    tree = {} if path is None else read_map(path)
    if not all(isinstance(each, str) for pair in tree.items() for each in pair):
        raise UserError(f"{path}: expected a mapping of the reference's names to the port's")
    return tree


def translate(name: str, names: Mapping[str, str]) -> str:
    """The port's name for one parameter of the reference."""
    if name in names:
        return names[name]
    parts = name.split(".")
    for i in range(len(parts) - 1, 0, -1):
        head = ".".join(parts[:i])
        if head in names:
            return ".".join([*filter(None, [names[head]]), *parts[i:]])
    return name


def matched(
    wanted: Mapping[str, Shape], found: Mapping[str, Shape], names: Mapping[str, str], where: str
) -> dict[str, str]:
    """Reference's name -> port's name for every parameter, one to one.

    Raises:
        UserError: if a parameter is missing on either side, has another shape, or is named twice.
    """
    pairs = {name: translate(name, names) for name in wanted}
    for name, theirs in pairs.items():
        called = f"'{name}'" if name == theirs else f"'{theirs}' (the reference's '{name}')"
        if theirs not in found:
            used = set(pairs.values())
            free = [n for n, shape in found.items() if n not in used and shape == wanted[name]]
            hint = nearest(theirs, free[:2000]) if free else ""
            raise UserError(
                f"{where}: weight {called} is missing{hint}; "
                f"rename it, or give a name map with --names"
            )
        if found[theirs] != wanted[name]:
            raise UserError(
                f"{where}: weight {called} is {found[theirs]}, the reference's is {wanted[name]}"
            )
    taken = list(pairs.values())
    twice = (
        [name for name in taken if taken.count(name) > 1] if len(set(taken)) < len(taken) else []
    )
    if twice:
        raise UserError(f"{where}: the name map gives '{twice[0]}' to two weights")
    extra = [name for name in found if name not in set(taken)]
    if extra:
        raise UserError(
            f"{where}: weight '{extra[0]}' is not in the reference; map it with --names, or drop it"
        )
    return pairs


def module_paths(pairs: Mapping[str, str]) -> dict[str, str]:
    """Reference's module path -> port's, as far as parameter names determine it."""
    level = {a: b for a, b in (_parents(x, y) for x, y in pairs.items()) if a and b}
    paths = dict(level)
    while level:
        above: dict[str, set[str]] = {}
        for a, b in level.items():
            parent_a, parent_b = _parents(a, b)
            if parent_a:
                above.setdefault(parent_a, set()).add(parent_b)
        level = {a: next(iter(bs)) for a, bs in above.items() if len(bs) == 1 and "" not in bs}
        level = {a: b for a, b in level.items() if a not in paths}
        paths |= level
    used = list(paths.values())
    return {a: b for a, b in paths.items() if used.count(b) == 1}


def _parents(a: str, b: str) -> tuple[str, str]:
    return a.rpartition(".")[0], b.rpartition(".")[0]
