"""Claims that a report makes only if its records support them: origins, shared settings, causes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from diptych.files import read_json
from diptych.pages import markdown
from diptych.profiling.outliers import attribute
from diptych.report.build import report_runs
from diptych.report.of_logs import report_logs
from diptych.report.sources.gather import gather
from diptych.runs.reader import read_run
from report_records import (
    figures,
    hold_weights,
    make_batches,
    make_ladder,
    make_profile,
    make_scores,
    make_sweep,
    said,
    table,
    undrawn,  # noqa: F401 - a fixture
    watch,
    whole_study,
    write,
)
from synthetic_runs import PNG, Row, edited, make_rows, make_run, make_samples

pytestmark = pytest.mark.usefixtures("undrawn")


def configured(run: Path, text: str) -> Path:
    """The run with these lines in its config."""
    with (run / "config.yaml").open("a") as file:
        file.write(text)
    return run


def test_what_two_runs_share_is_decided_by_all_that_decides_it(tmp_path: Path) -> None:
    """Flips change the order's images, not the weights; other rates of dropout other masks."""
    rows = make_rows(20)
    runs = [make_run(tmp_path / name, panel, rows)
            for name, panel in (("a", "torch"), ("b", "jittor"))]  # fmt: skip
    configured(runs[0], "model: {dropout: 0.1}\ndata: {random_flip: false}\n")
    configured(runs[1], "model: {dropout: 0.1}\ndata: {random_flip: true}\n")
    shared = table(report_runs(runs, tmp_path / "out"), "torch and jittor: what they share")
    assert [row[0] for row in shared.values()] == ["yes", "no", "yes", "yes"]
    assert "flips" in shared["order of the data, flips"][1]
    configured(make_run(tmp_path / "c", "jittor", rows), "model: {dropout: 0.2}\n")
    other = make_run(tmp_path / "d", "torch", rows, train={"batch_size": 32})
    configured(other, "model: {dropout: 0.1}\n")
    content = report_runs([tmp_path / "c", other], tmp_path / "again")
    shared = table(content, "jittor and torch: what they share")
    assert [row[0] for row in shared.values()] == ["no", "no", "no", "no"]
    caveat = said(content, "time.caveat", "performance")[0]
    work = "; nor was a step the same work (model.dropout, train.batch_size differ)."
    assert caveat["en"].endswith(work) and "单步的计算量也不相同" in caveat["zh"]


def test_a_loss_that_is_no_number_and_a_repeated_step_leave_the_causes_as_they_are(
    tmp_path: Path,
) -> None:
    """Such a row ended the search for causes; a step that was done again counted twice."""

    def ended(row: Row) -> Row:
        return row | {"ended": 1000.0 + 0.8 * row["step"]}

    rows = [ended(row) for row in make_rows(60, change=edited("compute_s", {40: 9.0}))]
    rows[4]["loss"] = None
    before = [row | {"compute_s": 9.0} for row in rows[20:30]]
    found = attribute(make_run(tmp_path / "run", "torch", rows[:30] + before + rows[20:]))
    assert found["steps"] == 60
    assert [each["step"] for each in found["outliers"]] == [40]


def test_a_damaged_or_missing_record_is_named_where_it_would_tell_a_cause(tmp_path: Path) -> None:
    slow = make_rows(60, change=edited("compute_s", {1: 30.0}))
    rows = [row | {"ended": 1e9 + 40 + row["step"]} for row in slow]
    torn = make_run(tmp_path / "torn", "torch", rows)
    (torn / "events.jsonl").write_text('{"time": 1.0, "kind": "start", "seconds": "few"}\n')
    broken = make_run(tmp_path / "broken", "torch", rows, seed=3)
    (broken / "events.jsonl").write_text('nonsense\n{"time": 1.0, "kind": "start", "seconds": 0}\n')
    silent = make_run(tmp_path / "silent", "jittor", rows)
    watch(silent)
    content = report_runs([torn, broken, silent], tmp_path / "out")
    told = said(content, "slow.damaged.torn", "performance")[0]
    assert told["en"].startswith("The records of torn hold text in place of numbers")
    named = said(content, "slow.damaged.broken", "performance")[0]
    assert named["en"].startswith("events.jsonl of broken is damaged")
    assert not said(content, "slow.steps.torn") and not said(content, "slow.steps.broken")
    lacking = [s["en"] for s in said(content, "slow.lacking.", "performance")]
    assert len(lacking) == 1 and lacking[0].startswith("silent recorded no events")


