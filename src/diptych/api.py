"""The Python API: the command line's tasks in a few lines. `import diptych` exposes all of it.

    run = diptych.train("tiny", "run", data=(images, labels))
    x = run.load().sample(64)
    print(diptych.evaluate(x, reference=images, features="mnist"))

Wrong arguments raise a `UserError` that names them.

Long, because each public function has its whole description here.
"""

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

from diptych import backends
from diptych.config.load import Config, load_config, validate
from diptych.config.size import checked_size, size_of
from diptych.data import Dataset
from diptych.data.dataset import ARRAYS
from diptych.errors import (
    PythonTerms,
    UserError,
    check,
    in_python,
    nearest,
    path_text,
    refused,
    several,
)
from diptych.evaluation.run import evaluate as run_evaluation
from diptych.evaluation.score import Score
from diptych.files import read_json
from diptych.network.own import maker
from diptych.pages.content import Content
from diptych.runs import checkpoint
from diptych.runs.folder import backend_of_run
from diptych.training.callbacks import Callback, Row
from diptych.training.callbacks.journal import read_rows
from diptych.training.callbacks.usual import Recording
from diptych.training.loop import train as run_training
from diptych.training.own_pictures import choose_for, is_pictures
from diptych.types import Array, Pixels
from diptych.weights.formats import read_config

if TYPE_CHECKING:
    from PIL import Image

    from diptych.model import Model

log = logging.getLogger(__name__)

Where = str | Path
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
    folder = _path("data_dir", data_dir)
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


def as_dataset(data: Any) -> Dataset:
    """The user's data as a `Dataset`; for the accepted forms see `train`."""
    if isinstance(data, Dataset):
        return data
    if isinstance(data, tuple) and len(data) == 2:
        return Dataset.from_arrays(*data)
    return Dataset.from_arrays(data)


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


@PythonTerms(data="data_dir")
def evaluate(
    samples: Any,
    reference: Any = None,
    metrics: str | Sequence[str] = ("fid",),
    features: str = "inception",
    *,
    train: Any = None,
    held_out: Any = None,
    mirrored: bool = False,
    protocol: str | None = None,
    num: int | None = None,
    repeats: int = 1,
    backend: str | None = None,
    device: str = "auto",
    weights: Where | None = None,
    data_dir: Where | None = None,
    batch: int = 64,
    cache: bool = True,
    progress: bool = True,
) -> Any:
    """Score images against a reference.

    Args:
        samples: uint8 images (N, H, W, C) or (N, C, H, W), a `Dataset`, or the path of a sample
            folder, a folder of pictures, an .npz or saved statistics; a list of paths or arrays
            holds independent repeats of one model.
        reference: as `samples`, or a data set's split such as `mnist:test`.
        metrics: one or more of fid, kid, is, prdc, sfid, fid-infinity, memorization.
        features: inception, mnist or fashion_mnist; pixels for memorization without a network.
        train, held_out: for memorization, as `reference`: the images that the model was trained
            on, and others from the same source; a named data set's test split by default.
        mirrored: for memorization: training mirrored its images (`data.random_flip`).
        protocol: pytorch-fid, torch-fidelity or clean-fid, for inception.
        num: images in each sample set; None: all.
        repeats: split the samples into this many sets; 3 or more give an interval.
        backend: None: jittor if this process has loaded it, else torch.
        device: `auto`, `cpu`, `cuda` or `cuda:INDEX`.
        weights: a file of the feature network's weights.
        data_dir: folder that holds the data sets; no other place is searched.
        batch: images at once.
        cache: keep the features of a named data set for later calls.
        progress: show a bar on stderr.

    Returns:
        A `Score` if there is only one, else a dict of scores by name.

    Raises:
        UserError: missing, damaged, too few or mismatched inputs.
    """
    from diptych.evaluation.features import open_extractor
    from diptych.evaluation.features.weights_file import cache_folder
    from diptych.evaluation.images import images_of
    from diptych.evaluation.sets import Settings, sample_sets

    check(str, features=features, device=device)
    check(str, none=True, protocol=protocol, backend=backend)
    check(int, repeats=repeats, batch=batch)
    check(int, none=True, num=num)

    if isinstance(samples, list) and not samples:
        raise refused("samples", samples, "images or paths")

    def opened(given: Any) -> Any:
        if isinstance(given, str | Path):
            return path_text("images", given)
        found = as_dataset(given)
        split = None if found.name == ARRAYS else found.split
        return images_of(found, split)

    settings = Settings(
        metrics=_names("metrics", metrics),
        features=features,
        protocol=protocol,
        num=num,
        repeats=repeats,
        batch=batch,
        progress=progress,
        cache=cache_folder() if cache else None,
        data_dir=_path("data_dir", data_dir),
        train=None if train is None else opened(train),
        held_out=None if held_out is None else opened(held_out),
        mirrored=mirrored,
    )

    several = isinstance(samples, list)
    sources = [opened(each) for each in samples] if several else [opened(samples)]
    against = None if reference is None else opened(reference)
    sample_sets(sources, settings)  # check before the network, which may need a download
    if backend is None:
        backend = "jittor" if "jittor" in sys.modules else "torch"
    extractor = open_extractor(features, backend, device, _path("weights", weights))
    result = run_evaluation(sources, against, settings, extractor)
    scores = {each["metric"]: Score.from_json(each) for each in result["scores"]}
    return next(iter(scores.values())) if len(scores) == 1 else scores


