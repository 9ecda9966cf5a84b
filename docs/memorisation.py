"""Calibrate the estimated share of copies, and rewrite its table in docs/evaluation.md.

    python docs/memorisation.py        some minutes on two cores; the record is memorisation.json

Of MNIST's 10,000 test images 5,000 play the training images. Copies of them are planted among
fresh ones of the other 5,000, of which the rest is held out; every split is drawn anew. For each
kind of copy and share, the record holds the mean estimate, and the shares of the intervals that
hold the truth and that exclude 0, in pixels and in features.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from diptych.data import load_dataset
from diptych.evaluation.features import open_extractor
from diptych.evaluation.images import Images
from diptych.evaluation.memorisation import Distances, copies
from diptych.evaluation.protocol import protocol_for
from diptych.evaluation.sets import Settings
from diptych.evaluation.training_distances import open_training, shifted
from diptych.files import read_json, write_json
from diptych.pages.blocks import write_block

HERE = Path(__file__).resolve().parent
RECORD, PAGE = HERE / "memorisation.json", HERE / "evaluation.md"
TRAINED, SAMPLES, COPIED, SPLITS = 5000, 2000, 1000, 100
SHARES = (0.01, 0.05, 0.2)
KINDS = {"exact": "exact", "noisy": "noise of 8 of 255", "shifted": "shifted by a pixel"}


def images_of(pixels: Any, name: str) -> Images:
    """Pixels (N, H, W, C) as a source of images."""
    return Images(name, len(pixels), lambda: iter(pixels), lambda: f"{name}-{len(pixels)}")


def copied(pixels: Any, kind: str, random: Any) -> Any:
    """Copies of pixels (N, H, W, C)."""
    if kind == "noisy":
        noise = random.normal(0, 8, pixels.shape)
        return np.clip(np.rint(pixels + noise), 0, 255).astype(np.uint8)
    if kind == "shifted":
        every = shifted(pixels)
        moved = random.choice([i for i in range(9) if i != 4], len(pixels))  # 4: not shifted
        return np.stack([every[k][i] for i, k in enumerate(moved)]).reshape(pixels.shape)
    return pixels


def joined(a: Distances, b: Distances) -> Distances:
    """The distances of two sets as one."""
    parts = [np.concatenate([getattr(a, k), getattr(b, k)]) for k in ("index", "nearest", "local")]
    return Distances(*parts)


def calibrate() -> dict[str, Any]:
    """The record."""
    random = np.random.default_rng(1)
    pixels = np.ascontiguousarray(load_dataset("mnist-10k").images.transpose(0, 2, 3, 1))
    training, pool = pixels[:TRAINED], pixels[TRAINED:]
    asked = Settings(("memorization",), "mnist", train=images_of(training, "trained"),
                     held_out=images_of(pool, "pool"))  # fmt: skip
    extractor = open_extractor("mnist", "torch", "cpu")
    sources = training[random.choice(TRAINED, COPIED, replace=False)]
    planted = {kind: copied(sources, kind, random) for kind in KINDS}
    rows = []
    for space in open_training(asked, extractor, protocol_for("mnist", None)).spaces:
        real = space.held_out
        fakes = {kind: space.distances(each) for kind, each in planted.items()}
        cases = [("exact", 0.0), *((kind, share) for kind in KINDS for share in SHARES)]
        for kind, share in cases:
            found = [split(real, fakes[kind], share, random) for _ in range(SPLITS)]
            values, low, high = np.array(found).T
            holds, shown = (low <= share) & (share <= high), low > 0
            rows.append({"space": space.name, "kind": kind, "share": share,
                         "estimate": float(values.mean()), "holds": float(holds.mean()),
                         "excludes_0": float(shown.mean())})  # fmt: skip
            print(rows[-1], flush=True)
    return {"trained": TRAINED, "samples": SAMPLES, "splits": SPLITS, "rows": rows}


def split(real: Distances, fakes: Distances, share: float, random: Any) -> tuple[float, ...]:
    """The estimate and its interval for one random split of the pool."""
    count, order = round(share * SAMPLES), random.permutation(len(real.local))
    fresh, held_out = order[: SAMPLES - count], order[SAMPLES - count :]
    chosen = random.choice(COPIED, count, replace=False)
    value, rest = copies(joined(real[fresh], fakes[chosen]), real[held_out])
    return value, *rest["within"]


def table(record: dict[str, Any]) -> str:
    """The record as a table."""

    def cell(row: dict[str, Any]) -> str:
        return f"{row['estimate']:.2%}, {row['holds']:.0%}, {row['excludes_0']:.0%}"

    rows = {(r["space"], r["kind"], r["share"]): cell(r) for r in record["rows"]}
    lines = ["| copies | planted | in pixels | in features (`mnist`) |", "|---|---|---|---|"]
    for kind, share in dict.fromkeys((r["kind"], r["share"]) for r in record["rows"]):
        what = KINDS[kind] if share else "none"
        cells = " | ".join(rows[space, kind, share] for space in ("pixels", "features"))
        lines.append(f"| {what} | {share:.0%} | {cells} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, keep the record and rewrite the table."""
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    write_json(RECORD, calibrate())
    write_block(PAGE, "copies", table(read_json(RECORD)))


if __name__ == "__main__":
    main()