def test_runs_of_one_name_do_not_take_each_other_s_records(tmp_path: Path) -> None:
    """The first one of a name took what lay beside the second."""
    runs = [make_run(tmp_path / up / "run", "torch", make_rows(20), seed=i)
            for i, up in enumerate("ab")]  # fmt: skip
    make_scores(tmp_path / "b" / "run-fid.json", "torch", {"fid": [3.0]})
    make_scores(tmp_path / "all" / "run-kid.json", "torch", {"kid": [3.0]})
    found = gather(runs, search=[tmp_path / "all"])
    assert [(r.path.name, r.run) for r in found.of("scores")] == [("run-fid.json", 1)]
    assert [path.name for path in found.foreign] == ["run-kid.json"]
    content = report_runs(runs, tmp_path / "out")
    assert table(content, "What ran, and where")["run folder"] == ["a/run", "b/run"]


def test_weights_that_are_gone_are_named_for_every_record(tmp_path: Path) -> None:
    """The second folder and the scores passed as the run's own, for the first was taken as that."""
    run = make_run(tmp_path / "runs" / "one", "torch", make_rows(20))
    named = {"weights_from": "one", "weights_sha256": "d" * 64}
    make_samples(tmp_path / "runs" / "samples" / "one", "torch", count=4, card=named)
    make_samples(tmp_path / "runs" / "samples" / "two", "torch", count=4,
                 card=named | {"weights_from": "step-9"})  # fmt: skip
    scores = make_scores(tmp_path / "runs" / "x.json", "torch", {"mnist-kid": [3.0]})
    scores.write_text(scores.read_text().replace(
        read_json(scores)["scores"][0]["subject"]["weights_sha256"], "d" * 64))  # fmt: skip
    content = report_runs([run], tmp_path / "out", markdown_too=True)
    weights = {s["key"]: s["en"] for s in said(content, "pictures.weights", "pictures")}
    assert "by its name" in weights["pictures.weights.one"]
    assert weights["pictures.weights.two"].endswith("the same weights are that run's.")
    gone = said(content, "weights.x", "short")[0]
    assert gone["en"].startswith("The scores in x.json are of weights (dddddddd) that the run one")
    assert "Less is better for mnist-kid;" in said(content, "score.reading")[0]["en"]
    text = (tmp_path / "out" / "report.md").read_text("utf-8")
    assert "| one | one: two |" in text  # a folder of the run's name is not named twice


def test_settings_of_another_seed_are_not_other_settings(tmp_path: Path) -> None:
    run = make_run(tmp_path / "runs" / "a", "torch", make_rows(20), seed=7)
    seed0 = read_run(run).config.model_copy(update={"seed": 0}).identity()
    make_ladder(tmp_path / "same" / "align.json", identity=seed0)
    profile = make_profile(tmp_path / "same" / "profile.json", "torch")
    write(profile, read_json(profile) | {"config_identity": "f" * 64, "preset": "big"})
    content = report_runs([run], tmp_path / "out", search=[tmp_path / "same"])
    assert not said(content, "align.ladder_other")
    other = said(content, "cost.profile_other")[0]
    assert "the settings of big (ffffffffffff), which are not those of the runs" in other["en"]


def test_a_study_names_trainings_that_are_gone_and_no_difference_twice(tmp_path: Path) -> None:
    """It was moved without the runs that it was given; its images are those of the samples."""
    folder = tmp_path / "study"
    runs = {run.name: f"runs/{run.name}" for run in whole_study(folder, 60)}
    gone = {"torch-seed1": "/nowhere/torch-seed1"}
    write(folder / "study.json", {"preset": "mnist", "runs": runs | gone, "stages": []})
    told = said(report_runs([folder], tmp_path / "first"), "samples", "pictures")[0]["numbers"]
    numbers = {"kind": "difference", "images": told["n"], "images_equal": told["equal"],
               "values": told["values"], "values_differing": told["differing"],
               "max_levels": told["levels"], "mean_levels": 0.1}  # fmt: skip
    write(folder / "difference.json", numbers)
    (folder / "difference.png").write_bytes(PNG)
    content = report_runs([folder], tmp_path / "second")
    assert said(content, "study.absent", "short")[0]["numbers"]["runs"] == ["torch-seed1"]
    assert said(content, "samples", "pictures") and not said(content, "study.difference")
    write(folder / "difference.json", numbers | {"max_levels": told["levels"] + 1})
    assert said(report_runs([folder], tmp_path / "third"), "study.difference")


