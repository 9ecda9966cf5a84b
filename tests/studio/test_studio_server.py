"""The studio's server without its panels: who is let in, what is read, what is refused."""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import unquote

import pytest

pytest.importorskip("uvicorn", reason="the extra `studio` is not installed")
pytest.importorskip("starlette", reason="the extra `studio` is not installed")

from commands import call
from diptych.errors import UserError
from diptych.files import LOCK, read_json
from diptych.studio import quality
from diptych.studio.folders import Folders
from diptych.studio.worker import implied_between
from diptych.weights.find import find_weights
from studio_jobs import Served, serving, two_runs
from synthetic_runs import make_rows, make_run

REPO = Path(__file__).parents[2]
TOKEN = "a-token-of-this-test"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs and a report; beside them, what nobody may read."""
    whole = tmp_path_factory.mktemp("studio")
    inside = whole / "inside"
    two_runs(inside)
    (inside / "report").mkdir()
    (inside / "report" / "report.json").write_text("{}")
    (inside / "report" / "index.html").write_text("<p>the report</p>")
    (whole / "secret").mkdir()
    (whole / "secret" / "index.html").write_text("the secret")
    (whole / "secret" / "report.json").write_text("{}")
    for name in ("model_index.json", "metrics.jsonl", "config.yaml"):
        (whole / "secret" / name).write_text("{}")
    (inside / "way-out").symlink_to(whole / "secret")
    return inside


@pytest.fixture(scope="module")
def served(folder: Path) -> Iterator[Served]:
    with serving(folder) as found:
        yield found


def test_another_host_and_another_site_are_refused(served: Served) -> None:
    assert served.ask("/")[0] == 200
    assert served.ask("/", Host=f"localhost:{served.port}")[0] == 200
    for host in (
        "evil.example",
        f"evil.example:{served.port}",
        "127.0.0.1.evil.example",
        "",
        "[::1",
    ):
        status, _, said = served.ask("/api/models", Host=host)
        assert (status, said[:7]) == (403, b"refused"), host
    job = {"kind": "ladder"}
    own = f"http://127.0.0.1:{served.port}"
    for headers in (
        {"Origin": "http://evil.example"}, {"Origin": "null"}, {"Origin": "http://127.0.0.1:1"},
        {"Sec_Fetch_Site": "cross-site"}, {"Sec_Fetch_Site": "same-site"},
    ):  # fmt: skip
        assert served.ask("/api/jobs", job, **headers)[0] == 403, headers
        assert served.ask("/api/things", **headers)[0] == 403, headers
    assert served.ask("/api/things", Origin=own, Sec_Fetch_Site="same-origin")[0] == 200
    assert served.ask("/api/jobs", b"kind=ladder", Content_Type="text/plain")[0] == 400
    assert served.studio.desk.jobs == {}  # nothing was started


def test_every_answer_forbids_what_the_page_does_not_need(served: Served) -> None:
    for path in ("/", "/api/models", "/nowhere", "/assets/studio.js"):
        headers = served.ask(path)[1]
        assert "default-src 'none'" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
    report = served.ask("/report?of=0/report")
    assert b"the report" in report[2]
    assert report[1]["content-security-policy"].startswith("sandbox")


@pytest.mark.parametrize("name", [
    "0/../secret", "0/way-out", "0//etc", "0/%2e%2e/secret", "1/report", "0", "../secret", "-1/x",
    "0/report/../../secret", "0/%00", "zoo:mnist-torch", "/etc/passwd", "99999999999999999999/x",
    "9" * 5000 + "/x",
])  # fmt: skip
def test_nothing_outside_the_folders_is_read(served: Served, name: str) -> None:
    asked = [
        f"/report?of={name}", f"/api/curve?run={name}", f"/grid?of={name}&file=step-1.png",
        f"/api/settings?run={name}",
    ]  # fmt: skip
    if not name.startswith("zoo:"):
        asked.append(f"/api/model?source={name}")
    for path in asked:
        status, _, said = served.ask(path)
        assert status == 400 and list(said) == ["error"], path
        assert "secret" not in said["error"].replace(unquote(name), "")
    for file in ("../config.yaml", "step-1.png/../../config.yaml", "config.yaml", "/etc/passwd"):
        assert served.ask(f"/grid?of=0/torch&file={file}")[0] == 400


def test_a_link_out_of_a_model_is_refused(tmp_path: Path) -> None:
    model = tmp_path / "inside" / "model"
    model.mkdir(parents=True)
    (model / "manifest.json").write_text("{}")
    (tmp_path / "outside.safetensors").write_bytes(b"")
    (model / "ema.safetensors").symlink_to(tmp_path / "outside.safetensors")
    with pytest.raises(Exception, match="is a link out of the studio's folders"):
        Folders([tmp_path / "inside"]).model("0/model")


def test_a_run_whose_records_lead_out_is_none(tmp_path: Path, folder: Path) -> None:
    inside = tmp_path / "inside"
    for name in ("config.yaml", "metrics.jsonl", "environment.json"):
        run = inside / name.partition(".")[0]
        run.mkdir(parents=True)
        for each in ("config.yaml", "metrics.jsonl", "environment.json"):
            if each == name:
                (run / each).symlink_to(folder / "torch" / each)
            else:
                shutil.copy(folder / "torch" / each, run / each)
    found = Folders([inside])
    (left,) = found.runs()  # with an environment that is not read
    assert left["title"] == "environment" and "not below the studio's folders" in left["error"]
    for name in ("config", "metrics"):
        with pytest.raises(UserError, match="no run below"):
            found.settings([f"0/{name}"])


BAD = [
    ({}, "kind: expected one of"),
    ([], "kind: expected one of"),
    ({"kind": "sample"}, "source: Field required"),
    ({"kind": "sample", "source": "zoo:nothing"}, "not in the zoo"),
    ({"kind": "sample", "source": "0/torch"}, "no model here"),
    ({"kind": "sample", "source": "zoo:mnist-torch", "num": 65}, "num: "),
    ({"kind": "sample", "source": "zoo:mnist-torch", "num": 1.5}, "num: "),
    ({"kind": "sample", "source": "zoo:mnist-torch", "seed": -1}, "seed: "),
    ({"kind": "sample", "source": "zoo:mnist-torch", "extra": 1}, "extra: "),
    ({"kind": "sample", "source": "zoo:mnist-torch", "panels": ["numpy"]},
     "panels.0: expected torch or jittor (given: numpy)"),
    ({"kind": "sample", "source": "zoo:mnist-torch", "settings": {"steps": 0}}, "steps: "),
    ({"kind": "sample", "source": "zoo:mnist-torch", "settings": {"solver": "x"}}, "solver: 'x'"),
    ({"kind": "sample", "source": "zoo:mnist-torch", "settings": {"spacing": "/etc/passwd"}},
     "spacing: '/etc/passwd' is not known"),
    ({"kind": "encode", "source": "zoo:mnist-torch"}, "picture: Field required"),
    ({"kind": "ladder", "preset": "/etc/passwd"}, "preset: '/etc/passwd' is not known"),
    ({"kind": "ladder", "rungs": ["rnug"]}, "rungs: 'rnug' is not known"),
]  # fmt: skip


@pytest.mark.parametrize(("body", "said"), BAD, ids=[said for _, said in BAD])
def test_a_bad_request_is_one_clear_line(served: Served, body: object, said: str) -> None:
    status, _, answer = served.ask("/api/jobs", body)
    assert status == 400
    assert said in answer["error"] and "\n" not in answer["error"]


@pytest.mark.parametrize("number", ["7", "x", "-1", "9" * 5000])
def test_a_job_that_is_not_there_is_one_clear_line(served: Served, number: str) -> None:
    for path in (f"/api/jobs/{number}", f"/api/jobs/{number}/torch.png"):
        status, _, said = served.ask(path)
        assert status == 400 and "is not known any more" in said["error"]


def test_bodies_that_are_no_json_or_too_large_are_refused(served: Served, monkeypatch) -> None:
    for body in (b"{", b"\xff", b'{"kind": NaN}', b"[" * 100_000):
        assert "is not JSON" in served.ask("/api/jobs", body)[2]["error"]
    monkeypatch.setattr("diptych.studio.server.MOST_BODY", 100)
    assert "kind: expected" in served.ask("/api/jobs", b"{}" + b" " * 98)[2]["error"]
    assert "larger than 25 MB" in served.ask("/api/jobs", b"{}" + b" " * 99)[2]["error"]


def test_with_a_token_nobody_enters_without_it(folder: Path) -> None:
    with serving(folder, TOKEN) as found:
        for path in ("/", "/api/state", "/?token=wrong", "/?token=", "/assets/studio.js"):
            assert found.ask(path)[0] == 403, path
        status, headers, _ = found.ask(f"/?token={TOKEN}", Host="any.name.of.this.machine")
        assert status == 200
        cookie = headers["set-cookie"]
        assert "HttpOnly" in cookie and "SameSite=Strict" in cookie
        kept = cookie.partition(";")[0]
        assert found.ask("/api/models", Cookie=kept)[0] == 200
        assert found.ask("/api/models", Cookie=kept[:-1])[0] == 403
        assert found.ask("/api/jobs", {}, Cookie=kept, Origin="http://evil.example")[0] == 403


def test_runs_are_listed_and_their_curves_grow(served: Served, folder: Path) -> None:
    (folder / "torch" / LOCK).touch()  # as a training on another machine leaves it while it runs
    things = served.ask("/api/things")[2]
    runs = {run["title"]: run for run in things["runs"]}
    assert sorted(runs) == ["jittor", "torch"]  # and not the one behind the link
    torch = runs["torch"]
    assert (torch["step"], torch["steps"], torch["live"]) == (200, 300, True)
    assert not runs["jittor"]["live"]
    assert things["reports"] == [{"name": "0/report", "title": "report"}]
    first = served.ask("/api/curve?run=0/torch")[2]
    assert first["steps"][-1] == first["rows"] == 200
    journal = folder / "torch" / "metrics.jsonl"
    before = journal.read_bytes()
    try:
        with journal.open("a") as file:
            row = json.loads(before.splitlines()[-1]) | {"step": 201, "loss": 0.5}
            file.write(json.dumps(row) + "\nnot a row\n" + json.dumps(row)[:20])
        more = served.ask("/api/curve?run=0/torch")[2]
        assert (more["steps"][-1], more["losses"][-1]) == (201, 0.5)
        assert more["left_out"] == 1  # the torn last line is only not yet there
    finally:
        journal.write_bytes(before)
    assert served.ask("/api/curve?run=0/torch")[2]["steps"][-1] == 200
    journal.rename(journal.with_suffix(".aside"))  # the run is begun anew
    try:
        status, _, said = served.ask("/api/curve?run=0/torch")
        assert status in (400, 500) and set(said) == {"error"}
    finally:
        journal.with_suffix(".aside").rename(journal)
    unlike = served.ask("/api/settings?run=0/torch&run=0/jittor")[2]
    assert unlike["unlike"] == {"train.lr": [0.001, 0.002]} and unlike["equal"] > 20


def test_a_run_of_epochs_shows_its_last_step(tmp_path: Path) -> None:
    for name, facts in (("a", {"dataset_images": 130}), ("b", {"dataset_images": None})):
        make_run(tmp_path / name, "torch", make_rows(3), train={"epochs": 2, "batch_size": 64},
                 environment=facts)  # fmt: skip
    assert [run["steps"] for run in Folders([tmp_path]).runs()] == [6, None]


def test_the_shipped_scores_are_those_of_the_page() -> None:
    """One home: docs/scores.md; the studio's table is made of it."""
    spec = importlib.util.spec_from_file_location("scores_page", REPO / "docs" / "scores.py")
    assert spec is not None and spec.loader is not None
    scores = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(scores)
    made = scores.quality((REPO / "docs" / "scores.md").read_text("utf-8"))
    assert made == read_json(scores.QUALITY)
    found = find_weights("zoo:mnist-torch")
    sha = found.facts()["weights_sha256"]
    tables = quality.tables(sha, found.config, [])
    rows = {row["name"]: row for row in tables[0]["rows"]}
    assert rows["heun"]["cells"][1] | {"mean": 0, "low": 0, "high": 0} == {
        "steps": 8, "calls": 15, "mean": 0, "low": 0, "high": 0
    }  # fmt: skip
    assert quality.tables("0" * 64, found.config, []) == []


