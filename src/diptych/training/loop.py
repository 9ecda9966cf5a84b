"""The training loop, shared by both backends: batch -> learner -> rows -> checkpoint.

A run is a folder. Whatever stops it (Ctrl-C, SIGTERM, kill -9, a full disk), `--resume` continues
from the last checkpoint. Because a batch is a function of its step, the final weights equal those
of an uninterrupted run, bit for bit. The file holds a training from its start to its end, alone or
as one of several ranks; hence its length.
"""

from __future__ import annotations

import hashlib
import logging
import math
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from diptych import backends
from diptych.backends.protocol import Backend, Batch, Learner
from diptych.config.load import Config, TrainConfig, flatten, to_yaml
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
from diptych.ranks import Ranks, of_environment
from diptych.runs import checkpoint
from diptych.runs.folder import (
    check_data,
    check_resumable,
    is_deterministic,
    record_start,
    warn_of_changes,
)
from diptych.sampling.engine import Engine
from diptych.sampling.memory import check_batch
from diptych.sampling.sampler import make_sampler
from diptych.training.batches import Batches
from diptych.training.callbacks import Callback, Callbacks, Function, Row
from diptych.training.callbacks.journal import read_rows
from diptych.training.callbacks.usual import Recording, usual
from diptych.training.group import STOP, Group
from diptych.training.prefetch import Prefetch
from diptych.training.rows import Rows
from diptych.training.signals import Signals
from diptych.training.validation import Validation
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


def learning_rate(settings: TrainConfig, last: int, step: int) -> float:
    """The learning rate of a 1-based step: linear warm-up, then decay to lr * lr_final.

        warm-up   lr * min(1, step / warmup_steps)
        decay     lr * (lr_final + (1 - lr_final) * f(p)),  p = share of the steps after the warm-up
                  linear f = 1 - p;  cosine f = (1 + cos(pi p)) / 2

    It only depends on the step, so a resumed run has the rates of an uninterrupted one.

    Args:
        last: the run's last step, where p is 1; unused without decay.

    Source of the cosine: Loshchilov and Hutter 2017, arXiv:1608.03983, equation 5, no restarts.
    """
    warmup = settings.warmup_steps
    rate = settings.lr * min(1.0, step / warmup) if warmup else settings.lr
    if settings.lr_decay == "none" or step <= warmup:
        return rate
    p = min(1.0, (step - warmup) / max(1, last - warmup))
    share = 1 - p if settings.lr_decay == "linear" else (1 + math.cos(math.pi * p)) / 2
    return settings.lr * (settings.lr_final + (1 - settings.lr_final) * share)


