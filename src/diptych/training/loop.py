"""The training loop, shared by both backends: batch -> learner -> rows -> checkpoint.

A run is a folder. Whatever stops it (Ctrl-C, SIGTERM, kill -9, a full disk), `--resume` continues
from the last checkpoint. Because a batch is a function of its step, the final weights equal those
of an uninterrupted run, bit for bit: on a CPU, and on a GPU with `--deterministic`.
"""

from __future__ import annotations

import hashlib
import logging
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tqdm import tqdm

from diptych import backends
from diptych.backends.protocol import Batch, State
from diptych.config.load import Config
from diptych.data import Dataset, load_configured
from diptych.data.sources.named import absolute
from diptych.diffusion.classes import check_labels
from diptych.diffusion.schedule import make_schedule
from diptych.errors import Interrupted, StopTraining
from diptych.figures.grids import grid, save_png
from diptych.files import check_folder, claim_folder, hold
from diptych.network.own import OwnPlan
from diptych.ranks import of_environment
from diptych.runs import checkpoint
from diptych.runs.folder import (
    check_data,
    check_resumable,
    is_deterministic,
    warn_of_changes,
)
from diptych.sampling.engine import Engine
from diptych.sampling.sampler import make_sampler
from diptych.training.callbacks import Callback, Callbacks, Row
from diptych.training.callbacks.journal import read_rows
from diptych.training.callbacks.usual import Recording
from diptych.training.group import STOP, Group
from diptych.training.prefetch import Prefetch
from diptych.training.rate import learning_rate, warn_of_warmup
from diptych.training.rows import Rows
from diptych.training.signals import Signals
from diptych.training.start import (
    Parts,
    check_alike,
    follow_run,
    make_parts,
    open_run,
    restore,
    warn_of_slow_settings,
)
from diptych.training.writer import Writer

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Result:
    """The outcome of a call of `train`.

    Attributes:
        run, checkpoint: the run's folder, and its newest checkpoint's folder.
        step: the last step, 1-based.
        loss: the loss of the last step; nan if there was no step.
    """

    run: Path
    checkpoint: Path
    step: int
    loss: float


def train(
    config: Config,
    run: Path,
    backend_name: str,
    *,
    device: str = "auto",
    deterministic: bool = False,
    resume: bool = False,
    overwrite: bool = False,
    allow_changed_data: bool = False,
    data_dir: Path | None = None,
    progress: bool = True,
    recording: Recording | None = None,
    callbacks: Sequence[Callable[[Row], object] | Callback] = (),
    dataset: Dataset | None = None,
    network: Callable[[], Any] | None = None,
) -> Result:
    """Train, or continue training, until the config's last step.

    Args:
        config: all settings; with `resume` it may only differ from the run's in durations and in
            the location of the same images.
        run: the run folder.
        backend_name: `torch` or `jittor`.
        device: `auto`, `cpu`, `cuda` or `cuda:INDEX`.
        deterministic: the same bits in every run on the device; see `backends.load`. A run that was
            started so is resumed so.
        resume: continue the run in the folder; start it if the folder is empty.
        overwrite: replace the folder's contents.
        allow_changed_data: resume although the images differ from those of the earlier steps.
        data_dir: the folder that holds the data; no other place is searched.
        progress: show a bar on stderr.
        recording: the records to write in addition to the metrics; None: the default ones.
        callbacks: functions of a row, or callbacks; called after the records are written.
        dataset: the images, in place of the config's source.
        network: makes the user's own network, in place of the config's.

    Raises:
        UserError: settings, data or folder are unusable, another process uses the folder, or a
            loss is not finite. If a start is refused, nothing in the folder has changed.
        MachineError: the disk is full, or the machine has another fault.
        Interrupted: Ctrl-C or SIGTERM arrived; the run was saved first.
        Followed: on another rank than 0, in place of these.

    With several ranks (`diptych.ranks`) each calls this function alike. Rank 0 owns the folder, and
    has the callbacks; `device="auto"` gives each rank of a machine its own GPU.
    """
    backends.check_panel(backend_name, "training")
    ranks = of_environment()
    arithmetic = config.train.precision, is_deterministic(run, deterministic, resume)
    joined = None
    if not ranks.alone:
        joined = backends.load(backend_name, device, *arithmetic, ranks=ranks)
    group = Group(ranks, joined)
    recording = recording or Recording()
    with group.led(), ExitStack() as held:
        with group.together():
            if ranks.first:
                check_folder(run, resume=resume, overwrite=overwrite)
                recording.check()
            if dataset is None:
                source = absolute(config.data.source)
                data = config.data.model_copy(update={"source": source})
                config = config.model_copy(update={"data": data})
            if ranks.first and resume and (run / "config.yaml").is_file():
                check_resumable(config, run, backend_name)
            if dataset is None:
                dataset = load_configured(config.data, data_dir, settable=True)
            check_labels(dataset.labels, config.model.num_classes, dataset.name)
            backend = joined or backends.load(backend_name, device, *arithmetic)
            parts = make_parts(config, backend, dataset, network, ranks)
        check_alike(parts, group)
        saved, looking = 0, Callbacks([])
        with group.together():
            if ranks.first:
                warn_of_slow_settings(parts)
                warn_of_warmup(config.train, parts.last)
                held.enter_context(hold(run))
                saved = 0 if overwrite else restore(run, parts)
                if saved:
                    check_data(run, saved, dataset, config, allow_changed_data)
                    warn_of_changes(run, backend)
                claim_folder(run, resume=resume, overwrite=overwrite)
                looking = open_run(run, saved, parts, recording, callbacks, ranks)
        first = group.of_first(saved)
        with group.together():
            if not ranks.first:
                saved = follow_run(run, first, parts, group)
        bar = tqdm(
            total=parts.last,
            initial=saved,
            unit="step",
            disable=not (progress and ranks.first),
            desc=f"{backend.name} {run.name}",
            mininterval=0.5 if sys.stderr.isatty() else 30,
        )
        return Training(run, parts, group, looking, bar, saved).go()


