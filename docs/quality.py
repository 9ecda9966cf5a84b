"""Set the zoo's images beside real ones, and write docs/zoo.md.

    python docs/quality.py FOLDER [--num 10000] [--data DATA] [--emoji FILE] [--model NAME ...]

Draws every model's images with its own sampler into FOLDER and scores them, and as many real
images, against the test set; emoji, which no network of ours knows, are compared with the pixels of
their training pictures. Then writes the page from these records, which says which models it lacks,
and README's table and picture. What FOLDER or docs/zoo.json holds of the same weights already is
not done again. No number is typed by hand.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from diptych.config.load import load_config
from diptych.data import load_dataset
from diptych.evaluation.features import open_extractor
from diptych.evaluation.images import open_images
from diptych.evaluation.measure import score_name
from diptych.evaluation.score_table import markdown, number
from diptych.figures.charts import DARK, LIGHT
from diptych.files import atomic_path, read_json, write_json, write_text
from diptych.pages.blocks import write_block
from diptych.pages.catalogue import same
from diptych.pages.document import EMPTY, Gallery, Picture
from diptych.pages.png import side_by_side
from diptych.report.chapters.pictures import png
from diptych.report.numbers.images import difference_picture, grid
from diptych.types import Pixels
from diptych.weights.find import find_weights, zoo_folder, zoo_names

DOCS = Path(__file__).resolve().parent
README = DOCS.parent / "README.md"
SCORED = ("mnist", "fashion_mnist")  # data with a classifier of ours
BORDER, GREY = 3, 8  # the outermost pixels, and the level above which one is seen
GRID = 64
FEW = 1000  # at most, of models that are compared in pixels
KEPT = DOCS / "zoo.json"  # the records that the page shows, by their files' names
FRONT = "mnist-conditional"
PANELS = {"torch": "PyTorch panel", "jittor": "Jittor panel"}
ROWS = ("fid", "is", "precision", "recall")


def main() -> None:
    """Measure what is missing, then write the page."""
    parser = argparse.ArgumentParser(description="The zoo's images beside real ones.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--num", type=int, default=10_000, help="images of each")
    parser.add_argument("--data", help="folder of the data sets")
    parser.add_argument("--emoji", type=Path, help="what tools.emoji wrote [FOLDER/emoji32.npz]")
    parser.add_argument("--model", action="append", help="draw this one only; can be repeated")
    asked = parser.parse_args()
    if unknown := set(asked.model or ()) - set(zoo_names()):
        parser.error(f"--model {', '.join(unknown)}: known are {', '.join(zoo_names())}")
    where = ["--data", asked.data] if asked.data else []
    emoji = asked.emoji or asked.folder / "emoji32.npz"
    for name, record in (read_json(KEPT) if KEPT.is_file() else {}).items():
        if not (kept := asked.folder / f"{name}.json").is_file():
            write_json(kept, record)
    found: dict[str, dict[str, dict[str, Any]]] = {}
    missing = []
    try:
        for name in zoo_names():
            source = load_config(str(zoo_folder() / name / "config.yaml")).data.source
            num = count(source, asked.num)
            wanted = not asked.model or name in asked.model
            if not wanted and not drawn_record(asked.folder, name, num).is_file():
                missing.append(f"zoo:{name}")
                continue
            records = found.setdefault(source, {})
            if source in SCORED and not records:
                records["real images"] = real(asked.folder, source, asked.num, where)
            records[f"zoo:{name}"] = drawn(asked.folder, name, source, num, where, emoji)
        write_text(DOCS / "zoo.md", page(found, missing))
        write_json(KEPT, shown(asked.folder, asked.num))
        if not missing:
            write_block(README, "zoo", front_table(found["mnist"]))
        if not asked.model or FRONT in asked.model:
            with atomic_path(DOCS / "figures" / "mnist-grids.png") as picture:
                picture.write_bytes(front(asked.folder))
    except subprocess.CalledProcessError as error:  # which has said why
        sys.exit(f"quality: a command failed: {' '.join(map(str, error.cmd[1:]))}")
    except KeyboardInterrupt:
        sys.exit("quality: interrupted; the same command goes on")


def real(folder: Path, source: str, num: int, where: list[str]) -> dict[str, Any]:
    """The record of `num` training images: what a perfect model would score."""
    record = folder / f"real-{source}-{num}.json"
    if not record.is_file():
        measured = scores(folder, f"{source}:train", source, num, "torch", where)
        data = Path(where[1]) if where else None
        images = next(open_images(f"{source}:train", data).batches(num, num=num))[1]
        labels = load_dataset(f"{source}:train", data_dir=data).labels
        assert labels is not None
        known = looks(images, source, labels[:num].tolist())
        write_json(record, {"num": num, **measured, **known})
    return read_json(record)


def count(source: str, num: int) -> int:
    """Number of images drawn of a model."""
    return num if source in SCORED else min(num, FEW)


def drawn(
    folder: Path, name: str, source: str, num: int, where: list[str], emoji: Path
) -> dict[str, Any]:
    """The record of a model's images, drawn with its own sampler by the panel that trained it."""
    card = read_json(zoo_folder() / name / "manifest.json")
    record = drawn_record(folder, name, num)
    samples = record.with_suffix("")
    if record.is_file():
        return read_json(record)
    run("sample", f"zoo:{name}", "--num", str(num), "--resume", "--out", str(samples))
    manifest = read_json(samples / "manifest.json")
    with atomic_path(DOCS / "figures" / f"zoo-{name}.png") as grid:
        shutil.copyfile(samples / "grid.png", grid)
    guided, at = manifest.get("guidance") or 1, manifest.get("guidance_interval")
    by = " by its guide" * (manifest.get("guide") is not None)
    by += f" at t={at[0]} to {at[1]}" if at else ""
    facts = {"weights_sha256": card["weights_sha256"], "seconds": manifest["seconds"],
             "sampler": f"{manifest['solver']}, {manifest['steps']} steps"
                        f"{f', guidance {guided:g}{by}' * (guided != 1)}"}  # fmt: skip
    if source in SCORED:
        images = next(open_images(samples).batches(num))[1]
        facts |= scores(folder, str(samples), source, num, card["backend"], where)
        facts |= looks(images, source, manifest.get("classes"))
    else:
        facts["memory"] = memory(folder, samples, emoji, card["backend"])
    write_json(record, {"num": num, **facts})
    return read_json(record)


