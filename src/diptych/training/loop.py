"""The one training loop, for both panels: batch -> learner -> rows -> checkpoint.

A run is a folder. Whatever stops it (Ctrl-C, SIGTERM, kill -9, a full disk), `--resume` goes on
from the last checkpoint, and because a batch is a function of its step, the weights that come out
are those of an uninterrupted run, bit for bit.
"""

from __future__ import annotations

import logging
import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tqdm import tqdm

from diptych import backends
from diptych.backends.protocol import Backend, Batch, Learner
from diptych.config.load import Config, TrainConfig, to_yaml
from diptych.data import Dataset, load_configured
from diptych.data.sources.named import absolute
from diptych.diffusion.classes import check_labels
from diptych.diffusion.schedule import make_schedule
from diptych.errors import Interrupted, StopTraining, UserError
from diptych.figures.grids import grid, save_png
from diptych.files import check_folder, claim_folder, hold, write_text
from diptych.network.own import AnyPlan, OwnPlan
from diptych.network.parameters import initial_weights
from diptych.network.plan import make_plan
from diptych.runs import checkpoint
from diptych.runs.folder import check_data, check_resumable, record_start, warn_of_changes
from diptych.sampling.engine import Engine
from diptych.sampling.sampler import make_sampler
from diptych.training.batches import Batches
from diptych.training.callbacks import Callback, Callbacks, Function, Row
from diptych.training.callbacks.journal import read_rows
from diptych.training.callbacks.usual import Recording, usual
from diptych.training.prefetch import Prefetch
from diptych.training.rows import Rows
from diptych.training.signals import Signals

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Result:
    """How a call of `train` ended.

    Attributes:
        run, checkpoint: the run's folder, and that of its newest checkpoint.
        step: the last step, 1-based.
        loss: of the last step; nan where none was made.
    """

    run: Path
    checkpoint: Path
    step: int
    loss: float


def learning_rate(settings: TrainConfig, last: int, step: int) -> float:
    """The rate of a 1-based step: linear warm-up, then the decay down to lr * lr_final.

        warm-up   lr * min(1, step / warmup_steps)
        decay     lr * (lr_final + (1 - lr_final) * f(p)),  p = share of the steps after the warm-up
                  linear f = 1 - p;  cosine f = (1 + cos(pi p)) / 2

    A function of the step alone, so that a resumed run has the rates of one that never stopped.

    Args:
        last: the run's last step, where p is 1; without a decay it does not matter.

    Source of the cosine: Loshchilov and Hutter 2017, arXiv:1608.03983, equation 5, no restarts.
    """
    warmup = settings.warmup_steps
    rate = settings.lr * min(1.0, step / warmup) if warmup else settings.lr
    if settings.lr_decay == "none" or step <= warmup:
        return rate
    p = min(1.0, (step - warmup) / max(1, last - warmup))
    share = 1 - p if settings.lr_decay == "linear" else (1 + math.cos(math.pi * p)) / 2
    return settings.lr * (settings.lr_final + (1 - settings.lr_final) * share)


def last_step(settings: TrainConfig, steps_per_epoch: int) -> int:
    """The number of a run's steps: `steps`, or else those of `epochs`."""
    return settings.steps or settings.epochs * steps_per_epoch


def check_decay(settings: TrainConfig, last: int) -> None:
    """Raises UserError where a decay is asked for that would never begin."""
    if settings.lr_decay != "none" and settings.warmup_steps >= last:
        raise UserError(
            f"train.lr_decay={settings.lr_decay} begins after train.warmup_steps="
            f"{settings.warmup_steps}, but the run has {last} steps; shorten the warm-up, or train "
            "longer"
        )