@dataclass
class Training:
    """One call of `train`: the loop, and the state shared by its steps.

    Attributes:
        saved: the step of the newest checkpoint; 0: none.
        stopping: a callback asked to stop.
    """

    run: Path
    parts: Parts
    group: Group
    callbacks: Callbacks
    bar: tqdm[Any]
    saved: int
    writer: Writer = field(default_factory=Writer, init=False)
    rows: Rows = field(init=False)
    stopping: bool = field(default=False, init=False)
    validated: str = field(default="", init=False)  # the last validation loss, for the bar

    def __post_init__(self) -> None:
        self.rows = Rows(self.run, self.parts.backend.scalar, self.callbacks, self.writer.wait)

    def go(self) -> Result:
        """Run all remaining steps; save at the end and on interruption."""
        step, last = self.saved, self.parts.last
        ranks, batches = self.group.ranks, self.parts.batches
        self.check_weights(step, self.parts.learner.state())
        with (
            Prefetch(lambda step: batches.batch(step, ranks), self.saved + 1, last + 1) as ahead,
            Signals(self.group.ranks.first) as signals,
            self.writer,
            self.bar,
            self.looking_on(),
        ):
            if self.group.of_first(self.grid_due(step) and self.lacks_grid(step)):
                self.draw_grid(step)  # killed between the checkpoint and its grid
            stop = self.asked_to_stop(signals)
            while step < last and not stop:
                step += 1
                self.step(ahead.get(step), ahead.last_wait)
                stop = self.asked_to_stop(signals)
            self.save(step, wait=True)
            if stop > STOP:
                raise Interrupted(f"stopped at step {step} of {last}, saved", stop)
            if self.group.of_first(not stop and self.lacks_grid(step)):
                self.draw_grid(step)
        self.group.wait()
        rows = read_rows(self.run / "metrics.jsonl")
        loss = rows[-1]["loss"] if rows else float("nan")
        return Result(self.run, checkpoint.latest(self.run), step, loss)

    def asked_to_stop(self, signals: Signals) -> int:
        """The signal that some rank received, or `STOP` for a callback or a checkpoint that could
        not be written; 0: go on."""
        return self.group.most(signals.received or STOP * (self.stopping or self.writer.failed))

    @contextmanager
    def looking_on(self) -> Iterator[None]:
        """Tell the callbacks of the start and of the end."""
        try:
            self.callbacks.start(self.saved)
            yield
        except BaseException as error:
            self.callbacks.close(error)
            raise
        self.callbacks.close(StopTraining("a callback asked for it") if self.stopping else None)

    def step(self, batch: Batch, data_s: float) -> None:
        """Do one optimizer step, its row, and any checkpoint or grid due after it."""
        settings, backend = self.parts.config.train, self.parts.backend
        due = batch.step % settings.log_every == 0 or batch.step == self.parts.last
        # A CPU step is timed directly; a GPU step only if both ends wait for the device.
        synced = due or backend.device == "cpu"
        if synced:
            backend.synchronize()
        self.callbacks.begin()
        began = time.perf_counter()
        lr = learning_rate(settings, self.parts.last, batch.step)
        loss, norm = self.parts.learner.step(batch, lr)
        if synced:
            backend.synchronize()
        compute_s = time.perf_counter() - began
        row = {
            "step": batch.step,
            "epoch": batch.epoch,
            "loss": loss,
            "lr": lr,
            "grad_norm": norm,
            "data_s": data_s,
            "compute_s": compute_s,
            "synced": synced,
            "memory_mb": backend.memory_mb(),
            **self.callbacks.end(batch.step, data_s + compute_s),
        }
        self.rows.add(row)
        self.bar.update()
        if self.parts.validation.due(batch.step):
            with self.callbacks.event("validation", batch.step):
                self.validate(row)
        if due:
            with self.callbacks.event("flush", batch.step):
                self.flush()
            self.bar.set_postfix_str(f"loss {row['loss']:.4f}{self.validated}")
        with self.stoppable():
            self.callbacks.stepped(self.parts.learner, batch)
        # Also after the last step: a signal while its grid is drawn must not lose the run.
        if batch.step % settings.checkpoint_every == 0 or batch.step == self.parts.last:
            with self.callbacks.event("checkpoint", batch.step):
                self.save(batch.step)
        if self.grid_due(batch.step):
            with self.callbacks.event("grid", batch.step):
                self.draw_grid(batch.step)

    @contextmanager
    def stoppable(self) -> Iterator[None]:
        """Calls of the callbacks, any of which may ask to stop."""
        try:
            yield
        except StopTraining:
            self.stopping = True

    def flush(self) -> None:
        """Pass the waiting rows to the callbacks."""
        with self.group.together(), self.stoppable():
            self.rows.flush()

    def save(self, step: int, wait: bool = False) -> None:
        """Save a checkpoint, rows first: it never outruns its journal or holds a diverged run.

        Args:
            wait: until it is written; otherwise a thread writes it while the next steps compute.

        Raises:
            MachineError, UserError: this checkpoint, or the one before, was not written.
        """
        self.flush()
        with self.group.together():
            self.writer.wait()
        if self.group.of_first(step == self.saved and any(checkpoint.all_checkpoints(self.run))):
            return
        state = self.parts.learner.state()
        self.check_weights(step, state)
        parts = self.parts
        facts = {"backend": parts.backend.name, "config_identity": parts.config.identity()}
        if isinstance(parts.plan, OwnPlan):
            facts["network"] = checkpoint.OWN_NETWORK
        with self.group.together():
            if self.group.ranks.first:
                keep = parts.config.train.keep_checkpoints
                self.writer.begin(checkpoint.save, self.run, state, facts, keep)
                if wait:
                    self.writer.wait()
        self.saved = step

    def check_weights(self, step: int, state: State) -> None:
        """Refuse to go on, or to save, if a rank's weights, averages or moments are not rank 0's.

        Raises:
            UserError: on all ranks.
        """
        if self.group.ranks.alone:
            return
        hashes = [checkpoint.weights_sha256(getattr(state, group)) for group in checkpoint.GROUPS]
        self.group.same(
            f"weights after step {step}",
            hashlib.sha256("".join(hashes).encode()).hexdigest(),
            "nothing was saved; resume from the last checkpoint with --resume. (A network of one's "
            "own must not average over its batch, as BatchNorm does.)",
        )

    def validate(self, row: Row) -> None:
        """Add the loss of the held-out pictures, by the EMA weights, to the step's row."""
        with self.group.together():
            if self.group.ranks.first:
                network = self.parts.averaged()
                row["validation_loss"] = self.parts.validation.loss(self.parts.backend, network)
                self.validated = f", validation {row['validation_loss']:.4f}"

    def grid_due(self, step: int) -> bool:
        """True if a grid is due after this step."""
        every = self.parts.config.train.grid_every
        return bool(step and every and step % every == 0)

    def _grid_path(self, step: int) -> Path:
        return self.run / "grids" / f"step-{step:08d}.png"

    def lacks_grid(self, step: int) -> bool:
        """True if the grid of this step is not there."""
        return not self._grid_path(step).exists()

    def draw_grid(self, step: int) -> None:
        """Draw 64 images: EMA weights, 20 DDIM steps, always the same noise; a class a column."""
        with self.group.together():
            if self.group.ranks.first:
                self._draw_grid(step)

    def _draw_grid(self, step: int) -> None:
        parts = self.parts
        schedule = make_schedule(parts.config.diffusion)
        engine = Engine(
            parts.backend, parts.averaged(), parts.plan, schedule, parts.batches.preprocess
        )
        if engine.ends_in_noise and parts.plan.objective == "eps":
            return  # an eps network cannot start where nothing of the image is left
        sampler = make_sampler(
            "ddim",
            min(20, schedule.timesteps),
            timesteps=schedule.timesteps,
            num_classes=parts.plan.num_classes,
            ends_in_noise=engine.ends_in_noise,
        )
        images = engine.pixels(engine.draw(sampler, range(64), parts.config.seed))
        picture = grid(images, sampler.columns)
        save_png(self._grid_path(step), picture)
        with self.stoppable():
            self.callbacks.image("samples", picture, step)
