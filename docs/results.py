"""Regenerate docs/results.md and the README's tables from a study's records.

    python docs/results.py STUDY    what `reproduce mnist` wrote
    python docs/results.py          the README's speeds alone

docs/results.md and docs/results.zh.md are the study's report, its animations with fewer greys
(noise does not compress, and every renewal stays in the repository). The README has two blocks
between markers: `results`, with the agreement of the study's two runs and their scores, and
`speeds`. The speeds come from benchmarks/results/*.json, where they were measured in one run, in
turns; of the peers the fastest is named. No number is typed by hand.
"""

from __future__ import annotations

import argparse
import re
import shutil
from pathlib import Path
from typing import Any

from PIL import Image, ImageSequence

from diptych.evaluation.score_table import interval, number
from diptych.files import atomic_path, read_json, write_text
from diptych.pages.blocks import write_block

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
RECORDS = ROOT / "benchmarks" / "results"
COLOURS = 16  # of an animation
PANELS = {"torch": "PyTorch panel", "jittor": "Jittor panel"}
PEERS = {"diffusers": "diffusers", "diffusers-compiled": "diffusers by torch.compile"}
ENGINES = {"onnx": "`--backend onnx`", "openvino": "`--backend openvino`"}
SIZES = {"mnist": "MNIST", "cifar10-size": "CIFAR-10 size"}
HEAD = "| MNIST, 28x28, on a CPU | |\n|---|---|\n"
FOOT = (
    "\n![Loss of every step, both panels](docs/figures/mnist-loss.png)\n\n"
    "The whole study: [docs/results.md](docs/results.md), "
    "[in Chinese](docs/results.zh.md).\n"
)


def main() -> None:
    """Copy the figures, write both pages and rewrite the README's blocks."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("study", type=Path, nargs="?", help="without one, the speeds alone")
    study = parser.parse_args().study
    readme = ROOT / "README.md"
    write_block(readme, "speeds", speeds())
    if study is None:
        return
    study = study.resolve()
    shutil.copyfile(study / "compare" / "loss.png", DOCS / "figures" / "mnist-loss.png")
    pages(study)
    write_block(readme, "results", table(study))


def pages(study: Path) -> None:
    """The report in Markdown, its pictures beside it, its paths as seen from the study's parent."""
    pictures = DOCS / "results"
    shutil.rmtree(pictures, ignore_errors=True)
    pictures.mkdir()
    for path in (study / "report").iterdir():
        if path.suffix == ".png":
            shutil.copyfile(path, pictures / path.name)
        if path.suffix == ".gif":
            shrink(path, pictures / path.name)
    for name in ("report.md", "report.zh.md"):
        text = (study / "report" / name).read_text("utf-8")
        text = re.sub(r"\]\((?=[\w.-]+\.(png|gif)\))", "](results/", text)
        # The records stay with the study: a note names one, and the last table has its sha256.
        text = re.sub(r"^(\[\^\d+\]: )\[(.+)\]\(.+\)$", r"\1`\2`", text, flags=re.MULTILINE)
        text = text.replace("](report", "](results").replace("../../", "")
        text = text.replace("../", f"{study.name}/").replace(f"{study.parent}/", "")
        text = re.sub(r"(?<=--out )/\S*/", "", text)  # a given run's place on this machine
        write_text(DOCS / name.replace("report", "results"), text)


def shrink(path: Path, out: Path) -> None:
    """An animation with `COLOURS` colours, each frame as long as it was."""
    with Image.open(path) as whole, atomic_path(out) as smaller:
        shown = [(frame.quantize(COLOURS), frame.info["duration"])
                 for frame in ImageSequence.Iterator(whole)]  # fmt: skip
        frames, lengths = zip(*shown, strict=True)
        frames[0].save(smaller, "GIF", save_all=True, append_images=frames[1:], loop=0,
                       duration=lengths)  # fmt: skip


def table(study: Path) -> str:
    """The README's table in Markdown, the losses below it, and where the rest is."""
    found = agreement(read_json(study / "compare" / "compare.json")) + scores(study)
    rows = "".join(f"| {name} | {value} |\n" for name, value in found)
    return HEAD + rows + FOOT


def agreement(content: dict[str, Any]) -> list[tuple[str, str]]:
    """Distances between the two runs of the study."""
    numbers, runs = content["numbers"], content["runs"]
    loss, pixels = numbers["difference"]["loss"], numbers["samples"]["pixels"]
    share = pixels["values_differing"] / pixels["values"]
    epochs = len(numbers["epoch_time"]["a"]["complete"])
    return [
        (
            "trained side by side, same weights, order and noise",
            f"{loss['compared']:,} steps ({epochs} epochs), PyTorch "
            f"{runs['a']['framework_version']} and Jittor {runs['b']['framework_version']}",
        ),
        (
            "relative difference of the two losses of a step",
            f"first tenth of the steps: median {loss['median_relative_first_tenth']:.1e}; "
            f"last tenth: median {loss['median_relative_last_tenth']:.1e}; "
            f"largest {loss['max_relative']:.1e}",
        ),
        (
            "64 images, each panel with the weights it trained",
            f"{share:.1%} of the uint8 values differ, by {pixels['mean_levels']:.1f} levels of 255 "
            f"in the mean over all",
        ),
    ]


def scores(study: Path) -> list[tuple[str, str]]:
    """The first score of each panel's own images, with its interval."""
    ends = []
    for panel, name in PANELS.items():
        (path,) = (study / "scores").glob(f"{panel}-seed*-mnist.json")
        score = read_json(path)["scores"][0]
        ends.append(f"{name} {number(score['value'])} ({interval(score['interval'])})")
    protocol = score["protocol"]
    what = f"{score['metric']} of {protocol['num']:,} images, {protocol['sampler.solver']}"
    what += (
        f", {protocol['sampler.steps']} steps; mean of {len(score['repeats'])} sets (95 % interval)"
    )
    return [(what, "; ".join(ends))]


def speeds() -> str:
    """Ratios of times from the benchmarks, with their intervals, in Markdown."""
    rows, machines = [], set()
    for task, what in (("training", "a training step"), ("sampling", "a network call")):
        for size, title in SIZES.items():
            [found] = read_json(RECORDS / f"{task}-{size}.json")["results"]
            machines.add(f"{found['machine']['cpu']}, {found['threads']} threads")
            to_torch = {each["a"]: each for each in found["ratios"] if each["b"] == "torch"}
            peer = min((name for name in PEERS if name in to_torch),
                       key=lambda name: to_torch[name]["median"])  # fmt: skip
            cells = [f"{PEERS[peer]}: {ratio(to_torch[peer])}", ratio(to_torch["jittor"])]
            engines = [f"{words}: {ratio(to_torch[name])}"
                       for name, words in ENGINES.items() if name in to_torch]  # fmt: skip
            rows.append([f"{what}, {title}", *cells, "; ".join(engines)])
    head = ["time against the PyTorch panel's", "strongest peer", "Jittor panel", "engines"]
    lines = [head, ["---"] * len(head), *rows]
    table = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    return (
        f"Float32 on a CPU ({'; '.join(sorted(machines))}), in turns; above 1 is slower than the "
        f"PyTorch panel, with the 95 % interval ([records](benchmarks/README.md)):\n\n{table}"
    )


def ratio(found: dict[str, Any]) -> str:
    """A ratio of times with its interval."""
    if found["low"] is None:
        return f"{found['median']:.2f}"
    return f"{found['median']:.2f} ({found['low']:.2f} to {found['high']:.2f})"


if __name__ == "__main__":
    main()
