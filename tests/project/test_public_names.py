"""The names of `diptych.__all__`: always the same objects, and never modules."""

from __future__ import annotations

import subprocess
import sys

CODE = """
import importlib, pathlib, pkgutil, types
import diptych
first = {name: getattr(diptych, name) for name in diptych.__all__}
for name, value in first.items():
    assert not isinstance(value, types.ModuleType), name
    assert getattr(diptych, name) is value, f"{name} changed"
    space = {}
    exec(f"from diptych import {name}", space)
    assert space[name] is value, f"from diptych import {name}"
# Whatever else is imported in between, such as by a user who looks inside.
root = pathlib.Path(diptych.__path__[0])
for path in sorted(root.rglob("*.py")):
    parts = path.relative_to(root).with_suffix("").parts
    if not set(parts) & {"__init__", "__main__", "torch", "jittor"}:
        importlib.import_module(".".join(("diptych", *parts)))
for name, value in first.items():
    assert getattr(diptych, name) is value, f"{name} changed after imports"
modules = {module.name for module in pkgutil.iter_modules(diptych.__path__)}
assert not set(diptych.__all__) & modules
assert diptych.solvers.Ddim
assert set(diptych.__all__) <= set(dir(diptych))
"""


def test_every_public_name_is_one_object_and_no_module() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
