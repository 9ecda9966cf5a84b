"""A training as one of several ranks, with faults planted in one of them.

    python -m rank_jobs FAULT:STEP:RANK ... diptych WORDS        RANK -1: every rank

`launch` starts the ranks of a training side by side, as a launcher would.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from diptych import cli
from diptych.cli import main
from diptych.config.load import Config, load_config
from diptych.errors import MachineError
from diptych.files import read_json
from diptych.ranks import Ranks, of_environment
from diptych.runs import checkpoint
from diptych.training.batches import Batches
from diptych.training.callbacks.journal import read_rows
from diptych.training.loop import Training
from waiting import until

# A network as small as they come, with dropout. 11 images in batches of 5 leave a last batch of
# one, of which a rank of two or three has no row.
SETTINGS = (
    "data.image_size=8", "data.channels=1", "model.ch=8", "model.norm_groups=4",
    "model.ch_mult=[1]", "model.num_res_blocks=1", "model.attn_resolutions=[]",
    "model.dropout=0.2", "train.batch_size=5", "train.checkpoint_every=4", "train.log_every=2",
    "train.grid_every=0", "data.random_flip=true", "train.warmup_steps=2",
)  # fmt: skip

# All that a step can have beside them: noise of the device, micro-batches, held-out pictures.
MORE = (
    "train.noise=keyed", "train.accumulate=2", "data.held_out=2", "train.validate_every=2",
)  # fmt: skip


@dataclass(frozen=True)
class Ended:
    """The end of one rank: its exit code and what it said on stdout and on stderr."""

    code: int
    out: str
    err: str


def words(run: Path, pictures: Path, steps: int, *more: str, backend: str = "torch") -> list[str]:
    """The words of `diptych` that train the small network on a folder of pictures."""
    return [
        "train", "tiny", "--out", str(run), "--backend", backend, "--device", "cpu", "--quiet",
        "--data-source", f"folder:{pictures}", "--steps", str(steps), *changed(*SETTINGS), *more,
    ]  # fmt: skip


def changed(*changes: str) -> list[str]:
    """More words: settings that differ."""
    return [word for change in changes for word in ("--set", change)]


def settings(pictures: Path, steps: int, *changes: str) -> Config:
    """The config of the same training."""
    source = f"data.source=folder:{pictures}"
    return load_config("tiny", [*SETTINGS, source, f"train.steps={steps}", *changes])


def environment() -> dict[str, str]:
    """The environment in which this module is found, each process on one core."""
    paths = [str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}


def launch(world: int, command: Sequence[str], *faults: str, seconds: float = 600) -> list[Ended]:
    """Run the ranks of PyTorch directly, without a launcher that would end some for others."""
    from benchmarks.ports import free_port

    shared = {"WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    started = [
        subprocess.Popen(
            [sys.executable, "-m", "rank_jobs", *faults, "diptych", *command],
            env={**environment(), **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for rank in range(world)
    ]  # fmt: skip
    try:
        said = [process.communicate(timeout=seconds) for process in started]
    finally:
        for process in started:
            process.kill()
    return [Ended(p.returncode, *texts) for p, texts in zip(started, said, strict=True)]


def under(launcher: Sequence[str], command: Sequence[str], *faults: str) -> Ended:
    """Run the ranks under a launcher's own command."""
    module = [] if launcher[-1] == "--" else ["-m"]
    done = subprocess.run(
        [*launcher, *module, "rank_jobs", *faults, "diptych", *command],
        env=environment(), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    return Ended(done.returncode, done.stdout, done.stderr)


def mpirun(world: int, command: Sequence[str], *faults: str) -> Ended:
    """Run the ranks of Jittor under OpenMPI, more of them than cores if need be."""
    launcher = [
        "mpirun", "--allow-run-as-root", "--oversubscribe", "--bind-to", "none", "-np", str(world),
        # Shared memory between processes of a container may be forbidden; sockets never are.
        "--mca", "btl_vader_single_copy_mechanism", "none", sys.executable,
    ]  # fmt: skip
    return under(launcher, command, *faults)


def numbers(run: Path) -> np.ndarray:
    """Loss and total norm of each step."""
    rows = read_rows(run / "metrics.jsonl")
    assert [row["step"] for row in rows] == list(range(1, len(rows) + 1))
    return np.array([[row["loss"], row["grad_norm"]] for row in rows])


def apart(run: Path, other: Path) -> float:
    """The largest relative difference of losses and norms over the steps of both."""
    a, b = numbers(run), numbers(other)
    least = min(len(a), len(b))
    return float(np.abs(a[:least] / b[:least] - 1).max())


def validated(run: Path) -> list[float]:
    """The validation losses."""
    rows = read_rows(run / "metrics.jsonl")
    return [row["validation_loss"] for row in rows if "validation_loss" in row]


def bits(run: Path) -> dict[str, str]:
    """The hashes of the newest checkpoint's files."""
    return dict(read_json(checkpoint.latest(run) / "manifest.json")["files"])


def _at(step: int, do: Callable[[Training], None]) -> None:
    """Do something in this rank when a step begins."""
    original = Training.step

    def changed(self: Training, batch: Any, data_s: float) -> None:
        if batch.step == step:
            do(self)
        original(self, batch, data_s)

    Training.step = changed  # type: ignore[method-assign]


def other_weights(step: int) -> None:
    """One weight of this rank moves by 1e-6."""

    def move(training: Training) -> None:
        state = training.parts.learner.state()
        state.raw[min(state.raw)].flat[0] += 1e-6
        training.parts.learner.restore(state)

    _at(step, move)


def killed(step: int) -> None:
    """This rank is gone, without a word."""
    _at(step, lambda _: os.kill(os.getpid(), signal.SIGKILL))


def signalled(step: int) -> None:
    """This rank alone gets SIGTERM."""
    _at(step, lambda _: os.kill(os.getpid(), signal.SIGTERM))


def no_grid(_: int) -> None:
    """This rank cannot write a grid."""

    def fail(self: Training, step: int) -> None:
        raise MachineError(f"step {step}: no space for the grid")

    Training._draw_grid = fail  # type: ignore[method-assign]


def held(step: int) -> None:
    """This rank waits at a step until it is told to stop."""

    def wait(_: Training) -> None:
        noting: Any = signal.getsignal(signal.SIGTERM)
        until(lambda: noting.__self__.received)

    _at(step, wait)


def slow_word(_: int) -> None:
    """This rank takes its time to say why it fails."""
    original = cli.fail

    def fail(message: str, code: int) -> NoReturn:
        time.sleep(3)
        original(message, code)

    cli.fail = fail


def mean_of_means(_: int) -> None:
    """Each rank takes the mean over its own rows, and the world the mean over its ranks."""
    original = Batches.batch

    def batch(self: Batches, step: int, ranks: Ranks) -> Any:
        found = original(self, step, ranks)
        return replace(found, part=(found.rows.start, len(found.x0) * ranks.world))

    Batches.batch = batch  # type: ignore[method-assign,assignment]


if __name__ == "__main__":
    divide = sys.argv.index("diptych")
    for fault in sys.argv[1:divide]:
        name, at, where = fault.split(":")
        if int(where) in (-1, of_environment().rank):
            globals()[name](int(at))
    sys.argv[1:] = sys.argv[divide + 1 :]
    main()
