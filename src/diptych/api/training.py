"""`diptych.train`, and the `Run` that it returns."""

from __future__ import annotations

import contextlib
import json
import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from diptych.api.arguments import Where, as_dataset, path_of
from diptych.config.load import Config, load_config, validate
from diptych.config.size import checked_size, size_of
from diptych.data import Dataset
from diptych.data.dataset import ARRAYS
from diptych.errors import PythonTerms, UserError, check, in_python, path_text, refused
from diptych.files import read_json
from diptych.network.own import maker
from diptych.runs import checkpoint
from diptych.runs.folder import backend_of_run
from diptych.training.callbacks import Callback, Row
from diptych.training.callbacks.journal import read_rows
from diptych.training.callbacks.usual import Recording
from diptych.training.loop import train as run_training
from diptych.training.own_pictures import choose_for, is_pictures
from diptych.types import Array
from diptych.weights.formats import read_config

if TYPE_CHECKING:
    from diptych.model import Model

log = logging.getLogger(__name__)

OF_DATA = ("source", "split", "image_size", "channels", "crop")


class Run:
    """A run folder.

    Args:
        path: the folder.

    Attributes:
        path: the folder.
    """

    def __init__(self, path: Where, network: Any = None) -> None:
        self.path, self._network = Path(path_text("path", path)), network
        if not (self.path / "config.yaml").is_file():
            raise UserError(f"{path}: is not a run: it has no config.yaml; train one with train()")

    @property
    def config(self) -> Config:
        """All settings of the run."""
        return load_config(str(self.path / "config.yaml"))

    @property
    def backend(self) -> str:
        """The backend that trains it: torch or jittor."""
        return str(read_json(self.path / "environment.json").get("backend"))

    @property
    def checkpoint(self) -> Path:
        """The folder of the newest checkpoint. Raises UserError if there is none."""
        return checkpoint.latest(self.path)

    @property
    def step(self) -> int:
        """The last step recorded in the metrics; 0 before the first."""
        rows = self.rows
        return int(rows[-1]["step"]) if rows else 0

    @property
    def loss(self) -> float:
        """The loss of that step; nan before the first."""
        rows = self.rows
        return float(rows[-1]["loss"]) if rows else float("nan")

    @property
    def rows(self) -> list[Row]:
        """One dict per step: step, epoch, loss, lr, grad_norm, data_s, compute_s, ..."""
        return read_rows(self.path / "metrics.jsonl")

    @property
    def metrics(self) -> dict[str, Array]:
        """The rows as one array (steps,) per key; keys missing from some rows are left out."""
        rows = self.rows
        keys = [key for key in (rows[0] if rows else {}) if all(key in row for row in rows)]
        return {key: np.array([row[key] for row in rows]) for key in keys}

    @PythonTerms()
    def load(self, backend: str | None = None, **options: Any) -> Model:
        """Load the trained model; options as in `diptych.load`.

        Args:
            backend: None: the backend that trained it.
        """
        from diptych.model import load

        if self._network is not None:
            options.setdefault("network", self._network)
        return load(self.path, backend, **options)

    def __fspath__(self) -> str:
        return str(self.path)

    def __repr__(self) -> str:
        rows = self.rows
        at = f"step {rows[-1]['step']:,}, loss {rows[-1]['loss']:.4g}" if rows else "no step yet"
        return f"<Run {str(self.path)!r}: {self.backend}, {at}>"


_TERMS = {
    "out": "run", "data": "data_dir", "steps": 'set={"train.steps": ...}',
    "epochs": 'set={"train.epochs": ..., "train.steps": None}', "seed": 'set={"seed": ...}',
    "size": 'set={"data.image_size": ...}', "channels": 'set={"data.channels": ...}',
    "skip-bad": 'set={"data.skip_bad": True}', "crop": 'set={"data.crop": ...}',
}  # fmt: skip


