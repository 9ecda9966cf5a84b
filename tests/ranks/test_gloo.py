"""PyTorch in several processes, connected by gloo: the numbers of one process, and one fate."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import panel_jobs
from diptych.files import read_json
from diptych.runs import checkpoint
from rank_jobs import (
    MORE,
    SETTINGS,
    Ended,
    apart,
    bits,
    changed,
    environment,
    launch,
    numbers,
    settings,
    under,
    validated,
    words,
)

pytestmark = [pytest.mark.torch, pytest.mark.slow]

RELATIVE = 2e-6  # two roundings of float32 in a sum of few terms, and what Adam makes of them
STEPS = 6
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]


@pytest.fixture(scope="module")
def alone(panels, pictures, tmp_path_factory) -> Path:
    """The same run in one process."""
    run = tmp_path_factory.mktemp("alone") / "run"
    panels["torch"].call(panel_jobs.run, "torch", settings(pictures, STEPS), run)
    return run


@pytest.fixture(scope="module")
def two(pictures, tmp_path_factory) -> tuple[Path, Ended]:
    """An undisturbed run of two ranks, under torchrun itself."""
    run = tmp_path_factory.mktemp("two") / "run"
    return run, under([*TORCHRUN, "2"], words(run, pictures, STEPS, "--json"))


def test_two_ranks_have_the_numbers_of_one(alone, two):
    """Five rows on two ranks, and a last batch of one row, of which the second has none."""
    run, ended = two
    assert ended.code == 0, ended.err
    assert json.loads(ended.out)["step"] == STEPS  # rank 0 alone prints the result
    assert 0 < apart(run, alone) < RELATIVE
    assert bits(run) != bits(alone)  # the sums have another order
    assert read_json(run / "environment.json")["world"] == 2
    log = (run / "rank-1.log").read_text()
    assert "rank 1 of 2" in log and "begins after step 0" in log


def test_a_script_trains_twice_in_its_ranks(pictures, tmp_path):
    """The ranks are connected once."""
    script = tmp_path / "twice.py"
    script.write_text(
        "import diptych\n"
        f"settings = dict(text.split('=', 1) for text in {SETTINGS!r})\n"
        f"settings |= {{'data.source': 'folder:{pictures}', 'train.steps': 2}}\n"
        "values = {key: __import__('yaml').safe_load(str(v)) for key, v in settings.items()}\n"
        "for seed in (0, 1):\n"
        f"    diptych.train('tiny', f'{tmp_path}/{{seed}}', set=values | {{'seed': seed}},\n"
        "                  device='cpu', progress=False)\n"
    )
    done = subprocess.run(
        [*TORCHRUN, "2", str(script)],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert bits(tmp_path / "0") != bits(tmp_path / "1")


def test_micro_batches_keyed_noise_and_validation_are_those_of_one(panels, pictures, tmp_path):
    """The last batch has four rows, and a rank's micro-batches one row each."""
    config = settings(pictures, STEPS, *MORE)
    panels["torch"].call(panel_jobs.run, "torch", config, tmp_path / "one")
    ended = launch(2, words(tmp_path / "two", pictures, STEPS, *changed(*MORE)))
    assert [each.code for each in ended] == [0, 0], ended
    assert 0 < apart(tmp_path / "two", tmp_path / "one") < RELATIVE
    losses = validated(tmp_path / "one")
    assert len(losses) == STEPS / 2
    assert validated(tmp_path / "two") == pytest.approx(losses, rel=RELATIVE)


