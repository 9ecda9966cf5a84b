"""Options of `diptych sample` for pictures in addition to the images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from diptych.cli.common import FOLDER, options
from diptych.errors import UserError

PICTURES = options(
    click.option("--gif", is_flag=True, help="Also a GIF of the first grid, step by step."),
    click.option("--webp", is_flag=True, help="The same as an animated WebP."),
    click.option("--mp4", is_flag=True, help="The same as an MP4; needs diptych[video]."),
    click.option("--frames", type=int, help="Frames of the animation.  [default: all steps]"),
    click.option("--strip", is_flag=True, help="Also a strip: images in rows, moments in columns."),
    click.option("--moments", type=int, help="Columns of the strip.  [default: 10]"),
    click.option("--show", "shown", help="Show x_t, x0 (predicted) or both.  [default: x_t]"),
    click.option(
        "--nearest", is_flag=True, help="Also samples beside their nearest training data."
    ),
    click.option("--neighbours", type=int, help="Neighbours per sample.  [default: 5]"),
    click.option("--nearest-by", help="Distance in pixels or features.  [default: pixels]"),
    click.option("--data", type=FOLDER, help="Folder that holds the data sets, searched alone."),
)


def chosen_pictures(given: dict[str, Any], config: Any) -> dict[str, Any]:
    """Pop the picture options from `given`; the movie, strip and nearest fields of a request.

    Raises:
        UserError: a setting without its picture, or a picture that cannot be made.
    """
    from diptych.figures.movie import FORMATS, Movie, Strip

    formats = tuple(name for name in FORMATS if given.pop(name))
    frames, moments, shown = (given.pop(key) for key in ("frames", "moments", "shown"))
    strip = given.pop("strip")
    if frames is not None and not formats:
        raise UserError("--frames only applies to animations; add --gif, --webp or --mp4")
    if moments is not None and not strip:
        raise UserError("--moments only applies to strips; add --strip")
    if shown is not None and not (formats or strip):
        raise UserError("--show only applies to animations and strips; add --gif or --strip")
    show = shown or "x_t"
    return {
        "movie": Movie(show, frames, formats) if formats else None,
        "strip": Strip(show, 10 if moments is None else moments) if strip else None,
        "nearest": _nearest(given, config),
    }


def _nearest(given: dict[str, Any], config: Any) -> Any:
    wanted, count, by = (given.pop(key) for key in ("nearest", "neighbours", "nearest_by"))
    data: Path | None = given["data"]
    if not wanted:
        if count is not None or by is not None:
            raise UserError("--neighbours and --nearest-by only apply to the search; add --nearest")
        return None
    from diptych.evaluation.nearest import make_nearest

    return make_nearest(config, 5 if count is None else count, by or "pixels", data)
