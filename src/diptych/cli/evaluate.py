"""`diptych evaluate` and `diptych stats`."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import click

from diptych.cli.common import (
    ARITHMETIC,
    AT_ONCE,
    BACKEND,
    DEVICE,
    FOLDER,
    JSON,
    OVERWRITE,
    OWN_BACKEND,
    QUIET,
    RAW,
    SEED,
    backend_of,
    chosen_options,
    options,
    part_of,
    sampler_options,
    say,
    show,
    split,
    typed,
)
from diptych.cli.completion import METRICS, MODELS
from diptych.errors import UserError
from diptych.sampling.options import SamplerOptions, option_name

MEASURE = options(
    click.option("--reference", help="mnist:test, a folder, an .npz, or statistics."),
    click.option(
        "--metrics", default="fid", show_default=True, shell_complete=METRICS,
        help="fid,kid,is,prdc,sfid,fid-infinity,memorization",
    ),
    click.option(
        "--features", default="inception", show_default=True,
        help="inception, mnist or fashion_mnist; pixels, for memorization without a network.",
    ),
    click.option("--protocol", help="pytorch-fid, torch-fidelity or clean-fid."),
    click.option("--train", help="Training images, for memorization.  [default: the run's]"),
    click.option(
        "--held-out",
        help="Real images not trained on, for memorization.  [default: the run's, else the test "
        "split]",
    ),
    click.option("--mirrored", is_flag=True, help="The --train images were mirrored in training."),
    click.option("--weights", type=FOLDER, help="A file of the feature network's weights."),
    click.option("--data", type=FOLDER, help="Folder that holds the data sets, searched alone."),
    click.option("--no-cache", is_flag=True, help="Do not keep the reference's features."),
)  # fmt: skip
# The options of `measure_settings`.
MEASURED = ("metrics", "features", "protocol", "num", "repeats", "batch", "data", "no_cache",
            "quiet", "train", "held_out", "mirrored")  # fmt: skip
# How a run is sampled, in addition to its sampler.
DRAWING = options(
    SEED,
    click.option("--sample-batch", **AT_ONCE, help="Images drawn at once."),
    RAW,
    click.option(
        "--samples-out", type=FOLDER, help="Folder of a run's samples.  [default: RUN/samples]"
    ),
)


def measure_settings(
    metrics: str,
    features: str,
    protocol: str | None,
    num: int | None,
    repeats: int,
    batch: int,
    data: Path | None,
    no_cache: bool,
    quiet: bool,
    train: str | None = None,
    held_out: str | None = None,
    mirrored: bool = False,
) -> Any:
    """`Settings` from the options of MEASURE, checked before any work."""
    from diptych.evaluation.feature_network import NO_NETWORK
    from diptych.evaluation.features.weights_file import cache_folder
    from diptych.evaluation.protocol import protocol_for
    from diptych.evaluation.sets import Settings

    protocol_for(check_features(features, NO_NETWORK), protocol)
    return Settings(
        metrics=split(metrics),
        features=features,
        protocol=protocol,
        num=num,
        repeats=repeats,
        batch=batch,
        cache=None if no_cache else cache_folder(),
        data_dir=data,
        progress=not quiet,
        train=train,
        held_out=held_out,
        mirrored=mirrored,
    )


def of_training(settings: Any, source: str) -> Any:
    """The settings, with a model's own training images if memorization needs them."""
    from dataclasses import replace

    from diptych.evaluation.images import not_trained_on, trained_on
    from diptych.generate.for_scoring import is_model
    from diptych.weights.find import find_weights

    if "memorization" not in settings.metrics or settings.train is not None:
        return settings
    if not is_model(source):
        raise UserError("memorization needs training images: give --train, for example mnist:train")
    if settings.mirrored:
        raise UserError(
            f"--mirrored is for --train; whether the training images of {source} were mirrored "
            f"is in its config: leave it out"
        )
    config = find_weights(source).config
    held_out = settings.held_out or not_trained_on(config, settings.data_dir)
    if held_out is None:  # said before anything is drawn
        raise UserError(
            f"{source}: held out no pictures, and its data has no test split; memorization "
            f"compares with images that were not trained on: give them with --held-out"
        )
    train = trained_on(config, settings.data_dir)
    return replace(settings, train=train, held_out=held_out, mirrored=config.data.random_flip)


