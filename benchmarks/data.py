"""Times the loading of training batches: `python -m benchmarks.data`.

    loader   torch's DataLoader with the transforms of the official DDIM code: PIL image,
             resize (nothing to do at the same size), random flip, tensor in [0, 1], collate,
             then 2 x - 1; with 0, 2 and 4 worker processes (4 is in its configs)
    ours     `Batches.x0` made ahead by `Prefetch`: the same pixels, flipped and scaled

Three sets of pictures: `cifar`, 50,000 arrays of 32x32; `packed`, 64x64 from a mapped file, with
the same mapped rows for the loader; `jpeg`, photographs of 178x218 in a folder, decoded, cropped
and resized to 64x64 for every batch. The contenders take turns, round by round, in one process; a
turn is a fixed number of batches from a loader that keeps running between turns. The random draws
of the official training loop (timesteps, noise) are left out on both sides.
"""

from __future__ import annotations

import contextlib
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from benchmarks import results
from diptych.config.load import Config, validate
from diptych.data import Images, load_dataset
from diptych.files import write_json, write_text
from diptych.machine.processor import cores
from diptych.network.plan import make_plan
from diptych.training.batches import Batches
from diptych.training.prefetch import Prefetch

BATCH = 128
BAR = 4.0  # for `cifar`: the fastest loader's time over ours
COUNTS = {"cifar": 50_000, "packed": 8_000, "jpeg": 1_000}
SIZES = {"cifar": 32, "packed": 64, "jpeg": 64}
WORKERS = (0, 2, 4)
CROP = (25, 57, 153, 185)  # of CelebA pictures: left, top, right, bottom


class Official(Dataset[torch.Tensor]):
    """Pictures with the official transforms, without torchvision."""

    def __init__(self, count: int, picture: Callable[[int], Image.Image], size: int) -> None:
        self.count, self.picture, self.size = count, picture, size

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> torch.Tensor:
        picture = self.picture(index)
        if picture.size != (self.size, self.size):
            picture = picture.resize((self.size, self.size), Image.Resampling.BILINEAR)
        if torch.rand(1) < 0.5:
            picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        pixels = torch.from_numpy(np.array(picture, np.uint8, copy=True))
        return pixels.permute(2, 0, 1).contiguous().to(torch.float32).div(255)


def official(pictures: Official, workers: int) -> Iterator[Any]:
    """Endless batches of the loader, in [-1, 1]."""
    loader = DataLoader(
        pictures, BATCH, shuffle=True, num_workers=workers, persistent_workers=workers > 0
    )
    while True:
        for batch in loader:
            yield 2 * batch - 1.0


def ours(images: Images, config: Config) -> Iterator[Any]:
    """Endless batches of ours, made ahead."""
    batches = Batches(config, make_plan(config), images)

    def make(step: int) -> Any:
        epoch, within = divmod(step - 1, batches.steps_per_epoch)
        return batches.x0(step, batches.order(epoch)[within * BATCH : (within + 1) * BATCH])

    with Prefetch(make, 1, None) as ahead:
        step = 0
        while True:
            step += 1
            yield ahead.get(step)


def settings(size: int) -> Config:
    """A config for colour images of this size, with flips."""
    data = {"source": "folder", "image_size": size, "channels": 3, "random_flip": True}
    model = {"ch": 32, "ch_mult": [1, 1], "attn_resolutions": []}
    return validate({"data": data, "model": model, "train": {"batch_size": BATCH}}, "the benchmark")


def sources(kind: str, folder: Path) -> tuple[Images, Official]:
    """The same pictures for both sides."""
    count, size = COUNTS[kind], SIZES[kind]
    rng = np.random.default_rng(0)
    if kind == "jpeg":
        for k in range(count):
            coarse = Image.fromarray(rng.integers(0, 256, (14, 12, 3), dtype=np.uint8))
            picture = coarse.resize((178, 218), Image.Resampling.BICUBIC)
            picture.save(folder / f"{k:06d}.jpg", quality=90)
        images = load_dataset(f"folder:{folder}", image_size=size, crop="celeba").images

        def opened(index: int) -> Image.Image:
            with Image.open(folder / f"{index:06d}.jpg") as picture:
                return picture.convert("RGB").crop(CROP)

        return images, Official(count, opened, size)
    shape = (count, size, size, 3)
    if kind == "packed":
        rows = np.lib.format.open_memmap(folder / "rows.npy", "w+", np.uint8, shape)
        for first in range(0, count, 1000):
            rows[first : first + 1000] = rng.integers(0, 256, (1000, *shape[1:]), dtype=np.uint8)
    else:
        rows = rng.integers(0, 256, shape, dtype=np.uint8)
    planes = rows.transpose(0, 3, 1, 2)
    images = planes if kind == "packed" else np.ascontiguousarray(planes)
    return images, Official(count, lambda index: Image.fromarray(rows[index]), size)