@pytest.mark.parametrize(
    ("text", "shown"),
    [("# 1 ended", "\\# 1 ended"), ("- a", "\\- a"), ("2. run", "2\\. run"), ("2.5 s", "2.5 s"),
     ("~a~ $x$ &lt;", "\\~a\\~ \\$x\\$ &amp;lt;"), ("a - b # c", "a - b # c")],
)  # fmt: skip
def test_a_line_of_markdown_stays_a_sentence(text: str, shown: str) -> None:
    assert markdown._line(text) == shown


def test_a_command_with_backticks_stays_in_its_block(tmp_path: Path) -> None:
    """Three in a name ended the block."""
    command = ["diptych", "train", "mnist", "--out", "a```b"]
    run = make_run(tmp_path / "run", "torch", make_rows(20), environment={"command": command})
    report_runs([run], tmp_path / "out", markdown_too=True)
    text = (tmp_path / "out" / "report.md").read_text("utf-8")
    assert "````bash\ndiptych train mnist --out 'a```b'\n````" in text
    assert json.loads((tmp_path / "out" / "report.json").read_text())["runs"][0]["steps"] == 20


def test_sampling_times_are_of_one_device_and_of_the_runs_compared(tmp_path: Path) -> None:
    """Timed batches name no run, so two runs of one backend have none to compare."""
    panels = {"torch": "cpu", "jittor": "cpu", "other": "cuda:0"}
    runs = {}
    for name, device in panels.items():
        backend = "torch" if name == "torch" else "jittor"
        runs[name] = make_run(tmp_path / name, backend, make_rows(20))
        path = make_batches(tmp_path / "batches" / f"{name}.json", backend)
        write(path, read_json(path) | {"device": device})

    def told(a: str, b: str, *left_out: str) -> bool:
        hidden = [tmp_path / "batches" / f"{name}.json" for name in left_out]
        kept = {path: path.read_bytes() for path in hidden}
        for path in hidden:
            path.unlink()
        out = tmp_path / f"{a}-{b}"
        content = report_runs([runs[a], runs[b]], out, search=[tmp_path / "batches"])
        for path, words in kept.items():
            path.write_bytes(words)
        rows = content["sections"][0]["tables"][0]["rows"]
        return "time of a sampled image" in [row[0] for row in rows]

    assert told("torch", "jittor", "other")
    assert not told("torch", "other", "jittor")
    write(tmp_path / "batches" / "other.json", read_json(tmp_path / "batches" / "jittor.json"))
    assert not told("jittor", "other")


def test_two_profiles_of_a_panel_have_a_bar_each(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", "torch", make_rows(20))
    for name in ("float32", "bf16"):
        make_profile(tmp_path / "profiles" / f"{name}.json", "torch")
    report_runs([run], tmp_path / "out", search=[tmp_path / "profiles"])
    trace = figures(tmp_path / "out" / "index.html")["split"]["traces"][0]
    assert sorted(trace["x"]) == ["torch: bf16", "torch: float32"]


def test_a_sweep_without_a_reference_is_against_nothing(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", "torch", make_rows(20))
    hold_weights(run, "torch")
    path = make_sweep(tmp_path / "sweep", ("torch",))
    content = read_json(path)
    content["request"]["reference"] = None
    write(path, content)
    told = report_runs([run], tmp_path / "out", search=[tmp_path / "sweep"])
    [found] = [t for part in told["sections"] if part["key"] == "sweep" for t in part["tables"]]
    assert found["caption"]["en"] == "Samplers and steps: 500 images x 3"


def test_runs_that_cannot_be_compared_are_not_said_to_be(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / f"{size}", "torch", make_rows(20), train={"batch_size": size})
            for size in (16, 32, 64)]  # fmt: skip
    first = said(report_runs(runs, tmp_path / "out"), "short.pair")[0]
    assert first["en"].startswith("Of 3 runs, no two can be compared step by step")


def test_a_difference_at_step_0_is_named(tmp_path: Path) -> None:
    logs = []
    for name, loss in (("a", 1.0), ("b", 1.1)):
        logs.append(tmp_path / f"{name}.csv")
        rows = "".join(f"{k},{loss / (k + 1)}\n" for k in range(30))
        logs[-1].write_text(f"step,loss\n{rows}")
    rows = table(report_logs(logs, tmp_path / "out"), "a.csv and b.csv: how many")
    assert {row[1] for row in rows.values() if row[0] != "0"} == {"0"}
