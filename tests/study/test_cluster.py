"""Work shared by Ray is that of one process, whichever workers are lost. Ray starts once."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import cluster_jobs
from commands import call
from diptych.errors import MachineError, UserError
from diptych.evaluation.sets import Settings
from diptych.files import hold, read_json
from diptych.generate.for_scoring import Drawing
from diptych.generate.on_cluster import Weights, sample_on
from diptych.generate.samples import SampleRequest, sample_to
from diptych.machine import cluster as clusters
from diptych.machine.cluster import Cluster, Node, Task, address_of, open_cluster, threads_for
from diptych.model import load
from diptych.sampling.sampler import make_sampler
from diptych.study.reproduce import StudyRequest
from diptych.study.reproduce.on_cluster import reproduce_on
from diptych.study.sweep import cells as sweeps
from diptych.study.sweep import output
from diptych.study.sweep.on_cluster import Network, sweep_on
from diptych.study.sweep.variants import parse
from fake_features import Fake
from studies import states
from sweep_files import timeless

MODEL = "zoo:mnist-torch"


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """Two workers of one thread on this machine, which find the tests' modules."""
    with pytest.MonkeyPatch.context() as patch:
        paths = [str(Path(__file__).parent), str(Path(cluster_jobs.__file__).parent)]
        patch.setenv("PYTHONPATH", os.pathsep.join([*paths, os.environ.get("PYTHONPATH", "")]))
        patch.setenv("RAY_memory_monitor_refresh_ms", "0")  # else a full machine loses workers too
        patch.setattr(clusters.os, "sched_getaffinity", lambda _: {0, 1})
        with open_cluster("ray") as found:
            assert sys.stdout is sys.stderr  # the result's place is free of Ray's own words
            yield found


# Never one task alone: it would have two threads, and so a worker of its own, which takes seconds.
def tasks(*names: str, function=cluster_jobs.facts, arguments=()) -> list[Task]:
    return [Task(name, function, arguments, "torch") for name in names]


def test_workers_split_the_processors_and_say_what_they_notice(cluster, tmp_path, caplog):
    """Each task has its threads and the command's folder; warnings come back under its name."""
    assert cluster.nodes == [Node(2, 0)]
    found = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        again = cluster.run(
            tasks("a", "b", "c"), progress=False, done=lambda task, value: found.update(
                {task.name: value})
        )  # fmt: skip
    assert again == 0 and set(found) == {"a", "b", "c"}
    for each in found.values():
        assert each["folder"] == str(tmp_path) and each["threads"] == "1"
        assert (each["panel"], each["frameworks"], each["statistics"]) == ("torch", [], "0")
        assert each["pid"] != os.getpid()
    cluster.run(tasks("v", "w", function=cluster_jobs.warn), progress=False)
    assert "w: a damaged image" in caplog.messages


def test_a_lost_worker_is_replaced_and_counted(cluster, tmp_path, caplog, monkeypatch):
    """A lost task is tried again, with a line; one that always kills its worker ends all."""
    fragile = tasks("fragile", function=cluster_jobs.die, arguments=(1, tmp_path))
    assert cluster.run([*fragile, *tasks("other")], progress=False) == 1
    said = [line for line in caplog.messages if "worker was lost" in line]
    assert said == ["fragile: its worker was lost; tried again (1 of 3)"]
    monkeypatch.setattr(clusters, "RETRIES", 0)
    always = tasks("deadly", function=cluster_jobs.die, arguments=(99, tmp_path))
    with pytest.raises(MachineError, match=r"deadly: its worker was lost 1 time.*--resume"):
        cluster.run([*always, *tasks("other")], progress=False)


def test_an_error_is_that_of_the_task(cluster, monkeypatch):
    wrong = tasks("wrong", function=cluster_jobs.refuse, arguments=("weights.pt: is no file",))
    with pytest.raises(UserError, match=r"^weights\.pt: is no file$"):
        cluster.run([*wrong, *tasks("other")], progress=False)
    monkeypatch.setattr(clusters, "__version__", "0.0.1")
    with pytest.raises(UserError, match=r"and 0\.0\.1 here"):
        cluster.run(tasks("old", "other"), progress=False)