def warn_of_warmup(settings: TrainConfig, last: int) -> None:
    """Say so if the run ends before its learning rate has risen, and a decay never begins."""
    if settings.lr_decay != "none" and settings.warmup_steps >= last:
        log.warning(
            "train.warmup_steps=%d, but the run has %d steps: the learning rate only rises, to "
            "%.2g of %.2g, and train.lr_decay=%s never begins; shorten the warm-up for a run this "
            "short",
            settings.warmup_steps, last, learning_rate(settings, last, last), settings.lr,
            settings.lr_decay,
        )  # fmt: skip


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
        data_dir: first folder to search for the data.
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
    backend = None
    if not ranks.alone:
        backend = backends.load(backend_name, device, *arithmetic, ranks=ranks)
    group = Group(ranks, backend)
    recording = recording or Recording()
    with group.led(), ExitStack() as held:
        with group.together():
            if ranks.first:
                check_folder(run, resume=resume, overwrite=overwrite)
                recording.check()
            source = absolute(config.data.source)
            data = config.data.model_copy(update={"source": source})
            config = config.model_copy(update={"data": data})
            if ranks.first and resume and (run / "config.yaml").is_file():
                check_resumable(config, run, backend_name)
            if dataset is None:
                dataset = load_configured(config.data, data_dir, settable=True)
            check_labels(dataset.labels, config.model.num_classes, dataset.name)
            backend = backend or backends.load(backend_name, device, *arithmetic)
            plan: AnyPlan = make_plan(config)
            if network is not None:
                sizes = *config.data.shape, config.model.num_classes
                plan = OwnPlan(network, *sizes, config.diffusion.objective, config.seed)
            batches = Batches(config, plan, dataset.images, dataset.labels)
            last = config.train.last_step(batches.steps_per_epoch)
            largest = largest_call(config.train, ranks)
            validation = Validation(config, batches, largest)
            check_batch(
                plan, largest, backend.name, backend.device,
                backend.free_memory, option="train.batch_size, or raise train.accumulate",
                training=True,
            )  # fmt: skip
            weights = None if isinstance(plan, OwnPlan) else initial_weights(plan, config.seed)
            learner = backend.learner(plan, weights, config.train, config.seed)
        if not ranks.alone:
            same = {k: v for k, v in flatten(config).items() if k != "data.source"}
            told = hashlib.sha256(repr((backend_name, last, same)).encode()).hexdigest()
            group.same("settings", told, "give each rank the same command")
            group.same("images", dataset.sha256, "give each machine the same data")
        saved = 0
        looking = Callbacks([])
        with group.together():
            if ranks.first:
                if backend.device != "cpu" and config.train.noise == "host":
                    log.info(
                        "train.noise=host: the host draws noise and masks, and a GPU waits for it; "
                        "train.noise=keyed draws on the GPU, the same bits on every device"
                    )
                warn_of_warmup(config.train, last)
                if config.train.compile:
                    log.info(
                        "train.compile: the first step of each batch size waits for PyTorch's "
                        "compiler, often for minutes"
                    )
                held.enter_context(hold(run))
                saved = 0 if overwrite else restore(run, plan, config, learner, last)
                if saved:
                    check_data(run, saved, dataset, config, allow_changed_data)
                    warn_of_changes(run, backend)
                claim_folder(run, resume=resume, overwrite=overwrite)
                checkpoint.set_aside(run, saved)
                own = [each if isinstance(each, Callback) else Function(each) for each in callbacks]
                if not ranks.alone and recording.histograms:
                    log.info("TensorBoard: no histograms of gradients, as each rank has a part")
                    recording = replace(recording, histograms=0)
                facts = network_facts(plan, learner)
                looking = usual(recording, run, backend, config, plan, own)
                write_text(run / "config.yaml", to_yaml(config))
                record_start(run, saved, config, backend, dataset, facts, validation.facts())
        first = group.of_first(saved)
        with group.together():
            if not ranks.first:
                saved = restore(run, plan, config, learner, last) if first else 0
                if saved != first or not (run / "config.yaml").is_file():
                    raise UserError(
                        f"{run}: rank 0 begins after step {first}, and this rank finds step "
                        f"{saved} there; use a folder that all machines share"
                    )
                group.open_log(run)
                log.info("%s, process %d: begins after step %d", ranks, os.getpid(), saved)
        bar = tqdm(
            total=last,
            initial=saved,
            unit="step",
            disable=not (progress and ranks.first),
            desc=f"{backend.name} {run.name}",
            mininterval=0.5 if sys.stderr.isatty() else 30,
        )
        writer = Writer()
        rows = Rows(run, backend.scalar, looking, writer.wait)
        training = Training(
            config, run, backend, group, plan, batches, validation, learner, looking, writer, rows,
            bar, last, saved,
        )  # fmt: skip
        return training.go()


def largest_call(settings: TrainConfig, ranks: Ranks) -> int:
    """Images in the largest call of the network: of a rank, in one micro-batch."""
    return math.ceil(math.ceil(settings.batch_size / ranks.world) / settings.accumulate)


def network_facts(plan: AnyPlan, learner: Learner) -> dict[str, str] | None:
    """The identity of a user's own network; None for Diptych's, which the config determines."""
    if not isinstance(plan, OwnPlan):
        return None
    raw = learner.state().raw
    shapes = "".join(f"{name} {raw[name].shape}\n" for name in sorted(raw))
    digest = hashlib.sha256(shapes.encode()).hexdigest()
    return {"class": type(learner.network.module).__name__, "shapes_sha256": digest}