@PythonTerms()
def search_steps(
    model: Model,
    out: Where,
    calls: int,
    solvers: Sequence[str] | None = None,
    *,
    features: str | None = None,
    reference: str | None = None,
    resume: bool = False,
    overwrite: bool = False,
    progress: bool = True,
    weights: Where | None = None,
    **settings: Any,
) -> dict[str, Any]:
    """Search timesteps for few network calls, judged by the samples' Frechet distance.

    Args:
        model: from `diptych.load`.
        out: the file, a `spacing` for `Model.sample` and `encode`; every try is kept in it.
        calls: network calls an image.
        solvers: such as `ipndm` or `dpmpp:order=3`; None: several.
        features: inception, mnist or fashion_mnist; None: those of the model's data.
        reference: images or statistics; None: the model's own images with many steps.
        resume: go on with the search in `out`.
        overwrite: replace `out`.
        progress: show a bar on stderr.
        weights: a file of the feature network's weights.
        settings: num, tries, seed, batch, teacher and teacher_steps of
            `diptych.study.search_steps.Search`.

    Returns:
        The file's content: solver, order, timesteps, score and more.

    Raises:
        UserError: wrong settings, or a file that is in the way or of another search.
    """
    from diptych.evaluation.features import open_extractor
    from diptych.study.search_steps import SOLVERS, Search, default_features, run_search

    check(str, none=True, features=features, reference=reference)
    check(int, 1, calls=calls)
    path = Path(path_text("out", out))
    if not hasattr(model, "engine"):
        raise refused("model", model, "a Model of diptych.load")
    features = features or default_features(model.config.data)
    known = ("num", "tries", "seed", "batch", "teacher", "teacher_steps")
    for name in settings:
        if name not in known:
            raise UserError(f"search_steps: '{name}' is not known{nearest(name, list(known))}")
        check(str if name == "teacher" else int, **{name: settings[name]})
    search = Search(
        calls,
        SOLVERS if solvers is None else _names("solvers", solvers),
        features=features,
        reference=reference,
        **settings,
    )
    backend = model.engine.backend
    panel = backend.name if backend.name in backends.BACKENDS else backends.installed_panel()
    extractor = open_extractor(features, panel, backend.device, _path("weights", weights))
    return run_search(
        model, search, extractor, path, resume=resume, overwrite=overwrite, progress=progress
    )


