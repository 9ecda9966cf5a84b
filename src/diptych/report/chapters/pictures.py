"""Chapter: pictures. Grids and their difference, sampling step by step, GIFs, embedded.

Pictures are compared pixel by pixel only where both sampler cards agree. What would make the page
large is left out and named.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from diptych.errors import UserError
from diptych.report.document import Block, Gallery, Picture
from diptych.report.numbers.images import SIDE, compare_samples, difference_picture, grid
from diptych.report.numbers.losses import Numbers
from diptych.report.sources.collection import Study
from diptych.report.sources.gather import Record, weights_of
from diptych.report.text.catalogue import Text, phrase, same
from diptych.report.text.template import Sentence, Source, cite, pick, say, words
from diptych.runs.samples import Samples, open_samples
from diptych.types import Pixels

MOST_FOLDERS = 8
MOST_GIF_BYTES = 2_000_000  # of each, so that both panels' are shown or neither's
Opened = list[tuple[Record, Samples]]


def chapter(study: Study) -> Iterator[Block]:
    """Everything that was drawn, and how far the panels' images are apart."""
    opened: Opened = []
    records = study.found.pictures()[:MOST_FOLDERS]
    for record in records:
        try:
            opened.append((record, open_samples(record.path.parent, most=SIDE * SIDE)))
        except UserError:
            path, why = record.path.parent.name, phrase("pictures.incomplete")
            yield say(f"pictures.left.{path}", "pictures.left", path=path, reason=why)
    if len(study.found.of("samples")) > len(records):
        n = len(study.found.of("samples")) - len(records)
        yield say("pictures.more", n=n)
    yield from _whose(study, opened)
    alike, names = list(_alike(opened)), _names(study, opened)
    for (a, first), (b, second) in alike:
        numbers = compare_samples(first, second, matched=False)
        said = image_sentences(numbers, names[first.folder], names[second.folder])
        files = [study.of_record(record, "seconds_per_image, sampler card") for record in (a, b)]
        files += [
            study.cite(record.path.parent / "00000.png", "and further images") for record in (a, b)
        ]
        yield from cite(said, *files)
    yield from _grids(study, opened, alike)
    yield from _progress(study, opened, alike)
    yield from _gifs(study, opened)
    yield from _training_grids(study)


def _names(study: Study, opened: Opened) -> dict[Path, str]:
    """What each set is called: by its run, and by its folder where the run has several."""
    runs = [study.label_of(record) for record, _ in opened]
    return {
        samples.folder: run if runs.count(run) == 1 else f"{run} ({samples.folder.name})"
        for run, (_, samples) in zip(runs, opened, strict=True)
    }


def _whose(study: Study, opened: Opened) -> Iterator[Sentence]:
    for record, samples in opened:
        sha = str(samples.card.get("weights_sha256"))
        if record.run is not None and record.by != "weights":
            if sha in weights_of(study.folders[record.run]):
                continue
            how = {"place": "_within", "images": "_images"}.get(record.by, "")
            said = say(
                f"pictures.weights.{samples.folder.name}",
                f"pictures.weights{how}",
                samples="/".join(samples.folder.parts[-2:]),
                sha=sha,
                run=study.labels[record.run],
            )
            yield from cite([said], study.of_record(record, "weights_sha256, weights_from"))


def _alike(opened: Opened) -> Iterator[tuple[tuple[Record, Samples], tuple[Record, Samples]]]:
    """Each folder with the first earlier one of another panel or run whose card is the same."""
    for j, second in enumerate(opened):
        for first in opened[:j]:
            apart = (first[0].run, first[0].backend) != (second[0].run, second[0].backend)
            if (
                apart
                and not compare_samples(first[1], second[1], matched=False)["card_differences"]
            ):
                yield first, second
                break


def _grids(
    study: Study,
    opened: Opened,
    alike: Sequence[tuple[tuple[Record, Samples], tuple[Record, Samples]]],
) -> Iterator[Gallery]:
    found: list[Picture] = []
    sources: list[Source] = []
    names = _names(study, opened)
    for record, samples in opened:
        label = study.label_of(record)
        n = min(SIDE * SIDE, len(samples.images))
        title = same(study.title_of(record))
        alt = words("alt.grid", n=n, run=label)
        found.append(
            Picture(
                f"grid-{_plain(label)}-{len(found)}",
                title,
                alt,
                png(grid(samples.images)),
                study.colour_of(record),
            )
        )
        sources.append(study.of_record(record, "weights, sampler card"))
    for (_, first), (_, second) in alike:
        count = min(len(first.images), len(second.images))
        gap = grid(difference_picture(first.images[:count], second.images[:count]))
        found.append(_gap(names[first.folder], names[second.folder], gap, f"grid-gap-{len(found)}"))
    if found:
        yield Gallery(phrase("caption.grids"), found, tuple(sources))


