"""Import rules of the package, checked on the sources without running them.

A room may import the rooms of earlier layers, and itself. The two backends only import shared
modules, are only loaded by `backends.load`, and never import each other.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

PACKAGE = "diptych"
# A room may import only rooms of the lines above its own, and itself.
LAYERS: list[set[str]] = [
    {"errors", "types"},
    {"stats", "files", "rng", "ranks", "machine"},
    {"config"},
    {"diffusion", "network", "figures"},
    {"backends", "data", "pages"},
    {"runs", "sampling"},
    {"logs", "training"},
    {"weights"},
    {"evaluation", "profiling", "model"},
    {"generate", "report"},
    {"align", "study"},
    {"api", "golden"},
    {"studio"},
    {"cli", "testing"},
    {"ddim", "solvers"},
    {"", "__main__"},  # the package itself: its public names
]
# Rooms that both backends may use: none deals with a run, a file or a data set.
SHARED = {"errors", "types", "machine", "rng", "ranks", "config", "diffusion", "network"}
PANELS = {"torch": {"torch"}, "jittor": {"jittor", "jittor_utils"}}
# Parts of the Jittor backend that prepare it and load no framework; `doctor` uses them too.
PREPARING = {"setup", "cuda", "onednn", "coldstart", "quiet"}
MAY_PREPARE = {"cli.doctor.report", "cli.doctor.checks", "cli.machine"}
# The ladder's parts that run in a worker process, in which the framework is already loaded.
SUBJECTS = {
    f"align.{name}"
    for name in ("faults.panel", "process.panels", "reference.network", "reference.backend")
}
# `align` and `golden` load a user's module, `machine` a package that may be missing.
MAY_IMPORT_BY_NAME = {"", "backends", "align", "golden", "machine"}
LOADER = "backends"
SEAM = "backends.protocol"  # what a panel may know of the room around it


@dataclass(frozen=True)
class Import:
    """One import: its file and line, the dotted `target`, and whether it is at the top level."""

    path: Path
    line: int
    target: str
    at_top: bool


def module_of(path: Path, package: Path) -> str:
    """`solvers.ddim` for a file of the package, "" for the package itself."""
    parts = path.relative_to(package).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


def imports_of(path: Path, modules: frozenset[str]) -> list[Import]:
    """All imports of a file, including those inside functions, without type-checking ones."""
    read = _read(path.read_text("utf-8"), modules)
    return [Import(path, line, target, at_top) for line, target, at_top in read]


@cache
def _read(source: str, modules: frozenset[str]) -> list[tuple[int, str, bool]]:
    tree = ast.parse(source)
    hidden = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and _last_name(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    top = set(tree.body)
    return [
        (getattr(node, "lineno", 0), target, node in top)
        for node in ast.walk(tree)
        if node not in hidden
        for target in _targets(node, modules)
    ]


def _targets(node: ast.AST, modules: frozenset[str]) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        base = "." * node.level + (node.module or "")
        for alias in node.names:
            full = f"{base}.{alias.name}"
            yield full if full.removeprefix(f"{PACKAGE}.") in modules else base
    elif isinstance(node, ast.Call) and _last_name(node.func) in ("import_module", "__import__"):
        named = node.args[0] if node.args else None
        yield str(named.value) if isinstance(named, ast.Constant) else "?"


def _last_name(node: ast.AST) -> str:
    return str(getattr(node, "attr", getattr(node, "id", "")))


def faults(package: Path) -> list[str]:
    """Every forbidden import, as `file:line: what`; empty if there is none."""
    paths = {module_of(path, package): path for path in sorted(package.rglob("*.py"))}
    ranks = {name: rank for rank, layer in enumerate(LAYERS) for name in layer}
    modules = frozenset(paths)
    found: list[str] = []
    graph: dict[str, set[str]] = {}
    for module, path in paths.items():
        room = module.partition(".")[0]
        if room not in ranks:
            found.append(f"{path}: '{room}' stands in no layer; give it one")
            continue
        graph[module] = set()
        for each in imports_of(path, modules):
            fault = _fault(module, each.target, ranks)
            if fault:
                found.append(f"{path}:{each.line}: {fault}")
            elif each.at_top and each.target.startswith(f"{PACKAGE}."):
                graph[module].add(each.target.removeprefix(f"{PACKAGE}."))
    return found + _cycles(graph)


def panel_of(module: str) -> str:
    """`torch` or `jittor` for a module of that backend, else ""."""
    parts = module.split(".")
    return parts[1] if parts[0] == "backends" and parts[1:2] and parts[1] in PANELS else ""


def _fault(module: str, target: str, ranks: dict[str, int]) -> str:
    root, _, rest = target.partition(".")
    room, panel = module.partition(".")[0], panel_of(module)
    if target == "?":
        return "" if room in MAY_IMPORT_BY_NAME else "imports by a name made at run time"
    if root == "":
        return f"relative import {target}"
    for name, frameworks in PANELS.items():
        if root in frameworks and panel != name and module not in SUBJECTS:
            return f"imports {target} outside the panel {name}/"
    if root != PACKAGE or not rest:
        return ""
    other, theirs = rest.partition(".")[0], panel_of(rest)
    if theirs and theirs != panel:
        part = rest.split(".")[2] if rest.count(".") > 1 else ""
        prepares = theirs == "jittor" and part in PREPARING and module in MAY_PREPARE
        return "" if prepares else f"imports {target}; only {LOADER} may"
    if panel:
        shared = other in SHARED or theirs == panel or rest == SEAM
        return "" if shared else f"a panel imports {target}"
    if other == room:
        return ""
    return "" if ranks[other] < ranks[room] else f"imports {target}, which is not below it"


def _cycles(graph: dict[str, set[str]]) -> list[str]:
    """One text for each module that imports itself through others, by top-level imports."""
    found = []
    for start in graph:
        seen: set[str] = set()
        ahead = set(graph[start])
        while ahead:
            module = ahead.pop()
            seen.add(module)
            ahead |= graph.get(module, set()) - seen
        if start in seen:
            found.append(f"{start} imports itself through {', '.join(sorted(seen & set(graph)))}")
    return found
