"""The README's first screen: picture, commands and table, in this order and as generated."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from diptych.files import read_json

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text("utf-8")


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
    between = README.split("<!-- results:begin -->\n")[1].split("<!-- results:end -->")[0]
    assert between.startswith(results.HEAD) and between.endswith(results.FOOT)
    assert "(docs/results.md)" in results.FOOT


def test_a_block_is_replaced_and_nothing_else(results: Any) -> None:
    again = results.replaced(README, "results", results.HEAD + "| a | 1 |\n" + results.FOOT)
    assert "| a | 1 |" in again and "trained side by side" not in again
    between = README.split("<!-- results:begin -->\n")[1].split("<!-- results:end -->")[0]
    assert results.replaced(again, "results", between) == README


def test_the_speeds_are_those_of_the_records(results: Any) -> None:
    """Of the peers the fastest is named, at every size and in both tasks."""
    block = README.split("<!-- speeds:begin -->\n")[1].split("<!-- speeds:end -->")[0]
    assert block == results.speeds() and block.count(" size |") == 2
    for line in block.splitlines()[4:]:
        what = "sampling" if "network call" in line else "training"
        size = "cifar10-size" if "CIFAR" in line else "mnist"
        [found] = read_json(results.RECORDS / f"{what}-{size}.json")["results"]
        peers = [each["median"] for each in found["ratios"]
                 if each["b"] == "torch" and each["a"].startswith("diffusers")]  # fmt: skip
        assert f": {min(peers):.2f}" in line


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
