"""Match a port's layers with the reference's: by their weights, then by place, kind and shape."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from diptych.align.ports.names import module_paths
from diptych.errors import UserError, nearest


@dataclass(frozen=True)
class Layer:
    """One module that is called: its path, kind, the shapes of its outputs, its place."""

    path: str
    kind: str
    shapes: tuple[tuple[int, ...], ...]
    order: int
    leaf: bool


FAMILIES = {
    "act": ("relu", "gelu", "silu", "swish", "sigmoid", "tanh", "softplus", "elu", "mish", "act"),
    "pool": ("pool",),
    "pad": ("pad",),
    "softmax": ("softmax",),
    "norm": ("norm",),
    "up": ("upsample", "interp"),
    "flat": ("flatten",),
    "drop": ("dropout", "droppath", "identity"),
}


def family(kind: str) -> str:
    """The family of a layer without weights, by the name of its class."""
    low = kind.lower()
    return next((f for f, words in FAMILIES.items() if any(w in low for w in words)), low)


def match_layers(
    pairs: Mapping[str, str],
    ours: Sequence[Layer],
    theirs: Sequence[Layer],
    given: Mapping[str, str],
) -> dict[str, str]:
    """Reference's path -> port's: by their weights, then containers, then order between them.

    Raises:
        UserError: the given map names a layer that is not there.
    """
    mine, other = {each.path for each in ours}, {each.path for each in theirs}
    check_layers(given, mine, other)
    paths = {a: b for a, b in module_paths(pairs).items() if a in mine and b in other}
    paths |= given
    for path in sorted(mine & other):  # equal paths without weights of their own
        if path not in paths and path not in paths.values():
            paths[path] = path
    loose = [e for e in ours if e.leaf and e.path not in paths]
    free = [e for e in theirs if e.leaf and e.path not in set(paths.values())]
    anchors = sorted((e.order, paths[e.path]) for e in ours if e.leaf and e.path in paths)
    place = {e.path: e.order for e in theirs}
    for each in loose:
        before = [place[p] for o, p in anchors if o < each.order]
        after = [place[p] for o, p in anchors if o > each.order]
        low, high = max(before[-1:], default=-1), min(after[:1], default=1 << 60)
        fits = [
            f
            for f in free
            if low < f.order < high
            and family(f.kind) == family(each.kind)
            and [sorted(s) for s in f.shapes] == [sorted(s) for s in each.shapes]
        ]
        if fits:
            chosen = min(fits, key=lambda f: f.order)
            paths[each.path] = chosen.path
            free.remove(chosen)
    return paths


def check_layers(given: Mapping[str, str], ours: Iterable[str], theirs: Iterable[str]) -> None:
    """Refuse a map of layers that names one that neither side calls.

    Raises:
        UserError: the first such name.
    """
    for whose, names, known in (
        ("reference", given.keys(), sorted(ours)),
        ("port", given.values(), sorted(theirs)),
    ):
        for name in names:
            if name not in known:
                raise UserError(f"names: the {whose} calls no layer '{name}'{nearest(name, known)}")
