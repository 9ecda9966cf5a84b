"""The numbers of a page, as Python gives them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any


class Content(dict[str, Any]):
    """The numbers of a page: a dict that shows its keys and not its values, which fill a screen."""

    def __init__(self, content: Mapping[str, Any], page: Path | None) -> None:
        super().__init__(content)
        self.page = page

    def __repr__(self) -> str:
        where = "" if self.page is None else f" of {str(self.page / 'index.html')!r}"
        return f"<Content{where}: {', '.join(self)}>"
