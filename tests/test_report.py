"""The report: any runs, with gaps, torn ends and different lengths; numbers traced to records."""

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

from diptych.cli.report import report as command
from diptych.errors import UserError
from diptych.report import report as report_module
from diptych.report import static, study
from diptych.report.catalogue import LANGUAGES, catalogue
from diptych.report.records import read_run
from diptych.report.report import report_runs
from diptych.report.wording import Words
from report_records import hold_weights, make_ladder, make_scores, whole_study, write
from synthetic_runs import PNG, edited, make_rows, make_run, make_samples

HEADINGS = ("环境配置", "数据准备脚本", "训练脚本", "测试脚本", "与 PyTorch 对齐的实验 log",
            "性能 log", "Loss 曲线")  # fmt: skip


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """No PNGs: for tests of numbers and words."""
    monkeypatch.setattr(static, "png_of", lambda plot, runs: PNG)


def said(content: dict[str, Any], key: str, section: str | None = None) -> list[dict[str, Any]]:
    """The sentences whose key begins so."""
    return [s for part in content["sections"] if section in (None, part["key"])
            for s in part["sentences"] if s["key"].startswith(key)]  # fmt: skip


def table(content: dict[str, Any], caption: str) -> dict[str, list[str]]:
    """The rows of the table of this caption, by their first cell."""
    found = [t for part in content["sections"] for t in part["tables"]
             if t["caption"]["en"].startswith(caption)]  # fmt: skip
    assert len(found) == 1, caption
    return {row[0]: row[1:] for row in found[0]["rows"]}


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
    package = Path(report_module.__file__).parent
    named = {
        key
        for path in package.glob("*.py")
        for key in re.findall(r'"((?:heading|row|column|caption|cell|note|figure|alt|axis|term|'
                              r'tile|cost|score|run|align|pictures|records|sweep|short)'
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


def test_the_whole_study(tmp_path: Path, undrawn: None) -> None:
    """Everything that may lie in and beside two runs is found, and every number has a record."""
    runs = whole_study(tmp_path)
    out = tmp_path / "report"
    content = report_runs(runs, out, search=[tmp_path], markdown_too=True)
    assert json.loads((out / "report.json").read_text()) == content
    assert [part["key"] for part in content["sections"]] == [
        "short", "environment", "data", "training", "testing", "alignment", "losses",
        "performance", "sampling", "scores", "sweep", "pictures", "method", "records",
    ]  # fmt: skip
    page = (out / "index.html").read_text()
    assert len(page) < 5_000_000
    assert not re.search(r"""<(script|link|img|source)[^>]+(src|href)\s*=\s*["'](?!data:)""", page)
    for part in content["sections"]:
        for sentence in part["sentences"]:
            assert sentence["en"] and sentence["zh"] and sentence["en"] != sentence["zh"]
            exempt = part["key"] in ("method", "records") or sentence["key"] == "score.seeds"
            assert exempt or sentence["records"], sentence
            for record in sentence["records"]:
                assert (out / record["file"]).is_file(), record
        for each in part["tables"]:
            assert part["key"] == "records" or each["records"], each["caption"]
    assert said(content, "score.mnist-frechet")[0]["en"].endswith(
        "which leaves out 0: jittor is higher, that is worse, with these weights."
    )
    assert "includes 0: no difference is shown" in said(content, "score.mnist-is")[0]["en"]
    assert said(content, "samples", "pictures")[0]["numbers"]["differing"] == 9
    assert table(content, "Seconds per batch")["1"] == ["1.20", "40.0"]
    assert table(content, "Parts of a training step")["backward"][0] == "200 ms (62 %)"
    assert said(content, "cost.batches.jittor")[0]["numbers"]["first"] == 40.0
    page = (out / "index.html").read_text("utf-8")
    checkpoint = hold_weights(runs[0], "torch", step=200).parent / "step-00000100"
    assert f"diptych sample {checkpoint} --backend torch --solver ddim --steps 50" in page
    assert "the run no longer holds" not in page
    assert "not those of the runs" in said(content, "align.ladder_other")[0]["en"]


def test_the_bundle_is_the_published_one() -> None:
    """Unchanged, and the file beside it says which."""
    folder = Path(report_module.__file__).parent / "assets"
    sha256 = hashlib.sha256((folder / "plotly-basic.min.js").read_bytes()).hexdigest()
    assert sha256 in (folder / "README.md").read_text()
    assert "MIT" in (folder / "plotly.LICENSE").read_text()


def test_markdown_in_both_languages_with_its_pictures(tmp_path: Path, undrawn: None) -> None:
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
    assert sorted(p.suffix for p in out.iterdir() if p.stem.startswith("sampling-")).count(".gif")


def test_numbers_are_those_of_the_records(tmp_path: Path, undrawn: None) -> None:
    rows = make_rows(60)
    run = make_run(tmp_path / "run", "jittor", rows)
    content = report_runs([run], tmp_path / "out")
    time = [row["data_s"] + row["compute_s"] for row in rows]
    step = said(content, "cost.step.run")[0]["numbers"]
    assert step["median"] == pytest.approx(np.median(time))
    assert step["max"] == pytest.approx(max(time))
    assert said(content, "short.none", "short")
    assert table(content, "Losses")["first step"] == [f"{rows[0]['loss']:.4g}"]


def test_gaps_torn_ends_repeats_and_lengths_are_reported(tmp_path: Path, undrawn: None) -> None:
    """Three runs that a strict reader refuses in part; the whole one stays as it is."""
    whole = make_run(tmp_path / "whole", "torch", make_rows(60))

    def gap(row: dict[str, Any]) -> dict[str, Any] | None:
        return None if 11 <= row["step"] <= 15 or row["step"] == 30 else row

    holes = make_run(tmp_path / "holes", "jittor", make_rows(50, change=gap), tail='{"step": 51,')
    twice = make_rows(20) + make_rows(25)[17:]
    again = make_run(tmp_path / "again", "jittor", twice)
    with pytest.raises(UserError, match="steps 11 to 15 missing"):
        read_run(holes)
    content = report_runs([whole, holes, again], tmp_path / "out")
    gaps = said(content, "run.gaps.holes", "losses")[0]["numbers"]
    assert gaps == {"run": "holes", "n": 6, "gaps": 2, "first": 11, "last": 15}
    assert said(content, "torn.holes", "losses")[0]["numbers"]["last"] == 50
    assert said(content, "run.repeated.again")[0]["numbers"]["n"] == 3
    assert said(content, "run.end.whole", "short")
    compared = [s["numbers"]["n"] for s in said(content, "difference", "alignment")
                if "equal to the last bit" in s["en"]]  # fmt: skip
    assert compared[0] == 44  # of the 50 steps those that both have
    assert [run["gaps"] for run in content["runs"]] == [[], [[11, 15], [30, 30]], []]


def test_an_epoch_with_a_gap_is_not_complete(tmp_path: Path, undrawn: None) -> None:
    rows = make_rows(40, per_epoch=10, change=lambda r: None if r["step"] in (15, 20) else r)
    run = make_run(tmp_path / "run", "torch", rows, environment={"dataset_images": 640})
    content = report_runs([run], tmp_path / "out")
    # Epoch 2 lacks two steps; of the third it is not known that it begins with step 21.
    assert set(table(content, "Time per complete epoch")) == {"1", "4"}


def test_seeds_are_paired_and_others_only_set_beside(tmp_path: Path, undrawn: None) -> None:
    runs = [make_run(tmp_path / f"{panel}-{seed}", panel, make_rows(40), seed=seed)
            for panel in ("torch", "jittor") for seed in (0, 1)]  # fmt: skip
    content = report_runs(runs, tmp_path / "out")
    assert [(p["a"], p["b"], p["matched"]) for p in content["pairs"]] == [
        ("torch-0", "torch-1", False),
        ("torch-0", "jittor-0", True),
        ("torch-1", "jittor-1", True),
    ]
    assert content["pairs"][0]["mismatches"] == ["seed is 0 and 1"]
    unlike = said(content, "unmatched", "alignment")[0]
    assert "seed is 0 and 1" in unlike["en"] and "随机种子分别为 0 和 1" in unlike["zh"]


def test_nothing_is_better_without_an_interval(tmp_path: Path, undrawn: None) -> None:
    """One set each, and unlike protocols: no verdict, and the reason."""
    runs = [make_run(tmp_path / p, p, make_rows(20)) for p in ("torch", "jittor")]
    for run, panel in zip(runs, ("torch", "jittor"), strict=True):
        hold_weights(run, panel)
    make_scores(tmp_path / "one.json", "torch", {"fid": [3.0], "kid": [1.0, 1.1, 0.9]})
    make_scores(tmp_path / "two.json", "jittor", {"fid": [9.0]})
    make_scores(tmp_path / "three.json", "jittor", {"kid": [5.0, 5.1, 4.9]}, num=100)
    content = report_runs(runs, tmp_path / "out")
    assert "nothing can be said of the difference" in said(content, "score.fid")[0]["en"]
    assert said(content, "score.kid")[0]["en"].endswith("their protocols differ in num.")
    words = " ".join(s["en"] for s in said(content, ""))
    assert "better" not in words and "worse" not in words


def test_a_ladder_that_fails_is_said_to_fail(tmp_path: Path, undrawn: None) -> None:
    run = make_run(tmp_path / "runs" / "a", "torch", make_rows(20))
    ladder = make_ladder(tmp_path / "ladder" / "align.json", passed=False,
                         identity=read_run(run).config.identity())  # fmt: skip
    content = report_runs([run], tmp_path / "out", search=[ladder.parent])
    assert said(content, "align.ladder", "short")[0]["en"].endswith("that fails is layers.")
    assert not said(content, "align.ladder_other")


def test_records_of_other_runs_are_left_out_and_counted(tmp_path: Path, undrawn: None) -> None:
    run = make_run(tmp_path / "a", "torch", make_rows(20))
    other = make_run(tmp_path / "b", "torch", make_rows(20), seed=9)
    make_samples(other / "samples" / "x", "torch")  # inside a run that is not reported
    make_samples(tmp_path / "strange", "torch", card={"weights_sha256": "c" * 64})
    named = make_samples(tmp_path / "named", "torch",
                         card={"weights_from": "a", "weights_sha256": "d" * 64})  # fmt: skip
    by_command = {"environment": {"command": ["diptych", "sample", "runs/a/checkpoints/step-3"]},
                  "weights_from": "step-3", "weights_sha256": "e" * 64}  # fmt: skip
    told = make_samples(tmp_path / "told", "torch", card=by_command)
    (tmp_path / "broken.json").write_text("{")
    content = report_runs([run], tmp_path / "out")
    assert content["records_left_out"] == 1
    shown = {r["file"] for s in said(content, "pictures.weights") for r in s["records"]}
    assert shown == {f"../{each.name}/manifest.json" for each in (named, told)}
    assert "the run no longer holds those weights" in (tmp_path / "out/index.html").read_text()


def test_a_long_run_is_thinned_and_keeps_its_peak(tmp_path: Path, undrawn: None) -> None:
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
        assert image.width == 1344 and len(set(image.convert("L").getdata())) > 20


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


def test_a_folder_of_the_users_is_never_replaced(tmp_path: Path, undrawn: None) -> None:
    run = make_run(tmp_path / "run", "torch", make_rows(5))
    out = tmp_path / "out"
    report_runs([run], out)
    with pytest.raises(UserError, match="not empty"):
        report_runs([run], out)
    report_runs([run], out, overwrite=True)
    (out / "holiday.png").write_bytes(PNG)
    with pytest.raises(UserError, match=r"holiday\.png"):
        report_runs([run], out, overwrite=True)


def test_a_study_folder_becomes_a_report(tmp_path: Path, undrawn: None) -> None:
    runs = whole_study(tmp_path, 210)
    named = {run.name: str(run.relative_to(tmp_path)) for run in runs} | {"x": "runs/unbegun"}
    write(tmp_path / "study.json", {"kind": "study", "runs": named})
    assert study.write(tmp_path) == tmp_path / "report" / "index.html"
    assert study.write(tmp_path).is_file()  # again, over its own
    with pytest.raises(UserError, match=r"study\.json missing"):
        study.write(tmp_path / "runs")


def test_the_command(tmp_path: Path, undrawn: None) -> None:
    run = make_run(tmp_path / "run", "torch", make_rows(30))
    out = tmp_path / "out"
    words = [str(run), "--out", str(out), "--language", "zh"]
    result = CliRunner().invoke(command, words)
    assert result.exit_code == 0, result.output
    assert "只有一次运行" in result.output and result.output.rstrip().endswith("index.html")
    assert '<html lang="zh-CN" data-lang="zh"' in (out / "index.html").read_text("utf-8")
    with pytest.raises(UserError, match="expected en or zh"):
        report_runs([run], tmp_path / "again", language="fr")
    assert LANGUAGES == ("en", "zh")
