"""The mirror check: the backends' sources are the same program, except for listed differences.

    python -m tools.mirror        0: in step; 1: every drift, with file, line and both sides

Both sources are parsed, stripped of docstrings and comments, and put into common words
(`mirror_words`). Each remaining difference between statements must be listed in `INTENDED` (which
function, why, how many statements on each side) or in `ONE_SIDED` (which file, why); an entry that
no longer holds is also a drift. Equal statements may still compute different numbers; the tests of
the backends cover that.
"""

from __future__ import annotations

import ast
import copy
import difflib
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tools.mirror_words import in_torch_words

PACKAGE = Path(__file__).resolve().parents[1] / "src" / "diptych" / "backends"
BLOCKS = ("body", "handlers", "cases", "orelse", "finalbody")


@dataclass(frozen=True)
class Intended:
    """A function, a class, the `imports` or the other top-level code (`module`) that may differ.

    `differing` is the number of statements that differ, (torch, jittor). None only fixes the
    signature: for a function that is one operator, implemented differently in each backend.
    """

    file: str
    where: str
    reason: str
    differing: tuple[int, int] | None = None


_OPERATOR = "PyTorch's own operator; in Jittor the panel's kernel, since its own is slow on a CPU"
_KERNELS = "Jittor's operators come from the panel's kernels"
_DEVICE = "Jittor's device is a global flag, not a property of each array"
_CUDA = "the frameworks ask for CUDA in their own ways"
_GRAPH = "a Jittor array stays in the graph, and keeps it alive, until it is stopped"
_REPLAY = "PyTorch replays a step on a GPU"
_COMPILER = "PyTorch compiles where it is asked to, Jittor always"
_ENGINE = "PyTorch's process groups, and Jittor's operator for MPI"
_NORM = "in Jittor a kernel of the panel, which adds in double"
_OVERFLOW = (
    "a norm of squares beyond float32 is NaN: in Jittor by its kernel, in PyTorch at the end"
)
_CHECKPOINT = "PyTorch has checkpoints of activations; in Jittor they are a Function of the panel"
_LAYERS = ("Conv2d", "GroupNorm", "Linear")
_FEATURE_FUNCTIONS = (
    "place", "place_weight", "resize", "conv_relu", "max_pool", "avg_pool", "join", "pixel_mean",
    "corner", "dense",
)  # fmt: skip
_FUNCTIONS = ("silu", "attention", "upsample", "avg_pool", "concat", "add", "dropout")

