"""The README's first screen: picture, commands and table, in this order and as generated."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from diptych.files import read_json
from diptych.pages.blocks import read_block, write_block

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "README.md"
README = PAGE.read_text("utf-8")


@pytest.fixture(scope="module")
def results() -> Any:
    """docs/results.py as a module."""
    spec = importlib.util.spec_from_file_location("docs_results", ROOT / "docs" / "results.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_commands_stand_between_picture_and_table(results: Any) -> None:
    """And the blocks between the markers are of the generator's form."""
    places = [
        README.index(each) for each in ("(docs/figures/mnist-grids.png)", "make demo", results.HEAD)
    ]
    assert places == sorted(places) and places[1] < 2000
    between = read_block(PAGE, "results")
    assert between.startswith(results.HEAD) and between.endswith(results.FOOT)
    assert "(docs/results.md)" in results.FOOT


def test_a_block_is_replaced_and_nothing_else(tmp_path: Path) -> None:
    page = tmp_path / "README.md"
    page.write_text(README, "utf-8")
    before = read_block(page, "results")
    write_block(page, "results", "| a | 1 |\n")
    again = page.read_text("utf-8")
    assert "| a | 1 |" in again and "trained side by side" not in again
    write_block(page, "results", before)
    assert page.read_text("utf-8") == README
    for marks in ("", "<!-- a:begin -->\n<!-- a:end -->\n" * 2, "<!-- a:end --><!-- a:begin -->\n"):
        page.write_text(marks, "utf-8")
        with pytest.raises(ValueError, match="marks of 'a' once"):
            write_block(page, "a", "")
        assert page.read_text("utf-8") == marks


def test_the_speeds_are_those_of_the_records(results: Any) -> None:
    """Of the peers the fastest is named, at every size and in both tasks."""
    block = read_block(PAGE, "speeds")
    assert block == results.speeds() and block.count(" size |") == 2
    for line in block.splitlines()[4:]:
        what = "sampling" if "network call" in line else "training"
        size = "cifar10-size" if "CIFAR" in line else "mnist"
        [found] = read_json(results.RECORDS / f"{what}-{size}.json")["results"]
        peers = [each["median"] for each in found["ratios"]
                 if each["b"] == "torch" and each["a"].startswith("diffusers")]  # fmt: skip
        assert f": {min(peers):.2f}" in line


def test_the_models_are_those_of_the_zoo() -> None:
    """The table of digits is as the records have it, of the weights that are in the package."""
    block = read_block(PAGE, "zoo")
    records = read_json(ROOT / "docs" / "zoo.json")
    for name in ("mnist-conditional", "mnist-jittor", "mnist-torch"):
        weights = read_json(ROOT / "src/diptych/weights/zoo" / name / "manifest.json")
        start = f"{name}-{weights['weights_sha256'][:8]}-"  # and of its guide
        (record,) = (found for key, found in records.items() if key.startswith(start))
        assert f"| zoo:{name} | {record['scores']['fid']:.4g} |" in block


@pytest.mark.parametrize("panel", ["torch", "jittor"])
def test_the_scores_are_of_the_zoo_s_weights(panel: str) -> None:
    """A model that is renewed has to be scored anew."""
    manifest = read_json(
        ROOT / "src" / "diptych" / "weights" / "zoo" / f"mnist-{panel}" / "manifest.json"
    )
    page = (ROOT / "docs" / "scores.md").read_text("utf-8")
    assert f"{panel} {manifest['weights_sha256'][:12]}" in page


def test_the_changelog_keeps_additions_and_tolerances_apart() -> None:
    """New features are under Added, loosened bounds alone under Tolerances."""
    unreleased = (ROOT / "CHANGELOG.md").read_text("utf-8").split("## [")[1]
    parts = dict(part.split("\n", 1) for part in unreleased.split("\n### ")[1:])
    for verb in ("train", "profile", "reproduce", "report"):
        assert (
            f"`diptych {verb}" in parts["Added"] and f"`diptych {verb}" not in parts["Tolerances"]
        )
