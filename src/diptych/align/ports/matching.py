"""Match a port's weights with the reference's: by values, by name, by order and shape.

Equal values decide first, unless the port has every name of the reference: two builds from one seed
may draw the same numbers for different layers.

Modules are matched, not single arrays: all modules with the same kinds and shapes of arrays form a
group, and within a group the best assignment is the one whose names resemble each other most, whose
places in the order of calls (of definition, if never called) lie nearest, and whose inputs come
from layers that are matched with each other. Ties are decided by the arrays' own mean and
deviation. What finds no partner is listed with the reason.

Layouts are moved only by rules that are declared (`names.yaml`, `rules:`); see `layouts`.
"""

from __future__ import annotations

import difflib
import fnmatch
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment

from diptych.align.ladder.judge import Reason
from diptych.align.ports.layouts import DECLARED, RULES, Rule, fitting, turned
from diptych.align.ports.names import module_paths, translate
from diptych.align.ports.reasons import Why, why
from diptych.errors import UserError, nearest

Left = tuple[Reason, Why]  # why an array is left over, as a word and in full
Uses = dict[str, set[str]]  # module -> the modules whose input is its output
BY_ORDER = ("name and order", "order", "order and shape")  # values of `Match.how`
SHOWN_OUTPUT = "output"  # the network's own outputs, in a rule and on the page
COUNTERS = ("num_batches_tracked",)  # hold no number that the network computes with
# Words for the same array; the first is ours.
ALIKE = {
    "gamma": "weight",
    "scale": "weight",
    "kernel": "weight",
    "w": "weight",
    "g": "weight",
    "beta": "bias",
    "shift": "bias",
    "b": "bias",
    "offset": "bias",
    "mean": "running_mean",
    "moving_mean": "running_mean",
    "var": "running_var",
    "moving_variance": "running_var",
    "moving_var": "running_var",
    "embedding": "weight",
}


# Words for the same kind of layer, else `norm` resembles `ffn_norm` more than `ln`.
LAYERS = {
    **dict.fromkeys(("ln", "bn", "gn", "layernorm", "batchnorm", "groupnorm", "rmsnorm"), "norm"),
    **dict.fromkeys(("attn", "att", "attention"), "attention"),
    **dict.fromkeys(("shortcut", "downsample", "skip"), "shortcut"),
}


@dataclass
class Entry:
    """One array as its owner knows it."""

    name: str
    shape: tuple[int, ...]
    mean: float = 0.0
    deviation: float = 0.0
    digest: str = ""
    parameter: bool = True
    order: float = 0.0  # its module's place in the order of calls, or of definition
    aliases: list[str] = field(default_factory=list)
    after: str = ""  # the module whose output is its module's input, bit by bit

    @property
    def module(self) -> str:
        return self.name.replace("/", ".").rpartition(".")[0]

    @property
    def own(self) -> str:
        """The array's name within its module, such as `kernel`."""
        return self.name.replace("/", ".").rpartition(".")[2].lower()

    @property
    def leaf(self) -> str:
        """The array's role: `weight`, `bias`, `running_mean`, `weight_ih_l0` ..."""
        return ALIKE.get(self.own, self.own)


@dataclass
class Match:
    """The map of names, how each pair was found, and what is left over with its reason."""

    weights: dict[str, str] = field(default_factory=dict)  # reference -> subject
    how: dict[str, str] = field(default_factory=dict)
    rules: dict[str, Rule] = field(default_factory=dict)
    left_reference: dict[str, Left] = field(default_factory=dict)
    left_subject: dict[str, Left] = field(default_factory=dict)


@dataclass
class Given:
    """A hand-corrected `names.yaml`."""

    weights: dict[str, str] = field(default_factory=dict)
    layers: dict[str, str] = field(default_factory=dict)
    rules: dict[str, Rule] = field(default_factory=dict)  # patterns of the reference's names

    @property
    def outputs(self) -> bool:
        """True if a rule lets the network's own outputs have another layout."""
        return any(fnmatch.fnmatch(SHOWN_OUTPUT, pattern) for pattern in self.rules)