INTENDED: tuple[Intended, ...] = (
    Intended("arrays.py", "put", f"{_DEVICE}; {_GRAPH}", (2, 1)),
    Intended("arrays.py", "read", "a PyTorch array must leave graph and GPU first", (1, 1)),
    Intended("arrays.py", "assign", "PyTorch writes in place, Jittor puts another array", (2, 1)),
    Intended("arrays.py", "build", _DEVICE, (1, 1)),
    Intended("arrays.py", "add_all", "PyTorch adds in place, Jittor computes what is due", (4, 2)),
    Intended("arrays.py", "draw_noise", "each framework has its own generator", (2, 2)),
    Intended("arrays.py", "draw_masks", "each framework has its own generator", (2, 2)),
    Intended("draws.py", "imports", "each panel has its own kernels", (1, 1)),
    Intended("draws.py", "normals", _DEVICE, (1, 1)),
    Intended("draws.py", "masks", _DEVICE, (1, 1)),
    Intended(
        "backend.py",
        "imports",
        "PyTorch packs weights; Jittor is prepared, counts, and does not tell its threads",
        (3, 4),
    ),
    Intended(
        "backend.py",
        "module",
        "Jittor is prepared before it is imported, and has one device",
        (0, 2),
    ),
    Intended("backend.py", "make", f"{_CUDA}; {_DEVICE}", (10, 11)),
    Intended("backend.py", "no_cuda", _CUDA, (3, 2)),
    Intended("backend.py", "TorchBackend.scalar", "a Jittor scalar is an array of one", (1, 1)),
    Intended(
        "backend.py", "TorchBackend.network", "PyTorch packs; Jittor's eval() ends training", (4, 2)
    ),
    Intended("backend.py", "TorchBackend.clip", "Jittor's own clip gives a number for NaN", (1, 1)),
    Intended("backend.py", "TorchBackend.submit", "only Jittor puts work off", (1, 1)),
    Intended("backend.py", "TorchBackend.synchronize", "only Jittor puts work off", (2, 1)),
    Intended("backend.py", "TorchBackend.memory_mb", _CUDA, (1, 1)),
    Intended("backend.py", "TorchBackend.free_memory", _CUDA, (5, 2)),
    Intended("backend.py", "TorchBackend.counters", "each framework counts other things"),
    Intended("backend.py", "TorchBackend.describe", _CUDA, (1, 1)),
    Intended("collective.py", "imports", _ENGINE, (6, 1)),
    Intended("collective.py", "join", _ENGINE, (9, 2)),
    Intended("collective.py", "lost", "MPI itself ends the other ranks", (6, 0)),
    Intended("collective.py", "all_sum", f"{_ENGINE}; only Jittor is lazy", (3, 3)),
    Intended("collective.py", "gather", f"{_ENGINE}; only Jittor is lazy", (3, 2)),
    Intended("feature_layers.py", "imports", _KERNELS, (1, 2)),
    *(Intended("feature_layers.py", name, _OPERATOR) for name in _FEATURE_FUNCTIONS),
    Intended("compiler.py", "imports", _COMPILER, (2, 0)),
    Intended("compiler.py", "compile_network", _COMPILER, (11, 1)),
    Intended("layers.py", "imports", _KERNELS, (2, 1)),
    Intended("layers.py", "module", "Jittor upsamples first", (1, 0)),
    *(Intended("layers.py", f"{name}.forward", _OPERATOR) for name in _LAYERS),
    *(Intended("layers.py", name, _OPERATOR) for name in _FUNCTIONS),
    Intended("layers.py", "folded", "Jittor upsamples first", (3, 0)),
    Intended("layers.py", "fold", "Jittor upsamples first", (7, 0)),
    Intended("layers.py", "GroupNorm", _OVERFLOW, (1, 0)),
    Intended("layers.py", "unless_overflown", _OVERFLOW, (3, 0)),
    Intended("learner.py", "imports", _REPLAY, (1, 0)),
    Intended("learner.py", "Learner.__init__", f"{_GRAPH}; {_REPLAY}", (4, 4)),
    Intended("learner.py", "Learner.part", _REPLAY, (5, 2)),
    Intended("learner.py", "Learner.replays", _REPLAY, (4, 0)),
    Intended("learner.py", "Learner.replayed", _REPLAY, (3, 0)),
    Intended("learner.py", "Learner.step", _GRAPH, (1, 1)),
    Intended("precision.py", "imports", "Jittor has one precision", (2, 0)),
    Intended("precision.py", "module", "Jittor has one precision", (1, 0)),
    Intended("precision.py", "Arithmetic.check", "Jittor has one precision"),
    Intended("precision.py", "Arithmetic.has_tf32", "Jittor has one precision", (2, 0)),
    Intended("precision.py", "Arithmetic.has_bf16", "Jittor has one precision", (5, 0)),
    Intended("precision.py", "Arithmetic.apply", "Jittor has one precision", (9, 2)),
    Intended("precision.py", "Arithmetic.call", "Jittor has one precision"),
    Intended("precision.py", "choose", "Jittor has one precision", (1, 0)),
    Intended("own.py", "Own.__init__", _DEVICE, (1, 1)),
    Intended("own.py", "Own.__call__", "Jittor's argmax gives the values too", (1, 1)),
    Intended("own.py", "Own.named_parameters", "Jittor counts buffers as parameters", (2, 2)),
    Intended("own.py", "Own.train", "Jittor's eval() ends training, so modes are set here", (1, 1)),
    Intended("own.py", "Own.eval", "Jittor's eval() ends training, so modes are set here", (1, 1)),
    Intended("own.py", "Own._mode", "Jittor's eval() ends training, so modes are set here", (0, 3)),
    Intended("own.py", "seed", "each framework has its own generator", (1, 1)),
    Intended("own.py", "gradients", "Jittor names it otherwise, and fills in zeros itself", (2, 2)),
    Intended("optim.py", "imports", _KERNELS, (0, 1)),
    Intended("optim.py", "adam_step", "each panel has its own fused update"),
    Intended("optim.py", "module", _NORM, (1, 0)),
    Intended("optim.py", "total_norm", _NORM, (4, 0)),
    Intended("recompute.py", "imports", _CHECKPOINT, (1, 2)),
    Intended("recompute.py", "_Again.__init__", _CHECKPOINT, (0, 3)),
    Intended("recompute.py", "_Again.__call__", _CHECKPOINT, (1, 1)),
    Intended("recompute.py", "_Again.weights", _CHECKPOINT, (0, 2)),
    Intended("recompute.py", "_Again.with_weights", _CHECKPOINT, (0, 7)),
    Intended("recompute.py", "_Again.put", _CHECKPOINT, (0, 3)),
    Intended("recompute.py", "_Branch", _CHECKPOINT, (0, 1)),
    Intended("recompute.py", "_Branch.__init__", _CHECKPOINT, (0, 2)),
    Intended("recompute.py", "_Branch.forward", _CHECKPOINT, (0, 5)),
    Intended("recompute.py", "_Branch.grad", _CHECKPOINT, (0, 7)),
    Intended("recompute.py", "_Product", _CHECKPOINT, (0, 1)),
    Intended("recompute.py", "_Product.__init__", _CHECKPOINT, (0, 2)),
    Intended("recompute.py", "_Product.forward", _CHECKPOINT, (0, 2)),
    Intended("recompute.py", "_Product.grad", _CHECKPOINT, (0, 2)),
    Intended("unet.py", "imports", _OVERFLOW, (1, 1)),
    Intended("unet.py", "UNet.__init__", _OVERFLOW, (1, 0)),
    Intended("unet.py", "UNet.forward", _OVERFLOW, (1, 1)),
)
ONE_SIDED = {
    "captured.py": "PyTorch replays a step as a CUDA graph; Jittor's kernels are fused, and fewer",
    "block_draws.py": "a Jittor kernel is one C++ body for CPUs and GPUs",
    "triton_draws.py": "a Jittor kernel is one C++ body for CPUs and GPUs",
    "heap.py": "glibc's allocator serves PyTorch; Jittor has its own, which keeps what is freed",
    "packed.py": "oneDNN's layout, prepared once; Jittor's kernels keep their own",
    "kernels": "PyTorch has these operators, and has them fast",
    "setup.py": "what must be true before Jittor is imported; PyTorch needs nothing",
    "compiled.py": "only Jittor compiles kernels while it runs",
    "cuda.py": "Jittor must be told which CUDA toolkit to use",
    "onednn.py": "Jittor must find oneDNN where it looks for it",
    "quiet.py": "Jittor logs to stderr",
    "coldstart.py": "Jittor compiles its core on a machine's first import",
    "firstcompile.py": "Jittor compiles its core on a machine's first import",
    "quickcompile.py": "only Jittor compiles kernels while it runs",
}


