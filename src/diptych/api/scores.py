"""`diptych.evaluate`, `search_steps` and `denoise`: scores of images and of networks."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diptych import backends
from diptych.api.arguments import Where, as_dataset, names_of, path_of
from diptych.data.dataset import ARRAYS
from diptych.errors import PythonTerms, UserError, check, nearest, path_text, refused, several
from diptych.evaluation.run import evaluate as run_evaluation
from diptych.evaluation.score import Score

if TYPE_CHECKING:
    from diptych.model import Model


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
        metrics=names_of("metrics", metrics),
        features=features,
        protocol=protocol,
        num=num,
        repeats=repeats,
        batch=batch,
        progress=progress,
        cache=cache_folder() if cache else None,
        data_dir=path_of("data_dir", data_dir),
        train=None if train is None else opened(train),
        held_out=None if held_out is None else opened(held_out),
        mirrored=mirrored,
    )
    settings.check_reference(reference)
    several = isinstance(samples, list)
    sources = [opened(each) for each in samples] if several else [opened(samples)]
    against = None if reference is None else opened(reference)
    sample_sets(sources, settings)  # check before the network, which may need a download
    if backend is None:
        backend = "jittor" if "jittor" in sys.modules else "torch"
    extractor = open_extractor(features, backend, device, path_of("weights", weights))
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
        SOLVERS if solvers is None else names_of("solvers", solvers),
        features=features,
        reference=reference,
        **settings,
    )
    backend = model.engine.backend
    panel = backend.name if backend.name in backends.BACKENDS else backends.installed_panel()
    extractor = open_extractor(features, panel, backend.device, path_of("weights", weights))
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
        found = denoising.open_pictures(first.config, name, path_of("data_dir", data_dir))
    else:
        data = as_dataset(images)
        found = denoising.Pictures(data.name, data.sha256, data.images, data.labels)
    subjects = [denoising.Subject.of(name, model) for name, model in named.items()]
    return denoising.denoise(subjects, found.some(num), seed, batch, progress)
