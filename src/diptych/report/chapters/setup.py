"""Chapters: environment, data, training, testing. The runs, their machines, their commands."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from diptych.config.load import flatten
from diptych.pages.catalogue import Text, phrase, same
from diptych.pages.document import Block, Code, GridRow, Table, grid_of
from diptych.pages.template import say, words
from diptych.report import commands
from diptych.report.numbers.pair import INCIDENTAL, flat
from diptych.report.sources.collection import Study
from diptych.report.sources.gather import Record, weights_named
from diptych.runs.checkpoint import weights_of
from diptych.runs.reader import last_step

SHOWN = ("backend", "framework_version", "diptych", "python", "numpy", "platform", "cpu",
         "cores", "threads", "device", "device_name")  # fmt: skip
DATA = ("dataset", "dataset_split", "dataset_images", "dataset_sha256")
MOST_COMMANDS = 12
PREPROCESSING = ("crop", "random_flip", "rescaled", "logit_transform", "dequantization")


def told(value: Any) -> str | None:
    """A recorded value as text for a table; None if it is not recorded."""
    if value is None:
        return None
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int) and abs(value) >= 10000:
        return f"{value:,}"
    return ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def environment(study: Study) -> Iterator[Block]:
    """Frameworks, versions, machine; other differences; the versions as requirements."""
    sources = study.sources("environment.json", ", ".join(SHOWN))
    rows: list[GridRow] = [("run_folder", study.folder_names())]
    rows += [(key, [told(run.environment.get(key)) for run in study.runs]) for key in SHOWN]
    yield grid_of("environment", study.labels, rows, sources)
    others = [flat(run.environment) for run in study.runs]
    told_of = (*SHOWN, *DATA, *INCIDENTAL)
    keys = dict.fromkeys(key for each in others for key in each if key.split(".")[0] not in told_of)
    differing = [key for key in keys if len({str(each.get(key)) for each in others}) > 1]
    if differing:
        body = [(same(key), [told(each.get(key)) for each in others]) for key in differing]
        files = study.sources("environment.json", ", ".join(differing))
        yield grid_of("environment_differences", study.labels, body, files)
    for i, run in enumerate(study.runs):
        known = {run.backend: "framework_version", "numpy": "numpy", "diptych": "diptych"}
        versions = {name: run.environment.get(key) for name, key in known.items()}
        pins = [f"{name}=={version}" for name, version in versions.items() if version]
        caption = words("caption.requirements", run=study.labels[i])
        yield Code(caption, "\n".join(pins), (study.source(i, "environment.json", "versions"),))


def data(study: Study) -> Iterator[Block]:
    """Hash of the pixels read, their preparation, and the way to obtain them."""
    rows: list[GridRow] = [
        (key, [told(run.environment.get(key)) for run in study.runs]) for key in DATA
    ]
    shapes = [run.config.data.shape for run in study.runs]
    sizes = [f"{height} x {width} x {channels}" for channels, height, width in shapes]
    rows.append(("image_size", sizes))
    rows += [
        (key, [told(getattr(r.config.data, key)) for r in study.runs]) for key in PREPROCESSING
    ]
    rows.append(("steps_per_epoch", [told(r.steps_per_epoch) for r in study.runs]))
    sources = study.sources("environment.json", ", ".join(DATA))
    sources += study.sources("config.yaml", "data, train.batch_size")
    yield grid_of("data", study.labels, rows, sources)
    lines = list(dict.fromkeys(commands.data(run) for run in study.runs))
    fields = "data.source, data.split, data.image_size, data.channels"
    files = study.sources("config.yaml", fields)
    yield Code(phrase("caption.data_command"), "\n".join(lines), files)


def training(study: Study) -> Iterator[Block]:
    """The commands that trained the runs, the runs' last steps, and every setting."""
    where = "study" if study.plan else "report"
    yield say("commands", f"commands.{where}")
    for i, run in enumerate(study.runs):
        recorded = commands.recorded(run.environment.get("command"), "train")
        if recorded:
            caption = words("caption.train_recorded", run=study.labels[i])
            yield Code(caption, recorded, (study.source(i, "environment.json", "command"),))
        config = study.typed(study.folders[i] / "config.yaml")
        caption = words("caption.train_derived", run=study.labels[i])
        backend = study.source(i, "environment.json", "backend")
        sources = (study.source(i, "config.yaml", "all"), backend)
        yield Code(caption, commands.train(config, run), sources)
    yield _progress(study)
    settings = [flatten(run.config) for run in study.runs]
    body = [
        (same(key), [told(each.get(key)) or "none" for each in settings]) for key in settings[0]
    ]
    files = study.sources("config.yaml", "all")
    yield grid_of("settings", study.labels, body, files, long=True)


def _progress(study: Study) -> Table:
    planned = [last_step(run.config, run.environment) for run in study.runs]
    rows: list[GridRow] = [
        ("seed", [told(run.config.seed) for run in study.runs]),
        ("steps", [f"{run.step.size:,}" for run in study.runs]),
        ("last", [f"{run.step[-1]:,}" for run in study.runs]),
        ("planned", [None if n is None else f"{n:,}" for n in planned]),
        ("starts", [", ".join(f"{s:,}" for s in run.starts) for run in study.runs]),
    ]
    sources = study.metrics("step") + study.sources("environment.json", "starts")
    return grid_of("plan", study.labels, rows, sources)


def testing(study: Study) -> Iterator[Block]:
    """Commands for sampling and measuring: as recorded, and as derived from the records."""
    for record in study.found.pictures()[:MOST_COMMANDS]:
        label = study.label_of(record)
        about = record.content.get("environment") or {}
        recorded = commands.recorded(about.get("command"), "sample")
        if recorded:
            caption = words("caption.sample_recorded", run=label)
            yield Code(caption, recorded, (study.of_record(record, "environment.command"),))
        if record.content.get("start") or record.content.get("clip") == "image":
            continue  # no card says which latents or images a folder began with
        model, known = _model(study, record)
        caption = words("caption.sample_derived" if known else "caption.sample_like", run=label)
        out = f"NEW-{record.path.parent.name}"
        command = commands.sample(model, record.backend, record.content, out)
        yield Code(caption, command, (study.of_record(record, CARD),))
    for record in study.found.of("scores")[:MOST_COMMANDS]:
        model, known = _model(study, record)
        key = "caption.evaluate_derived" if known else "caption.evaluate_like"
        source = study.of_record(record, "scores.metric, scores.protocol, scores.repeats")
        command = commands.evaluate(model, record.backend, record.content["scores"])
        yield Code(words(key, run=study.label_of(record)), command, (source,))


CARD = "solver, steps, eta, spacing, order, clip, threshold, seed, num, batch, weights"


def _model(study: Study, record: Record) -> tuple[str, bool]:
    """The checkpoint that a record names by its weights and True, else the run and False."""
    if record.run is None:
        return "RUN", False
    folder = study.folders[record.run]
    held = weights_of(folder)
    for sha in sorted(weights_named(record)):
        if sha in held:
            return study.typed(held[sha]), True
    return study.typed(folder), False


def yes_no(value: bool) -> Text:
    """Yes or no in both languages."""
    return phrase("cell.affirmed" if value else "cell.denied")


def cells(
    numbers: Sequence[Mapping[str, Any] | None], key: str, show: Callable[[Any], str]
) -> list[str | None]:
    """One number of each run as text; None if unknown."""
    return [None if n is None or n.get(key) is None else show(n[key]) for n in numbers]
