"""Notebooks from their sources: docs/notebooks/NAME.py in the percent format -> NAME.ipynb.

python -m tools.notebooks        # after a change of a source; a test compares them
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "notebooks"
CELL = re.compile(r"^# %%( \[markdown\])?\n", re.MULTILINE)


def cells(source: str) -> list[tuple[str, str]]:
    """The cells of a source in the percent format, as (markdown or code, text)."""
    parts = CELL.split(source)[1:]
    found = []
    for mark, text in zip(parts[::2], parts[1::2], strict=True):
        if mark:
            found.append(("markdown", re.sub(r"^# ?", "", text, flags=re.MULTILINE).strip()))
        else:
            found.append(("code", text.strip()))
    return found


def to_notebook(source: str) -> str:
    """The .ipynb of a source, without outputs."""
    made = []
    for number, (kind, text) in enumerate(cells(source)):
        cell: dict[str, Any] = {"cell_type": kind, "id": f"cell-{number}", "metadata": {}}
        if kind == "code":
            cell |= {"execution_count": None, "outputs": []}
        made.append(cell | {"source": text.splitlines(keepends=True)})
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    book = {"cells": made, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}
    return json.dumps(book, indent=1) + "\n"


def notebook_of(source: Path) -> Path:
    """Path of a source's notebook."""
    return source.with_name(source.stem.replace("_", "-") + ".ipynb")


def main() -> None:
    for source in sorted(FOLDER.glob("*.py")):
        notebook_of(source).write_text(to_notebook(source.read_text("utf-8")), "utf-8")


if __name__ == "__main__":
    main()
