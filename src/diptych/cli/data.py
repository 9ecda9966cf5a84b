"""`diptych data`: list, inspect, check and pack data sets."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from diptych.cli.common import (
    FOLDER,
    JSON,
    OVERWRITE,
    QUIET,
    SIZE,
    Verbs,
    options,
    printable,
    show,
    typed,
)
from diptych.errors import UserError

if TYPE_CHECKING:
    from diptych.config.size import Size
    from diptych.data import Dataset

DATA = click.option("--data", type=FOLDER, help="Folder that holds the data, searched alone.")
# How a source is read: the arguments of `_load`, in the order of the help.
ASKED = options(
    click.option(
        "--split",
        default="train",
        show_default=True,
        help="train, test or train+test, if SOURCE names none.",
    ),
    click.option("--size", type=SIZE, help="In pixels: N of a square, or HEIGHTxWIDTH."),
    click.option(
        "--crop",
        help="none, center, stretch, adm, celeba, celeba-108, -140, -148 or -178; "
        "by default the source's own.",
    ),
    click.option("--channels", type=int, default=3, show_default=True, help="3, or 1 for grey."),
    DATA,
)


@click.group(cls=Verbs)
def data() -> None:
    """Find, look at, check and pack data sets.

    \b
    SOURCE has the same form for all verbs:
      NAME[:SPLIT]     mnist, mnist:test, cifar10:train+test ...
      folder:PATH, npz:PATH, packed:PATH, hf:PATH[:SPLIT], or just PATH

    \b
    Examples:
      diptych data list                                  what there is, and where it is here
      diptych data info cifar10 --json
      diptych data prepare celeba --size 64 --out celeba64.npy
      diptych data prepare folder:photos --size 64 --crop center --skip-bad --out photos.npy
      diptych data verify packed:photos.npy
      diptych train cifar10 --set data.source=packed:photos.npy --out runs/photos
    """


@data.command("list")
@DATA
@JSON
def list_(data: Path | None, as_json: bool) -> None:
    """List every source and its location on this machine.

    \b
    Examples:
      diptych data list
      diptych data list --data /mnt/datasets      that folder alone is searched
      diptych data list --json
    """
    from diptych.data.inspect import list_sources

    if data is not None and not data.is_dir():
        what = "is a file" if data.exists() else "no such folder"
        raise UserError(f"--data {data}: {what}; give a folder that holds data sets")
    rows = list_sources(data)
    lines = [f"{row['source']:<14} {row['what']}" for row in rows]
    for k, row in enumerate(rows):
        lines[k] += f"\n{'':<14}   {row['where']}" if row["where"] else ""
    show({"sources": rows}, as_json, "\n".join(lines))


@data.command()
@click.argument("source")
@ASKED
@JSON
def info(source: str, as_json: bool, **asked: Any) -> None:
    """Describe SOURCE: images, size, classes, sha256.

    \b
    Examples:
      diptych data info mnist:test
      diptych data info photos --size 64 --crop center
      diptych data info packed:photos.npy --json
    """
    from diptych.data.inspect import describe
    from diptych.data.notes import note
    from diptych.data.sources.spec import parse

    facts = describe(_load(source, **asked))
    if asked["size"] is None and parse(source).kind in ("folder", "hf"):
        note("the size is the first picture's; diptych data verify reads all")
    told = [
        f"{key:<10} {value}"
        for key, value in facts.items()
        if value is not None and key != "left_out"  # a note names them
    ]
    show(facts, as_json, "\n".join(told))


@data.command()
@click.argument("source")
@ASKED
@JSON
def verify(source: str, as_json: bool, **asked: Any) -> None:
    """Read every image of SOURCE; exit code 2 if one cannot be used.

    \b
    Examples:
      diptych data verify photos                  each picture at its own size
      diptych data verify photos --size 64        and cropped, as for training
      diptych data verify packed:photos.npy
    """
    from diptych.data.inspect import verify as read_all
    from diptych.data.inspect import verify_pictures
    from diptych.data.sources.named import open_splits
    from diptych.data.sources.spec import PICTURE, parse

    kind = parse(source).kind
    as_it_is = asked["size"] is None and asked["crop"] is None and not typed("channels")
    if kind in ("folder", "hf", PICTURE) and as_it_is:
        items = open_splits(source, asked["data"], asked["split"])
        facts = verify_pictures(items)
        sizes = [f"{count} of {size}" for size, count in facts["sizes"].items()]
        rest = len(sizes) - 5
        more = f" and {rest} more size{'s' * (rest > 1)}" if rest > 0 else ""
        text = f"{_count(facts['images'], 'picture')}: {', '.join(sizes[:5])}{more}"
    else:
        found = _load(source, **asked)
        facts = read_all(found, Path(found.origin) if kind == "packed" else None)
        text = f"{_count(facts['images'], 'image')}, sha256 of the pixels {facts['pixels_sha256']}"
    show(facts, as_json, "\n".join(facts["bad"]) if facts["bad"] else text)
    if facts["bad"]:
        raise UserError(
            f"{source}: {len(facts['bad'])} of {facts['images']} pictures cannot be used; repair "
            "them, or leave them out with --skip-bad (diptych train, diptych data prepare)"
        )


@data.command(short_help="Draw a grid of images spread over SOURCE.")
@click.argument("source")
@click.option("--out", type=FOLDER, required=True, help="The PNG file to write.")
@click.option("--num", type=click.IntRange(1, 1024), default=64, show_default=True)
@ASKED
@JSON
def preview(source: str, out: Path, num: int, as_json: bool, **asked: Any) -> None:
    """Draw a grid of images spread over SOURCE, as training sees them; skip and name bad ones.

    \b
    Examples:
      diptych data preview mnist --out mnist.png
      diptych data preview photos --size 64 --crop center --num 16 --out photos.png
      diptych data preview packed:photos.npy --out photos.png
    """
    from diptych.data.inspect import sound_ones
    from diptych.figures.grids import grid, save_png

    _check_suffix(out, ".png")
    shown, bad = sound_ones(_load(source, **asked).images, num)
    save_png(out, grid(shown))
    for fault in bad:
        click.echo(printable(f"left out: {fault}"), err=True)
    left_out = f", {len(bad)} left out" if bad else ""
    facts = {"out": str(out), "images": len(shown), "bad": bad}
    show(facts, as_json, f"{_count(len(shown), 'image')}{left_out}: {out}")


@data.command(short_help="Decode SOURCE once, and pack it.")
@click.argument("source")
@click.option("--out", type=FOLDER, required=True, help="The file to write, such as faces.npy.")
@ASKED
@click.option("--skip-bad", is_flag=True, help="Leave out pictures that cannot be used.")
@click.option(
    "--workers",
    type=click.IntRange(1, 256),
    help="Threads that decode.  [default: one per core, up to 8]",
)
@OVERWRITE
@QUIET
@JSON
def prepare(
    source: str,
    out: Path,
    skip_bad: bool,
    workers: int | None,
    overwrite: bool,
    quiet: bool,
    as_json: bool,
    **asked: Any,
) -> None:
    """Pack SOURCE once into a memory-mapped file, with index and preview.

    \b
    After an interruption the same command resumes. Examples:
      diptych data prepare celeba --size 64 --out celeba64.npy
      diptych data prepare lsun_bedroom --data DATA --size 256 --out bedroom256.npy
      diptych data prepare folder:photos --size 64 --crop center --out photos.npy --skip-bad
    """
    from diptych.data.decoded import Decoded
    from diptych.data.packed.job import Packing
    from diptych.data.packed.write import prepare as pack

    _check_suffix(out, ".npy")
    found = _load(source, **asked)
    crop = found.images.recipe.crop if isinstance(found.images, Decoded) else "none"
    index = pack(Packing(found, out, crop, skip_bad, workers, not quiet), overwrite)
    facts = {key: value for key, value in index.items() if key not in ("names", "labels")}
    count, height, width, channels = index["shape"]
    left_out = f", {len(index['skipped'])} left out" if index["skipped"] else ""
    text = f"{_count(count, 'image')} of {height}x{width}x{channels}{left_out}: {out}\n"
    text += f"train on it with --set {shlex.quote(f'data.source=packed:{out}')}"
    show({"out": str(out), **facts}, as_json, text)


def _count(number: int, word: str) -> str:
    return f"{number} {word}{'s' * (number != 1)}"


def _load(
    source: str,
    split: str,
    size: Size | None,
    crop: str | None,
    channels: int,
    data: Path | None,
) -> Dataset:
    from diptych.data import load_dataset

    found = load_dataset(
        source, split, image_size=size, channels=channels, crop=crop, data_dir=data
    )
    if typed("channels") and found.images.shape[1] != channels:
        raise UserError(
            f"{source}: its images have {_count(found.images.shape[1], 'channel')}, and --channels "
            "is for pictures that are decoded; leave it out"
        )
    return found


def _check_suffix(out: Path, suffix: str) -> None:
    """Refuse a name that tells other programs of another kind of file."""
    if out.suffix.lower() not in ("", suffix):
        raise UserError(f"--out {out}: this writes a {suffix} file; end the name in {suffix}")