@pytest.mark.parametrize(
    ("nodes", "count", "gpu", "threads"),
    [
        ([Node(2, 0)], 4, False, 1),
        ([Node(64, 0)], 8, False, 8),
        ([Node(64, 0), Node(16, 0)], 4, False, 16),
        ([Node(2, 0)], 1, False, 2),
        ([Node(1, 0)], 1, False, 1),
        ([Node(64, 8), Node(32, 0)], 100, True, 8),
        ([Node(4, 8)], 9, True, 1),
    ],
)
def test_the_threads_of_a_task(nodes, count, gpu, threads):
    """No processor is given twice, none is left idle by few tasks, and none is on two machines."""
    assert threads_for(nodes, count, gpu) == threads


def test_gpus_are_given_by_ray(cluster):
    assert not cluster.uses_gpus("auto") and not cluster.uses_gpus("cpu")
    with pytest.raises(UserError, match="no GPU"):
        cluster.uses_gpus("cuda")
    with pytest.raises(UserError, match="give cuda"):
        cluster.uses_gpus("cuda:1")


def asked(reference: str) -> sweeps.Sweep:
    settings = Settings(("fid",), "mnist", num=4, progress=False)
    return sweeps.Sweep(
        MODEL, (2,), (0.0, 1.0), Drawing(batch=4), settings, reference,
        (parse("ddim"), parse("dpmpp"), parse("dpmpp:order=2")),
    )  # fmt: skip


def plain(reference: str, out: Path) -> None:
    """The sweep in one process."""
    with hold(out):
        sweeps.run_panel(asked(reference), out, "torch", "cpu", lambda: Fake("mnist"),
                         samples_out=out / "samples")  # fmt: skip
        output.write_all(sweeps.read_cells(out), out)


@pytest.mark.torch
@pytest.mark.slow
def test_a_sweep_with_a_killed_worker_is_the_plain_one(cluster, panels, tmp_path, caplog):
    """Four cells, two of the same images; the first worker to open its network is killed."""
    pixels = np.random.RandomState(0).randint(0, 256, (24, 28, 28), dtype=np.uint8)
    np.savez(tmp_path / "real.npz", images=pixels)
    reference = str(tmp_path / "real.npz")
    panels["torch"].call(plain, reference, tmp_path / "plain")
    marks, out = tmp_path / "marks", tmp_path / "ray"
    marks.mkdir()
    (marks / "kill").touch()
    sweep = asked(reference)
    cells = sweeps.cells_of(sweep)
    with hold(out):
        again = sweep_on(
            cluster, sweep, cells, out, ("torch",), "cpu",
            lambda backend: Network(cluster_jobs.open_network, ("mnist", str(marks))),
            samples_out=out / "samples",
        )  # fmt: skip
        output.write_all(sweeps.read_cells(out), out)
    assert again == 1 and not list(marks.iterdir())
    assert sum("worker was lost" in line for line in caplog.messages) == 1
    pictures = {name: value for name, value in timeless(tmp_path / "plain").items()
                if not name.endswith("manifest.json")}  # fmt: skip
    found = timeless(out)
    assert {name: found[name] for name in pictures} == pictures
    assert {n for n in found if not n.endswith("manifest.json")} == set(pictures)


def in_one_process(out: Path) -> None:
    model = load(MODEL, "torch", device="cpu")
    sample_to(
        model, SampleRequest(make_sampler("ddim", 2), 7, batch=3), out, npz=True, progress=False
    )


