"""A report of a study's folder, and places as readers see them: links and commands."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from click.testing import CliRunner

from diptych.cli.report import report as command
from diptych.errors import UserError
from diptych.files import read_json
from diptych.report.build import report_runs
from report_records import (
    make_scores,
    said,
    undrawn,  # noqa: F401 - a fixture
    whole_study,
    write,
)
from synthetic_runs import PNG, make_rows, make_run

pytestmark = pytest.mark.usefixtures("undrawn")

NO_WEIGHTS = "no Inception weights given; give them by --inception"  # before there was `why`


def make_study(folder: Path, **changed: Any) -> Path:
    """A study of both panels that was interrupted before its last stage."""
    runs = whole_study(folder, 60)
    stages = [
        {"name": "train-torch-seed0", "state": "done", "seconds": 61.0, "reason": ""},
        {"name": "train-jittor-seed0", "state": "skipped", "reason": "linked: /far/away/long"},
        {"name": "scores-torch-seed0-inception", "state": "skipped", "reason": NO_WEIGHTS},
        {
            "name": "scores-jittor-seed0-inception",
            "state": "skipped",
            "reason": "other words",
            "why": "inception",
            "linked": "",
        },
        {"name": "sweep-torch", "state": "failed", "seconds": 2.0, "exit_code": 1},
        {"name": "align", "state": "waiting"},
    ]
    content = {"kind": "study", "preset": "mnist", "backends": ["torch", "jittor"], "seeds": [0],
               "quick": True, "stages": stages,
               "runs": {run.name: str(run.relative_to(folder)) for run in runs}}  # fmt: skip
    write(folder / "study.json", content | changed)
    numbers = {"kind": "difference", "images": 64, "images_equal": 60, "values": 50176,
               "values_differing": 9, "mean_levels": 0.002, "max_levels": 3}  # fmt: skip
    write(folder / "difference.json", numbers)
    (folder / "difference.png").write_bytes(PNG)
    return folder


def test_a_study_s_report_says_that_it_is_one(tmp_path: Path) -> None:
    """Its preset, what a quick one is worth, what was left out, what is still to be done."""
    folder = make_study(tmp_path / "study")
    content = report_runs([folder], tmp_path / "out", markdown_too=True)
    assert content["title"]["en"].startswith("mnist: a study of 2 trainings (a quick trial")
    assert content["title"]["zh"].startswith("mnist：2 次训练的实验研究（快速试跑")
    top = said(content, "", "short")
    assert top[0]["key"] == "study.quick" and "its scores mean nothing" in top[0]["en"]
    assert "分数没有意义" in top[0]["zh"]
    left = said(content, "study.left", "study")
    assert len(left) == 1 and left[0]["numbers"]["stages"] == [
        "scores-torch-seed0-inception", "scores-jittor-seed0-inception"]  # fmt: skip
    assert left[0]["en"].endswith("so there is no FID by Inception features.")
    assert left[0]["zh"].endswith("因此没有基于 Inception 特征的 FID。")
    assert said(content, "study.waiting", "short")[0]["numbers"]["stages"] == ["align"]
    assert said(content, "study.failing", "short")[0]["numbers"]["stages"] == ["sweep-torch"]
    assert said(content, "study.linked", "study")[0]["numbers"]["runs"] == ["jittor-seed0 (long)"]
    counts = said(content, "study.what")[0]["numbers"]
    assert {key: counts[key] for key in ("n", "done", "given", "left")} == {
        "n": 6, "done": 1, "given": 1, "left": 2}  # fmt: skip
    assert content["study"]["stages"]["align"] == "waiting" and content["study"]["quick"] is True
    assert content["sections"][1]["key"] == "study"
    assert top[0]["records"][0]["file"] == "../study/study.json"
    gap = said(content, "study.difference", "pictures")[0]
    assert gap["numbers"]["equal"] == 60 and "by at most 3 of 255" in gap["en"]
    assert (tmp_path / "out" / "grid-difference.png").read_bytes() == PNG
    text = (tmp_path / "out" / "report.zh.md").read_text("utf-8")
    assert "| sweep-torch | 失败 |" in text and "| align | 未完成 |" in text
    assert "# mnist：2 次训练的实验研究" in text and "](grid-difference.png)" in text


def test_a_plain_study_says_nothing_of_the_kind(tmp_path: Path) -> None:
    """Whole, not quick; and beside another run it is no page of a study."""
    folder = make_study(tmp_path / "study", quick=False, stages=[{"name": "a", "state": "done"}])
    (folder / "difference.json").write_text('{"kind": "difference", "values": "many"}')
    content = report_runs([folder], tmp_path / "out")
    assert content["title"]["en"] == "mnist: a study of 2 trainings"
    assert [s["key"] for s in said(content, "study.")] == ["study.what"]
    other = make_run(tmp_path / "other", "torch", make_rows(60), seed=5)
    content = report_runs([folder, other], tmp_path / "both")
    assert content["study"] is None and len(content["runs"]) == 3
    assert not said(content, "study.")


def test_commands_are_typed_in_the_study_s_or_the_report_s_folder(tmp_path: Path) -> None:
    """No place of this machine stands in a command that was made from records."""
    folder = make_study(tmp_path / "study")
    content = report_runs([folder], tmp_path / "out")
    page = (tmp_path / "out" / "index.html").read_text("utf-8")
    assert "diptych train runs/torch-seed0/config.yaml --backend torch" in page
    assert "diptych sample runs/torch-seed0/checkpoints/step-00000100 " in page
    assert "diptych evaluate runs/jittor-seed0/checkpoints/step-00000100 " in page
    assert str(tmp_path) not in page
    assert "as seen from the study's folder" in said(content, "commands")[0]["en"]
    runs = sorted((folder / "runs").iterdir())
    content = report_runs(runs, tmp_path / "of-runs")
    page = (tmp_path / "of-runs" / "index.html").read_text("utf-8")
    assert "diptych train ../study/runs/torch-seed0/config.yaml --backend torch" in page
    assert "相对于本报告所在目录" in said(content, "commands")[0]["zh"]


def test_the_notes_of_markdown_are_links(tmp_path: Path) -> None:
    """Each leads from the report's folder to its file, whatever signs are in its name."""
    run = make_run(tmp_path / "a [1] (b)" / "run_1", "torch", make_rows(20))
    report_runs([run], tmp_path / "out", markdown_too=True)
    for name in ("report.md", "report.zh.md"):
        text = (tmp_path / "out" / name).read_text("utf-8")
        notes = re.findall(r"^\[\^(\d+)\]: \[(.+)\]\((\S+)\)$", text, re.M)
        assert len(notes) == text.count("\n[^") >= 3
        for number, _, link in notes:
            assert (tmp_path / "out" / unquote(link)).is_file() and f"[^{number}]" in text
        assert not set("[]() ") & set("".join(link for *_, link in notes))