@dataclass(frozen=True)
class Line:
    """One statement, or the head of a compound statement, in common words."""

    number: int
    text: str


Units = dict[str, list[Line]]
Blocks = list[tuple[list[Line], list[Line]]]


def units(source: str) -> Units:
    """A module's statements by the function, method or class that contains them."""
    found: Units = {"imports": []}
    for node in in_torch_words(ast.parse(source)).body:
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            found["imports"].append(Line(node.lineno, ast.unparse(node)))
        else:
            _collect(node, "", found)
    found["imports"].sort(key=lambda line: line.text)  # the names determine their order
    return found


def _collect(node: ast.stmt, prefix: str, found: Units) -> None:
    if isinstance(node, ast.ClassDef):
        found.setdefault(prefix + node.name, []).extend(_own(node, 0))
        for part in node.body:
            _collect(part, f"{prefix}{node.name}.", found)
    elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
        found.setdefault(prefix + node.name, []).extend(_lines([node], 0))
    else:
        found.setdefault(prefix.rstrip(".") or "module", []).extend(_lines([node], 0))


def _lines(nodes: Sequence[ast.AST], depth: int) -> Iterator[Line]:
    for node in nodes:
        yield from _own(node, depth)
        for name in BLOCKS:
            inner = getattr(node, name, None)
            if isinstance(inner, list) and inner:
                if name in ("orelse", "finalbody"):
                    yield Line(inner[0].lineno, "    " * depth + f"{name}:")
                yield from _lines(inner, depth + 1)


