"""Pages about logs: the eight headings, two languages, no sentence beyond its interval."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import diptych
from commands import call
from diptych.errors import UserError
from diptych.report.of_logs import compare_logs, report_logs
from report_records import undrawn  # noqa: F401 - a fixture
from synthetic_runs import make_rows, make_run

EIGHT = {"environment", "data", "training", "testing", "alignment", "performance", "losses",
         "pictures"}  # fmt: skip


def log(path: Path, steps: int = 400, shift: float = 0.0, seconds: float = 0.05, stream: int = 0,
        every: int = 1, lr: float = 1e-3) -> Path:  # fmt: skip
    """A loss_step.txt with times."""
    draws = np.random.default_rng(stream)
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = []
    for k in range(0, steps, every):
        loss = np.exp(-k / 90) + 0.5 + shift + 0.1 * draws.random()
        took = seconds * (1 + 0.1 * draws.random())
        head = f"[Epoch {k // 100}] Step: {k + 1}, Loss: {loss:.7f}, lr: {lr}"
        lines.append(f"{head}, Step Time: {took:.5f}s")
    path.write_text("\n".join(lines) + "\n")
    return path


def texts(found: dict[str, Any]) -> str:
    return "\n".join(each["text"] for each in found["sentences"])


def verdicts(found: dict[str, Any]) -> dict[str, str]:
    return {row["what"]["en"]: row["verdict"]["en"] for row in found["verdict"]}


@pytest.mark.usefixtures("undrawn")
def test_a_page_in_eight_headings_and_two_languages(tmp_path: Path) -> None:
    a, b = log(tmp_path / "jt/loss_step.txt"), log(tmp_path / "pt/loss_step.txt", stream=1)
    out = tmp_path / "out"
    found = report_logs([a, b], out, markdown_too=True)
    sections = {each["key"]: each for each in found["sections"]}
    assert set(sections) >= EIGHT
    assert all(sections[key]["sentences"] or sections[key]["tables"] for key in EIGHT)
    chinese = (out / "report.zh.md").read_text("utf-8")
    for heading in ("环境配置", "数据准备脚本", "训练脚本", "测试脚本",
                    "与 PyTorch 对齐的实验 log", "性能 log",
                    "Loss 曲线", "生成结果展示"):  # fmt: skip
        assert f"## {heading}" in chinese
    assert "loss-every-200" in sections["losses"]["figures"]
    assert {"step-time", "epoch-time"} <= set(sections["performance"]["figures"])
    columns = next(t for t in sections["losses"]["tables"] if "columns" in t["caption"]["en"])
    assert ["loss", "Loss", "Loss"] in columns["rows"]
    assert found["logs"][0]["label"] == "jt" and found["logs"][0]["columns"]["step"] == "Step"
    page = (out / "index.html").read_text("utf-8")
    assert "synchronis" not in page  # no log says so
    alone = report_logs([a], tmp_path / "one")
    assert any("nothing is compared" in s["en"] for s in alone["sections"][1]["sentences"])


@pytest.mark.usefixtures("undrawn")
def test_no_verdict_beyond_its_interval(tmp_path: Path) -> None:
    a = log(tmp_path / "a.txt")
    end, step = "final loss (steps 361 to 400)", "time of a step, median"
    alike = verdicts(compare_logs(a, log(tmp_path / "b.txt", stream=1)))
    assert alike[end] == alike[step] == "no difference shown"
    assert alike["losses, step by step"] == "no verdict"
    apart = compare_logs(a, log(tmp_path / "c.txt", shift=0.3, seconds=0.09, stream=2))
    assert verdicts(apart)[end] == "c.txt higher" and verdicts(apart)[step] == "c.txt slower"
    assert "better" not in texts(apart) and "on which machine" in texts(apart)
    few = compare_logs(log(tmp_path / "d.txt", 20), log(tmp_path / "e.txt", 20, shift=0.3))
    assert all("no interval" in v or v == "no verdict" for v in verdicts(few).values())
    same = compare_logs(a, log(tmp_path / "f.txt"), language="zh")  # compare.json is in English
    assert "drew the same data" in texts(same)
    assert verdicts(same)["losses, step by step"] == "the same numbers"


@pytest.mark.usefixtures("undrawn")
def test_unlike_logs_are_told(tmp_path: Path) -> None:
    a = log(tmp_path / "a.txt")
    found = compare_logs(a, log(tmp_path / "b.txt", every=50, lr=2e-3))
    said = texts(found)
    assert "a.txt has a row every 1 step, b.txt every 50 steps; 8 steps are in both" in said
    assert "learning rates of a.txt and b.txt differ, from step 1 on" in said
    rows = "".join(f"{k},0.5,{size},0.1\n" for size in (32,) for k in range(1, 60))
    (tmp_path / "c.csv").write_text("step,loss,batch_size,step_time\n" + rows)
    (tmp_path / "d.csv").write_text(
        "step,loss,batch_size,step_time\n" + rows.replace(",32,", ",64,")
    )
    found = compare_logs(tmp_path / "c.csv", tmp_path / "d.csv")
    assert "batch_size is 32 in c.csv and 64 in d.csv" in texts(found)
    told = verdicts(found)
    assert told["time of a step, median"] == "not comparable"
    (tmp_path / "e.csv").write_text("step,loss\n1,nan\n2,nan\n3,inf\n")
    found = compare_logs(a, tmp_path / "e.csv")
    assert "The loss of e.csv is not finite at 3 of 3 steps" in texts(found)
    json.dumps(found, allow_nan=False)
    (tmp_path / "g.csv").write_text("step,loss\n5001,1\n5002,1\n")
    assert "have no step in common" in texts(compare_logs(a, tmp_path / "g.csv"))


def test_the_commands(tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    """Columns are shown; --json, --out, --columns and --label; refusals are one line."""
    a, b = log(tmp_path / "jt/loss.txt"), log(tmp_path / "pt/loss.txt", stream=1)
    run = make_run(tmp_path / "run", "torch", make_rows(60))

    def told(*words: Any) -> tuple[int, str, str]:
        code, out, err = call(monkeypatch, capsys, *words)
        return code, out, err

    code, out, _ = told("compare", a, b)
    assert code == 0 and "loss=Loss (guessed)" in out and "no difference shown" in out
    code, out, _ = told("compare", a, run, "--json", "--label", "mine", "--label", "theirs")
    assert code == 0 and json.loads(out)["runs"]["b"]["label"] == "theirs"
    code, out, _ = told("report", "--logs", a, b, "--out", tmp_path / "page", "--language", "zh")
    assert code == 0 and "日志" in out and (tmp_path / "page/index.html").is_file()
    for path in (tmp_path / "one.csv", tmp_path / "metrics.jsonl"):
        path.write_text("step,loss\n1,0.5\n2,0.4\n3" if path.suffix == ".csv" else '{"loss": 1}\n{')
        monkeypatch.chdir(tmp_path)
        code, out, _ = told("report", path.name, "--out", f"alone{path.suffix}")
        assert code == 0 and out.startswith(f"{path.name}, "), out
        assert f"The last line of {path.name}'s record is torn" in out
    code, out, _ = told("compare", a, b, "--out", tmp_path / "two", "--columns", "loss=Step Time")
    names = {p.name for p in (tmp_path / "two").iterdir()}
    assert code == 0 and {"compare.json", "index.html", "loss.png", "loss-every-200.png"} <= names
    for words, expected in (
        (("compare", a, tmp_path / "none.csv"), "not found"),
        (("compare", a, b, "--columns", "los=x"), "not a role; did you mean 'loss'?"),
        (("compare", a, b, "--unmatched"), "not for logs"),
        (("compare", a, b, "--across", "seed"), "for files of scores"),
        (("report", a, b, "--search", tmp_path, "--out", tmp_path / "q"), "--search is for runs"),
        (("compare", run, run, "--columns", "loss=x"), "for logs of other programs"),
        (("report", a, b), "Give --out OUT"),
        (("report", a, b, "--out", tmp_path / "q", *("--columns", "loss=Loss") * 3), "3 times"),
    ):  # fmt: skip
        code, out, err = told(*words)
        assert code == 2 and expected in err and err.count("\n") == 1, err
    for wrong, expected in (
        (lambda: diptych.compare(a, b, samples=(run, run)), "and matched=False are for runs"),
        (lambda: diptych.compare(a, b, matched=False), "samples and matched=False are for runs"),
        (lambda: diptych.compare(run, run, tmp_path / "q", labels="xy"), "labels are for logs"),
        (lambda: diptych.compare(run, run), "report's folder"),
        (lambda: diptych.make_report([a], tmp_path / "q", search=[run]), "search is for runs"),
        (lambda: diptych.make_report(run, tmp_path / "q", columns={"loss": "x"}), "add logs=True"),
    ):  # fmt: skip
        with pytest.raises(UserError, match=expected):
            wrong()
    assert not (tmp_path / "q").exists()
    content = diptych.compare(a, b, columns={"loss": "Loss"}, labels=["x", "y"])
    assert content["runs"]["a"]["label"] == "x"
    page = diptych.make_report([a, run], tmp_path / "api")
    assert page["logs"][1]["format"] == "Diptych run (torch)"
