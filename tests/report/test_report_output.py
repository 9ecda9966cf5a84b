"""The report's texts in both languages, its files, and its refusals."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from diptych.cli.compare import compare
from diptych.cli.report import report as command
from diptych.errors import UserError
from diptych.pages.catalogue import LANGUAGES, catalogue
from diptych.pages.template import Words
from diptych.report import build, of_logs
from diptych.report.build import report_runs, report_study
from diptych.report.chapters import pictures
from diptych.report.sources import collection
from report_records import (
    said,
    undrawn,  # noqa: F401 - a fixture
    whole_study,
    write,
)
from synthetic_runs import PNG, edited, make_rows, make_run

HEADINGS = ("环境配置", "数据准备脚本", "训练脚本", "测试脚本", "与 PyTorch 对齐的实验 log",
            "性能 log", "Loss 曲线")  # fmt: skip


def test_every_text_has_both_languages_and_names_the_same_numbers() -> None:
    texts = catalogue()
    fields = Words().parse
    for key, text in texts.items():
        assert bool(text.en) == bool(text.zh), key
        names = [{(n, spec) for _, n, spec, _ in fields(form) if n} for form in (text.en, text.zh)]
        assert {n for n, _ in names[0]} == {n for n, _ in names[1]}, key
        assert not re.search("[\u4e00-\u9fff]", text.en), key
    assert {texts[k].zh for k in texts if k.startswith("heading.")} >= {*HEADINGS}


def test_every_key_that_the_sources_name_stands_in_the_catalogue() -> None:
    """A key that is missing would only show in the one report that needs it."""
    package = Path(build.__file__).parent
    named = {
        key
        for path in package.rglob("*.py")
        for key in re.findall(r'"((?:heading|row|column|caption|cell|note|figure|alt|axis|term|'
                              r'verdict|slow|cost|score|run|align|pictures|records|sweep|short)'
                              r'\.[a-z_0-9]+)"', path.read_text("utf-8"))
    }  # fmt: skip
    prefixes = {"score.better", "score.worse"}
    missing = {key for key in named if key not in catalogue()} - prefixes
    keys_of_sentences = {"time.ratio", "loss.ratio", "score.seeds"}
    assert len(named) > 100
    assert not {k for k in missing if k not in keys_of_sentences and not _is_sentence_key(k)}


def _is_sentence_key(key: str) -> bool:
    """Keys by which a sentence is found, made of a name that is no template's."""
    return key in {"align.ladder", "run.end"} or key.endswith(".")


def test_the_bundle_is_the_published_one() -> None:
    """Unchanged, and the file beside it says which."""
    folder = Path(build.__file__).parents[1] / "pages" / "assets"
    sha256 = hashlib.sha256((folder / "plotly-basic.min.js").read_bytes()).hexdigest()
    assert sha256 in (folder / "README.md").read_text()
    assert "MIT" in (folder / "plotly.LICENSE").read_text()


