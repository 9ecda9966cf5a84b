"""Chapter: pictures. Grids and their difference, sampling step by step, GIFs, embedded.

Pictures are compared pixel by pixel only if both sampler cards agree. Pictures that would make the
page large are left out and named.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from diptych.errors import UserError
from diptych.pages.catalogue import Text, phrase, same
from diptych.pages.document import Block, Gallery, Picture
from diptych.pages.template import Sentence, Source, cite, pick, say, words
from diptych.report.numbers.images import SIDE, compare_samples, difference_picture, grid
from diptych.report.numbers.losses import Numbers
from diptych.report.sources.collection import Study
from diptych.report.sources.gather import Record
from diptych.runs.checkpoint import weights_of
from diptych.runs.samples import Samples, open_samples
from diptych.types import Pixels

MOST_FOLDERS = 8
MOST_GIF_BYTES = 2_000_000  # per GIF, so that both backends' are shown or neither
Shown = Iterable[tuple[Picture, Source | None]]


@dataclass(frozen=True)
class Opened:
    """A readable sample folder, and its name on this page."""

    record: Record
    samples: Samples
    name: str
    title: Text
    colour: str

    @property
    def folder(self) -> Path:
        """Path of the folder."""
        return self.samples.folder


def chapter(study: Study) -> Iterator[Block]:
    """All sampled images, and the difference between the backends' images."""
    records = study.found.pictures()[:MOST_FOLDERS]
    read: list[tuple[Record, Samples]] = []
    for record in records:
        try:
            read.append((record, open_samples(record.path.parent, most=SIDE * SIDE)))
        except UserError:
            path, why = record.path.parent.name, phrase("pictures.incomplete")
            yield say(f"pictures.left.{path}", "pictures.left", path=path, reason=why)
    more = len(study.found.of("samples")) - len(records)
    if more > 0:
        yield say("pictures.more", n=more)
    opened = _opened(study, read)
    yield from _whose(study, opened)
    alike = list(_alike(opened))
    for a, b in alike:
        numbers = compare_samples(a.samples, b.samples, matched=False)
        files = study.of_records([a.record, b.record], "seconds_per_image, sampler card")
        files += tuple(study.cite(x.folder / "00000.png", "and further images") for x in (a, b))
        yield from cite(image_sentences(numbers, a.name, b.name), *files)
    # Grids of one size, so that image i of one lies on image i of the other.
    at = {id(each): k for k, each in enumerate(opened)}
    pairs = [
        (at[id(a)], at[id(b)]) for a, b in alike if a.samples.images.shape == b.samples.images.shape
    ]
    for gallery in _gallery("grids", _grids(study, opened, alike)):
        yield replace(gallery, pairs=pairs)
    yield from _gallery("progress", _progress(study, opened, alike))
    yield from _gifs(study, opened)
    yield from _gallery("training_grids", _training_grids(study))


def _opened(study: Study, read: Sequence[tuple[Record, Samples]]) -> list[Opened]:
    """Each set named after its run, and also after its folder if the run has several."""
    runs = [study.label_of(record) for record, _ in read]
    return [
        Opened(
            record,
            samples,
            run if runs.count(run) == 1 else f"{run} ({samples.folder.name})",
            same(study.title_of(record)),
            study.colour_of(record),
        )
        for run, (record, samples) in zip(runs, read, strict=True)
    ]


def _gallery(key: str, shown: Shown) -> Iterator[Gallery]:
    pictures = list(shown)
    if pictures:
        sources = tuple(source for _, source in pictures if source)
        yield Gallery(phrase(f"caption.{key}"), [picture for picture, _ in pictures], sources)


def _whose(study: Study, opened: Sequence[Opened]) -> Iterator[Sentence]:
    for each in opened:
        record, sha = each.record, each.samples.card.get("weights_sha256")
        if record.run is None or record.by == "weights" or not sha:
            continue
        if sha not in weights_of(study.folders[record.run]):
            how = "" if record.by == "name" else f"_{record.by}"
            numbers = {"samples": "/".join(each.folder.parts[-2:]), "sha": sha}
            key = f"pictures.weights.{each.folder.name}"
            said = say(key, f"pictures.weights{how}", run=study.labels[record.run], **numbers)
            yield said.by(study.of_record(record, "weights_sha256, weights_from"))


def _alike(opened: Sequence[Opened]) -> Iterator[tuple[Opened, Opened]]:
    """Each folder with the first earlier one of another backend or run with an equal card."""
    for j, b in enumerate(opened):
        whose = (b.record.run, b.record.backend)
        others = [a for a in opened[:j] if (a.record.run, a.record.backend) != whose]
        cards = (compare_samples(a.samples, b.samples, matched=False) for a in others)
        same_card = [a for a, c in zip(others, cards, strict=True) if not c["card_differences"]]
        if same_card:
            yield same_card[0], b


