"""Small colour pictures that anybody may use: the emoji of Noto's colour font, as an .npz.

    python -m tools.emoji --out emoji.npz [--size 32] [--font FILE]

The font is Debian's `fonts-noto-color-emoji` (SIL Open Font License 1.1; its pictures are Apache
2.0). Each glyph holds one PNG of 136 x 128 pixels with transparency. It is put on white, padded to
a square and made smaller. Skin tones of one gesture are near copies of each other: of those only
the plain one is kept, so that pictures held out are not copies of pictures trained on. The file
has `train` and `test`, uint8 (N, size, size, 3), RGB; every tenth picture is in `test`.
"""

from __future__ import annotations

import argparse
import io
from pathlib import Path

import numpy as np
from fontTools.ttLib import TTFont
from PIL import Image

from diptych.files import atomic_path
from diptych.types import Pixels

FONT = Path("/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf")
TONES = {"u1F3FB", "u1F3FC", "u1F3FD", "u1F3FE", "u1F3FF"}  # the modifiers' glyphs
EVERY = 10  # of ten pictures one is held out


def pngs(font: Path) -> dict[str, bytes]:
    """The PNG of every glyph of a bitmap font, by the glyph's name."""
    opened = TTFont(font)
    (strike,) = opened["CBDT"].strikeData
    toned = TONES | toned_ligatures(opened)
    return {name: glyph.imageData for name, glyph in sorted(strike.items()) if name not in toned}


def toned_ligatures(font: TTFont) -> set[str]:
    """Glyphs that stand for a sequence with a skin tone in it, ligatures of ligatures included."""
    made: dict[str, set[str]] = {}  # glyph -> the glyphs that it is made of
    for lookup in font["GSUB"].table.LookupList.Lookup:
        for table in lookup.SubTable:
            for first, ligatures in getattr(table, "ligatures", {}).items():
                for each in ligatures:
                    made.setdefault(each.LigGlyph, set()).update([first, *each.Component])
    found: set[str] = set()
    while True:
        more = {name for name, parts in made.items() if parts & (TONES | found)}
        if more == found:
            return found
        found = more


def picture(png: bytes, size: int) -> Pixels:
    """A PNG on white, padded to a square, of size x size pixels; uint8 (size, size, 3)."""
    with Image.open(io.BytesIO(png)) as found:
        drawn = found.convert("RGBA")
    side = max(drawn.size)
    square = Image.new("RGBA", (side, side), "white")
    square.alpha_composite(drawn, ((side - drawn.width) // 2, (side - drawn.height) // 2))
    return np.asarray(square.convert("RGB").resize((size, size), Image.Resampling.BOX))


def main() -> None:
    """Write the file and say what it holds."""
    ask = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ask.add_argument("--out", type=Path, required=True)
    ask.add_argument("--size", type=int, default=32)
    ask.add_argument("--font", type=Path, default=FONT)
    asked = ask.parse_args()
    if not asked.font.is_file():
        raise SystemExit(f"{asked.font} is not there; install Debian's fonts-noto-color-emoji")
    found = pngs(asked.font)
    every = np.stack([picture(png, asked.size) for png in found.values()])
    every = np.unique(every, axis=0)  # glyphs with two names
    every = every[np.random.default_rng(0).permutation(len(every))]
    held = np.arange(len(every)) % EVERY == 0
    with atomic_path(asked.out) as path, path.open("wb") as file:
        np.savez_compressed(file, train=every[~held], test=every[held])
    print(f"{asked.out}: {(~held).sum()} pictures to train on, {held.sum()} held out")


if __name__ == "__main__":
    main()