def train(
    config: Config,
    run: Path,
    backend_name: str,
    *,
    device: str = "auto",
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
    """Train, or go on training, until the config's last step.

    Args:
        config: all settings; with `resume` it may differ from the run's only in durations, and in
            the place of the same pictures.
        run: the run folder.
        backend_name: `torch` or `jittor`.
        device: `auto`, `cpu`, `cuda` or `cuda:INDEX`.
        resume: continue the run that is in the folder; starts it where the folder is empty.
        overwrite: replace what is in the folder.
        allow_changed_data: resume although the images are not those of the steps before.
        data_dir: where to look for the data, before all other places.
        progress: show a bar on stderr.
        recording: what is recorded in addition to the metrics; None: the usual.
        callbacks: functions of a row, or callbacks, asked after the records are written.
        dataset: the images, in place of those that the config names.
        network: makes a network of the user's own, in place of the config's.

    Raises:
        UserError: bad settings, data or folder, another process at work in the folder, or a loss
            that is not finite. Nothing in the folder has changed where a start is refused.
        MachineError: a full disk, or another fault of the machine.
        Interrupted: Ctrl-C or SIGTERM, after saving.
    """
    check_folder(run, resume=resume, overwrite=overwrite)
    recording = recording or Recording()
    recording.check()
    source = absolute(config.data.source)
    config = config.model_copy(update={"data": config.data.model_copy(update={"source": source})})
    if resume and (run / "config.yaml").is_file():
        check_resumable(config, run, backend_name)
    if dataset is None:
        dataset = load_configured(config.data, data_dir, settable=True)
    check_labels(dataset.labels, config.model.num_classes, dataset.name)
    backend = backends.load(backend_name, device)
    plan: AnyPlan = make_plan(config)
    if network is not None:
        sizes = config.data.channels, config.data.image_size, config.model.num_classes
        plan = OwnPlan(network, *sizes, config.diffusion.objective, config.seed)
    batches = Batches(config, plan, dataset.images, dataset.labels)
    last = last_step(config.train, batches.steps_per_epoch)
    check_decay(config.train, last)
    weights = initial_weights(plan, config.seed) if not isinstance(plan, OwnPlan) else None
    learner = backend.learner(plan, weights, config.train, config.seed)
    with hold(run):
        saved = 0 if overwrite else restore(run, plan, config, learner, last)
        if saved:
            check_data(run, saved, dataset, config, allow_changed_data)
            warn_of_changes(run, backend)
        claim_folder(run, resume=resume, overwrite=overwrite)
        checkpoint.set_aside(run, saved)
        own = [each if isinstance(each, Callback) else Function(each) for each in callbacks]
        looking = usual(recording, run, backend, config, plan, own)
        write_text(run / "config.yaml", to_yaml(config))
        record_start(run, saved, config, backend, dataset)
        bar = tqdm(
            total=last,
            initial=saved,
            unit="step",
            disable=not progress,
            desc=f"{backend.name} {run.name}",
            mininterval=0.5 if sys.stderr.isatty() else 30,
        )
        rows = Rows(run, backend.scalar, looking)
        training = Training(
            config, run, backend, plan, batches, learner, looking, rows, bar, last, saved
        )
        return training.go()


def restore(run: Path, plan: AnyPlan, config: Config, learner: Learner, last: int) -> int:
    """Load the newest checkpoint that is whole, if there is one; gives its step.

    Raises:
        UserError: it is of another config, beyond the last step, or none is whole.
    """
    known = None if isinstance(plan, OwnPlan) else plan
    state, faults = checkpoint.newest_state(run, known, config)
    if state is None:
        return 0
    if state.step > last:
        raise UserError(
            f"{run}: is at step {state.step} already; ask for more with --steps or --epochs"
        )
    learner.restore(state)
    for fault in faults:
        log.warning("%s; going on from step %d", fault, state.step)
    return state.step


@dataclass
class Training:
    """One call of `train`: the loop, and what its steps share.

    Attributes:
        last: the last step, 1-based.
        saved: the step of the newest checkpoint; 0: none.
        stopping: whether a callback asked to stop.
    """

    config: Config
    run: Path
    backend: Backend
    plan: AnyPlan
    batches: Batches
    learner: Learner
    callbacks: Callbacks
    rows: Rows
    bar: tqdm[Any]
    last: int
    saved: int
    stopping: bool = field(default=False, init=False)

    def go(self) -> Result:
        """All steps that remain; saves at the end and where it is interrupted."""
        step = self.saved
        with (
            Prefetch(self.batches.batch, self.saved + 1, self.last + 1) as ahead,
            Signals() as signals,
            self.bar,
            self.looking_on(),
        ):
            if self.grid_due(step) and not self._grid_path(step).exists():
                self.draw_grid(step)  # killed between the checkpoint and its grid
            while step < self.last and not (signals.received or self.stopping):
                step += 1
                self.step(ahead.get(step), ahead.last_wait)
            if step > self.saved or not checkpoint.all_checkpoints(self.run):
                self.save(step)
            if signals.received:
                raise Interrupted(f"stopped at step {step} of {self.last}, saved", signals.received)
            if not (self.stopping or self._grid_path(step).exists()):
                self.draw_grid(step)
        rows = read_rows(self.run / "metrics.jsonl")
        loss = rows[-1]["loss"] if rows else float("nan")
        return Result(self.run, checkpoint.latest(self.run), step, loss)

    @contextmanager
    def looking_on(self) -> Iterator[None]:
        """The callbacks, told of the start and of the end."""
        self.callbacks.start(self.saved)
        try:
            yield
        except BaseException as error:
            self.callbacks.close(error)
            raise
        self.callbacks.close(StopTraining("a callback asked for it") if self.stopping else None)

    def step(self, batch: Batch, data_s: float) -> None:
        """One optimizer step, its row, and what is due after it."""
        settings = self.config.train
        due = batch.step % settings.log_every == 0 or batch.step == self.last
        # A CPU step is timed as it is; a GPU's only where both ends wait for the device.
        synced = due or self.backend.device == "cpu"
        if synced:
            self.backend.synchronize()
        self.callbacks.begin()
        began = time.perf_counter()
        lr = learning_rate(settings, self.last, batch.step)
        loss, norm = self.learner.step(batch, lr)
        if synced:
            self.backend.synchronize()
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
            "memory_mb": self.backend.memory_mb(),
            **self.callbacks.end(batch.step, data_s + compute_s),
        }
        self.rows.add(row)
        self.bar.update()
        if due:
            with self.callbacks.event("flush", batch.step):
                self.flush()
            self.bar.set_postfix_str(f"loss {row['loss']:.4f}")
        self.callbacks.stepped(self.learner, batch)
        if batch.step % settings.checkpoint_every == 0:
            with self.callbacks.event("checkpoint", batch.step):
                self.save(batch.step)
        if self.grid_due(batch.step):
            with self.callbacks.event("grid", batch.step):
                self.draw_grid(batch.step)

    def flush(self) -> None:
        """Hand the waiting rows on; a callback may ask to stop."""
        try:
            self.rows.flush()
        except StopTraining:
            self.stopping = True

    def save(self, step: int) -> None:
        """Rows first, so that a checkpoint never outruns its journal or holds a lost run."""
        self.flush()
        if step == self.saved and checkpoint.all_checkpoints(self.run):
            return
        facts = {"backend": self.backend.name, "config_identity": self.config.identity()}
        if isinstance(self.plan, OwnPlan):
            facts["network"] = checkpoint.OWN_NETWORK
        checkpoint.save(self.run, self.learner.state(), facts, self.config.train.keep_checkpoints)
        self.saved = step

    def grid_due(self, step: int) -> bool:
        """Whether a grid is drawn after this step."""
        every = self.config.train.grid_every
        return bool(step and every and step % every == 0)

    def _grid_path(self, step: int) -> Path:
        return self.run / "grids" / f"step-{step:08d}.png"

    def draw_grid(self, step: int) -> None:
        """64 images from the EMA weights, 20 DDIM steps, the same noise; a class a column."""
        network = self.backend.network(self.plan, self.learner.state().ema)
        schedule = make_schedule(self.config.diffusion)
        engine = Engine(self.backend, network, self.plan, schedule, self.batches.preprocess)
        if engine.ends_in_noise and self.plan.objective == "eps":
            return  # a step cannot start where nothing of the image is left
        sampler = make_sampler(
            "ddim", min(20, schedule.timesteps), timesteps=schedule.timesteps,
            num_classes=self.plan.num_classes, ends_in_noise=engine.ends_in_noise,
        )  # fmt: skip
        images = engine.pixels(engine.draw(sampler, range(64), self.config.seed))
        picture = grid(images, sampler.columns)
        save_png(self._grid_path(step), picture)
        self.callbacks.image("samples", picture, step)
