"""`names.yaml`: which weight and layer of the reference is which of the port, and moved layouts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from diptych.align.ports.layouts import DECLARED
from diptych.align.ports.matching import Given, Match
from diptych.align.ports.names import read_map
from diptych.align.ports.reasons import told
from diptych.errors import UserError, nearest


def read_given(path: Path | None) -> Given:
    """A `names.yaml`, or a plain map of the reference's names to the port's.

    Raises:
        UserError: it cannot be read or is no such map.
    """
    if path is None:
        return Given()
    tree = read_map(path)
    if not any(isinstance(v, dict) for v in tree.values()):
        tree = {"weights": tree}
    parts = {}
    for key, value in tree.items():
        if key not in ("weights", "layers", "rules", "unmatched"):
            raise UserError(f"{path}: '{key}' is not known; expected weights, layers, rules")
        if key == "unmatched" or value is None:
            continue
        if not isinstance(value, dict) or not all(isinstance(v, str) for v in value.values()):
            raise UserError(f"{path}: '{key}' must be a mapping of names")
        parts[key] = {str(k): v for k, v in value.items()}
    for name, rule in parts.get("rules", {}).items():
        if rule not in DECLARED:
            raise UserError(
                f"{path}: rule '{rule}' of '{name}' is not known{nearest(rule, list(DECLARED))}"
            )
    return Given(**parts)


def names_text(found: Match, layers: Mapping[str, str], given: Given) -> str:
    """`names.yaml`: the map, how each pair was found, and what is left over."""

    def quoted(text: str) -> str:
        return json.dumps(text, ensure_ascii=False)

    lines = [
        "# The map that was found, reference: port. Correct it and give it with --names.",
        f"# {len(found.weights)} of {len(found.weights) + len(found.left_reference)} weights of "
        f"the reference matched.",
        "weights:" if found.weights else "weights: {}",
    ]
    lines += [f"  {quoted(a)}: {quoted(b)}  # by {found.how[a]}" for a, b in found.weights.items()]
    lines.append("layers:" if layers else "layers: {}")
    lines += [f"  {quoted(a)}: {quoted(b)}" for a, b in layers.items()]
    lines.append("# Layouts are moved only by these: PATTERN: transpose, hwio, or jax (both);")
    lines.append("# that of the network's own outputs by a rule for `output`.")
    lines.append("rules:" if given.rules else "rules: {}")
    lines += [f"  {quoted(a)}: {b}" for a, b in given.rules.items()]
    lines.append("unmatched:")
    for title, left in (("reference", found.left_reference), ("port", found.left_subject)):
        lines.append(f"  {title}:" if left else f"  {title}: {{}}")
        lines += [f"    {quoted(a)}: {quoted(told(reason).en)}" for a, (_, reason) in left.items()]
    return "\n".join(lines) + "\n"
