"""Small colour pictures that anybody may use: the emoji of Noto's colour font, in nine classes.

    python -m tools.emoji --out emoji.npz [--size 32] [--font FILE] [--list FILE]

The font is Debian's `fonts-noto-color-emoji` (SIL Open Font License 1.1; its pictures are Apache
2.0): a PNG of 136 x 128 pixels with transparency for each emoji. It is put on white, padded to a
square and made smaller. Classes are the groups of Unicode's emoji-test.txt (Debian's
`unicode-data`), in its order. Of the skin tones of one gesture, which are near copies, only the
plain one is taken, so that pictures held out are not copies of pictures trained on.

Nine pictures of ten are in emoji.npz, every tenth in emoji-test.npz, each file with `images`,
uint8 (N, size, size, 3), RGB, and `labels`, int64 (N,).
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from fontTools.ttLib import TTFont
from PIL import Image

from diptych.files import atomic_path
from diptych.types import Pixels

FONT = Path("/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf")
LIST = Path("/usr/share/unicode/emoji/emoji-test.txt")
GROUPS = (
    "Smileys & Emotion", "People & Body", "Animals & Nature", "Food & Drink", "Travel & Places",
    "Activities", "Objects", "Symbols", "Flags",
)  # fmt: skip
TONES = range(0x1F3FB, 0x1F400)  # the modifiers of skin
AS_EMOJI = 0xFE0F  # says "in colour", which this font always is
EVERY = 10  # of ten pictures one is held out


def sequences(path: Path) -> Iterator[tuple[int, tuple[int, ...]]]:
    """The class and the code points of each emoji of Unicode's list, but for skin tones."""
    group = ""
    for line in path.read_text("utf-8").splitlines():
        if line.startswith("# group:"):
            group = line.partition(":")[2].strip()
        words, _, status = line.partition(";")
        if status.split()[:1] != ["fully-qualified"]:
            continue
        points = tuple(point for word in words.split() if (point := int(word, 16)) != AS_EMOJI)
        if not any(point in TONES for point in points):
            yield GROUPS.index(group), points


def pngs(font: Path, listed: Path) -> list[tuple[int, bytes]]:
    """The class and the PNG of every emoji of the list that the font has."""
    opened = TTFont(font)
    (strike,) = opened["CBDT"].strikeData
    single = opened.getBestCmap()
    ligatures = {
        (first, *each.Component): each.LigGlyph
        for lookup in opened["GSUB"].table.LookupList.Lookup
        for table in lookup.SubTable
        for first, every in getattr(table, "ligatures", {}).items()
        for each in every
    }
    found = []
    for group, points in sequences(listed):
        glyphs = tuple(single.get(point) for point in points)
        name = ligatures.get(glyphs) if len(glyphs) > 1 else glyphs[0]
        if name in strike:
            found.append((group, strike[name].imageData))
    return found


def picture(png: bytes, size: int) -> Pixels:
    """A PNG on white, padded to a square, of size x size pixels; uint8 (size, size, 3)."""
    with Image.open(io.BytesIO(png)) as found:
        drawn = found.convert("RGBA")
    side = max(drawn.size)
    square = Image.new("RGBA", (side, side), "white")
    square.alpha_composite(drawn, ((side - drawn.width) // 2, (side - drawn.height) // 2))
    return np.asarray(square.convert("RGB").resize((size, size), Image.Resampling.BOX))


def main() -> None:
    """Write both files and say what they hold."""
    ask = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ask.add_argument("--out", type=Path, required=True)
    ask.add_argument("--size", type=int, default=32)
    ask.add_argument("--font", type=Path, default=FONT)
    ask.add_argument("--list", type=Path, default=LIST)
    asked = ask.parse_args()
    for path, package in ((asked.font, "fonts-noto-color-emoji"), (asked.list, "unicode-data")):
        if not path.is_file():
            raise SystemExit(f"{path} is not there; install Debian's {package}")
    found = pngs(asked.font, asked.list)
    every = np.stack([picture(png, asked.size) for _, png in found])
    labels = np.array([group for group, _ in found], np.int64)
    _, first = np.unique(every, axis=0, return_index=True)  # such as flags of two territories
    order = np.random.default_rng(0).permutation(np.sort(first))
    held = np.arange(len(order)) % EVERY == 0
    test = asked.out.with_name(f"{asked.out.stem}-test{asked.out.suffix}")
    for out, rows in ((asked.out, order[~held]), (test, order[held])):
        with atomic_path(out) as path, path.open("wb") as file:
            np.savez_compressed(file, images=every[rows], labels=labels[rows])
        counts = np.bincount(labels[rows], minlength=len(GROUPS))
        classes = ", ".join(f"{name} {n}" for name, n in zip(GROUPS, counts, strict=True))
        print(f"{out}: {len(rows)} pictures ({classes})")


if __name__ == "__main__":
    main()