def shown(folder: Path, num: int) -> dict[str, Any]:
    """The records that the page shows."""
    paths = [folder / f"real-{source}-{num}.json" for source in SCORED]
    paths += [drawn_record(folder, name, n) for name in zoo_names() for n in (num, min(num, FEW))]
    return {path.stem: read_json(path) for path in paths if path.is_file()}


def drawn_record(folder: Path, name: str, num: int) -> Path:
    """Path of the record of a model's images, by its weights and those of its guide."""
    manifest = read_json(zoo_folder() / name / "manifest.json")
    made_of = manifest["weights_sha256"][:8]
    sampler = manifest["sampler"]
    if "guide" in sampler:
        guide = find_weights(sampler["guide"]).facts()["weights_sha256"]
        drawn_by = json.dumps([sampler, {"guide_sha256": guide}], sort_keys=True)
        made_of += f"-{hashlib.sha256(drawn_by.encode()).hexdigest()[:8]}"
    return folder / f"{name}-{made_of}-{num}.json"


def front(folder: Path) -> bytes:
    """README's picture: the same 64 digits of FRONT by both panels, and their difference."""
    both, card = [], {}
    for panel in PANELS:
        out = drawn_record(folder, FRONT, GRID).with_suffix("") / panel
        run("sample", f"zoo:{FRONT}", "--backend", panel, "--resume", "--out", str(out))
        card = read_json(out / "manifest.json")
        both.append(grid(next(open_images(out).batches(GRID))[1][..., 0]))
    gap = difference_picture(*both)
    most = int(gap.max())
    shown = [
        Picture(panel, same(PANELS[panel]), EMPTY, png(pixels), f"run{i}")
        for i, (panel, pixels) in enumerate(zip(PANELS, both, strict=True))
    ]
    title = same(f"difference: at most {most} of 255 levels" if most else "no pixel differs")
    shown.append(Picture("gap", title, EMPTY, png(gap * (255 // max(1, most))), "ink"))
    caption = f"zoo:{FRONT}, {card['solver']}, {card['steps']} steps"
    colours = [(LIGHT.torch, DARK.torch), (LIGHT.jittor, DARK.jittor)]
    return side_by_side(Gallery(same(caption), shown), colours)


def scores(
    folder: Path, images: str, source: str, num: int, backend: str, where: list[str]
) -> dict[str, Any]:
    """Scores of images against the test set."""
    out = folder / "scores.json"
    run("evaluate", images, "--reference", f"{source}:test", "--features", source, "--num",
        str(num), "--metrics", "fid,is,prdc", "--backend", backend, "--out", str(out),
        "--overwrite", *where)  # fmt: skip
    found = read_json(out)
    by_name = {each["metric"]: each["value"] for each in found["scores"]}
    values = {row: by_name[score_name(source, row)] for row in ROWS}
    return {"scores": values, "readable": found["classes"]["confident"]}


def memory(folder: Path, samples: Path, emoji: Path, backend: str) -> dict[str, Any]:
    """Figures of memorisation in pixels: value, interval, and the same of held-out images."""
    if not emoji.is_file():
        raise SystemExit(f"{emoji} is not there: python -m tools.emoji --out {emoji}")
    out, held = folder / "memory.json", emoji.with_name(f"{emoji.stem}-test.npz")
    run("evaluate", str(samples), "--metrics", "memorization", "--features", "pixels", "--train",
        str(emoji), "--held-out", str(held), "--mirrored", "--backend", backend, "--out", str(out),
        "--overwrite")  # fmt: skip
    return {
        each["metric"]: {"value": each["value"], "interval": each["interval"],
                         "held_out": each["details"].get("held_out")}
        for each in read_json(out)["scores"]
    }  # fmt: skip


def looks(images: Pixels, source: str, classes: list[int] | None) -> dict[str, Any]:
    """The share of border pixels that are seen, and of images that are what was asked for."""
    border = np.ones(images.shape[1:3], bool)
    border[BORDER:-BORDER, BORDER:-BORDER] = False
    found: dict[str, Any] = {"border": float((images[:, border] > GREY).mean())}
    if classes:
        inputs = images.transpose(0, 3, 1, 2).astype(np.float32) / 255
        likeliest = open_extractor(source, "torch", "cpu")(inputs).logits.argmax(1)
        asked = np.resize(classes, len(images))
        found["as_asked"] = float((likeliest == asked).mean())
    return found


def run(*words: str) -> None:
    """One command of Diptych, its result not shown."""
    subprocess.run([sys.executable, "-m", "diptych", *words], check=True, stdout=subprocess.DEVNULL)


def page(found: dict[str, dict[str, dict[str, Any]]], missing: list[str]) -> str:
    """The whole page; `missing`: the models that were not measured."""
    lines = [
        "# The zoo's images beside real ones\n",
        "For whoever wants to know what the models in the package are worth. Each drew its images "
        "with the sampler that its manifest names; the real images are of the training set. Digits "
        "and clothes are scored against the test set, in the features of our classifiers: "
        "`mnist-frechet` is not FID. `docs/quality.py` writes this page.\n",
    ]
    for source, records in found.items():
        if source not in SCORED:
            continue
        num = next(iter(records.values()))["num"]
        rows = [row(name, record) for name, record in records.items()]
        head = [f"{source}, {num:,} images", score_name(source, "fid"), "IS", "precision", "recall",
                "probability of a class above 0.9", f"border pixels above {GREY}",
                "as asked"]  # fmt: skip
        lines += [markdown(head, rows)]
    for records in found.values():
        for name, record in records.items():
            if "memory" in record:
                lines += [
                    f"Is {name} more than a copy of its training pictures? "
                    f"{record['num']:,} images, in [pixels](evaluation.md#memorisation):\n",
                    memory_table(record["memory"]),
                ]
    if missing:
        lines.append(f"Not measured yet: {', '.join(missing)}.\n")
    for records in found.values():
        for name, record in records.items():
            if "sampler" in record:
                short = name.removeprefix("zoo:")
                lines += [
                    f"## {name}\n",
                    f"Weights {record['weights_sha256'][:12]}; {record['sampler']}. The first 64 "
                    f"images:\n",
                    f"![64 images of {name}](figures/zoo-{short}.png)\n",
                ]
    lines.append(
        f"The border is the {BORDER} outermost pixels of each side. The share of images that are "
        "as asked is by the classifier's likeliest class; of real images it is the share that it "
        "knows.\n"
    )
    return "\n".join(lines)


def front_table(records: dict[str, dict[str, Any]]) -> str:
    """README's table of the models of digits beside real images."""
    rows = [row(name, record)[: 1 + len(ROWS)] for name, record in records.items()]
    num = next(iter(records.values()))["num"]
    drawn = {record["sampler"] for record in records.values() if "sampler" in record}
    head = [f"{num:,} images of digits", score_name("mnist", "fid"), "IS", "precision", "recall"]
    return (
        f"{markdown(head, rows)}\nEach model in the package drew them with the sampler that it "
        f"recommends ({'; '.join(sorted(drawn))}), in the panel that trained it: [all models, with "
        "pictures](docs/zoo.md).\n"
    )


def memory_table(memory: dict[str, dict[str, Any]]) -> str:
    """The figures of memorisation beside those of held-out pictures."""
    rows = []
    for metric, figure in memory.items():
        held, bounds = figure["held_out"], figure["interval"]
        rows.append([
            metric, number(figure["value"]),
            f"{number(bounds[0])} to {number(bounds[1])}" if bounds else "",
            "" if held is None else number(held),
        ])  # fmt: skip
    return markdown(["", "value", "95 % interval", "held-out pictures"], rows)


def row(name: str, record: dict[str, Any]) -> list[str]:
    """A line of the table."""
    values = [number(record["scores"][key]) for key in ROWS]
    as_asked = f"{record['as_asked']:.1%}" if "as_asked" in record else ""
    return [name, *values, f"{record['readable']:.1%}", f"{record['border']:.2%}", as_asked]


if __name__ == "__main__":
    main()
