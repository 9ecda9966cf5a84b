"""MkDocs hook: the files outside docs/ that the pages link to become pages of the site.

The pages' links are those of the repository (`../README.md`, `../src/diptych/...`), so they work
where the repository is looked at. On the site, each file that is linked to is shown below
`repository/`: Markdown as a page, a folder as the list of its files, a notebook as its cells, other
text as it is. What these pages link to joins in the same way.
"""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
LINK = re.compile(r"(\]\()([^)\s]+)(\))")
IMAGES = (".png", ".gif", ".webp", ".svg")
AS_THEY_ARE = (*IMAGES, ".json")
# Folders with a page in them are that page; these become pages of the site by another name.
README = "README.md"


def place(path: Path) -> str:
    """The page or file of the site for a file or folder of the repository, as a path with `/`."""
    path = path / README if path.is_dir() else path
    inside = path.is_relative_to(DOCS)
    name = path.relative_to(DOCS if inside else ROOT).as_posix()
    name = name if inside else f"repository/{name}"
    return name if path.suffix in (".md", *AS_THEY_ARE) else f"{name}.md"


def target_of(page: Path, link: str) -> Path | None:
    """The file or folder of the repository that a page's link leads to; None: it leads elsewhere,
    or nowhere."""
    name = link.partition("#")[0]
    if "://" in link or not name:
        return None
    path = (page.parent / name).resolve()
    return path if path.exists() and path.is_relative_to(ROOT) else None


def content(path: Path) -> str:
    """A file or folder of the repository as Markdown."""
    title = path.relative_to(ROOT).as_posix()
    if path.is_dir():
        names = sorted(child.name for child in path.iterdir() if not child.name.startswith("_"))
        return f"# {title}\n\n" + "".join(f"- [{name}]({name})\n" for name in names)
    text = path.read_text("utf-8")
    if path.suffix == ".md":
        return text
    if path.suffix == ".ipynb":
        return notebook(text)
    language = {".py": "python", ".yaml": "yaml"}.get(path.suffix, "text")
    return f"# {title}\n\n````{language}\n{text}````\n"


def notebook(text: str) -> str:
    """A notebook's cells as Markdown."""
    parts = []
    for cell in json.loads(text)["cells"]:
        source = "".join(cell["source"])
        code = cell["cell_type"] == "code"
        parts.append(f"```python\n{source}\n```" if code else source)
    return "\n\n".join(parts) + "\n"


def rewritten(text: str, page: Path) -> str:
    """A page's Markdown with links that work on the site."""
    here = posixpath.dirname(place(page))

    def link(found: re.Match[str]) -> str:
        path = target_of(page / README if page.is_dir() else page, found[2])
        if path is None:
            return found[0]
        anchor = found[2].partition("#")[1:]
        return found[1] + posixpath.relpath(place(path), here or ".") + "".join(anchor) + found[3]

    return LINK.sub(link, text)


def joined(pages: list[Path]) -> Iterator[Path]:
    """Every file and folder that the pages link to, and so on, of which MkDocs knows nothing."""
    ahead, seen = list(pages), set(pages)
    while ahead:
        page = ahead.pop()
        if page.suffix in AS_THEY_ARE:
            continue
        at = page / README if page.is_dir() else page
        for link in LINK.findall(content(page)):
            path = target_of(at, link[1])
            if path is None:
                continue
            if path.is_dir() and (path / README).is_file():
                path = path / README
            if path not in seen:
                seen.add(path)
                ahead.append(path)
                if not (path.is_relative_to(DOCS) and path.suffix in (".md", *AS_THEY_ARE)):
                    yield path


def on_config(config: Any) -> Any:
    """Anchors as the repository's view makes them, in Chinese too."""
    from pymdownx.slugs import slugify

    config.mdx_configs.setdefault("toc", {})["slugify"] = slugify(case="lower")
    return config


_ORIGIN: dict[str, Path] = {}  # page of the site -> file of the repository


def on_files(files: Any, config: Any) -> Any:
    """Add what the pages link to outside docs/."""
    from mkdocs.structure.files import File

    pages = sorted(DOCS.rglob("*.md"))
    _ORIGIN.update((place(page), page) for page in pages)
    for path in [ROOT / "CHANGELOG.md", *joined(pages)]:
        if files.get_file_from_path(place(path)) is not None:
            continue
        _ORIGIN[place(path)] = path
        made = path.read_bytes() if path.suffix in AS_THEY_ARE else content(path)
        files.append(File.generated(config, place(path), content=made))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Point a page's links at the site."""
    return rewritten(markdown, _ORIGIN[page.file.src_uri])
