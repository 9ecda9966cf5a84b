"""The documentation's site: every page and link has a place, and the notebooks run.

`make docs` builds it, in CI as well; these tests need no MkDocs.
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml

from tools import docs_site, notebooks

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = yaml.safe_load((ROOT / "mkdocs.yml").read_text("utf-8"))
PAGES = sorted(docs_site.DOCS.rglob("*.md"))
# What makes the notebooks quick in a test.
SMALL = {
    "NUM = 64": "NUM = 4",
    "STEPS = (3, 5, 10, 20)": "STEPS = (2, 3)",
    "STEPS = 200": "STEPS = 4",
    "steps=10": "steps=2",
}


def leaves(nav: Any) -> list[str]:
    """The pages of the navigation."""
    if isinstance(nav, str):
        return [nav]
    return [
        page for each in (nav.values() if isinstance(nav, dict) else nav) for page in leaves(each)
    ]


def test_every_page_is_in_the_navigation_and_every_entry_is_a_page() -> None:
    shown = leaves(SETTINGS["nav"])
    assert len(set(shown)) == len(shown)
    decisions = [page for page in PAGES if page.parent.name == "decisions"]
    index = (docs_site.DOCS / "decisions" / "README.md").read_text("utf-8")
    for page in decisions:
        assert page.name == "README.md" or f"]({page.name})" in index
    mine = {docs_site.place(page) for page in PAGES if page not in decisions}
    joined = {docs_site.place(path) for path in docs_site.joined(PAGES)}
    assert mine <= set(shown) <= mine | joined | {"decisions/README.md"}


def test_links_out_of_docs_lead_to_pages_of_the_site() -> None:
    """And those pages' own links: the README's, the benchmarks'."""
    joined = list(docs_site.joined(PAGES))
    known = {docs_site.place(path) for path in (*PAGES, *joined)}
    assert {"repository/README.md", "repository/src/diptych/config/schema.py.md"} <= known
    checked = 0
    for page in (*PAGES, *(path for path in joined if path.suffix == ".md")):
        text = docs_site.rewritten(page.read_text("utf-8"), page)
        for _, link, _ in docs_site.LINK.findall(text):
            if "://" in link or link.startswith("#"):
                continue
            there = os.path.normpath(f"{Path(docs_site.place(page)).parent}/{link.split('#')[0]}")
            assert there in known or (docs_site.DOCS / there).is_file(), (page, link)
            checked += 1
    assert checked > 150


def test_the_build_counts_warnings() -> None:
    """With --quiet MkDocs counts none, and a broken link would pass."""
    (build,) = [
        line for line in (ROOT / "Makefile").read_text().splitlines() if "mkdocs build" in line
    ]
    assert "--strict" in build and "--quiet" not in build and SETTINGS["strict"] is True


def test_a_link_to_nowhere_is_left_for_mkdocs_to_refuse() -> None:
    page = docs_site.DOCS / "data.md"
    for link in ("](nowhere.md)", "](https://example.org/x.md)", "](../../outside.md)"):
        assert docs_site.rewritten(link, page) == link
    assert docs_site.rewritten("](../README.md#x)", page) == "](repository/README.md#x)"
    assert docs_site.rewritten("](docs/data.md)", ROOT / "README.md") == "](../data.md)"


def test_notebooks_are_those_of_their_sources() -> None:
    sources = sorted(notebooks.FOLDER.glob("*.py"))
    assert len(sources) == len(list(notebooks.FOLDER.glob("*.ipynb"))) == 2
    for source in sources:
        text = source.read_text("utf-8")
        assert notebooks.notebook_of(source).read_text("utf-8") == notebooks.to_notebook(text)
        kinds = [kind for kind, _ in notebooks.cells(text)]
        assert kinds[0] == "markdown" and kinds.count("code") >= 4


@pytest.mark.torch
def test_the_notebooks_run(tmp_path: Path) -> None:
    """Their cells, one after another in one process, with small numbers."""
    texts = [source.read_text("utf-8") for source in sorted(notebooks.FOLDER.glob("*.py"))]
    for old, new in SMALL.items():
        assert any(old in text for text in texts), old
        texts = [text.replace(old, new) for text in texts]
    code = [text for source in texts for kind, text in notebooks.cells(source) if kind == "code"]
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(code)], cwd=tmp_path, capture_output=True, text=True,
        env=os.environ, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert "<Run 'squares': torch, step 4" in done.stdout and "mnist-frechet" in done.stdout


def test_the_wheel_stays_below_20_mb() -> None:
    """The package's files, compressed as a wheel's are."""
    listed = subprocess.run(
        ["git", "ls-files", "src/diptych"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as wheel:
        for name in listed.stdout.splitlines():
            wheel.write(ROOT / name, name)
    assert 10e6 < len(packed.getvalue()) < 20e6