def _grids(study: Study, opened: Sequence[Opened], alike: Sequence[tuple[Opened, Opened]]) -> Shown:
    for k, each in enumerate(opened):
        label, images = study.label_of(each.record), each.samples.images
        alt = words("alt.grid", n=min(SIDE * SIDE, len(images)), run=label)
        name, data = f"grid-{_plain(label)}-{k}", png(grid(images))
        source = study.of_record(each.record, "weights, sampler card")
        yield Picture(name, each.title, alt, data, each.colour), source
    for k, (a, b) in enumerate(alike, start=len(opened)):
        count = min(len(a.samples.images), len(b.samples.images))
        gap = difference_picture(a.samples.images[:count], b.samples.images[:count])
        yield _gap(a, b, grid(gap), f"grid-gap-{k}"), None


def _gap(a: Opened, b: Opened, gap: Pixels, name: str) -> Picture:
    """A difference picture, stretched so that its largest value is white."""
    most = int(gap.max())
    stretched = (gap.astype(np.float64) / max(1, most) * 255).astype(np.uint8)
    pair = {"a": a.name, "b": b.name}
    title = words("pictures.gap", most=most, **pair) if most else words("pictures.no_gap", **pair)
    return Picture(name, title, words("alt.gap", most=most, **pair), png(stretched))


def _progress(
    study: Study, opened: Sequence[Opened], alike: Sequence[tuple[Opened, Opened]]
) -> Shown:
    strips = {each.folder: _pixels(each.folder / "progress.png") for each in opened}
    shown = [each for each in opened if strips[each.folder] is not None]
    for k, each in enumerate(shown):
        label, path = study.label_of(each.record), each.folder / "progress.png"
        name, alt = f"progress-{_plain(label)}-{k}", words("alt.progress", run=label)
        picture = Picture(name, each.title, alt, path.read_bytes(), each.colour)
        yield picture, study.cite(path, "all")
    for k, (a, b) in enumerate(alike, start=len(shown)):
        one, other = strips[a.folder], strips[b.folder]
        if one is not None and other is not None and one.shape == other.shape:
            yield _gap(a, b, difference_picture(one, other), f"progress-gap-{k}"), None


def _gifs(study: Study, opened: Sequence[Opened]) -> Iterator[Block]:
    shown: list[tuple[Picture, Source | None]] = []
    for each in opened:
        label = study.label_of(each.record)
        for path in sorted(each.folder.glob("*.gif")):
            size, source = path.stat().st_size, study.cite(path, "all")
            if size > MOST_GIF_BYTES:
                where = f"{each.title.en}/{path.name}"
                why = words("pictures.too_large", size=size / 1e6)
                key = f"pictures.left.{path.name}.{label}"
                yield say(key, "pictures.left", path=where, reason=why).by(source)
                continue
            name, alt = f"sampling-{_plain(label)}-{len(shown)}", words("alt.gif", run=label)
            picture = Picture(name, each.title, alt, path.read_bytes(), each.colour)
            shown.append((picture, source))
    yield from _gallery("gifs", shown)


def _training_grids(study: Study) -> Shown:
    for i, (label, folder) in enumerate(zip(study.labels, study.folders, strict=True)):
        path = max((folder / "grids").glob("step-*.png"), default=None)
        if path is None or _pixels(path) is None:
            continue
        step = path.stem.removeprefix("step-").lstrip("0") or "0"
        title = Text(f"{label}, step {step}", f"{label}，第 {step} 步")
        name, alt = (
            f"training-{_plain(label)}-{i}",
            words("alt.training_grid", run=label, step=step),
        )
        yield Picture(name, title, alt, path.read_bytes(), f"run{i}"), study.cite(path, "all")


def _pixels(path: Path) -> Pixels | None:
    """A picture's pixels, or None if it is missing or not a picture."""
    try:
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB"), dtype=np.uint8)
    except (OSError, SyntaxError):
        return None


def png(pixels: Pixels) -> bytes:
    """PNG bytes of (H, W) or (H, W, 3) uint8."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def _plain(label: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in label).strip("-")


def image_sentences(numbers: Numbers, a: str, b: str) -> Iterator[Sentence]:
    """Sentences on the difference of two sets of images, and on the cost of an image."""
    pixels, runs = numbers["pixels"], {"a": a, "b": b}
    if pixels is None:
        keys = ", ".join(numbers["card_differences"])
        yield say("samples", "samples.unlike", keys=keys, **runs)
    elif pixels["values_differing"] == 0:
        values, n = pixels["values"], pixels["images"]
        yield say("samples", "samples.equal", values=values, n=n, **runs)
    else:
        counts = {"n": "images", "equal": "images_equal", "differing": "values_differing"}
        told = pick(pixels, "values", **counts, levels="max_levels") | runs
        share = pixels["values_differing"] / pixels["values"]
        yield say("samples", "samples.differ", share=share, **told)
    times = {f"time_{run}": numbers[run]["seconds_per_image"] for run in "ab"}
    if all(times.values()):
        yield say("samples.time", **times, **runs)