def test_a_dead_rank_ends_all_and_the_rest_is_that_of_the_undisturbed_run(two, pictures, tmp_path):
    """Kill -9 of rank 1, then SIGTERM to rank 1 of the resumed run, then the last step: same bits.

    The dead rank is found by the other within its next sum; the signal stops both after one step.
    """
    run = tmp_path / "run"
    first, second = launch(2, words(run, pictures, STEPS), "killed:5:1")
    assert second.code == -9 and first.code == 1
    [line] = [text for text in first.err.splitlines() if "another rank has ended" in text]
    assert line.startswith("diptych: rank 0 of 2") and "--resume" in line
    assert "Traceback" not in first.err
    assert not (run / ".lock").exists()

    stopped = under([*TORCHRUN, "2"], words(run, pictures, STEPS, "--resume"), "signalled:5:1")
    assert stopped.code != 0
    said = [text for text in stopped.err.splitlines() if text.startswith("diptych: stopped")]
    assert len(said) == 1 and "stopped at step 5 of 6, saved" in said[0]
    assert checkpoint.latest(run).name == "step-00000005"

    ended = launch(2, words(run, pictures, STEPS, "--resume"))
    assert [each.code for each in ended] == [0, 0], ended
    assert bits(run) == bits(two[0])
    assert (numbers(run) == numbers(two[0])).all()


def test_a_run_goes_on_with_fewer_ranks_and_says_so(panels, alone, pictures, tmp_path):
    """3, 2 and 1 ranks: equal up to the order of sums, and each change is told."""
    run = tmp_path / "run"
    ended = launch(3, words(run, pictures, 2))
    assert [each.code for each in ended] == [0, 0, 0], ended
    ended = launch(2, words(run, pictures, 4, "--resume"))
    assert [each.code for each in ended] == [0, 0], ended
    assert "world 3 before, now 2" in ended[0].err and ended[1].err == ""
    config = settings(pictures, STEPS)
    panels["torch"].call(panel_jobs.run, "torch", config, run, resume=True)
    assert apart(run, alone) < RELATIVE
    starts = read_json(run / "environment.json")["starts"]
    assert [start["world"] for start in starts] == [3, 2, 1]


def test_planted_faults_are_found(alone, pictures, tmp_path):
    """A mean of the ranks' means is no rounding; a rank with other weights ends all, unsaved."""
    run = tmp_path / "run"
    ended = launch(2, words(run, pictures, STEPS), "mean_of_means:0:-1", "other_weights:4:1")
    assert [each.code for each in ended] == [2, 2]
    [line] = ended[0].err.strip().splitlines()[-1:]
    assert "rank 1 has other weights after step 4 than rank 0" in line
    assert ended[1].err == "" and "other weights" in (run / "rank-1.log").read_text()
    assert not checkpoint.all_checkpoints(run)
    assert apart(run, alone) > 1000 * RELATIVE


def test_what_rank_0_does_alone_fails_on_all(pictures, tmp_path):
    run, grids = tmp_path / "run", changed("train.grid_every=2")
    ended = launch(2, words(run, pictures, STEPS, *grids), "no_grid:0:0")
    assert [each.code for each in ended] == [1, 1]
    assert (
        ended[0].err.strip().splitlines()[-1].startswith("diptych: step 2: no space for the grid")
    )
    log = (run / "rank-1.log").read_text()
    assert "step 2: no space for the grid" in log and "another rank" not in log


def test_ranks_draw_the_folder_of_one_process(two, tmp_path):
    """`diptych sample` under torchrun: each rank is a part, and the last completes the folder."""

    def command(out: Path) -> list[str]:
        words = ["sample", str(two[0]), "--num", "10", "--batch", "3", "--steps", "2", "--quiet"]
        return [*words, "--device", "cpu", "--out", str(out)]

    # torchrun takes --num for an abbreviation of its own options, unless `--` comes before.
    ended = under([*TORCHRUN, "2", "-m", "--"], command(tmp_path / "two"))
    assert ended.code == 0, ended.err
    [single] = launch(1, command(tmp_path / "one"))
    assert single.code == 0, single.err
    files = [
        {
            path.name: path.read_bytes()
            for path in (tmp_path / name).iterdir()
            if path.suffix != ".json"
        }
        for name in ("one", "two")
    ]
    assert len(files[0]) > 10 and files[0] == files[1]
    manifests = [read_json(tmp_path / name / "manifest.json") for name in ("one", "two")]
    assert manifests[0].keys() == manifests[1].keys() and manifests[1]["complete"]