def _own(node: ast.AST, depth: int) -> Iterator[Line]:
    """A statement's decorators, and the statement without its body, each on one line."""
    indent = "    " * depth
    for decorator in getattr(node, "decorator_list", []):
        yield Line(decorator.lineno, f"{indent}@{ast.unparse(decorator)}")
    bare = copy.copy(node)
    for name in (*BLOCKS, "decorator_list"):
        if isinstance(getattr(bare, name, None), list):
            setattr(bare, name, [])
    yield Line(getattr(node, "lineno", 0), indent + " ".join(ast.unparse(bare).split()))


def compare(
    torch: Path,
    jittor: Path,
    intended: Sequence[Intended] = INTENDED,
    one_sided: Mapping[str, str] = ONE_SIDED,
) -> list[str]:
    """Every drift between the backends' folders, a few lines each; empty if they are in step.

    Args:
        torch, jittor: the folders; their Python files and subfolders are compared by name.
        intended: the intended differences.
        one_sided: files and folders that only one backend has -> why.
    """
    left, right = _files(torch), _files(jittor)
    faults = [
        f"{(left | right)[name]}: stands in one panel only; mirror it, or list it as one-sided"
        for name in sorted((left.keys() ^ right.keys()) - one_sided.keys())
    ]
    faults += [
        f"{name}: is listed as one-sided ({reason}), but stands in both panels or in none"
        for name, reason in one_sided.items()
        if (name in left) == (name in right)
    ]
    both = sorted(left.keys() & right.keys())
    for name in both:
        faults += _compare_files(left[name], right[name], [e for e in intended if e.file == name])
    missing = [entry for entry in intended if entry.file not in both]
    return faults + [f"{e.file}, {e.where}: is listed, but there is no such pair" for e in missing]


def _files(folder: Path) -> dict[str, Path]:
    found = (p for p in folder.iterdir() if p.suffix == ".py" or (p / "__init__.py").is_file())
    return {path.name: path for path in found}


def _compare_files(torch: Path, jittor: Path, intended: Sequence[Intended]) -> list[str]:
    left, right = (units(path.read_text("utf-8")) for path in (torch, jittor))
    entries = {entry.where: entry for entry in intended}
    faults = []
    for where in dict.fromkeys([*left, *right, *entries]):
        blocks = _blocks(left.get(where, []), right.get(where, []))
        counts = (sum(len(a) for a, _ in blocks), sum(len(b) for _, b in blocks))
        entry = entries.get(where)
        if _as_meant(blocks, counts, entry):
            continue
        faults.append(_fault(torch, jittor, where, blocks, counts, entry))
    pairs = zip((a for a in left if a in right), (b for b in right if b in left), strict=True)
    out_of_order = [f"{a} in torch, {b} in jittor" for a, b in pairs if a != b]
    return faults + [f"{torch.name}: the order differs: {first}" for first in out_of_order[:1]]


def _as_meant(blocks: Blocks, counts: tuple[int, int], entry: Intended | None) -> bool:
    if entry is None or not blocks:
        return entry is None and not blocks
    if entry.differing is not None:
        return entry.differing == counts
    differing = [line for pair in blocks for side in pair for line in side]
    return not any(line.text.startswith("def ") for line in differing)


def _blocks(left: list[Line], right: list[Line]) -> Blocks:
    """The blocks of statements that differ."""
    a, b = ([line.text for line in side] for side in (left, right))
    codes = difflib.SequenceMatcher(None, a, b, autojunk=False).get_opcodes()
    return [(left[i:j], right[k:m]) for tag, i, j, k, m in codes if tag != "equal"]


def _fault(
    torch: Path,
    jittor: Path,
    where: str,
    blocks: Blocks,
    counts: tuple[int, int],
    entry: Intended | None,
) -> str:
    head = f"{torch.name}, {where}: {counts[0]} and {counts[1]} statements differ"
    if entry is None:
        text = [f"{head}, and it is not listed"]
    elif not blocks:
        text = [f"{torch.name}, {where}: is listed ({entry.reason}), but does not differ"]
    else:
        text = [f"{head}; meant are {entry.differing or 'all but the signature'} ({entry.reason})"]
    for pair in blocks:
        for path, side in zip((torch, jittor), pair, strict=True):
            name = f"{path.parent.name}/{path.name}"
            text += [f"  {name}:{line.number}: {line.text}" for line in side]
    return "\n".join(text)


def main() -> int:
    """Compare the package's backends; print every drift."""
    faults = compare(PACKAGE / "torch", PACKAGE / "jittor")
    alike = f"the panels mirror each other; {len(INTENDED)} differences are meant"
    print("\n".join(faults) or alike)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
