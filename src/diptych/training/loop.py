"""The one training loop, for both panels: batch -> learner -> log -> checkpoint.

A run is a folder. Whatever stops it (Ctrl-C, SIGTERM, kill -9, a full disk), `--resume` goes on
from the last checkpoint, and because a batch is a function of its step, the weights that come out
are those of an uninterrupted run, bit for bit.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from diptych import backends
from diptych.backends.protocol import Backend, Batch, Learner
from diptych.config.load import Config, to_yaml
from diptych.data import Dataset, load_configured
from diptych.diffusion.classes import check_labels
from diptych.diffusion.schedule import make_schedule
from diptych.errors import Interrupted, UserError
from diptych.figures.grids import grid, save_png
from diptych.files import check_folder, claim_folder, hold, write_text
from diptych.network.plan import initial_weights, make_plan
from diptych.runs import checkpoint
from diptych.runs.folder import check_resumable, record_start
from diptych.sampling.engine import Engine
from diptych.sampling.sampler import make_sampler
from diptych.training.batches import Batches
from diptych.training.callbacks import Observe, Observer
from diptych.training.callbacks.journal import Journal
from diptych.training.prefetch import Prefetch
from diptych.training.signals import Signals


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


def learning_rate(base: float, warmup_steps: int, step: int) -> float:
    """Linear warm-up: base * min(1, step / warmup_steps) at a 1-based step."""
    return base * min(1.0, step / warmup_steps) if warmup_steps else base


def train(
    config: Config,
    run: Path,
    backend_name: str,
    *,
    device: str = "auto",
    resume: bool = False,
    overwrite: bool = False,
    data_dir: Path | None = None,
    progress: bool = True,
    observe: Observe | None = None,
) -> Result:
    """Train, or go on training, until the config's last step.

    Args:
        config: all settings; with `resume` it may differ from the run's only in durations.
        run: the run folder.
        backend_name: `torch` or `jittor`.
        device: `auto`, `cpu`, `cuda` or `cuda:INDEX`.
        resume: continue the run that is in the folder; starts it where the folder is empty.
        overwrite: replace what is in the folder.
        data_dir: where to look for the data, before all other places.
        progress: show a bar on stderr.
        observe: what is recorded and shown besides the metrics; None: the usual.

    Raises:
        UserError: bad settings, data or folder, another process at work in the folder, or a loss
            that is not finite.
        MachineError: a full disk, or another fault of the machine.
        Interrupted: Ctrl-C or SIGTERM, after saving.
    """
    check_folder(run, resume=resume, overwrite=overwrite)
    observe = observe or Observe()
    observe.check()
    if resume and (run / "config.yaml").is_file():
        check_resumable(config, run, backend_name)
    dataset = load_configured(config.data, data_dir, settable=True)
    check_labels(dataset.labels, config.model.num_classes, dataset.name)
    backend = backends.load(backend_name, device)
    with hold(run):
        claim_folder(run, resume=resume, overwrite=overwrite)
        write_text(run / "config.yaml", to_yaml(config))
        return _Run(config, run, backend, dataset, progress, observe).go()


class _Run:
    """One call of `train`: the state that the steps of the loop share."""

    def __init__(
        self,
        config: Config,
        run: Path,
        backend: Backend,
        dataset: Dataset,
        progress: bool,
        observe: Observe,
    ) -> None:
        self.config, self.run, self.backend = config, run, backend
        self.plan = make_plan(config)
        self.batches = Batches(config, self.plan, dataset.images, dataset.labels)
        steps = config.train.steps or config.train.epochs * self.batches.steps_per_epoch
        self.last = steps
        weights = initial_weights(self.plan, config.seed)
        self.learner: Learner = backend.learner(self.plan, weights, config.train, config.seed)
        self.saved = self._restore()
        record_start(run, self.saved, config, backend, dataset)
        self.journal = Journal(run, self.saved, backend.scalar)
        self.observer = Observer(observe, run, backend, config, self.plan)
        self.observer.follow(self.journal, self.saved)
        self.bar = tqdm(
            total=self.last,
            initial=self.saved,
            unit="step",
            disable=not progress,
            desc=f"{backend.name} {run.name}",
            mininterval=0.5 if sys.stderr.isatty() else 30,
        )

    def _restore(self) -> int:
        """Load the newest checkpoint, if there is one; gives its step."""
        found = checkpoint.all_checkpoints(self.run)
        if not found:
            return 0
        state = checkpoint.load_state(found[-1], self.plan)
        if state.step > self.last:
            raise UserError(
                f"{self.run}: is at step {state.step} already; "
                f"ask for more with --steps or --epochs"
            )
        self.learner.restore(state)
        return state.step

    def go(self) -> Result:
        """All steps that remain; saves at the end and where it is interrupted."""
        step = self.saved
        with (
            Prefetch(self.batches.batch, self.saved + 1, self.last + 1) as ahead,
            Signals() as signals,
            self.bar,
            self.journal,
            self.observer,
        ):
            while step < self.last and not signals.received:
                step += 1
                self.step(ahead.get(step), ahead.last_wait)
            if step > self.saved or not checkpoint.all_checkpoints(self.run):
                self.save(step)
            if signals.received:
                raise Interrupted(f"stopped at step {step} of {self.last}, saved", signals.received)
            if not self._grid_path(step).exists():
                self.draw_grid(step)
        return Result(self.run, checkpoint.latest(self.run), step, self.journal.last_loss)

    def step(self, batch: Batch, data_s: float) -> None:
        """One optimizer step, its row in the journal, and what is due after it."""
        settings = self.config.train
        due = batch.step % settings.log_every == 0 or batch.step == self.last
        # A CPU step is timed as it is; a GPU's only where both ends wait for the device.
        synced = due or self.backend.device == "cpu"
        if synced:
            self.backend.synchronize()
        self.observer.begin()
        began = time.perf_counter()
        lr = learning_rate(settings.lr, settings.warmup_steps, batch.step)
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
            **self.observer.end(batch.step, data_s + compute_s),
        }
        self.journal.add(row)
        self.bar.update()
        if due:
            with self.observer.event("flush", batch.step):
                self.journal.flush()
            self.observer.count()
            self.bar.set_postfix_str(f"loss {self.journal.last_loss:.4f}")
        self.observer.gradients(self.learner, batch)
        if batch.step % settings.checkpoint_every == 0:
            with self.observer.event("checkpoint", batch.step):
                self.save(batch.step)
        if settings.grid_every and batch.step % settings.grid_every == 0:
            with self.observer.event("grid", batch.step):
                self.draw_grid(batch.step)

    def save(self, step: int) -> None:
        """Rows first, so that a checkpoint never outruns its journal or holds a lost run."""
        self.journal.flush()
        if step == self.saved and checkpoint.all_checkpoints(self.run):
            return
        facts = {"backend": self.backend.name, "config_identity": self.config.identity()}
        checkpoint.save(self.run, self.learner.state(), facts, self.config.train.keep_checkpoints)
        self.saved = step

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
        self.journal.image("samples", picture, step)
