"""Chapters: environment, data, training, testing. What was run, on what, by which commands."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from diptych.config.load import flatten
from diptych.report.document import Block, Code, Table, grid_of
from diptych.report.numbers.pair import INCIDENTAL, flat
from diptych.report.sources.collection import Study
from diptych.report.sources.gather import Record, weights_named, weights_of
from diptych.report.text.catalogue import Text, phrase, same
from diptych.report.text.template import say, words
from diptych.runs.reader import Run

SHOWN = ("backend", "framework_version", "diptych", "python", "numpy", "platform", "cpu", "cores",
         "threads", "device", "device_name")  # fmt: skip
DATA = ("dataset", "dataset_split", "dataset_images", "dataset_sha256")
MOST_COMMANDS = 12
PREPROCESSING = ("crop", "random_flip", "rescaled", "logit_transform", "dequantization")


def told(value: Any) -> str | None:
    """A recorded value as it stands in a table; None where it is not recorded."""
    if value is None:
        return None
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int) and abs(value) >= 10000:
        return f"{value:,}"
    return ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def environment(study: Study) -> Iterator[Block]:
    """Frameworks, versions, machine; what else differs; the versions as requirements."""
    sources = tuple(study.source(i, "environment.json", ", ".join(SHOWN)) for i in _each(study))
    rows: list[tuple[Text, Sequence[str | None]]] = [
        (phrase("row.run_folder"), study.folder_names())
    ]
    rows += [
        (phrase(f"row.{key}"), [told(run.environment.get(key)) for run in study.runs])
        for key in SHOWN
    ]
    yield grid_of(phrase("caption.environment"), study.labels, rows, sources)
    others = [flat(run.environment) for run in study.runs]
    keys = [key for key in dict.fromkeys(key for each in others for key in each)
            if key.split(".")[0] not in (*SHOWN, *DATA, *INCIDENTAL)]  # fmt: skip
    differing = [key for key in keys if len({str(each.get(key)) for each in others}) > 1]
    if differing:
        body = [(same(key), [told(each.get(key)) for each in others]) for key in differing]
        files = tuple(study.source(i, "environment.json", ", ".join(differing))
                      for i in _each(study))  # fmt: skip
        yield grid_of(phrase("caption.environment_differences"), study.labels, body, files)
    for i, run in enumerate(study.runs):
        known = {run.backend: "framework_version", "numpy": "numpy", "diptych": "diptych"}
        pins = [f"{name}=={run.environment[key]}" for name, key in known.items()
                if run.environment.get(key)]  # fmt: skip
        caption = words("caption.requirements", run=study.labels[i])
        yield Code(caption, "\n".join(pins), (study.source(i, "environment.json", "versions"),))


def data(study: Study) -> Iterator[Block]:
    """Which pixels were read, by their hash, how they were prepared, and how to have them."""
    rows: list[tuple[Text, Sequence[str | None]]] = [
        (phrase(f"row.{key}"), [told(run.environment.get(key)) for run in study.runs])
        for key in DATA
    ]
    sizes = [f"{r.config.data.image_size} x {r.config.data.image_size} x {r.config.data.channels}"
             for r in study.runs]  # fmt: skip
    rows.append((phrase("row.image_size"), sizes))
    rows += [
        (phrase(f"row.{key}"), [told(getattr(r.config.data, key)) for r in study.runs])
        for key in PREPROCESSING
    ]
    rows.append((phrase("row.steps_per_epoch"), [told(r.steps_per_epoch) for r in study.runs]))
    sources = [study.source(i, "environment.json", ", ".join(DATA)) for i in _each(study)]
    sources += [study.source(i, "config.yaml", "data, train.batch_size") for i in _each(study)]
    yield grid_of(phrase("caption.data"), study.labels, rows, tuple(sources))
    lines = list(dict.fromkeys(data_command(run) for run in study.runs))
    files = tuple(
        study.source(i, "config.yaml", "data.source, data.split, data.image_size, data.channels")
        for i in _each(study)
    )
    yield Code(phrase("caption.data_command"), "\n".join(lines), files)


def data_command(run: Run) -> str:
    """`diptych data info` for what a run read; it shows the sha256 that its record has."""
    asked = run.config.data
    found = ["diptych", "data", "info", asked.source, "--split", asked.split]
    found += ["--size", str(asked.image_size), "--channels", str(asked.channels)]
    return shlex.join(found + (["--crop", asked.crop] if asked.crop else []))


def training(study: Study) -> Iterator[Block]:
    """The commands that trained the runs, how far they came, and every setting."""
    where = "study" if study.plan else "report"
    yield say("commands", "training", f"commands.{where}")
    for i, run in enumerate(study.runs):
        recorded = recorded_command(run.environment.get("command"), "train")
        if recorded:
            caption = words("caption.train_recorded", run=study.labels[i])
            yield Code(caption, recorded, (study.source(i, "environment.json", "command"),))
        words_of = ["diptych", "train", study.typed(study.folders[i] / "config.yaml"),
                    "--backend", run.backend, "--out", f"NEW-{run.name}"]  # fmt: skip
        caption = words("caption.train_derived", run=study.labels[i])
        sources = (study.source(i, "config.yaml", "all"),
                   study.source(i, "environment.json", "backend"))  # fmt: skip
        yield Code(caption, shlex.join(words_of), sources)
    yield _progress(study)
    settings = [flatten(run.config) for run in study.runs]
    body = [(same(key), [told(each.get(key)) or "none" for each in settings])
            for key in settings[0]]  # fmt: skip
    files = tuple(study.source(i, "config.yaml", "all") for i in _each(study))
    yield grid_of(phrase("caption.settings"), study.labels, body, files, long=True)


def _progress(study: Study) -> Table:
    rows: list[tuple[Text, Sequence[str | None]]] = [
        (phrase("row.seed"), [told(run.config.seed) for run in study.runs]),
        (phrase("row.steps"), [f"{run.step.size:,}" for run in study.runs]),
        (phrase("row.last"), [f"{run.step[-1]:,}" for run in study.runs]),
        (phrase("row.planned"), [f"{n:,}" if n else None for n in map(planned, study.runs)]),
        (phrase("row.starts"), [", ".join(f"{s:,}" for s in run.starts) for run in study.runs]),
    ]
    sources = [*study.metrics("step")]
    sources += [study.source(i, "environment.json", "starts") for i in _each(study)]
    return grid_of(phrase("caption.plan"), study.labels, rows, tuple(sources))


def planned(run: Run) -> int | None:
    """The step at which the config ends; None where it names epochs of unknown length."""
    if run.config.train.steps is not None:
        return int(run.config.train.steps)
    length = run.steps_per_epoch
    return None if length is None else int(run.config.train.epochs * length)


def testing(study: Study) -> Iterator[Block]:
    """The commands that sampled and that measured: as recorded, and as the records give them."""
    for record in study.found.pictures()[:MOST_COMMANDS]:
        label = study.label_of(record)
        about = record.content.get("environment") or {}
        recorded = recorded_command(about.get("command"), "sample")
        if recorded:
            caption = words("caption.sample_recorded", run=label)
            yield Code(caption, recorded, (study.of_record(record, "environment.command"),))
        model, known = _model(study, record)
        caption = words("caption.sample_derived" if known else "caption.sample_like", run=label)
        command = sample_command(model, record)
        yield Code(caption, command, (study.of_record(record, CARD),))
    for record in study.found.of("scores")[:MOST_COMMANDS]:
        model, known = _model(study, record)
        caption = words("caption.evaluate_derived" if known else "caption.evaluate_like",
                        run=study.label_of(record))  # fmt: skip
        source = study.of_record(record, "scores.metric, scores.protocol, scores.repeats")
        yield Code(caption, evaluate_command(model, record), (source,))


CARD = "solver, steps, eta, spacing, order, clip, threshold, seed, num, batch, weights"


def recorded_command(command: Any, verb: str) -> str | None:
    """The command line as it was typed, where it was one of `diptych`; else None."""
    if not isinstance(command, list) or len(command) < 2 or command[1] != verb:
        return None
    return shlex.join(["diptych", *map(str, command[1:])])


def _sampler(card: dict[str, Any], prefix: str = "") -> list[str]:
    found: list[str] = []
    for key in ("solver", "steps", "order", "eta", "spacing", "threshold"):
        value = card.get(f"{prefix}{key}")
        if value is not None:
            found += [f"--{key}", f"{value:g}" if isinstance(value, float) else str(value)]
    return found


def _model(study: Study, record: Record) -> tuple[str, bool]:
    """The checkpoint whose weights a record names, else the run; and whether they are those."""
    if record.run is None:
        return "RUN", False
    folder = study.folders[record.run]
    held = weights_of(folder)
    for sha in sorted(weights_named(record)):
        if sha in held:
            return study.typed(held[sha]), True
    return study.typed(folder), False


def sample_command(model: str, record: Record) -> str:
    """`diptych sample` for the images of a manifest."""
    card = record.content
    found = ["diptych", "sample", model, "--backend", record.backend, *_sampler(card)]
    found += ["--clip"] if card.get("clip") else ["--no-clip"]
    if card.get("classes"):
        found += ["--class", ",".join(map(str, card["classes"]))]
    for key in ("guidance", "seed", "num", "batch"):
        if card.get(key) is not None:
            found += [f"--{key}", str(card[key])]
    found += ["--raw"] if card.get("weights") == "raw" else []
    return shlex.join([*found, "--out", f"NEW-{record.path.parent.name}"])


def evaluate_command(model: str, record: Record) -> str:
    """`diptych evaluate` for the scores of a file."""
    first = record.content["scores"][0]
    protocol, repeats = first.get("protocol", {}), max(1, len(first.get("repeats") or ()))
    found = ["diptych", "evaluate", model, "--backend", record.backend or "torch"]
    if protocol.get("reference.name"):
        split = protocol.get("reference.split")
        found += ["--reference", f"{protocol['reference.name']}" + (f":{split}" if split else "")]
    features = str(protocol.get("extractor"))
    found += ["--features", features, "--metrics", ",".join(_metrics(record))]
    if protocol.get("protocol") not in (None, "native"):
        found += ["--protocol", str(protocol["protocol"])]
    found += ["--num", str(protocol.get("num")), "--repeats", str(repeats)]
    card = {key: value for key, value in protocol.items() if key != "sampler.timesteps"}
    found += _sampler(card, "sampler.") + (["--clip"] if card.get("sampler.clip") else [])
    return shlex.join(found)


def _metrics(record: Record) -> list[str]:
    """The names that --metrics takes, of the names that scores bear."""
    prdc = {"precision", "recall", "density", "coverage"}
    short = [str(score["metric"]).rpartition("-")[2] for score in record.content["scores"]]
    known = {"frechet": "fid"} | dict.fromkeys(prdc, "prdc")
    return list(dict.fromkeys(known.get(name, name) for name in short))


def _each(study: Study) -> range:
    return range(len(study.runs))


def yes_no(value: bool) -> Text:
    """Yes or no in both languages."""
    return phrase("cell.affirmed" if value else "cell.denied")


def cells(
    numbers: Sequence[Mapping[str, Any] | None], key: str, show: Callable[[Any], str]
) -> list[str | None]:
    """One number of each run as text; None where it is not known."""
    return [None if n is None or n.get(key) is None else show(n[key]) for n in numbers]
