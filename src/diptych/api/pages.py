"""`diptych.compare`, `make_report` and `grid`: pages and pictures of what was made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diptych.api.arguments import Where, as_dataset, columns_of, names_of, path_of, paths_of
from diptych.api.training import Run
from diptych.errors import PythonTerms, check, path_text, refused
from diptych.pages.content import Content
from diptych.types import Pixels

if TYPE_CHECKING:
    from PIL import Image


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
    pair = None if samples is None else paths_of("samples", samples)
    if pair is not None and len(pair) != 2:
        raise refused("samples", samples, "two folders")
    page = path_of("out", out)
    found = compare_any(
        Path(path_text("a", a)),
        Path(path_text("b", b)),
        page,
        samples=None if pair is None else (pair[0], pair[1]),
        matched=matched,
        columns=columns_of(columns),
        labels=names_of("labels", labels),
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
    given, page = paths_of("runs", runs), Path(path_text("out", out))
    if not given:
        raise refused("runs", runs, "one run folder or more")
    found = report_any(
        given,
        page,
        search=paths_of("search", search),
        logs=logs,
        columns=columns_of(columns),
        labels=names_of("labels", labels),
        markdown_too=markdown,
        language=language,
        static=static,
        overwrite=overwrite,
        progress=progress,
    )
    return Content(found, page)


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