def test_the_command_takes_a_study(tmp_path: Path) -> None:
    """Without --out its own page is made anew; runs need one, and a file of the user's stays."""
    folder = make_study(tmp_path / "study")
    for _ in range(2):
        result = CliRunner().invoke(command, [str(folder)], catch_exceptions=False)
        assert result.exit_code == 0 and "scores mean nothing" in result.output
        assert (folder / "report" / "report.md").is_file()
    (folder / "report" / "holiday.png").write_bytes(PNG)
    for words, refused in (
        ([str(folder)], r"holiday\.png"),
        ([str(folder / "runs" / "torch-seed0")], "Give --out OUT"),
        ([str(folder), str(folder)], "Give --out OUT"),
        ([str(folder / "runs"), "--out", str(tmp_path / "o")], "give a run in it, such as"),
    ):
        with pytest.raises(UserError, match=refused):
            CliRunner().invoke(command, words, catch_exceptions=False, standalone_mode=False)


@pytest.mark.parametrize("runs", [{}, {"torch-seed0": "runs/none"}])
def test_a_study_without_a_run_is_refused_in_one_line(tmp_path: Path, runs: Any) -> None:
    folder = write(tmp_path / "s" / "study.json", {"runs": runs}).parent
    with pytest.raises(UserError, match="no run of the study has begun"):
        report_runs([folder], tmp_path / "out")
    (folder / "study.json").write_text("[")
    with pytest.raises(UserError, match=r"study\.json"):
        report_runs([folder], tmp_path / "out")


def test_a_study_holds_its_own_records(tmp_path: Path) -> None:
    """Records beside a run that was given to it do not belong to it."""
    folder = make_study(tmp_path / "study")
    far = tmp_path / "far"
    far.mkdir()
    linked = (folder / "runs" / "jittor-seed0").rename(far / "jittor-seed0")
    make_scores(far / "jittor-seed0-other.json", "jittor", {"mnist-is": [5.0, 5.1, 5.2]})
    runs = {"torch-seed0": "runs/torch-seed0", "jittor-seed0": str(linked)}
    write(folder / "study.json", {**read_json(folder / "study.json"), "runs": runs})
    of_study = str(report_runs([folder], tmp_path / "study-page")["sections"])
    of_run = str(report_runs([linked], tmp_path / "run-page")["sections"])
    assert "jittor-seed0-mnist.json" in of_study and "seed0-other.json" not in of_study
    assert "jittor-seed0-other.json" in of_run