@pytest.mark.torch
@pytest.mark.slow
def test_samples_by_workers_are_those_of_one_process(cluster, panels, tmp_path):
    """Three batches, of which the last is smaller, in three parts; and once more."""
    panels["torch"].call(in_one_process, tmp_path / "one")
    request = SampleRequest(make_sampler("ddim", 2), 7, batch=3)
    out, weights = tmp_path / "ray", Weights(MODEL, ())
    how = {"npz": True, "progress": False}
    manifest, again = sample_on(cluster, weights, "torch", request, out, "cpu", **how)
    assert manifest["complete"] and manifest["images_timed"] == 7 and again == 0
    names = {path.name for path in out.iterdir()}
    assert names == {path.name for path in (tmp_path / "one").iterdir()}
    for name in names - {"manifest.json"}:
        assert (out / name).read_bytes() == (tmp_path / "one" / name).read_bytes(), name
    stamp = (out / "00000.png").stat().st_mtime_ns
    sample_on(cluster, weights, "torch", request, out, "cpu", **how)
    assert (out / "00000.png").stat().st_mtime_ns == stamp
    assert read_json(out / "manifest.json") == manifest


def test_a_study_is_shared_and_goes_on_after_a_lost_worker(cluster, tmp_path):
    """Every stage is done, that of the lost worker again, and the page is written."""
    out = tmp_path / "study"
    (tmp_path / "kill").write_text("train-jittor-seed0")
    stages = cluster_jobs.StudyStages(out)
    stages.asked = {"preset": "mnist"}
    study, again = reproduce_on(cluster, StudyRequest("mnist"), out, run=stages)
    assert again == 1 and set(states(study).values()) == {"done", "skipped"}
    ran = (tmp_path / "ran").read_text().splitlines()
    assert len(set(ran)) == len(ran) == 15
    assert not (tmp_path / "kill").exists() and (tmp_path / "pages").is_file()
    with pytest.raises(MachineError, match=r"failed: train-torch-seed0"):
        again_failing(cluster, tmp_path)


def again_failing(cluster: Cluster, folder: Path) -> None:
    """A study whose first training fails: the other parts do what does not need it."""
    out = folder / "other"
    stages = cluster_jobs.StudyStages(out, fail="train-torch-seed0")
    stages.asked = {"preset": "mnist"}
    try:
        reproduce_on(cluster, StudyRequest("mnist"), out, run=stages)
    finally:
        found = states(read_json(out / "study.json"))
        assert found["train-jittor-seed0"] == "done" and found["train-torch-seed0"] == "failed"


@pytest.mark.parametrize("on", ["spark", "ray:", "ray2", ":", ""])
def test_where_is_ray_or_an_address(on):
    with pytest.raises(UserError, match="expected ray"):
        address_of(on)
    assert address_of("ray") == "local" and address_of("ray:10.0.0.1:6379") == "10.0.0.1:6379"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--on", "spark"], "--on spark: expected ray"),
        (["--on", "ray", "--part", "0/2"], "leave --part and launchers out"),
    ],
)
@pytest.mark.parametrize("verb", ["sweep", "sample"])
def test_bad_input_is_one_line(monkeypatch, capsys, tmp_path, verb, words, said):
    monkeypatch.chdir(tmp_path)
    own = ["--metrics", "none"] if verb == "sweep" else []
    base = [verb, MODEL, "--num", "4", *own, "--steps", "2", "--backend", "torch", "--out", "out"]
    code, out, err = call(monkeypatch, capsys, *base, *words)
    assert code == 2 and said in err and out == "" and not Path("out").exists()
    assert len(err.strip().splitlines()) == 1


def test_the_token_is_found_where_ray_looks_for_it(monkeypatch, tmp_path):
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert not clusters._has_token()
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").touch()
    assert clusters._has_token()
    monkeypatch.setenv("HOME", str(tmp_path / "other"))
    monkeypatch.setenv("RAY_AUTH_TOKEN", "x")
    assert clusters._has_token()


def test_a_missing_ray_is_said_with_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=r"pip install 'diptych\[ray\]'"), open_cluster("ray"):
        pass