def test_a_missing_extra_is_named_in_one_line(monkeypatch, capsys) -> None:
    monkeypatch.setitem(sys.modules, "starlette", None)
    code, out, err = call(monkeypatch, capsys, "studio", "--no-open")
    assert (code, out) == (2, "")
    assert err == "diptych: starlette is not installed; pip install 'diptych[studio]'\n"


def test_a_taken_port_and_no_folder_are_told(served: Served, monkeypatch, capsys, tmp_path) -> None:
    loaded = {"torch", "jittor"} & set(sys.modules)  # by other tests of this process
    words = ("studio", tmp_path, "--no-open", "--port", str(served.port))
    code, _, err = call(monkeypatch, capsys, *words)
    assert code == 2 and "Address already in use; give another --port" in err
    code, _, err = call(monkeypatch, capsys, "studio", tmp_path / "none", "--no-open")
    assert code == 2 and "not a folder" in err
    assert {"torch", "jittor"} & set(sys.modules) == loaded


def test_between_two_seeds_a_guide_is_left_out_and_a_weight_for_classes_kept() -> None:
    def implied(classes: int, settings: dict[str, Any], **sampler: Any) -> dict[str, Any]:
        config = SimpleNamespace(model=SimpleNamespace(num_classes=classes))
        return implied_between(SimpleNamespace(sampler=sampler, config=config), settings)

    guided = {"solver": "ddim", "guide": "x", "guidance": 2.0, "guidance_interval": "1-9"}
    assert implied(0, {}, **guided) == {"solver": "ddim"}
    assert implied(3, {}, **guided) == {"solver": "ddim", "guidance": 0.0}
    assert implied(3, {"classes": "1"}, solver="ddim", guidance=2.0)["guidance"] == 2.0
    assert implied(0, {}, solver="dpmpp-sde", steps=15) == {"solver": "ddim"}
