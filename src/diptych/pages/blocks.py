"""Blocks of a page that a program fills in: from `<!-- NAME:begin -->` to `<!-- NAME:end -->`."""

from __future__ import annotations

from pathlib import Path

from diptych.files import write_text


def read_block(page: Path, name: str) -> str:
    """The block between the marks of `name`, with its last line's end.

    Raises:
        ValueError: the page has no such marks, or has them twice.
    """
    return _parts(page, name)[1]


def write_block(page: Path, name: str, block: str) -> None:
    """Put another block between the marks of `name`; the rest of the page stays as it is."""
    before, _, after = _parts(page, name)
    write_text(page, before + block + after)


def _parts(page: Path, name: str) -> tuple[str, str, str]:
    """The page up to the first mark and with it, the block, and the rest."""
    begin, end = f"<!-- {name}:begin -->\n", f"<!-- {name}:end -->"
    text = page.read_text("utf-8")
    before, _, rest = text.partition(begin)
    block, ended, after = rest.partition(end)
    if not ended or begin in rest:
        raise ValueError(f"{page}: expected the marks of '{name}' once")
    return before + begin, block, end + after