@pytest.mark.usefixtures("undrawn")
def test_markdown_in_both_languages_with_its_pictures(tmp_path: Path) -> None:
    out = tmp_path / "report"
    report_runs(whole_study(tmp_path, 210), out, search=[tmp_path], markdown_too=True)
    for name in ("report.md", "report.zh.md"):
        text = (out / name).read_text("utf-8")
        for picture in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", text):
            assert (out / picture).is_file(), picture
        noted = set(re.findall(r"\[\^(\d+)\](?!:)", text))
        assert noted and noted == set(re.findall(r"^\[\^(\d+)\]:", text, re.M))
    for heading in HEADINGS:
        assert f"\n## {heading}\n" in (out / "report.zh.md").read_text("utf-8")
    assert len(list(out.glob("sampling-*.gif"))) == 2


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize(("spare", "shown"), [(0, 2), (-1, 0)])
def test_both_panels_animations_or_neither(
    spare: int, shown: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each panel has its own limit of bytes; an animation above it is named."""
    runs = whole_study(tmp_path, 60)
    (size,) = {path.stat().st_size for path in tmp_path.rglob("trajectory.gif")}
    monkeypatch.setattr(pictures, "MOST_GIF_BYTES", size + spare)
    content = report_runs(runs, tmp_path / "out", search=[tmp_path], markdown_too=True)
    assert len(list((tmp_path / "out").glob("sampling-*.gif"))) == shown
    assert len(said(content, "pictures.left.trajectory.gif")) == 2 - shown


@pytest.mark.usefixtures("undrawn")
def test_a_long_run_is_thinned_and_keeps_its_peak(tmp_path: Path) -> None:
    rows = make_rows(5000, per_epoch=1000, change=edited("compute_s", {3333: 7.5}))
    run = make_run(tmp_path / "run", "torch", rows)
    report_runs([run], tmp_path / "out")
    page = (tmp_path / "out" / "index.html").read_text("utf-8")
    data = re.search(r'id="figures">(.*?)</script>', page, re.S)
    assert data is not None
    figure = json.loads(data[1])["step-time"]
    assert len(figure["traces"][0]["x"]) <= 600
    assert max(figure["traces"][0]["high"]) == pytest.approx(7.501)
    assert "median of 9 steps at a time; band: least to most of them" in page


def test_odd_runs_are_drawn_too(tmp_path: Path) -> None:
    """One step; nothing synchronised, no memory; no loss that is a number; a bare environment."""

    def bare(row: dict[str, Any]) -> dict[str, Any]:
        return row | {"synced": False, "memory_mb": None}

    def lost(row: dict[str, Any]) -> dict[str, Any]:
        return row | {"loss": None}

    one = make_run(tmp_path / "one", "torch", make_rows(1))
    dull = make_run(tmp_path / "dull", "torch", make_rows(30, change=bare), seed=1)
    blank = make_run(tmp_path / "blank", "jittor", make_rows(30, change=lost))
    (blank / "environment.json").write_text('{"backend": "jittor"}')
    content = report_runs([one, dull, blank], tmp_path / "out", markdown_too=True)
    assert "so it has no step times" in said(content, "time.none.dull")[0]["en"]
    assert said(content, "loss.not_finite.blank", "losses")
    for run in (one, blank):
        report_runs([run], tmp_path / f"out-{run.name}")
    with Image.open(tmp_path / "out" / "loss.png") as image:
        assert image.width == 1344 and np.unique(np.asarray(image)).size > 20


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda p: [p / "none"], "no such folder"),
        (lambda p: [write(p / "x" / "a.json", {}).parent], "not a run folder"),
        (lambda p: [make_run(p / "empty", "torch", [])], "no step is recorded"),
        (lambda p: [make_run(p / "torn", "torch", [], tail='{"st')], "no step is recorded"),
        (lambda p: [make_run(p / "a", "torch", make_rows(3))] * 2, "given twice"),
    ],
)
def test_what_is_no_run_is_refused_in_one_line(tmp_path: Path, make: Any, words: str) -> None:
    with pytest.raises(UserError, match=words) as caught:
        report_runs(make(tmp_path), tmp_path / "out")
    assert "\n" not in str(caught.value) and not (tmp_path / "out").exists()


def test_runs_of_nothing_in_common_are_refused(tmp_path: Path) -> None:
    a = make_run(tmp_path / "a", "torch", make_rows(5))
    b = make_run(tmp_path / "b", "torch", make_rows(5), environment={"dataset_sha256": "f" * 64})
    config = (b / "config.yaml").read_text() + "model: {ch: 64}\n"
    (b / "config.yaml").write_text(config)
    with pytest.raises(UserError, match="have nothing in common") as caught:
        report_runs([a, b], tmp_path / "out")
    assert caught.value.exit_code == 2


@pytest.mark.usefixtures("undrawn")
def test_a_folder_of_the_users_is_never_replaced(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", "torch", make_rows(5))
    out = tmp_path / "out"
    report_runs([run], out)
    with pytest.raises(UserError, match="not empty"):
        report_runs([run], out)
    report_runs([run], out, overwrite=True)
    (out / "holiday.png").write_bytes(PNG)
    with pytest.raises(UserError, match=r"holiday\.png"):
        report_runs([run], out, overwrite=True)


@pytest.mark.usefixtures("undrawn")
def test_a_study_folder_becomes_a_report(tmp_path: Path) -> None:
    runs = whole_study(tmp_path, 210)
    named = {run.name: str(run.relative_to(tmp_path)) for run in runs} | {"x": "runs/unbegun"}
    write(tmp_path / "study.json", {"kind": "study", "runs": named})
    assert report_study(tmp_path) == tmp_path / "report" / "index.html"
    assert report_study(tmp_path).is_file()  # again, over its own
    with pytest.raises(UserError, match=r"study\.json missing"):
        report_study(tmp_path / "runs")


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("quiet", [False, True])
def test_progress_is_shown_unless_quiet(tmp_path: Path, monkeypatch: Any, quiet: bool) -> None:
    shown = []

    def bar(items: Any, title: str, *, disable: bool, **_: Any) -> Any:
        shown.append((title, not disable))
        return items

    for module in (build, collection, of_logs):
        monkeypatch.setattr(module, "tqdm", bar)
    run = make_run(tmp_path / "run", "torch", make_rows(30))
    words = [str(run), "--out", str(tmp_path / "out"), *["--quiet"] * quiet]
    for verb, more, first in (
        (command, ["--overwrite"], "runs"),
        (command, ["--overwrite", "--logs"], "logs"),
        (compare, ["--overwrite", str(run)], "runs"),
    ):
        shown.clear()
        result = CliRunner().invoke(verb, [*words, *more], catch_exceptions=False)
        assert result.exit_code == 0 and result.stderr == ""
        assert shown == [(title, not quiet) for title in (first, "chapters", "figures")]


def test_the_command(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", "torch", make_rows(30))
    out = tmp_path / "out"
    words = [str(run), "--out", str(out), "--language", "zh"]
    result = CliRunner().invoke(command, words)
    assert result.exit_code == 0, result.output
    assert "只有一次运行" in result.output and result.output.rstrip().endswith("index.html")
    assert '<html lang="zh-CN" data-lang="zh"' in (out / "index.html").read_text("utf-8")
    with pytest.raises(UserError, match="expected en or zh"):
        report_runs([run], tmp_path / "again", language="fr")
    with pytest.raises(UserError, match="is a file; expected a run folder"):
        report_runs([run / "config.yaml"], tmp_path / "again")
    assert LANGUAGES == ("en", "zh")