def match(ours: Sequence[Entry], theirs: Sequence[Entry], given: Given) -> Match:
    """Match the arrays of a reference and of a port.

    Raises:
        UserError: the given map names an array that is not there, or of another shape, or one of
            its rules matches nothing.
    """
    found = Match()
    shown = {e.name: e for e in theirs}
    open_ours = {e.name: e for e in ours if not e.name.endswith(COUNTERS)}
    open_theirs = {e.name: e for e in theirs if not e.name.endswith(COUNTERS)}
    for name, other in given.weights.items():
        if name not in open_ours:
            raise UserError(
                f"names: the reference has no weight '{name}'{nearest(name, list(open_ours))}"
            )
        if other not in shown:
            raise UserError(f"names: the port has no weight '{other}'{nearest(other, list(shown))}")
    for pattern in given.rules:
        if not fnmatch.filter([*open_ours, SHOWN_OUTPUT], pattern):
            raise UserError(
                f"names: the rule '{pattern}' matches no weight of the reference"
                f"{nearest(pattern, list(open_ours))}"
            )
    declared = {
        name: rule
        for name, each in open_ours.items()
        for pattern, kind in given.rules.items()
        for rule in DECLARED[kind]
        if fnmatch.fnmatch(name, pattern) and len(RULES[rule]) == len(each.shape)
    }
    wanted = {n: turned(e.shape, declared.get(n)) for n, e in open_ours.items()}

    def pair(name: str, other: str, how: str) -> None:
        found.weights[name], found.how[name] = other, how
        if name in declared:
            found.rules[name] = declared[name]
        del open_ours[name]
        open_theirs.pop(other, None)

    for name, other in given.weights.items():
        if wanted[name] != shown[other].shape:
            hint = (
                " (a rule such as `transpose` fits)"
                if fitting(wanted[name], shown[other].shape)
                else ""
            )
            raise UserError(
                f"names: '{name}' is {wanted[name]}, '{other}' is {shown[other].shape}{hint}"
            )
        pair(name, other, "given")
    named = _by_name(open_ours, open_theirs, wanted)
    if len(named) < len(open_ours):
        valued = _by_value(open_ours, open_theirs, declared)
        shifted = any(name != other and name in open_theirs for name, other in valued)
        for name, other in valued:
            pair(name, other, "values")
        named = _by_name(open_ours, open_theirs, wanted, module_paths(found.weights), shifted)
    for name, other in named:
        pair(name, other, "name")
    uses = tuple(
        {e.module: {u.module for u in side if u.after == e.module} for e in side if e.module}
        for side in (ours, theirs)
    )
    known = {a.rpartition(".")[0]: b.rpartition(".")[0] for a, b in found.weights.items()}
    for name, other, how in _by_module(open_ours, open_theirs, wanted, known, uses):
        pair(name, other, how)
    for name, other, how in _by_leaf(open_ours, open_theirs, wanted):
        pair(name, other, how)
    _explain(found, open_ours, open_theirs, wanted)
    return found


def _by_name(
    ours: Mapping[str, Entry],
    theirs: Mapping[str, Entry],
    wanted: Mapping[str, tuple[int, ...]],
    paths: Mapping[str, str] | None = None,
    shifted: bool = False,
) -> list[tuple[str, str]]:
    """Pairs of equal names and shapes.

    Args:
        paths: modules whose partners are known: names within them are moved with them.
        shifted: equal values told that equal names mislead: only those within `paths` count.
    """
    paths, found, taken = paths or {}, [], set()
    for name, each in ours.items():
        for own in (name, *each.aliases):
            known = any(own.startswith(f"{path}.") for path in paths)
            other = translate(own, paths)
            if other not in theirs or other in taken or (shifted and not known):
                continue
            if theirs[other].shape == wanted[name]:
                taken.add(other)
                found.append((name, other))
                break
    return found


def _by_value(
    ours: Mapping[str, Entry], theirs: Mapping[str, Entry], declared: Mapping[str, Rule]
) -> list[tuple[str, str]]:
    """Pairs of equal bits and shapes that no third array has; none under a declared rule."""
    rows: dict[tuple[str, tuple[int, ...]], tuple[list[str], list[str]]] = {}
    for side, entries in enumerate((ours, theirs)):
        for entry in entries.values():
            if entry.digest:
                rows.setdefault((entry.digest, entry.shape), ([], []))[side].append(entry.name)
    return [
        (a[0], b[0]) for a, b in rows.values() if len(a) == len(b) == 1 and a[0] not in declared
    ]


def _by_module(
    ours: Mapping[str, Entry],
    theirs: Mapping[str, Entry],
    wanted: Mapping[str, tuple[int, ...]],
    known: Mapping[str, str],
    uses: tuple[Uses, ...],
) -> list[tuple[str, str, str]]:
    """Pairs of whole modules: equal roles and shapes, then resemblance and order."""
    groups: dict[Any, tuple[list[list[Entry]], list[list[Entry]]]] = {}
    for side, entries in enumerate((ours, theirs)):
        modules: dict[str, list[Entry]] = {}
        for entry in entries.values():
            modules.setdefault(entry.module, []).append(entry)
        for rows in modules.values():
            shapes = [(e.leaf, wanted[e.name] if side == 0 else e.shape) for e in rows]
            groups.setdefault(tuple(sorted(shapes)), ([], []))[side].append(rows)
    both = sorted((g for g in groups.values() if g[0] and g[1]), key=lambda g: len(g[0]))
    pairs: dict[str, str] = {ours: theirs for ours, theirs in known.items() if ours and theirs}
    # Twice: a port may call a shortcut before its block, so a group that the order alone would
    # mistake is decided by the layers before it, once these have their partners.
    for _ in range(2):
        found = []
        for a, b in both:
            for i, j in _assigned(a, b, pairs, uses):
                one, two = a[i][0].module, b[j][0].module
                pairs[one] = two
                how = "name and order" if _resembles(one, two) > 0.3 else "order"
                # Several arrays of a module may have one role, such as `w` and `g`.
                rows = sorted(a[i], key=lambda e: (e.leaf, wanted[e.name], e.own))
                others = sorted(b[j], key=lambda e: (e.leaf, e.shape, e.own))
                found += [(x.name, y.name, how) for x, y in zip(rows, others, strict=True)]
    return found