@PythonTerms(**_TERMS)
def train(
    config: str | Path | Config,
    run: Where,
    backend: str | None = None,
    *,
    data: Any = None,
    set: Mapping[str, Any] | None = None,
    network: Any = None,
    callbacks: Callable[[Row], object]
    | Callback
    | Sequence[Callable[[Row], object] | Callback] = (),
    device: str = "auto",
    resume: bool = False,
    overwrite: bool = False,
    allow_changed_data: bool = False,
    data_dir: Where | None = None,
    progress: bool = True,
    recording: Recording | None = None,
) -> Run:
    """Train or resume training; the run folder is the same as from `diptych train`.

    Args:
        config: a preset's name, a YAML file, a `Config`, or the user's own pictures, for which
            settings are chosen and shown: a folder, an .npz, `folder:PATH`, `npz:PATH`,
            `packed:PATH` or `hf:NAME`.
        run: the run folder.
        backend: `torch` or `jittor`; None: that of the run to resume, else torch.
        data: the images: a `Dataset`, a source such as `mnist` or `folder:PATH`, an array, a pair
            (images, labels), or any other input of `Dataset.from_arrays`; None: the config's.
        set: settings to change, such as {"train.steps": 500, "seed": 1}.
        network: makes the user's own network: a function that returns a module(x, t), or with
            `model.num_classes` a module(x, t, classes). See `Model.of`.
        callbacks: a function or several, called in turn with each step's row: a dict with step,
            epoch, loss, grad_norm, lr, seconds and more. Rows are read from the device every
            `train.log_every` steps. Raising `StopTraining` saves and ends the training.
        device: `auto`, `cpu`, `cuda` or `cuda:INDEX`.
        resume: resume the run in the folder; start a new one if the folder is empty.
        overwrite: replace the contents of the folder.
        allow_changed_data: resume even if the images have changed.
        data_dir: folder that holds the data; no other place is searched.
        progress: show a bar on stderr.
        recording: records in addition to the metrics; None: the defaults.

    Returns:
        The run, trained to its last step, or to the step at which a callback stopped it.

    Raises:
        UserError: wrong arguments, settings, data or folder, or a loss that is not finite.
        MachineError: a full disk or another machine fault.
        Interrupted: SIGTERM or Ctrl-C, after saving.
    """
    check(str, device=device)
    check(str, none=True, backend=backend)
    out = Path(path_text("run", run))
    folder = path_of("data_dir", data_dir)
    if not isinstance(config, Config):
        config = path_text("config", config, "a preset's name, a path or a Config")
    given = {} if set is None else set
    if not isinstance(given, Mapping) or not all(isinstance(key, str) for key in given):
        raise refused("set", set, 'a dict such as {"train.steps": 500}')
    if callable(callbacks) or isinstance(callbacks, Callback):
        callbacks = [callbacks]
    fits = isinstance(callbacks, Sequence)
    if not fits or not all(callable(each) or isinstance(each, Callback) for each in callbacks):
        raise refused("callbacks", callbacks, "functions of a row")
    if not isinstance(recording, Recording | None):
        raise refused("recording", recording, "a Recording")
    changes = {k: v.item() if isinstance(v, np.generic) else v for k, v in given.items()}
    dataset = None
    if isinstance(data, str | Path):
        changes["data.source"] = str(data)
    elif data is not None:
        dataset = as_dataset(data)
    if isinstance(config, str) and is_pictures(config):
        if data is not None:
            raise UserError(f"data: {config} names pictures already; give one of them")
        wanted = [f"{key}={json.dumps(value, default=str)}" for key, value in changes.items()]
        resumed = out if resume else None
        chosen = choose_for(config, wanted, folder, said(progress), resumed)
        config, changes = chosen.preset, {**chosen.settings, **changes}
    settings = changed(config, changes, dataset)
    if network is not None:
        theirs = [key for key in changes if key.startswith("model.") and key != "model.num_classes"]
        if theirs:
            raise UserError(f"set: {theirs[0]} only applies to Diptych's own network, not to yours")
        network = maker(network, settings)
    run_training(
        settings,
        out,
        backend_of_run(out, backend, resume),
        device=device,
        resume=resume,
        overwrite=overwrite,
        allow_changed_data=allow_changed_data,
        progress=progress,
        recording=recording,
        data_dir=folder,
        callbacks=callbacks,
        dataset=dataset,
        network=network,
    )
    return Run(out, network)


def said(shown: bool) -> Callable[[str], object]:
    """A function that shows a line above a bar on stderr, or else only logs it."""

    def say(text: str) -> None:
        text = in_python(text, _TERMS)
        if shown:
            tqdm.write(text, file=sys.stderr)
        else:
            log.info("%s", text)

    return say


def changed(
    config: str | Path | Config, changes: Mapping[str, Any], dataset: Dataset | None = None
) -> Config:
    """A config with changes, and with the sizes of the given data set.

    Raises:
        UserError: an unknown preset, key or value, or a change that contradicts the data set.
    """
    if not isinstance(config, Config):
        config = read_config(str(config), [])
    tree = config.model_dump(mode="json")
    for key, value in changes.items():
        section, _, last = key.rpartition(".")
        node = tree.get(section) if section else tree
        if not isinstance(node, dict):
            raise UserError(f"set: key '{key}' is not known; give section.key, such as train.lr")
        if isinstance(node.get(last), dict):
            raise UserError(f"set: '{key}' is a section; set its keys one by one, as {key}.KEY")
        node[last] = list(value) if isinstance(value, tuple) else value
    if dataset is not None:
        _, channels, height, width = dataset.images.shape
        facts = (ARRAYS, dataset.split, size_of(height, width), channels, None)
        for key, value in zip(OF_DATA, facts, strict=True):
            given = changes.get(f"data.{key}", value)
            if key == "image_size":
                with contextlib.suppress(ValueError):
                    given = checked_size(given)
            if given != value:
                raise UserError(
                    f"set: data.{key} is {changes[f'data.{key}']}, the images given as data have "
                    f"{value}; leave it out"
                )
            tree["data"][key] = value
    return validate(tree, "set" if changes else "config")
