"""A docstring begins with a noun phrase or an imperative, not with a question word."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
QUESTION = re.compile(r"(How|That|What|When|Where|Whether|Which|Who|Why)\b")
Documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def faults(source: str) -> Iterator[str]:
    """Line and text of each docstring that begins with a question word."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, Documented):
            text = ast.get_docstring(node) or ""
            if QUESTION.match(text):
                yield f"{node.body[0].lineno}: {text.splitlines()[0]}"


@pytest.mark.parametrize("folder", ["src", "tests", "tools", "benchmarks", "docs"])
def test_docstrings_begin_with_a_noun_or_an_imperative(folder: str) -> None:
    files = sorted((ROOT / folder).rglob("*.py"))
    assert files
    found = [f"{p.relative_to(ROOT)}:{fault}" for p in files for fault in faults(p.read_text())]
    assert not found, "\n".join(found)


def test_a_question_is_found() -> None:
    source = 'class A:\n    """Whatever."""\n    async def f(): """Whether it is."""'
    assert list(faults(source)) == ["3: Whether it is."]
