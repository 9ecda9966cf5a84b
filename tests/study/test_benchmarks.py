"""Benchmarks: each runs at its smallest size and gives a complete table; times are not checked."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import PANELS, REQUIRED, available
from diptych.pages.blocks import read_block

ROOT = Path(__file__).resolve().parents[2]
NAMES = ("torch", "jittor", "diffusers")
SMALLEST = ["--preset", "tiny", "--rounds", "4", "--steps", "2", "--warmup", "1", "--batch", "2"]


def run(task: str, *options: str) -> subprocess.CompletedProcess[str]:
    """A benchmark's command, from the repository's root."""
    command = [sys.executable, "-m", f"benchmarks.{task}", *options]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=900)


@pytest.fixture
def benchmarks(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Its modules that load no framework, importable from wherever the tests run."""
    monkeypatch.syspath_prepend(str(ROOT))
    import benchmarks.cost
    import benchmarks.driver
    import benchmarks.results
    import benchmarks.sizes

    return benchmarks


@pytest.mark.slow
@pytest.mark.torch
@pytest.mark.jittor
@pytest.mark.parametrize("task", ["training", "sampling"])
def test_smallest_size_gives_the_whole_table(task: str, tmp_path: Path) -> None:
    """All contenders compute the same function; the table, the JSON and both files say so."""
    missing = [name for name in NAMES if not available(name)]
    if missing and not (REQUIRED and set(missing) & set(PANELS)):
        pytest.skip(f"{missing[0]} is not installed")
    out = tmp_path / "results" / "small"
    done = run(task, *SMALLEST, "--out", str(out))
    assert done.returncode == 0, done.stderr
    [result] = json.loads(out.with_suffix(".json").read_text())["results"]
    check_numbers(result, task)
    for words in ("PyTorch panel", "Jittor panel", "diffusers UNet2DModel", "701,345 in each"):
        assert words in done.stdout
        assert words in out.with_suffix(".md").read_text()
    assert "OMP_WAIT_POLICY=passive" in done.stdout
    assert "| --- |" in out.with_suffix(".md").read_text()


def check_numbers(result: dict[str, Any], task: str) -> None:
    """Everything that the README promises is there, positive and in order."""
    assert (result["task"], result["size"], result["batch"]) == (task, "tiny", 2)
    assert list(result["contenders"]) == list(NAMES)
    threads = len(os.sched_getaffinity(0))
    for name, each in result["contenders"].items():
        assert each["parameters"] == 701_345, name
        step, memory = each["seconds_per_step"], each["memory_mb"]
        assert 0 < step["low"] <= step["median"] <= step["high"]
        assert len(each["rounds"]) == 4
        assert each["cpu_seconds_per_step"] > 0
        steps = result["steps"] if task == "sampling" else 1
        assert each["seconds_per_image"] == pytest.approx(step["median"] * steps / 2)
        assert 10 < memory["steady"] <= memory["peak"]
        assert each["facts"]["threads"] == result["threads"] == threads
    pairs = [(each["a"], each["b"]) for each in result["ratios"]]
    assert pairs == [("diffusers", "torch"), ("jittor", "torch"), ("diffusers", "jittor")]
    for each in result["ratios"]:
        assert 0 < each["low"] <= each["median"] <= each["high"]
        assert each.get("verdict") in ("met", "missed", "undecided", None)
    assert set(result["agreement"]) == {"jittor", "diffusers"}
    assert max(result["agreement"].values()) < 1e-5