def restore(run: Path, plan: AnyPlan, config: Config, learner: Learner, last: int) -> int:
    """Load the newest complete checkpoint, if there is one, and return its step; 0 if none.

    Raises:
        UserError: it has another config or is beyond the last step, or no checkpoint is complete.
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
    """One call of `train`: the loop, and the state shared by its steps.

    Attributes:
        last: the last step, 1-based.
        saved: the step of the newest checkpoint; 0: none.
        stopping: a callback asked to stop.
    """

    config: Config
    run: Path
    backend: Backend
    group: Group
    plan: AnyPlan
    batches: Batches
    validation: Validation
    learner: Learner
    callbacks: Callbacks
    writer: Writer
    rows: Rows
    bar: tqdm[Any]
    last: int
    saved: int
    stopping: bool = field(default=False, init=False)
    validated: str = field(default="", init=False)  # the last validation loss, for the bar

    def go(self) -> Result:
        """Run all remaining steps; save at the end and on interruption."""
        step = self.saved
        ranks = self.group.ranks
        self.check_weights(step)
        with (
            Prefetch(
                lambda step: self.batches.batch(step, ranks), self.saved + 1, self.last + 1
            ) as ahead,
            Signals() as signals,
            self.writer,
            self.bar,
            self.looking_on(),
        ):
            if self.grid_due(step) and not self._grid_path(step).exists():
                self.draw_grid(step)  # killed between the checkpoint and its grid
            stop = self.asked_to_stop(signals)
            while step < self.last and not stop:
                step += 1
                self.step(ahead.get(step), ahead.last_wait)
                stop = self.asked_to_stop(signals)
            self.save(step, wait=True)
            if stop > STOP:
                raise Interrupted(f"stopped at step {step} of {self.last}, saved", stop)
            if not (stop or self._grid_path(step).exists()):
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
        self.callbacks.start(self.saved)
        try:
            yield
        except BaseException as error:
            self.callbacks.close(error)
            raise
        self.callbacks.close(StopTraining("a callback asked for it") if self.stopping else None)

    def step(self, batch: Batch, data_s: float) -> None:
        """Do one optimizer step, its row, and any checkpoint or grid due after it."""
        settings = self.config.train
        due = batch.step % settings.log_every == 0 or batch.step == self.last
        # A CPU step is timed directly; a GPU step only if both ends wait for the device.
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
        if self.validation.due(batch.step):
            with self.callbacks.event("validation", batch.step):
                self.validate(row)
        if due:
            with self.callbacks.event("flush", batch.step):
                self.flush()
            self.bar.set_postfix_str(f"loss {row['loss']:.4f}{self.validated}")
        self.callbacks.stepped(self.learner, batch)
        if batch.step % settings.checkpoint_every == 0:
            with self.callbacks.event("checkpoint", batch.step):
                self.save(batch.step)
        if self.grid_due(batch.step):
            with self.callbacks.event("grid", batch.step):
                self.draw_grid(batch.step)

    def flush(self) -> None:
        """Pass the waiting rows to the callbacks, any of which may ask to stop."""
        try:
            self.rows.flush()
        except StopTraining:
            self.stopping = True

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
        self.check_weights(step)
        facts = {"backend": self.backend.name, "config_identity": self.config.identity()}
        if isinstance(self.plan, OwnPlan):
            facts["network"] = checkpoint.OWN_NETWORK
        with self.group.together():
            if self.group.ranks.first:
                keep, state = self.config.train.keep_checkpoints, self.learner.state()
                self.writer.begin(checkpoint.save, self.run, state, facts, keep)
                if wait:
                    self.writer.wait()
        self.saved = step

    def check_weights(self, step: int) -> None:
        """Refuse to go on, or to save, if a rank's weights, averages or moments are not rank 0's.

        Raises:
            UserError: on all ranks.
        """
        if self.group.ranks.alone:
            return
        state = self.learner.state()
        hashes = [checkpoint.weights_sha256(getattr(state, group)) for group in checkpoint.GROUPS]
        self.group.same(
            f"weights after step {step}",
            hashlib.sha256("".join(hashes).encode()).hexdigest(),
            "nothing was saved; resume from the last checkpoint with --resume. (A network of one's "
            "own must not average over its batch, as BatchNorm does.)",
        )

    def validate(self, row: Row) -> None:
        """Add the loss of the held-out pictures, by the EMA weights, to the step's row."""
        if not self.group.ranks.first:
            return
        network = self.backend.network(self.plan, self.learner.state().ema)
        row["validation_loss"] = self.validation.loss(self.backend, network)
        self.validated = f", validation {row['validation_loss']:.4f}"

    def grid_due(self, step: int) -> bool:
        """True if a grid is due after this step."""
        every = self.config.train.grid_every
        return bool(step and every and step % every == 0)

    def _grid_path(self, step: int) -> Path:
        return self.run / "grids" / f"step-{step:08d}.png"

    def draw_grid(self, step: int) -> None:
        """Draw 64 images: EMA weights, 20 DDIM steps, always the same noise; a class a column."""
        if not self.group.ranks.first:
            return
        network = self.backend.network(self.plan, self.learner.state().ema)
        schedule = make_schedule(self.config.diffusion)
        engine = Engine(self.backend, network, self.plan, schedule, self.batches.preprocess)
        if engine.ends_in_noise and self.plan.objective == "eps":
            return  # an eps network cannot start where nothing of the image is left
        sampler = make_sampler(
            "ddim", min(20, schedule.timesteps), timesteps=schedule.timesteps,
            num_classes=self.plan.num_classes, ends_in_noise=engine.ends_in_noise,
        )  # fmt: skip
        images = engine.pixels(engine.draw(sampler, range(64), self.config.seed))
        picture = grid(images, sampler.columns)
        save_png(self._grid_path(step), picture)
        self.callbacks.image("samples", picture, step)