def _by_leaf(
    ours: Mapping[str, Entry], theirs: Mapping[str, Entry], wanted: Mapping[str, tuple[int, ...]]
) -> list[tuple[str, str, str]]:
    """Pairs of single arrays that are left: equal shapes, then resemblance and order."""
    groups: dict[Any, tuple[list[list[Entry]], list[list[Entry]]]] = {}
    for side, entries in enumerate((ours, theirs)):
        for e in entries.values():
            key = (wanted[e.name] if side == 0 else e.shape, e.parameter)
            groups.setdefault(key, ([], []))[side].append([e])
    found = []
    for a, b in groups.values():
        if a and b:
            # A lone bias is not paired with a lone norm weight because their shapes are equal.
            pairs = [(a[i][0], b[j][0]) for i, j in _assigned(a, b, {}, ({}, {}))]
            found += [(x.name, y.name, "order and shape") for x, y in pairs if _kin(x, y)]
    return found


def _kin(a: Entry, b: Entry) -> bool:
    usual = {"weight", "bias", "running_mean", "running_var"}
    return a.leaf == b.leaf or not (a.leaf in usual and b.leaf in usual)


def _assigned(
    a: list[list[Entry]],
    b: list[list[Entry]],
    pairs: Mapping[str, str],
    uses: tuple[Uses, ...],
) -> list[tuple[int, int]]:
    """The cheapest assignment of one group's modules, given pairs of modules around them."""
    order_a, order_b = (_ranks([rows[0].order for rows in side]) for side in (a, b))
    cost = np.zeros((len(a), len(b)))
    for i, x in enumerate(a):
        for j, y in enumerate(b):
            apart = abs(order_a[i] - order_b[j]) / max(len(a), len(b))
            alike = _resembles(x[0].name, y[0].name)
            values = abs(x[0].mean - y[0].mean) + abs(x[0].deviation - y[0].deviation)
            # A layer's own name outweighs the order of calls: a port that calls `up` before
            # `gate` has a fault, which a match by order would undo. Numbers are only an order.
            own = _resembles(_own(x[0]), _own(y[0]))
            fed = pairs.get(x[0].after) == y[0].after if x[0].after else False
            # Enough to outweigh the order of calls where a port calls two branches the other way
            # round (4 (n - 1) / n^2 for each of n), less than a layer's own name.
            behind = uses[1].get(y[0].module, set())
            used = any(pairs.get(u) in behind for u in uses[0].get(x[0].module, ()))
            joined = 1.2 * fed + 0.4 * used
            cost[i, j] = 2.0 * apart - alike - 1.5 * own - joined + 0.01 * min(values, 1.0)
    rows, columns = linear_sum_assignment(cost)
    return list(zip(rows.tolist(), columns.tolist(), strict=True))


def _ranks(orders: Sequence[float]) -> list[int]:
    place = sorted(range(len(orders)), key=lambda i: (orders[i], i))
    found = [0] * len(orders)
    for rank, i in enumerate(place):
        found[i] = rank
    return found


def _words(name: str) -> list[str]:
    parts = re.findall(r"[a-z]+|\d+", name.lower())
    return [ALIKE.get(part, LAYERS.get(part, part)) for part in parts]


def _own(entry: Entry) -> str:
    """The letters of a module's own name, or of an array's without a module."""
    last = (entry.module or entry.name).rpartition(".")[2]
    return re.sub(r"\d+", " ", last)


def _resembles(a: str, b: str) -> float:
    """0 .. 1: the share of words that two names have in common, in order."""
    return difflib.SequenceMatcher(None, _words(a), _words(b), autojunk=False).ratio()


def _explain(
    found: Match,
    ours: Mapping[str, Entry],
    theirs: Mapping[str, Entry],
    wanted: Mapping[str, tuple[int, ...]],
) -> None:
    for name in ours:
        found.left_reference[name] = _reason(name, wanted[name], ours[name].leaf, theirs, "port")
    mine = {n: Entry(n, wanted[n]) for n in ours}
    for name, entry in theirs.items():
        found.left_subject[name] = _reason(name, entry.shape, entry.leaf, mine, "reference")


def _reason(
    name: str, shape: tuple[int, ...], leaf: str, others: Mapping[str, Entry], whose: str
) -> Left:
    alike = [other for other in others.values() if other.leaf == leaf]
    alike.sort(key=lambda other: other.name != name)
    for other in alike:
        rule = fitting(shape, other.shape)
        if rule:
            return "rule", why("rule", name=other.name, whose=whose, shape=other.shape, rule=rule)
    same = [o.name for o in others.values() if o.shape == shape]
    if same:
        facts = {"whose": whose, "count": len(same), "shape": shape, "first": same[0]}
        return "shape", why("no_role", **facts)
    if name in others:
        return "shape", why("other_shape", whose=whose, other=others[name].shape, shape=shape)
    return "shape" if alike else "", why("no_shape", whose=whose, shape=shape)