@PythonTerms(data="data_dir")
def denoise(
    models: Model | Sequence[Model] | Mapping[str, Model],
    images: Any = None,
    *,
    num: int | None = None,
    seed: int = 0,
    batch: int = 64,
    data_dir: Where | None = None,
    progress: bool = True,
) -> dict[str, Any]:
    """Compare models by the error of their predicted image at ten levels of noise.

    All see the same images with the same noise, so a ratio is one of pairs; no sample is drawn.

    Args:
        models: of `diptych.load` or `Model.of`, in one backend; the first is what the others are
            divided by. Keys of a mapping are their names in the result.
        images: real ones, as for `evaluate`: uint8 (N, H, W, C) or (N, C, H, W), a `Dataset`, or a
            name such as `mnist:test`; None: those that the first model held out, else its test
            split.
        num: number of them, evenly spread; None: 768, or all.
        seed: keys the noise.
        batch: images at once.
        data_dir: folder that holds the data sets; no other place is searched.
        progress: show a bar on stderr.

    Returns:
        A dict: `timesteps`, and of each model `errors`, the mean squared error of the predicted
        image at each (the network's units; pixels are in [-1, 1]), and `ratio`, the geometric mean
        over levels and images of its error over the first model's, with its 95 % interval.

    Raises:
        UserError: models of other images or schedules, or images that are missing or do not fit.
    """
    from diptych.evaluation import denoising
    from diptych.model import Model

    check(int, 1, batch=batch)
    check(int, 0, seed=seed)
    check(int, none=True, num=num)
    expected = "models of diptych.load"
    named: dict[str, Any] = {}
    if isinstance(models, Mapping):
        named |= models
    else:
        given = [models] if isinstance(models, Model) else several("models", models, expected)
        named |= {f"model {i + 1}": model for i, model in enumerate(given)}
    if not named or not all(isinstance(model, Model) for model in named.values()):
        raise refused("models", list(named.values()), expected)
    if images is None or isinstance(images, str | Path):
        name = None if images is None else path_text("images", images)
        first = next(iter(named.values()))
        found = denoising.open_pictures(first.config, name, _path("data_dir", data_dir))
    else:
        data = as_dataset(images)
        found = denoising.Pictures(data.name, data.sha256, data.images, data.labels)
    subjects = [denoising.Subject.of(name, model) for name, model in named.items()]
    return denoising.denoise(subjects, found.some(num), seed, batch, progress)


@PythonTerms(unmatched="matched=False", label="labels")
def compare(
    a: Where | Run,
    b: Where | Run,
    out: Where | None = None,
    *,
    samples: tuple[Where, Where] | None = None,
    matched: bool = True,
    columns: Mapping[str, str] | Sequence[Mapping[str, str]] = (),
    labels: Sequence[str] = (),
    language: str = "en",
    static: bool = False,
    overwrite: bool = False,
    progress: bool = True,
) -> dict[str, Any]:
    """Compare two runs step by step, or two logs of any program: a page in `out`, and its numbers.

    Args:
        a, b: run folders, or logs (CSV, JSON lines, TensorBoard events, text, Trainer's state); a
            ratio is b's number over a's.
        out: the page's folder; written completely or not at all. For logs None: no page.
        samples: sample folders of a and of b.
        matched: refuse runs whose steps cannot be compared; False: compare the rest.
        columns: logs: role -> column, such as {"loss": "train/loss"}, for both or for each.
        labels: logs: a label of each.
        language: the language that the page shows first: en or zh.
        static: a page without scripts, only in that language.
        overwrite: replace an earlier comparison.
        progress: show bars on stderr.

    Returns:
        The content of compare.json: a dict.
    """
    from diptych.report.dispatch import compare_any

    check(str, language=language)
    pair = None if samples is None else _paths("samples", samples)
    if pair is not None and len(pair) != 2:
        raise refused("samples", samples, "two folders")
    page = _path("out", out)
    found = compare_any(
        Path(path_text("a", a)),
        Path(path_text("b", b)),
        page,
        samples=None if pair is None else (pair[0], pair[1]),
        matched=matched,
        columns=_columns(columns),
        labels=_names("labels", labels),
        language=language,
        static=static,
        overwrite=overwrite,
        progress=progress,
    )
    return Content(found, page)


