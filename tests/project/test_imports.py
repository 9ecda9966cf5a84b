"""Imports run in one direction, and neither the package nor its help loads a framework."""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import diptych
from import_rules import PACKAGE, PREPARING, SUBJECTS, faults, imports_of, module_of, panel_of

HERE = Path(diptych.__file__).parent
HEAVY = {"torch", "jittor", "jittor_utils", "matplotlib", "scipy", "tensorboard", "numpy"}
FRAMEWORKS = {"torch", "jittor", "jittor_utils", "tensorflow"}


# What a fresh process loads


def loaded_by(*arguments: str) -> set[str]:
    """The top-level names of all modules that `python ARGUMENTS` imports, by its own account."""
    command = [sys.executable, "-X", "importtime", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    rows = [line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if "|" in line]
    assert "site" in rows and PACKAGE in rows, "the list is not what was taken for it"
    return {row.partition(".")[0] for row in rows}


@pytest.mark.parametrize(
    "arguments",
    [
        ["-c", "import diptych; diptych.UserError"],
        ["-m", "diptych", "--help"],
        ["-m", "diptych", "--version"],
        ["-m", "diptych", "train", "--help"],
        ["-m", "diptych", "sample", "--help"],
        ["-m", "diptych", "compare", "--help"],
        ["-m", "diptych", "data", "prepare", "--help"],
    ],
)
def test_help_loads_nothing_heavy(arguments: list[str]) -> None:
    assert loaded_by(*arguments) & HEAVY == set()


def test_this_account_sees_what_is_loaded() -> None:
    assert "scipy" in loaded_by("-c", "import diptych, scipy")


def test_no_framework_is_needed_outside_the_panels() -> None:
    """Every other module imports with both frameworks forbidden."""
    modules = [module_of(path, HERE) for path in sorted(HERE.rglob("*.py"))]
    free = [m for m in modules if not panel_of(m) and m not in {"", "__main__", *SUBJECTS}]
    free += [f"backends.jittor.{part}" for part in sorted(PREPARING)]
    code = (
        "import importlib, sys\n"
        f"for name in {sorted(FRAMEWORKS)}: sys.modules[name] = None\n"
        f"for name in {free}: importlib.import_module('{PACKAGE}.' + name)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300)


# The direction, from the sources


def test_imports_run_one_way() -> None:
    assert faults(HERE) == []


def test_what_prepares_jittor_loads_no_framework_at_its_top() -> None:
    modules = frozenset(module_of(path, HERE) for path in HERE.rglob("*.py"))
    for part in PREPARING:
        for each in imports_of(HERE / "backends" / "jittor" / f"{part}.py", modules):
            assert not (each.at_top and each.target.partition(".")[0] in FRAMEWORKS)


PLANTED = {
    "diffusion/schedule.py": (
        "from diptych.training.loop import train",
        "imports diptych.training.loop, which is not below",
    ),
    "rng.py": ("from diptych import diffusion", "imports diptych.diffusion, which is not below"),
    "training/loop.py": ("import torch", "imports torch outside the panel torch/"),
    "sampling/sampler.py": ("import jittor as jt", "imports jittor outside the panel jittor/"),
    "model.py": ("from diptych.backends.torch.unet import UNet", "only backends may"),
    "generate/samples.py": ("from diptych.backends.jittor import setup", "only backends"),
    "cli/doctor/report.py": ("from diptych.backends.jittor import unet", "only backends"),
    "backends/torch/unet.py": ("from diptych.backends.jittor.unet import UNet", "only backends"),
    "backends/jittor/unet.py": ("import torch.nn", "imports torch.nn outside the panel torch/"),
    "backends/torch/learner.py": ("from diptych.data import Dataset", "a panel imports diptych"),
    "backends/jittor/learner.py": ("from diptych.runs.checkpoint import save", "a panel imports"),
    "sampling/solvers/ddim.py": ("from .. import schedule", "relative import"),
    "diffusion/process.py": ("__import__('torch')", "imports torch outside the panel torch/"),
    "runs/reader.py": ("importlib.import_module(name)", "imports by a name made at run time"),
    "data/dataset.py": ("from diptych.training import batches", "which is not below it"),
    "data/readers/idx.py": (
        "from diptych.data.dataset import Dataset",
        "data.readers.idx imports itself",
    ),
    "novelty.py": ("import os", "'novelty' stands in no layer"),
}


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    to = tmp_path_factory.mktemp("planted") / PACKAGE
    return Path(shutil.copytree(HERE, to, ignore=shutil.ignore_patterns("zoo", "mnist-10k")))


# Only the top of a file can make a cycle, and only a file can want a layer.
EVERYWHERE = [name for name in PLANTED if name not in ("data/readers/idx.py", "novelty.py")]
PLACES = [(name, False) for name in PLANTED] + [(name, True) for name in EVERYWHERE]


@pytest.mark.parametrize("name, inside", PLACES)
def test_a_planted_import_is_reported_with_its_line(copy: Path, name: str, inside: bool) -> None:
    statement, said = PLANTED[name]
    path = copy / name
    whole = path.read_text() if path.exists() else None
    line = len((whole or "").splitlines()) + 1 + inside
    planted = f"def late():\n    {statement}\n" if inside else f"{statement}\n"
    try:
        path.write_text((whole or "") + planted)
        found = faults(copy)
    finally:
        path.unlink() if whole is None else path.write_text(whole)
    assert any(said in fault for fault in found), found
    if name in EVERYWHERE:
        assert len(found) == 1 and found[0].startswith(f"{path}:{line}: ")


def test_imports_for_type_checkers_do_not_count(copy: Path) -> None:
    path = copy / "rng" / "__init__.py"
    whole = path.read_text()
    try:
        path.write_text(
            f"{whole}\nif TYPE_CHECKING:\n    from diptych.training.loop import train\n"
        )
        assert faults(copy) == []
    finally:
        path.write_text(whole)


def names_in(module: str) -> set[str]:
    """The names that a module of the package binds anywhere in its text; its files, of a room."""
    path = HERE.parent / module.replace(".", "/")
    found = {child.stem for child in path.iterdir()} if path.is_dir() else set()
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    if not file.is_file():
        return set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
        elif isinstance(node, ast.alias):
            found.add(node.asname or node.name)
    return found


def missing_names(text: str) -> list[str]:
    """The names that a text imports from the package and that are not there."""
    imports = (n for n in ast.walk(ast.parse(text)) if isinstance(n, ast.ImportFrom))
    return [
        f"{node.module}.{alias.name}"
        for node in imports
        if (node.module or "").partition(".")[0] == PACKAGE and node.module != PACKAGE
        for alias in node.names
        if alias.name not in names_in(node.module or "")
    ]


def test_what_benchmarks_and_scripts_import_is_there() -> None:
    """They are not type-checked, and some run only by hand or on a GPU."""
    root = Path(__file__).parents[2]
    files = [
        path for room in ("benchmarks", "docs", "tools") for path in (root / room).rglob("*.py")
    ]
    assert len(files) > 30
    found = {str(path): missing for path in files if (missing := missing_names(path.read_text()))}
    assert not found
    planted = "from diptych.rng import normal, gone\nfrom diptych.nowhere import x"
    assert missing_names(planted) == ["diptych.rng.gone", "diptych.nowhere.x"]
