"""The start of a training: its parts, made and checked, and its run folder, opened."""

from __future__ import annotations

import hashlib
import logging
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from diptych.backends.protocol import Backend, Learner
from diptych.config.load import Config, TrainConfig, flatten, to_yaml
from diptych.data import Dataset
from diptych.errors import UserError
from diptych.files import write_text
from diptych.network.own import AnyPlan, OwnPlan
from diptych.network.parameters import initial_weights
from diptych.network.plan import make_plan
from diptych.ranks import Ranks
from diptych.runs import checkpoint
from diptych.runs.folder import record_start
from diptych.sampling.memory import check_batch
from diptych.training.batches import Batches
from diptych.training.callbacks import Callback, Callbacks, Function, Row
from diptych.training.callbacks.usual import Recording, usual
from diptych.training.group import Group
from diptych.training.validation import Validation

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Parts:
    """Parts of a training.

    Attributes:
        last: the last step, 1-based.
    """

    config: Config
    backend: Backend
    dataset: Dataset
    plan: AnyPlan
    batches: Batches
    validation: Validation
    learner: Learner
    last: int

    def averaged(self) -> Any:
        """A network with the present moving average of the weights."""
        return self.backend.network(self.plan, self.learner.averaged())


def make_parts(
    config: Config,
    backend: Backend,
    dataset: Dataset,
    network: Callable[[], Any] | None,
    ranks: Ranks,
) -> Parts:
    """Make the parts of a training that begins at step 1.

    Args:
        network: makes the user's own network, in place of the config's.

    Raises:
        UserError: images or batch do not fit the network or the memory.
    """
    plan: AnyPlan = make_plan(config)
    if network is not None:
        sizes = *config.data.shape, config.model.num_classes
        plan = OwnPlan(network, *sizes, config.diffusion.objective, config.seed)
    batches = Batches(config, plan, dataset.images, dataset.labels)
    largest = largest_call(config.train, ranks)
    validation = Validation(config, batches, largest)
    check_batch(
        plan,
        largest,
        backend.name,
        backend.device,
        backend.free_memory,
        option="train.batch_size, or raise train.accumulate",
        training=True,
    )
    weights = None if isinstance(plan, OwnPlan) else initial_weights(plan, config.seed)
    learner = backend.learner(plan, weights, config.train, config.seed)
    last = config.train.last_step(batches.steps_per_epoch)
    return Parts(config, backend, dataset, plan, batches, validation, learner, last)


def largest_call(settings: TrainConfig, ranks: Ranks) -> int:
    """Images in the largest call of the network: of a rank, in one micro-batch."""
    return math.ceil(math.ceil(settings.batch_size / ranks.world) / settings.accumulate)


def check_alike(parts: Parts, group: Group) -> None:
    """Raises UserError, on all ranks, where a rank has other settings or images than rank 0."""
    if group.ranks.alone:
        return
    same = {k: v for k, v in flatten(parts.config).items() if k != "data.source"}
    told = repr((parts.backend.name, parts.last, same)).encode()
    group.same("settings", hashlib.sha256(told).hexdigest(), "give each rank the same command")
    group.same("images", parts.dataset.sha256, "give each machine the same data")


def warn_of_slow_settings(parts: Parts) -> None:
    """Say which settings will make this training wait."""
    settings = parts.config.train
    if parts.backend.device != "cpu" and settings.noise == "host":
        log.info(
            "train.noise=host: the host draws noise and masks, and a GPU waits for it; "
            "train.noise=keyed draws on the GPU, the same bits on every device"
        )
    if settings.compile:
        log.info(
            "train.compile: the first step of each batch size waits for PyTorch's compiler, often "
            "for minutes"
        )


def restore(run: Path, parts: Parts) -> int:
    """Load the newest complete checkpoint, if there is one, and return its step; 0 if none.

    Raises:
        UserError: it has another config or is beyond the last step, or no checkpoint is complete.
    """
    known = None if isinstance(parts.plan, OwnPlan) else parts.plan
    state, faults = checkpoint.newest_state(run, known, parts.config)
    if state is None:
        return 0
    if state.step > parts.last:
        raise UserError(
            f"{run}: is at step {state.step} already; ask for more with --steps or --epochs"
        )
    parts.learner.restore(state)
    for fault in faults:
        log.warning("%s; going on from step %d", fault, state.step)
    return state.step


def open_run(
    run: Path,
    saved: int,
    parts: Parts,
    recording: Recording,
    callbacks: Sequence[Callable[[Row], object] | Callback],
    ranks: Ranks,
) -> Callbacks:
    """Write what the claimed folder says of this start, after step `saved`; make all callbacks."""
    checkpoint.set_aside(run, saved)
    if not ranks.alone and recording.histograms:
        log.info("TensorBoard: no histograms of gradients, as each rank has a part")
        recording = replace(recording, histograms=0)
    if isinstance(parts.plan, OwnPlan) and recording.histograms:
        log.info("TensorBoard: no histograms of gradients: one more call could change your network")
        recording = replace(recording, histograms=0)
    own = [each if isinstance(each, Callback) else Function(each) for each in callbacks]
    facts = network_facts(parts)
    looking = usual(recording, run, parts.backend, parts.config, parts.plan, own)
    write_text(run / "config.yaml", to_yaml(parts.config))
    record_start(
        run, saved, parts.config, parts.backend, parts.dataset, facts, parts.validation.facts()
    )
    return looking


def network_facts(parts: Parts) -> dict[str, str] | None:
    """The identity of a user's own network; None for Diptych's, which the config determines."""
    if not isinstance(parts.plan, OwnPlan):
        return None
    raw = parts.learner.state().raw
    shapes = "".join(f"{name} {raw[name].shape}\n" for name in sorted(raw))
    digest = hashlib.sha256(shapes.encode()).hexdigest()
    return {"class": type(parts.learner.network.module).__name__, "shapes_sha256": digest}


def follow_run(run: Path, first: int, parts: Parts, group: Group) -> int:
    """Begin, on another rank than 0, after the step `first` from which rank 0 begins; return it.

    Raises:
        UserError: this machine does not see what rank 0 sees in the folder.
    """
    saved = restore(run, parts) if first else 0
    if saved != first or not (run / "config.yaml").is_file():
        raise UserError(
            f"{run}: rank 0 begins after step {first}, and this rank finds step {saved} there; use "
            f"a folder that all machines share"
        )
    group.open_log(run)
    log.info("%s, process %d: begins after step %d", group.ranks, os.getpid(), saved)
    return saved
