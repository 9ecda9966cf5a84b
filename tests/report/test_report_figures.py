"""The report's figures and tables of scores and sweeps: their contents, and no unfounded claims."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from commands import call
from diptych.pages.traces import segments, unmagnified
from diptych.report.build import report_runs
from report_records import (
    WEIGHTS,
    figures,
    hold_weights,
    make_scores,
    make_sweep,
    said,
    undrawn,  # noqa: F401 - a fixture
    watch,
    write,
)
from synthetic_runs import make_rows, make_run, make_samples

VALIDATION = "validation_loss"
SETS = {"fid": [3.0, 3.1, 2.9]}


def two_runs(folder: Path, steps: int = 20) -> list[Path]:
    """A run of each panel that holds the weights of WEIGHTS."""
    runs = [make_run(folder / "runs" / p, p, make_rows(steps)) for p in ("torch", "jittor")]
    for run in runs:
        hold_weights(run, run.name)
    return runs


def test_fields_that_are_meant_to_differ_go_with_commas(tmp_path, monkeypatch, capsys) -> None:
    files = [
        make_scores(tmp_path / f"{steps}.json", "torch", SETS, **{"sampler.steps": steps,
                    "sampler.eta": eta}) for steps, eta in ((10, 0.0), (50, 1.0))
    ]  # fmt: skip
    code, _, err = call(monkeypatch, capsys, "compare", *files, "--across", "sampler.steps")
    assert code == 2 and "sampler.eta" in err
    fields = "sampler.steps,sampler.eta"
    code, out, _ = call(monkeypatch, capsys, "compare", *files, "--across", fields)
    assert code == 0 and "no difference is shown" in out


@pytest.mark.usefixtures("undrawn")
def test_scores_are_compared_across_panels_within_one_protocol(tmp_path: Path) -> None:
    """Once each run was compared with itself alone, and unlike protocols shared an axis."""
    runs = two_runs(tmp_path)
    for n, panel in enumerate(("torch", "jittor")):
        for steps, start in (("ddim-10", 9.0), ("ddim-50", 3.0)):
            values = {"fid": [start + n, start + n + 0.1, start + n - 0.1]}
            make_scores(tmp_path / "scores" / f"{panel}-{steps}.json", panel, values,
                        **{"sampler.steps": int(steps[5:])})  # fmt: skip
    make_scores(
        tmp_path / "scores" / "torch-more.json", "torch", SETS, num=9000
    )  # of one run alone
    content = report_runs(runs, tmp_path / "out", search=[tmp_path / "scores"])
    found = said(content, "score.fid", "scores")
    assert [(s["numbers"]["a"], s["numbers"]["b"]) for s in found] == [("torch", "jittor")] * 2
    names = [s["numbers"]["metric"] for s in found]
    assert names == [f"fid (num 2,000, steps {steps})" for steps in (10, 50)]
    assert all("jittor is higher, that is worse" in s["en"] for s in found)
    drawn = {name: figure for name, figure in figures(tmp_path / "out" / "index.html").items()
             if name.startswith("score-")}  # fmt: skip
    assert len(drawn) == 2 and "score-fid" in drawn
    shown = [[t["y"][0] for t in figure["traces"]] for figure in drawn.values()]
    assert np.allclose(shown, [[9, 10], [3, 4]])


@pytest.mark.usefixtures("undrawn")
def test_only_an_interval_is_spoken_of_and_drawn(tmp_path: Path) -> None:
    """Two numbers without intervals filled an axis from 19.31276 to 19.31283."""
    runs = two_runs(tmp_path)
    make_scores(tmp_path / "scores" / "a.json", "torch", {"fid": [19.31276]})
    make_scores(tmp_path / "scores" / "b.json", "jittor", {"fid": [19.31283]})
    content = report_runs(runs, tmp_path / "out", search=[tmp_path / "scores"])
    assert "nothing can be said" in said(content, "score.fid")[0]["en"]
    assert not said(content, "score.seeds")
    assert not [n for n in figures(tmp_path / "out" / "index.html") if n.startswith("score-")]
    make_scores(tmp_path / "scores" / "b.json", "jittor", SETS)
    make_scores(tmp_path / "scores" / "a.json", "torch", SETS)
    content = report_runs(runs, tmp_path / "again", search=[tmp_path / "scores"])
    assert "may move" in said(content, "score.seeds")[0]["en"]


def test_tiny_differences_stay_tiny() -> None:
    from diptych.pages.catalogue import same
    from diptych.pages.document import Trace

    def of(*values: float) -> tuple[float, float] | None:
        return unmagnified([Trace("points", same(""), "ink", ["a", "b"], values)])

    low, high = of(19.31276, 19.31283) or (0.0, 0.0)
    assert high - low > 0.9 and low < 19.31276 < 19.31283 < high
    assert of(3.0, 4.0) is None


@pytest.mark.usefixtures("undrawn")
def test_sweeps_of_one_request_share_table_and_figures(tmp_path: Path) -> None:
    """A sweep a panel, each from its own weights: one table, and one figure of each metric."""
    runs = two_runs(tmp_path)
    for n, panel in enumerate(("torch", "jittor")):
        path = make_sweep(tmp_path / "sweep" / panel, (panel,))
        content = json.loads(path.read_text())
        content["request"]["weights_sha256"] = "ab"[n] * 64
        extra = [{**cell, "solver": solver, "eta": None} for cell in content["cells"][:3]
                 for solver in ("dpmpp", "euler", "plms", "unipc")]  # fmt: skip
        content["cells"] += extra
        write(path.parent / f"{panel}.json", content)
        path.unlink()
        write(runs[n] / "sweep.json", content)
    content = report_runs(runs, tmp_path / "out")
    part = next(p for p in content["sections"] if p["key"] == "sweep")
    assert part["figures"] == ["sweep-mnist-frechet", "sweep-seconds-per-image"]
    head = part["tables"][0]["head"]
    assert len(part["tables"]) == 1
    assert [cell for cell in head if "s/image" in cell] == ["torch: s/image", "jittor: s/image"]
    told = said(content, "sweep.own")[0]
    assert "torch aaaaaaaa" in told["en"] and "jittor bbbbbbbb" in told["en"]
    traces = figures(tmp_path / "out" / "index.html")["sweep-mnist-frechet"]["traces"]
    looks = [(t["colour"], t["dash"], t["marker"]) for t in traces]
    assert len(traces) == 14 and len(set(looks)) == len(looks)
    assert [t["under"] for t in traces] == [True] * 7 + [False] * 7


@pytest.mark.usefixtures("undrawn")
def test_the_second_line_does_not_hide_the_first(tmp_path: Path) -> None:
    """Equal losses: a wide pale line lies under a dashed one."""
    report_runs(two_runs(tmp_path, 450), tmp_path / "out")
    drawn = figures(tmp_path / "out" / "index.html")
    for name in ("loss", "loss-every-200"):
        first, second = drawn[name]["traces"]
        assert (first["under"], second["under"]) == (True, False), name
        assert (first["dash"], second["dash"]) == ("solid", "dash"), name


@pytest.mark.usefixtures("undrawn")
def test_validation_losses_stand_beside_the_losses(tmp_path: Path) -> None:
    rows = make_rows(20, change=lambda row: row | ({} if row["step"] % 5 else {VALIDATION: 0.5}))
    runs = [
        make_run(tmp_path / "a", "torch", rows),
        make_run(tmp_path / "b", "jittor", make_rows(20)),
    ]
    report_runs(runs, tmp_path / "out")
    *losses, held_out = figures(tmp_path / "out" / "index.html")["loss"]["traces"]
    assert len(losses) == 2 and "held-out" in str(held_out)
    assert held_out["x"] == [5, 10, 15, 20] and held_out["y"] == [0.5] * 4


def test_segments_are_cut_where_the_spacing_is_unusual() -> None:
    x = np.array([1, 2, 3, 4, 5, 6, 30, 31, 32, 33, 34, 40])
    assert segments(x) == [slice(0, 6), slice(6, 11), slice(11, 12)]
    assert len(segments(np.arange(1, 100))) == 1
    assert len(segments(np.array([*range(1, 50), *range(50, 500, 20)]))) == 1  # another cadence


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("steps", [200, 3000])
def test_no_line_runs_across_what_was_not_recorded(tmp_path: Path, steps: int) -> None:
    """Missing steps, a pause of minutes and a resume a day later break the lines."""
    rows = make_rows(steps, per_epoch=1000,
                     change=lambda r: None if 101 <= r["step"] <= 150 else r)  # fmt: skip
    run = make_run(tmp_path / "run", "torch", rows)
    watch(run, steps)
    path = run / "resources.jsonl"
    lines = path.read_text().splitlines()[:-1]
    late = [json.loads(line) for line in lines]
    for n, row in enumerate(late):
        row["time"] += (n >= steps // 2) * 86_400
    path.write_text("".join(json.dumps(row) + "\n" for row in late))
    report_runs([run], tmp_path / "out")
    drawn = figures(tmp_path / "out" / "index.html")
    for name in ("loss", "step-time", "memory", "processor"):
        trace = drawn[name]["traces"][0]
        gaps = [x for x, y in zip(trace["x"], trace["y"], strict=True) if y is None]
        assert len(gaps) == 1, name
        assert name == "processor" or 100 < gaps[0] < 151, name
        if trace["low"]:
            assert trace["low"].count(None) == trace["high"].count(None) == 1


@pytest.mark.usefixtures("undrawn")
def test_sets_that_were_drawn_to_be_measured_are_no_gallery(tmp_path: Path) -> None:
    """Unless a run has no samples of its own: they are better than nothing."""
    run = make_run(tmp_path / "runs" / "torch", "torch", make_rows(20))
    hold_weights(run, "torch")
    card = {"weights_sha256": WEIGHTS["torch"]}
    make_samples(tmp_path / "images" / "torch" / "ddim-2", "torch", card=card)
    shown = "images/torch/ddim-2"
    page = tmp_path / "out" / "report.json"
    report_runs([run], page.parent, search=[tmp_path])
    assert shown in page.read_text()
    make_samples(tmp_path / "samples" / "torch", "torch", card=card)
    made = report_runs([run], page.parent, search=[tmp_path], overwrite=True)
    assert shown not in page.read_text() and "samples/torch" in page.read_text()
    assert said(made, "pictures.more")[0]["numbers"]["n"] == 1
