"""The subject of a profile: a run from its last checkpoint, or a preset from fresh weights."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diptych import backends
from diptych.config.load import load_config
from diptych.data import load_configured
from diptych.errors import UserError
from diptych.network.parameters import initial_weights
from diptych.network.plan import make_plan
from diptych.profiling.record import SCHEMA, Profile
from diptych.profiling.split import profile
from diptych.runs import checkpoint
from diptych.runs.folder import backend_of
from diptych.runs.provenance import environment
from diptych.training.batches import Batches


@dataclass(frozen=True)
class ProfileRequest:
    """A request to profile.

    Attributes:
        source: a run folder, a preset's name or a YAML file.
        backend: None for the run's own, or torch for a preset.
        steps: split steps; the same number of whole steps is run in addition.
    """

    source: str
    backend: str | None = None
    device: str = "auto"
    steps: int = 20
    overrides: tuple[str, ...] = ()
    data: Path | None = None
    precision: str | None = None  # None: the config's
    deterministic: bool = False

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise UserError(f"--steps is {self.steps}; it must be 1 or more")


def run_profile(request: ProfileRequest) -> dict[str, Any]:
    """Profile in this process; return the record.

    The run is only read: its weights are trained further in memory and then discarded.

    Raises:
        UserError: if the source or backend is unknown, the data is missing, or a run is given
            overrides.
    """
    run = Path(request.source)
    is_run = (run / "config.yaml").is_file()
    if is_run and request.overrides:
        raise UserError(f"{run}: a run has its settings; --set is for presets")
    config = load_config(
        str(run / "config.yaml") if is_run else request.source, list(request.overrides)
    )
    if request.precision is not None:
        train = config.train.model_copy(update={"precision": request.precision})
        config = config.model_copy(update={"train": train})
    if config.train.accumulate > 1:
        raise UserError(
            f"{request.source}: train.accumulate is {config.train.accumulate}, and a profile "
            f"splits a step of one batch into its phases; profile a preset with "
            f"--set train.accumulate=1"
        )
    own = backend_of(run) if is_run else None
    name = backends.choose(request.backend, own)
    backends.check_panel(name, "profiling a training step")
    backend = backends.load(
        name,
        request.device,
        config.train.precision,
        request.deterministic,
    )
    dataset = load_configured(config.data, request.data, settable=not is_run)
    plan = make_plan(config)
    learner = backend.learner(plan, initial_weights(plan, config.seed), config.train, config.seed)
    found = checkpoint.all_checkpoints(run) if is_run else []
    first = 1
    if found:
        state = checkpoint.load_state(found[-1], plan, config)
        learner.restore(state)
        first = state.step + 1
    batches = Batches(config, plan, dataset.images, dataset.labels)
    record = {
        "schema": SCHEMA,
        "kind": "profile",
        "time": time.time(),
        "backend": backend.name,
        "environment": environment(backend),
        "config_identity": config.identity(),
        "preset": run.resolve().name if is_run else request.source,
        "first_step": first,
        "batch_size": config.train.batch_size,
    }
    measured = profile(backend, learner, batches, request.steps, config.train.lr, first)
    return Profile.checked(record | measured)