def check_reference(reference: str | None, data: Path | None) -> None:
    """Refuse a reference that cannot be read, before any image is drawn (UserError)."""
    from diptych.evaluation.feature_parts import features_path
    from diptych.evaluation.images import open_images
    from diptych.evaluation.statistics_file import statistics_path

    if reference is not None and not (statistics_path(reference) or features_path(reference)):
        open_images(reference, data)


def check_features(name: str, *others: str) -> str:
    """Return the name of a known feature network, or one of `others`; else raise UserError."""
    from diptych.errors import nearest
    from diptych.evaluation.features.extractor import NAMES

    if name not in (*NAMES, *others):
        raise UserError(f"feature network '{name}' is not known{nearest(name, [*NAMES, *others])}")
    return name


def open_network(name: str, backend: str, device: str, weights: Path | None) -> Any:
    """The feature network on a backend; beside an engine, on the panel that is installed."""
    from diptych import backends
    from diptych.evaluation import features as networks

    if backend in backends.ENGINES:
        panel = backends.installed_panel()
        say(f"features: computed by {panel}, as {backend} only predicts")
        backend = panel
    return networks.open_extractor(name, backend, device, weights)


@click.command(short_help="Score images against a reference.")
@click.argument("samples", nargs=-1, required=True, shell_complete=MODELS)
@MEASURE
@click.option("--num", type=int, help="Images of each sample set.  [default: all]")
@click.option("--repeats", type=int, default=1, show_default=True, help="Independent sample sets.")
@click.option("--batch", type=int, default=64, show_default=True, help="Images at once.")
@sampler_options()
@DRAWING
@OWN_BACKEND
@ARITHMETIC
@DEVICE
@click.option("--out", type=FOLDER, help="Also write the scores to this JSON file.")
@OVERWRITE
@QUIET
@JSON
def evaluate(samples: tuple[str, ...], **options: Any) -> None:
    """Score SAMPLES against a reference: distances with their protocol and interval.

    SAMPLES is a sample folder, a folder of pictures, an .npz, saved statistics, a folder of
    features (`diptych stats --part`), or a run, which is sampled first. Several are independent
    repeats of one model. For the names of sources, see `diptych data --help`.

    \b
    Examples:
      diptych evaluate digits --reference mnist:test --features mnist
      diptych evaluate runs/mnist --num 10000 --repeats 3 --reference mnist:test --metrics fid,kid
      diptych evaluate a.npz --reference cifar.npz --protocol clean-fid --out score.json
      diptych evaluate runs/mnist --num 5000 --metrics memorization --features mnist
      diptych evaluate pictures --train mnist:train --metrics memorization --features mnist
      diptych evaluate runs/cats --num 500 --metrics memorization --features pixels
    """
    from diptych.evaluation.run import evaluate as run
    from diptych.evaluation.score_table import render
    from diptych.evaluation.sets import sample_sets
    from diptych.files import check_file, hold_place, write_json
    from diptych.runs.records import Scores

    settings = of_training(measure_settings(**{key: options[key] for key in MEASURED}), samples[0])
    settings.check_reference(options["reference"])
    options["backend"] = backend_of(options["backend"], samples[0])
    out = options["out"]
    with nullcontext() if out is None else hold_place(out):
        if out is not None:
            check_file(out, options["overwrite"])
        sources, settings = drawn(samples, settings, options)
        sample_sets(sources, settings)  # before the network, which may have to be fetched
        extractor = open_network(
            options["features"], options["backend"], options["device"], options["weights"]
        )
        result = run(sources, options["reference"], settings, extractor)
        if out is not None:
            write_json(out, Scores.checked(result))
    show(result, options["as_json"], render(result))


def drawn(samples: tuple[str, ...], settings: Any, options: dict[str, Any]) -> tuple[Any, Any]:
    """The sample sets and their settings; a run is sampled first."""
    from dataclasses import replace

    from diptych.backends import check_panel
    from diptych.generate.for_scoring import Drawing, draw, is_model

    asked = chosen_options(options)
    models = [source for source in samples if is_model(source)]
    if not models:
        refuse_unused(asked)
        check_panel(options["backend"], "the features of images")
        for name in ("raw", "seed", "sample_batch", "samples_out"):
            if typed(name):
                raise UserError(
                    f"--{name.replace('_', '-')} says how a run is sampled, and these are images "
                    f"already; leave it out, or give a run"
                )
        for name in ("precision", "deterministic"):
            if typed(name):
                raise UserError(
                    f"--{name} only applies to the network that samples, and these are images "
                    f"already; the features' network is float32 always. Leave it out, or give a run"
                )
        return samples, settings
    if len(samples) > 1:
        raise UserError(f"{models[0]}: give one run alone; its repeats come from --repeats")
    drawing = Drawing(
        asked,
        options["seed"],
        options["sample_batch"],
        options["raw"],
        options["precision"],
        options["deterministic"],
    )
    if settings.num is None:
        raise UserError(f"{models[0]}: how many images are to be drawn? Give --num")
    check_reference(options["reference"], options["data"])
    folders = draw(
        models[0],
        drawing,
        settings.num,
        settings.repeats,
        options["backend"],
        options["device"],
        folder=options["samples_out"],
        progress=settings.progress,
        note=say,
    )
    return folders, replace(settings, repeats=1)