def _gap(a: str, b: str, gap: Pixels, name: str) -> Picture:
    """A difference picture, stretched so that its largest value is white."""
    most = int(gap.max())
    stretched = (gap.astype(np.float64) / max(1, most) * 255).astype(np.uint8)
    title = (
        words("pictures.gap", a=a, b=b, most=most) if most else words("pictures.no_gap", a=a, b=b)
    )
    return Picture(name, title, words("alt.gap", a=a, b=b, most=most), png(stretched))


def _progress(
    study: Study,
    opened: Opened,
    alike: Sequence[tuple[tuple[Record, Samples], tuple[Record, Samples]]],
) -> Iterator[Gallery]:
    found: list[Picture] = []
    sources: list[Source] = []
    read: dict[Path, Pixels] = {}
    names = _names(study, opened)
    for record, samples in opened:
        path = samples.folder / "progress.png"
        pixels = _pixels(path)
        if pixels is not None:
            label = study.label_of(record)
            read[samples.folder] = pixels
            title = same(study.title_of(record))
            alt = words("alt.progress", run=label)
            name = f"progress-{_plain(label)}-{len(found)}"
            found.append(Picture(name, title, alt, path.read_bytes(), study.colour_of(record)))
            sources.append(study.cite(path, "all"))
    for (_, first), (_, second) in alike:
        one, other = read.get(first.folder), read.get(second.folder)
        if one is not None and other is not None and one.shape == other.shape:
            gap = difference_picture(one, other)
            name = f"progress-gap-{len(found)}"
            found.append(_gap(names[first.folder], names[second.folder], gap, name))
    if found:
        yield Gallery(phrase("caption.progress"), found, tuple(sources))


def _gifs(study: Study, opened: Opened) -> Iterator[Block]:
    found: list[Picture] = []
    sources: list[Source] = []
    for record, samples in opened:
        for path in sorted(samples.folder.glob("*.gif")):
            size, label = path.stat().st_size, study.label_of(record)
            if size > MOST_GIF_BYTES:
                where = f"{study.title_of(record)}/{path.name}"
                why = words("pictures.too_large", size=size / 1e6)
                said = say(
                    f"pictures.left.{path.name}.{label}", "pictures.left", path=where, reason=why
                )
                yield from cite([said], study.cite(path, "all"))
                continue
            name = f"sampling-{_plain(label)}-{len(found)}"
            found.append(
                Picture(
                    name,
                    same(study.title_of(record)),
                    words("alt.gif", run=label),
                    path.read_bytes(),
                    study.colour_of(record),
                )
            )
            sources.append(study.cite(path, "all"))
    if found:
        yield Gallery(phrase("caption.gifs"), found, tuple(sources))


def _training_grids(study: Study) -> Iterator[Gallery]:
    found: list[Picture] = []
    sources: list[Source] = []
    for i, folder in enumerate(study.folders):
        paths = sorted((folder / "grids").glob("step-*.png"))
        if not paths or _pixels(paths[-1]) is None:
            continue
        step, label = paths[-1].stem.removeprefix("step-").lstrip("0") or "0", study.labels[i]
        found.append(
            Picture(
                f"training-{_plain(label)}",
                _at_step(label, step),
                words("alt.training_grid", run=label, step=step),
                paths[-1].read_bytes(),
                f"run{i}",
            )
        )
        sources.append(study.cite(paths[-1], "all"))
    if found:
        yield Gallery(phrase("caption.training_grids"), found, tuple(sources))


def _at_step(label: str, step: str) -> Text:
    return Text(f"{label}, step {step}", f"{label}，第 {step} 步")


def _pixels(path: Path) -> Pixels | None:
    """A picture's pixels, or None where it is missing or no picture."""
    if not path.is_file():
        return None
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
    """How far two sets of images are apart, and what an image cost."""
    pixels, runs = numbers["pixels"], {"a": a, "b": b}
    if pixels is None:
        keys = ", ".join(numbers["card_differences"])
        yield say("samples", "samples.unlike", keys=keys, **runs)
    elif pixels["values_differing"] == 0:
        values, n = pixels["values"], pixels["images"]
        yield say("samples", "samples.equal", values=values, n=n, **runs)
    else:
        yield say(
            "samples",
            "samples.differ",
            share=pixels["values_differing"] / pixels["values"],
            **runs,
            **pick(
                pixels,
                "values",
                n="images",
                differing="values_differing",
                levels="max_levels",
                equal="images_equal",
            ),
        )
    if numbers["a"]["seconds_per_image"] and numbers["b"]["seconds_per_image"]:
        yield say(
            "samples.time",
            a=a,
            time_a=numbers["a"]["seconds_per_image"],
            b=b,
            time_b=numbers["b"]["seconds_per_image"],
        )