@PythonTerms(label="labels", logs="logs=True")
def make_report(
    runs: Where | Run | Sequence[Where | Run],
    out: Where,
    *,
    search: Sequence[Where] = (),
    logs: bool = False,
    columns: Mapping[str, str] | Sequence[Mapping[str, str]] = (),
    labels: Sequence[str] = (),
    markdown: bool = False,
    language: str = "en",
    static: bool = False,
    overwrite: bool = False,
    progress: bool = True,
) -> dict[str, Any]:
    """Write a page about runs into `out`; return the content of its report.json: a dict.

    Args:
        runs: run folders, or the folder of a study; or logs of any program.
        out: the page's folder; written completely or not at all.
        search: more folders to search for samples, scores and profiles.
        logs: the runs are logs; files always are.
        columns, labels: of logs, as in `compare`.
        markdown: also write the page as Markdown.
        language: the language that the page shows first: en or zh.
        static: a page without scripts, only in that language.
        overwrite: replace an earlier page.
        progress: show bars on stderr.
    """
    from diptych.report.dispatch import report_any

    check(str, language=language)
    given, page = _paths("runs", runs), Path(path_text("out", out))
    if not given:
        raise refused("runs", runs, "one run folder or more")
    found = report_any(
        given,
        page,
        search=_paths("search", search),
        logs=logs,
        columns=_columns(columns),
        labels=_names("labels", labels),
        markdown_too=markdown,
        language=language,
        static=static,
        overwrite=overwrite,
        progress=progress,
    )
    return Content(found, page)


def _path(name: str, given: Where | None) -> Path | None:
    return None if given is None else Path(path_text(name, given))


def _paths(name: str, given: Any) -> list[Path]:
    """One path or several."""
    return [Path(path_text(name, each)) for each in several(name, given, "paths")]


def _names(name: str, given: Any) -> tuple[str, ...]:
    """One name or several."""
    names = several(name, given, "names")
    if not all(isinstance(each, str) for each in names):
        raise refused(name, given, "names")
    return tuple(map(str, names))


def _columns(given: Any) -> list[Mapping[str, str]]:
    """Columns for all logs, or of each."""
    single = isinstance(given, Mapping) and given
    columns: list[Any] = [given] if single else several("columns", given, "dicts")
    for each in columns:
        texts = [*each, *each.values()] if isinstance(each, Mapping) else [None]
        if not all(isinstance(text, str) for text in texts):
            raise refused("columns", given, 'a dict such as {"loss": "train/loss"}, or one a log')
    return columns


def grid(images: Any, columns: int | None = None, scale: int = 2, gap: int = 2) -> Image.Image:
    """Arrange images in one picture, which a notebook shows.

    Args:
        images: uint8 (N, H, W, C), (N, C, H, W) or (N, H, W).
        columns: images per row; None: as square as N allows.
        scale: width of one image pixel in the picture, in pixels.
        gap: white pixels between images, before scaling.
    """
    from PIL import Image

    from diptych.figures.grids import grid as sheet
    from diptych.figures.grids import to_picture

    check(int, 1, none=True, columns=columns)
    check(int, 1, scale=scale)
    check(int, 0, gap=gap)
    pixels: Pixels = as_dataset(images).images[:]
    picture = to_picture(sheet(pixels, columns, gap))
    size = picture.width * scale, picture.height * scale
    return picture.resize(size, Image.Resampling.NEAREST)