def measure(kind: str, rounds: int, batches: int) -> dict[str, Any]:
    """Seconds per batch of every contender in every round, and the ratios."""
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        images, pictures = sources(kind, Path(folder))
        running = {f"loader {n}": official(pictures, n) for n in WORKERS}
        running["ours"] = ours(images, settings(SIZES[kind]))
        for each in running.values():
            stack.callback(each.close)
        seconds: dict[str, list[float]] = {name: [] for name in running}
        for number in range(rounds + 1):  # the first is a warm-up
            for name, source in running.items():
                began = time.perf_counter()
                for _ in range(batches):
                    next(source)
                if number:
                    seconds[name].append((time.perf_counter() - began) / batches)
        del pictures
    fastest = min(seconds, key=lambda n: np.median(seconds[n]) if n != "ours" else np.inf)
    ratios = {
        name: results.median(np.array(seconds[name]) / np.array(seconds["ours"]))
        for name in seconds
        if name != "ours"
    }
    verdict = results.verdict("least", BAR, ratios[fastest]) if kind == "cifar" else None
    return {"pictures": kind, "count": COUNTS[kind], "size": SIZES[kind], "batch": BATCH,
            "rounds": rounds, "batches": batches, "cores": cores(),
            "seconds": seconds, "ratios": ratios, "fastest_loader": fastest,
            "bar": BAR if kind == "cifar" else None, "verdict": verdict}  # fmt: skip


def render(found: list[dict[str, Any]]) -> str:
    """The table, in Markdown."""
    lines = ["| pictures | contender | ms a batch of 128 | images/s | time / ours | 95 % |",
             "|---|---|---|---|---|---|"]  # fmt: skip
    for each in found:
        for name, seconds in each["seconds"].items():
            middle = float(np.median(seconds))
            ratio = each["ratios"].get(name)
            by = f"{ratio['median']:.2f}" if ratio else ""
            has = ratio and ratio["low"] is not None
            interval = f"{ratio['low']:.2f} to {ratio['high']:.2f}" if has else ""
            shown = name.replace("loader", "DataLoader, workers:")
            cells = (each["pictures"], shown, f"{1e3 * middle:.2f}", f"{BATCH / middle:.0f}")
            lines.append("| " + " | ".join([*cells, by, interval]) + " |")
        if each["bar"]:
            text = f"bar: the fastest DataLoader takes {each['bar']:g} times as long or more"
            lines.append(f"| {each['pictures']} | {text}: {each['verdict']} | | | | |")
    where = f"{found[0]['cores']} cores, {found[0]['rounds']} rounds of {found[0]['batches']}"
    return "\n".join([f"Loading batches, {where} batches, contenders in turns", "", *lines])


@click.command(help=(__doc__ or "").split("\n")[0])
@click.option("--pictures", default="cifar,packed,jpeg", show_default=True, help="The sets.")
@click.option("--rounds", type=click.IntRange(1), default=7, show_default=True)
@click.option("--batches", type=click.IntRange(1), default=60, show_default=True, help="Per turn.")
@click.option("--json", "as_json", is_flag=True, help="JSON on stdout instead of the table.")
@click.option("--out", type=click.Path(path_type=Path), help="Also write OUT.json and OUT.md.")
def main(pictures: str, rounds: int, batches: int, as_json: bool, out: Path | None) -> None:
    """The command."""
    torch.set_num_threads(1)
    found = [measure(kind, rounds, batches) for kind in pictures.split(",")]
    text = render(found)
    click.echo(json.dumps({"results": found}, indent=2) if as_json else text)
    if out is not None:
        write_json(out.with_name(out.name + ".json"), {"results": found})
        write_text(out.with_name(out.name + ".md"), text + "\n")


if __name__ == "__main__":
    main()