def refuse_unused(asked: SamplerOptions) -> None:
    """Raise UserError if a sampler setting is given although nothing is sampled."""
    for name in asked.given():
        raise UserError(
            f"--{option_name(name)} is a setting of a sampler, and these are images already; "
            f"leave it out, or give a run"
        )


@click.command(short_help="Keep the statistics of images' features in a file.")
@click.argument("images")
@click.option(
    "--out",
    type=FOLDER,
    required=True,
    help="A .npz or .safetensors file; with --part, the folder of all parts.",
)
@click.option(
    "--features", default="inception", show_default=True, help="inception, mnist, fashion_mnist."
)
@click.option("--protocol", help="pytorch-fid, torch-fidelity or clean-fid.")
@click.option("--weights", type=FOLDER, help="A file of the feature network's weights.")
@click.option("--data", type=FOLDER, help="Folder that holds the data sets, searched alone.")
@click.option("--num", type=int, help="Number of images to take.  [default: all]")
@click.option("--first", type=int, default=0, show_default=True, help="Begin with this image.")
@click.option(
    "--part", metavar="K/N", help="Keep the features of part K of N, from 0, for evaluate."
)
@click.option("--add", multiple=True, type=FOLDER, help="Statistics of other shards, to add.")
@click.option("--batch", type=int, default=64, show_default=True, help="Images at once.")
@BACKEND
@DEVICE
@OVERWRITE
@QUIET
@JSON
def stats(images: str, **options: Any) -> None:
    """Write statistics of IMAGES' features (n, sum, outer sum; also mu and sigma) to a file.

    Shards add up exactly: the sums of the parts equal the sums of the whole, bit for bit.

    With --part, N processes write the features themselves to one folder, which `evaluate` takes in
    place of the images.

    \b
    Examples:
      diptych stats mnist:test --features mnist --out mnist.npz
      diptych stats pictures/ --protocol clean-fid --out pictures.safetensors
      diptych stats part2/ --add part1.npz --out whole.npz
      diptych stats samples/ --part 0/4 --out features
    """
    from diptych.backends import check_panel
    from diptych.evaluation.feature_parts import part_path, write_part
    from diptych.evaluation.images import open_images
    from diptych.evaluation.protocol import protocol_for
    from diptych.evaluation.shards import write_statistics
    from diptych.evaluation.statistics_file import check_suffix
    from diptych.files import check_file, hold_place
    from diptych.ranks import of_environment

    check_panel(options["backend"], "the features of images")
    out = options["out"]
    ranks = of_environment()
    part = part_of(ranks, options["part"])
    if part is None:
        check_suffix(out)
    else:
        if options["add"]:
            raise UserError("--add is for statistics, and --part keeps features; leave one out")
        if out.exists() and not out.is_dir():
            raise UserError(f"{out}: is a file; --part writes to a folder, which all parts share")
        out = part_path(out, part)
    with hold_place(out):
        check_file(out, options["overwrite"])
        protocol = protocol_for(check_features(options["features"]), options["protocol"])
        open_images(images, options["data"])  # before the network, which may have to be fetched
        extractor = open_network(
            options["features"], options["backend"], options["device"], options["weights"]
        )
        taken = {key: options[key] for key in ("first", "num", "batch")}
        taken |= {"data_dir": options["data"], "progress": not options["quiet"] and ranks.first}
        if part is not None:
            facts = write_part(images, options["out"], extractor, protocol, part, **taken)
            text = (
                f"{out}: features of {facts['n']} of {facts['num']} images; "
                f"{facts['parts_there']} of {part.count} parts are there"
            )
            show(facts, options["as_json"], text)
            return
        facts = write_statistics(images, out, extractor, protocol, add=options["add"], **taken)
    text = f"{out}: {facts['n']} images, {facts['dims']} dimensions, {facts['sha256'][:12]}"
    show(facts, options["as_json"], text)
