"""A document as Markdown for a README, in both languages, with its pictures as files."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

from diptych.files import write_text
from diptych.pages.catalogue import phrase
from diptych.pages.document import Block, Code, Document, Gallery, Picture, Plot
from diptych.pages.template import Sentence, Source

SIGNS = ("\\", "`", "*", "_", "|", "[", "]", "~", "$")  # the backslash must come first
FILES = {"en": "report.md", "zh": "report.zh.md"}


def write(folder: Path, document: Document) -> None:
    """Write report.md, report.zh.md and all their figures and pictures."""
    for section in document.sections:
        for block in section.blocks:
            if isinstance(block, Plot):
                (folder / f"{block.name}.png").write_bytes(block.png)
            elif isinstance(block, Gallery):
                for picture in block.pictures:
                    (folder / file_of(picture)).write_bytes(picture.data)
    for language, name in FILES.items():
        write_text(folder / name, "\n".join(_lines(document, language)) + "\n")


def file_of(picture: Picture) -> str:
    """The file name of a picture."""
    return f"{picture.name}.{'gif' if picture.mime == 'image/gif' else 'png'}"


def _lines(document: Document, language: str) -> Iterator[str]:
    other = "zh" if language == "en" else "en"
    yield f"# {_plain(document.title.within(language))}"
    yield ""
    yield f"[{'简体中文' if other == 'zh' else 'English'}]({FILES[other]})"
    for section in document.sections:
        yield f"\n## {_plain(section.title.within(language))}"
        order = {} if section.key == "short" else document.order  # its notes are further down
        blocks = ["\n".join(_block(block, order, language)) for block in section.blocks]
        body = "\n" + "\n\n".join(blocks)
        yield _details(phrase("ui.unfold").within(language), body) if section.long else body
    yield ""
    for path, n in document.order.items():
        yield f"[^{n}]: [{_plain(path)}]({quote(path)})"


def _details(summary: str, body: str) -> str:
    """Folded text; the empty lines make its body render as Markdown."""
    return f"\n<details><summary>{summary}</summary>\n{body}\n\n</details>"


def _block(block: Block, order: Mapping[str, int], language: str) -> Iterator[str]:
    notes = _notes(block.sources, order)
    if isinstance(block, Sentence):
        yield _line(block.words.within(language)) + notes
    elif isinstance(block, Code):
        fence = "`" * max(3, 1 + max(map(len, re.findall("`+", block.text)), default=0))
        caption = _line(block.caption.within(language))
        yield f"{caption}{notes}\n\n{fence}bash\n{block.text}\n{fence}"
    elif isinstance(block, Plot):
        yield f"**{_plain(block.title.within(language))}**{notes}"
        if block.note.within(language):
            yield f"\n{_line(block.note.within(language))}"
        yield f"\n![{_plain(block.alt.within(language))}]({block.name}.png)"
    elif isinstance(block, Gallery):
        yield f"**{_plain(block.caption.within(language))}**{notes}\n"
        yield _row([picture.title.within(language) for picture in block.pictures])
        yield _row(["---"] * len(block.pictures), escape=False)
        cells = [f"![{_plain(p.alt.within(language))}]({file_of(p)})" for p in block.pictures]
        yield _row(cells, escape=False)
    else:
        yield f"**{_plain(block.caption.within(language))}**{notes}\n"
        rows = [_row([cell.within(language) for cell in block.head])]
        rows.append(_row(["---"] * len(block.head), escape=False))
        rows += [_row([cell.within(language) for cell in row]) for row in block.rows]
        whole = "\n".join(rows)
        yield _details(phrase("ui.unfold").within(language), "\n" + whole) if block.long else whole


def _notes(sources: Sequence[Source], order: Mapping[str, int]) -> str:
    paths = dict.fromkeys(source.path for source in sources if source.path in order)
    return "".join(f"[^{order[path]}]" for path in paths)


def _row(cells: Sequence[str], escape: bool = True) -> str:
    return "| " + " | ".join(_plain(cell) if escape else cell for cell in cells) + " |"


def _html(text: str) -> str:
    """Escape tags and entities as HTML; not every Markdown accepts a backslash before them."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _plain(text: str) -> str:
    """Escape text so that Markdown shows it as it is: no tag, emphasis, formula or entity."""
    for sign in SIGNS:
        text = text.replace(sign, f"\\{sign}")
    return _html(text).replace("\n", " ")


def _line(text: str) -> str:
    """Escape text at the beginning of a line: in addition, no list, heading or quotation."""
    text = re.sub(r"^(\d+)([.)]\s)", r"\1\\\2", _plain(text))
    return re.sub(r"^([-+#=])", r"\\\1", text)