@pytest.mark.torch
def test_json_is_all_of_stdout() -> None:
    """A program can read it; one contender alone needs no other framework."""
    done = run("sampling", *SMALLEST, "--contenders", "torch", "--threads", "1", "--json")
    assert done.returncode == 0, done.stderr
    [result] = json.loads(done.stdout)["results"]
    assert result["contenders"]["torch"]["facts"]["threads"] == 1
    assert result["ratios"] == [] and result["agreement"] == {}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--preset", "mnits"], "did you mean 'mnist'?"),
        (["--contenders", "torch,tensorflow"], "contender 'tensorflow' is not known"),
        (["--contenders", "torch", "--device", "tpu"], "device 'tpu' is not known"),
    ],
)
def test_bad_input_is_one_line(options: list[str], words: str) -> None:
    done = run("training", "--preset", "tiny", *options)
    assert done.returncode == 2
    assert words in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_order_is_reversed_every_round(benchmarks: Any) -> None:
    """Drift that is slow against a round cancels: A B C, C B A, ..."""
    amount = benchmarks.sizes.Amount(batch=1, rounds=2, steps=1)
    size = benchmarks.sizes.size("tiny")
    plan = benchmarks.driver.Plan("training", size, amount, 1, NAMES, "cpu", 1)
    order = benchmarks.driver.order(plan)
    assert [name for k, name in order if k == 0] == list(NAMES)
    assert [name for k, name in order if k == 1] == list(reversed(NAMES))
    assert len(order) == 9


