r"""The names of image sources; every verb and every config parses them here.

    NAME[:SPLIT]       mnist, mnist:test, cifar10:train+test, lsun_bedroom ...
    folder:PATH        pictures, with sub-folders
    npz:PATH           an .npz or .npy file of images
    packed:PATH        a file made by `diptych data prepare`
    hf:PATH[:SPLIT]    Hugging Face parquet files, an image folder or a name
    PATH               a folder, an array file or a single picture, by its content and suffix

SPLIT is `train`, `test` or `train+test`; without it the verb's split applies, by default `train`. A
NAME means the data set even if the working folder has a file of that name; write `./NAME` for the
file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from diptych.config.schema import PLACED_SOURCES
from diptych.data.packed.read import index_path
from diptych.data.picture import SUFFIXES
from diptych.data.readers import celeba, cifar10, lmdb
from diptych.data.sources.registry import SOURCES
from diptych.errors import UserError, nearest
from diptych.files import expanded, look

OWN = PLACED_SOURCES
PICTURE = "picture"  # the kind of a single picture file
NAMED = (cifar10.NAME, celeba.NAME, "ffhq")
SPLITS = ("train", "test")
ARRAYS = (".npz", ".npy")


@dataclass(frozen=True)
class Spec:
    """A parsed source name.

    Attributes:
        kind: a data set's name, one of OWN, or PICTURE.
        path: the path of the user's own data; None for a data set, or if --data is to give it.
        splits: the splits in the text; empty if it names none.
    """

    kind: str
    path: Path | None = None
    splits: tuple[str, ...] = ()

    @property
    def own(self) -> bool:
        """True for the user's own data, False for a known data set."""
        return self.kind in (*OWN, PICTURE)

    @property
    def name(self) -> str:
        """The source without its split, for people and for records."""
        if not self.own or self.path is None:
            return self.kind
        return f"{'folder' if self.kind == PICTURE else self.kind}:{self.path}"


def is_name(text: str) -> bool:
    """True if a text is the name of a known data set."""
    return text in SOURCES or text in NAMED or lmdb.is_lsun(text)


def parse(text: str) -> Spec:
    """Parse a source name.

    Raises:
        UserError: an unknown name or split, or a path without usable images.
    """
    head, colon, rest = text.partition(":")
    if head in OWN:
        path, splits = _path_and_split(rest) if head == "hf" else (rest, ())
        return Spec(head, expanded(path) if path else None, splits)
    if is_name(head):
        known = tuple(SOURCES[head].splits) if head in SOURCES else SPLITS
        return Spec(head, None, split_names(text, rest, known) if colon else ())
    if not text.strip():
        raise UserError("the source is empty; give a data set, a folder, an .npz or a picture")
    return _plain(text)


def test_split(spec: Spec, split: str = "train") -> str | None:
    """The name of the test split of the data set whose training split `spec` names.

    None if that is not known: for the user's own data, for other splits, for mnist-10k, which has
    none. `split` is the verb's, for a source that names none.
    """
    known = tuple(SOURCES[spec.kind].splits) if spec.kind in SOURCES else SPLITS
    if spec.own or "test" not in known or (spec.splits or (split,)) != ("train",):
        return None
    return f"{spec.kind}:test"


def split_names(text: str, split: str, known: Sequence[str] = SPLITS) -> tuple[str, ...]:
    """Parse `train`, `test` or `train+test`. Raises UserError for another text."""
    names = tuple(split.split("+"))
    if not set(names) <= set(SPLITS) or len(set(names)) < len(names):
        hint = nearest(split, [*known, *(["+".join(known)] if len(known) > 1 else [])])
        raise UserError(f"{text}: there is no split '{split}'{hint}")
    return names


def _path_and_split(text: str) -> tuple[str, tuple[str, ...]]:
    """PATH and its splits, if the part after the last colon names them."""
    path, _, split = text.rpartition(":")
    if path and set(split.split("+")) <= set(SPLITS):
        return path, split_names(f"hf:{text}", split)
    return text, ()


def _plain(text: str) -> Spec:
    """Parse a path by what it points to."""
    path = expanded(text)
    kind, suffix = look(path), path.suffix.lower()
    if kind == "folder":
        return Spec("folder", path)
    if kind == "file" and suffix in ARRAYS:
        packed = suffix == ".npy" and look(index_path(path)) == "file"
        return Spec("packed" if packed else "npz", path)
    if kind == "file" and suffix in SUFFIXES:
        return Spec(PICTURE, path)
    if kind:
        what = (
            "is neither a folder, an .npz or .npy, nor a picture"
            if kind == "file"
            else ("is not a regular file")
        )
        raise UserError(f"{path}: {what}; give one of these")
    if "/" in text or suffix in (*ARRAYS, *SUFFIXES):
        raise UserError(f"{path}: not found; give a folder, an .npz, a picture or a data set")
    name = text.partition(":")[0]
    known = [*SOURCES, *NAMED, "lsun_bedroom", *(f"{kind}:PATH" for kind in OWN)]
    hint = nearest(name, known)
    raise UserError(f"{text}: not found; no file and no data set is called '{name}'{hint}")