@pytest.mark.parametrize("heap", ["own", "kept"])
def test_the_allocator_of_the_contenders_is_that_asked_for(
    benchmarks: Any, heap: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`kept` gives every process what the PyTorch panel sets by itself; nothing is left behind."""
    names = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_")
    for name in names:
        monkeypatch.delenv(name, raising=False)
    with benchmarks.driver.environment(1, heap):
        inside = [os.environ.get(name) for name in names]
    assert inside == ([str(2**30), str(2**31 - 1)] if heap == "kept" else [None, None])
    assert not set(names) & set(os.environ)


def test_ratio_is_of_paired_rounds(benchmarks: Any) -> None:
    """A machine that slows down tenfold midway leaves the ratio exact; a tie is no verdict."""
    drift = np.array([1.0, 1.0, 1.0, 10.0, 10.0, 10.0])
    found = benchmarks.results.median(1.25 * drift / drift)
    assert found == pytest.approx({"median": 1.25, "low": 1.25, "high": 1.25})
    verdict = benchmarks.results.verdict
    assert verdict("least", 1.1, found) == "met"
    assert verdict("most", 1.1, found) == "missed"
    assert verdict("least", 1.1, {"median": 1.2, "low": 1.0, "high": 1.3}) == "undecided"
    assert benchmarks.results.median(np.array([1.0, 2.0]))["low"] is None


def test_slopes_are_those_of_known_growth(benchmarks: Any) -> None:
    """Quadratic growth is 2; a fixed part lowers the slope, least where it weighs least."""
    square = benchmarks.cost.slopes({n: [3.0 * n**2] * 3 for n in (4, 1, 2)})
    assert square["values"] == [1, 2, 4]
    assert square["all"] == pytest.approx(2) and square["last"] == pytest.approx(2)
    fixed = benchmarks.cost.slopes({n: [8.0 + n] for n in (1, 2, 4, 8)})
    assert 0 < fixed["all"] < fixed["last"] == pytest.approx(np.log2(16 / 12))


@pytest.mark.torch
def test_a_point_is_timed_in_both_tasks(benchmarks: Any) -> None:
    cost = benchmarks.cost
    config = benchmarks.sizes.load_config("tiny", ["train.batch_size=2"])
    asked = [cost.Point("calls, or steps", n, config, calls=n) for n in (2, 3)]
    rows = cost.growth(["torch"], asked, 2)
    assert [(row["task"], row["panel"]) for row in rows] == [(t, "torch") for t in cost.TASKS]
    assert all(each["median"] > 0 for row in rows for each in row["seconds"])
    where = benchmarks.driver.machine()
    record = {"machine": where, "threads": 1, "load_before": 0.0, "load_after": 0.0, "batch": 2,
              "rounds": 2, "growth": rows,
              "noise": cost.noise(["torch"], ["tiny"], 2), "whole": []}  # fmt: skip
    text = cost.text(record)
    assert text.count("| torch | calls, or steps | 2: ") == 2 and "| tiny, torch | " in text


@pytest.mark.parametrize("name", ["tiny", "mnist", "cifar10-size"])
def test_sizes_have_the_parameters_that_the_readme_states(benchmarks: Any, name: str) -> None:
    from diptych.network.parameters import parameter_table
    from diptych.network.plan import make_plan

    table = parameter_table(make_plan(benchmarks.sizes.size(name).config))
    count = sum(int(np.prod(each.shape)) for each in table.values())
    assert count == {"tiny": 701_345, "mnist": 1_112_801, "cifar10-size": 35_746_307}[name]


@pytest.mark.slow
@pytest.mark.torch
def test_loading_gives_a_table_of_every_set(tmp_path: Path, benchmarks: Any) -> None:
    if not available("torch"):
        pytest.skip("torch is not installed")
    done = run("data", "--pictures", "cifar", "--rounds", "2", "--batches", "2", "--out",
               str(tmp_path / "data"))  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "data.md").read_text() == done.stdout
    found = json.loads((tmp_path / "data.json").read_text())["results"][0]
    assert set(found["seconds"]) == {"loader 0", "loader 2", "loader 4", "ours"}
    assert all(len(each) == 2 and min(each) > 0 for each in found["seconds"].values())
    assert set(found["ratios"]) == {"loader 0", "loader 2", "loader 4"}


@pytest.mark.slow
def test_whole_pipelines_are_timed_in_turns(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.pipeline", "--steps", "2", "--batch", "1",
               "--rounds", "1", "--out", str(tmp_path / "found")]  # fmt: skip
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["steps"] == 2 and found["their_steps"] == 50
    ratio = found["rounds"]["diffusers"][0] / found["rounds"]["diptych"][0]
    assert found["ratio"]["median"] == pytest.approx(ratio)
    assert found["ratio"]["verdict"] == "undecided" and "DDIMPipeline" in done.stdout


@pytest.mark.slow
@pytest.mark.torch
def test_the_gpu_script_is_in_step_with_the_code(tmp_path: Path) -> None:
    """A rehearsal on a CPU: checks, a training step, a call; each can fail, and is kept at once."""
    names = ("bits", "same .*", "train mnist, as it is.*", "train, fp32, captured", "call, fp32")
    asked = f"^({'|'.join((*names, 'draw ddim.*fp32'))})$"
    done = run("gpu", "--cpu", "--out", str(tmp_path), "--only", asked)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "results.json").read_text())
    assert len(found) == 7 and not [name for name in found if "failed" in found[name]]
    training = found["same training"]["fp32"]
    assert training["weights"] == 0 and training["replayed: same bits"] is True
    assert [v for k, v in found["bits"].items() if k.startswith(("normals", "mask "))] == [True] * 5
    assert found["call, fp32"]["img_per_s"] > 0
    again = run("gpu", "--cpu", "--out", str(tmp_path), "--only", asked)
    assert again.returncode == 0 and not again.stdout  # all are there


@pytest.mark.torch
@pytest.mark.parametrize(
    "options, said",
    [
        (["--table", "none.json"], "none.json: no record"),
        (["--cpu", "--out", "out", "--only", "["], "no regular expression"),
        (["--cpu", "--out", "out", "--only", "nothing"], "--list shows them"),
        (["--cpu"], "--out FOLDER is missing"),
    ],
)
def test_the_gpu_script_refuses_in_one_line(options: list[str], said: str) -> None:
    done = run("gpu", *options)
    assert done.returncode == 2 and said in done.stderr.splitlines()[-1]
    assert not (ROOT / "out").exists()


def test_what_is_said_of_the_gpu_is_of_the_record() -> None:
    """The table is made of it; figures in sentences are compared with it."""
    path = ROOT / "benchmarks" / "results" / "gpu-h200.json"
    done = run("gpu", "--table", str(path))
    assert done.returncode == 0, done.stderr
    page, record = (ROOT / "docs" / "gpu.md").read_text(), json.loads(path.read_text())
    assert done.stdout.strip() in page

    def short(value: float) -> str:
        return f"{value:.1e}".replace("e-0", "e-")

    trained, drawn = (record["results"][f"same {what}"] for what in ("training", "sampling"))
    jittor, full = record["jittor"]["operators"], trained["fp32"]
    rows = (
        f"losses within {short(full['losses'])}, gradients (all together) within "
        f"{short(full['gradients'])} |",
        f"losses within {short(trained['tf32']['losses'])}; within "
        f"{short(trained['bf16']['losses'])} |",
        f"float32 {short(drawn['fp32']['relative'])}, TF32 {short(drawn['tf32']['relative'])}, "
        f"bfloat16 {short(drawn['bf16']['relative'])} |",
        f"within {short(jittor['product'])} and {short(jittor['convolution'])} |",
    )
    assert [row for row in rows if row not in page] == []
    assert record["jittor"]["bits"] is True and full["replayed: same bits"] is True
    kinds = ("fp32", "tf32", "bf16")
    assert all(trained[kind]["deterministic: same bits"] is True for kind in kinds)
    assert [trained[kind]["same bits in two runs"] for kind in kinds] == [False, False, True]
    steps = {
        kind: record["results"][f"train, as it is, keyed, {kind}"] for kind in ("bf16", "fp32")
    }
    front = (ROOT / "README.md").read_text()
    for kind, name in (("bf16", "bfloat16"), ("fp32", "float32")):
        assert f"{1e3 * steps[kind]['p50_s']:.0f} ms in {name}" in front


@pytest.mark.torch
@pytest.mark.slow
def test_two_ranks_train_what_one_does_and_send_the_bytes_of_the_formula(benchmarks: Any) -> None:
    """Real processes at the smallest size: equal losses, every part timed, the ring's bytes."""
    from benchmarks import growth, growth_model

    asked = {"task": "training", "size": "tiny", "preset": "tiny", "changes": [], "images": 9,
             "noise": "host", "batch": 4, "steps": 2, "warmup": 1}  # fmt: skip
    [one], two = growth.ranks(1, 1, asked), growth.ranks(2, 1, asked)
    assert two[0]["losses"] == two[1]["losses"] and one["parameters"] == 701_345
    assert 0 < growth.apart(two[0]["losses"], one["losses"]) < 2e-6
    assert two[0]["parts"]["sums"] > 0 and two[0]["parts"]["gradients"] > 0
    assert one["parts"]["sums"] == one["parts"]["waiting"] == 0
    assert sum(two[0]["parts"].values()) < 2 * two[0]["seconds"]
    sizes = {"task": "wire", "elements": [1, 200_000] * 8, "reps": 4}
    counted = [each["bytes"] for each in growth.ranks(2, 1, sizes)[0]["sizes"]]
    small, large = min(counted[::2]), min(counted[1::2])
    # The interface counts headers too, and whatever else uses it in these milliseconds: once of
    # eight times there is little of that.
    assert large == pytest.approx(2 * growth_model.ring_bytes(2, 200_000), rel=0.1)
    assert small < 20_000


def test_the_model_of_growth_on_paper(benchmarks: Any) -> None:
    """Its limits are known: one rank sends nothing, many send twice the weights; more is slower."""
    from benchmarks import growth_model as paper

    assert paper.ring_bytes(1, 10) == 0 and paper.ring_bytes(2, 10) == 40
    assert paper.ring_bytes(10**6, 10) == pytest.approx(80, rel=1e-5)
    assert paper.ring_seconds(4, 1000, 1e6, 0.5) == pytest.approx(3 + 6e-3)
    rows = paper.model({"a": 0.1}, 1e-4)
    assert [row["gpus"] for row in rows] == [8, 512, 64]
    assert rows[0]["efficiency"]["a"] > rows[1]["efficiency"]["a"]
    assert all(row["efficiency"]["a"] < row["sums_alone"]["a"] < 1 for row in rows)

    def times(world: int) -> dict[str, Any]:
        sizes = [
            {
                "elements": n,
                "seconds": paper.ring_seconds(world, n, 1e9, 1e-4),
                "bytes": world * paper.ring_bytes(world, n),
            }
            for n in (1, 10**5, 10**6)
        ]
        return {"sizes": sizes}

    found = paper.checked({"2": times(2), "4": times(4)})
    assert [row["fitted"] for row in found] == [True, False, True, False, False, False]
    for row in found:  # a machine that obeys the formula is predicted
        assert row["bytes"] == row["formula"]
        assert row["predicted"] == pytest.approx(row["seconds"], rel=0.01)


def test_the_page_holds_the_tables_of_the_record(benchmarks: Any) -> None:
    from benchmarks import growth

    assert read_block(growth.PAGE, "growth") == growth.block(growth.record())
