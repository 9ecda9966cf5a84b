"""Features of images, extracted in parts by processes that share a folder and nothing else.

    part K of N (`diptych stats --part K/N`) extracts the runs of `batch` images j with j mod N = K

Each part is a file, `part-K-of-N.safetensors`: the rows of all kinds of features, the images'
positions, and a note of all that the rows depend on. Images of one size pass the network in the
batches of one process, so their rows have the same bits; images of mixed sizes are grouped within
each run, and their rows differ by the network's rounding. A folder with all N parts is a sample
set, or a reference, for every metric that looks at no pixels.

Files are not trusted: names, types, shapes, positions and values are checked before use.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from diptych.data.notes import note
from diptych.errors import MachineError, UserError
from diptych.evaluation.collect import BATCH, KINDS, Collected, Needs, include
from diptych.evaluation.feature_network import Extractor, Features
from diptych.evaluation.images import Images, open_images, positions_of
from diptych.evaluation.protocol import Protocol, check_made_alike
from diptych.files import atomic_path, expanded, look, numpy_array, parse_json, sha256_of
from diptych.ranks import Part
from diptych.types import Arrays, Floating, Int64

SCHEMA = "diptych-features-1"
NAME = re.compile(r"part-(\d{1,6})-of-(\d{1,6})\.safetensors")
POSITIONS = "positions"
SHOWN = 3  # names of missing parts in a message


@dataclass(frozen=True)
class FeatureSet:
    """All parts of the features of one set of images.

    Attributes:
        path: their folder.
        files: the parts, in order.
        facts: all that the features depend on, and what is known of the images.
        on_white: number of pictures with transparent pixels, which were put on white.
    """

    path: Path
    files: tuple[Path, ...]
    facts: dict[str, Any]
    on_white: int

    @property
    def num(self) -> int:
        """Number of images."""
        return int(self.facts["num"])

    @property
    def first(self) -> int:
        """The first of the source's images."""
        return int(self.facts["first"])

    def reference_facts(self) -> dict[str, Any]:
        """The `reference.*` fields of a protocol: those of the images, had they been given."""
        whole = self.num == self.facts["images.count"]
        sha256 = self.facts["images.sha256"]
        cut = "" if whole else f"[{self.first}:{self.first + self.num}]"
        return {
            "reference.name": self.facts["images.name"],
            "reference.split": self.facts["images.split"] if whole else None,
            "reference.count": self.num,
            "reference.sha256": f"{sha256}{cut}",
        }

    def collect(self, extractor: Extractor, protocol: Protocol, wanted: Needs) -> Collected:
        """The result of `collect`, from features instead of images.

        Raises:
            UserError: features of another network or protocol, or damaged ones.
        """
        check_made_alike(self.path, self.facts, extractor, protocol)
        made, here = (
            f"{backend} on {_kind(device)}"
            for backend, device in (
                (self.facts["backend"], self.facts["device"]),
                (extractor.backend, extractor.device),
            )
        )
        if made != here:
            note(
                f"{self.path}: its features are by {made}, and this is {here}; they differ by "
                "rounding"
            )
        found = Collected(self.num, {}, {})
        for file in self.files:
            positions, rows = _rows(file, extractor.dims)
            if rows is not None:
                include(found, positions, rows, wanted, extractor, protocol)
        found.on_white = self.on_white
        return found


def write_part(
    source: str,
    out: Path,
    extractor: Extractor,
    protocol: Protocol,
    part: Part,
    *,
    first: int = 0,
    num: int | None = None,
    batch: int = BATCH,
    data_dir: Path | None = None,
    progress: bool = True,
) -> dict[str, Any]:
    """Write a part of the features of `num` images of `source` from `first` on to the folder `out`.

    Returns:
        Facts of the file.

    Raises:
        UserError: images missing or damaged, or the folder holds something else than other parts
            of the same work.
    """
    images = open_images(source, data_dir)
    facts = _facts(source, images, extractor, protocol, first, num, batch)
    file = part_path(out, part)
    for other, its in _there(out, but=file):
        _check_alike(other, its, part.count, facts)
    num = facts["num"]
    positions: list[Int64] = []
    rows: dict[str, list[Floating]] = {kind: [] for kind in KINDS}
    total = len(positions_of(num, batch, part))
    title = f"{images.name}, {part}"
    with tqdm(total=total, unit="image", desc=title, disable=not progress) as bar:
        for places, pixels in images.batches(batch, first, num, part):
            features = protocol.features(extractor, pixels)
            positions.append(places)
            for kind, held in rows.items():
                values = getattr(features, kind)
                if values is not None:
                    held.append(values)
            bar.update(len(places))
    on_white = sum(
        first <= row < first + num and part.has((row - first) // batch) for row in images.on_white
    )
    _save(
        file,
        positions,
        rows,
        {
            "schema": SCHEMA,
            "part": part.number,
            "parts": part.count,
            "on_white": on_white,
            "facts": facts,
        },
    )
    if on_white:
        note(
            f"{images.name}: {on_white:,} of {total:,} pictures have transparent pixels, which "
            f"were put on white"
        )
    return {
        "out": str(file),
        "n": total,
        "parts_there": len(_there(out)),
        "parts": part.count,
        "sha256": sha256_of(file),
        **facts,
    }


def part_path(out: Path, part: Part) -> Path:
    """The file of a part."""
    return out / f"{part}.safetensors"


def features_path(source: str | Path) -> Path | None:
    """The folder of features that a source names; None for other sources."""
    path = expanded(source)
    if look(path) != "folder":
        return None
    return path if any(NAME.fullmatch(child.name) for child in _entries(path)) else None


def load_features(path: Path) -> FeatureSet:
    """All parts in a folder.

    Raises:
        UserError: a part is missing, there twice, damaged, or made otherwise than the others.
    """
    there = _there(path)
    its = there[0][1]
    count, facts = its["parts"], its["facts"]
    for file, other in there[1:]:
        _check_alike(file, other, count, facts)
    names = {file.name for file, _ in there}
    wanted = [part_path(path, Part(number, count)) for number in range(count)]
    missing = [file.stem for file in wanted if file.name not in names]
    if missing:
        more = f" and {len(missing) - SHOWN} more" if len(missing) > SHOWN else ""
        number = re.findall(r"\d+", missing[0])[0]
        raise UserError(
            f"{path}: {', '.join(missing[:SHOWN])}{more} of {count} parts "
            f"{'is' if len(missing) == 1 else 'are'} missing; make "
            f"{'it' if len(missing) == 1 else 'them'}, first with diptych stats --part "
            f"{number}/{count}"
        )
    for file, other in there:
        _check_positions(file, other)
    on_white = sum(other["on_white"] for _, other in there)
    return FeatureSet(path, tuple(wanted), facts, on_white)


def _facts(
    source: str,
    images: Images,
    extractor: Extractor,
    protocol: Protocol,
    first: int,
    num: int | None,
    batch: int,
) -> dict[str, Any]:
    num = images.count - first if num is None else num
    if first < 0 or num < 1 or batch < 1:
        raise UserError(
            f"--first {first}, --num {num} and --batch {batch} of {images.count} images: give 0 or "
            f"more, and 1 or more"
        )
    facts = {
        "extractor": extractor.name,
        "extractor_sha256": extractor.sha256,
        **protocol.facts(),
        "backend": extractor.backend,
        "device": _kind(extractor.device),
        "batch": batch,
        "first": first,
        "num": num,
        "images.name": images.name,
        "images.source": Path(source).resolve().name,
        "images.split": images.split,
        "images.count": images.count,
        "images.sha256": images.identify(),
        "images.left_out": images.left_out,
        "images.manifest": images.manifest,
    }
    return dict(json.loads(json.dumps(facts)))  # as it is read again


def _kind(device: str) -> str:
    """`cuda` of `cuda:1`."""
    return device.partition(":")[0]


def _there(out: Path, but: Path | None = None) -> list[tuple[Path, dict[str, Any]]]:
    """The parts in a folder, and their notes; hidden files are those of work in progress."""
    found = []
    for file in _entries(out) if look(out) == "folder" else ():
        if file.name.startswith(".") or file == but:
            continue
        if NAME.fullmatch(file.name) is None:
            raise UserError(f"{out}: holds '{file.name}', which is not a part of features; move it")
        found.append((file, _note(file)))
    return found


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        raise MachineError(f"{folder}: may not be read ({error.strerror})") from None


def _note(file: Path) -> dict[str, Any]:
    """The note of a part, checked against its name."""
    with _opened(file) as held:
        text = (held.metadata() or {}).get("note")
    try:
        note = parse_json(text or "")
        number, count, facts = note["part"], note["parts"], note["facts"]
        sizes = [note["on_white"], number, *(facts[key] for key in ("first", "num", "batch"))]
        right = note["schema"] == SCHEMA and all(type(n) is int and n >= 0 for n in (*sizes, count))
        right = right and facts["num"] > 0 and facts["batch"] > 0 and number < count < 10**6
        right = right and set(facts) >= {f"images.{k}" for k in IMAGES} | {"backend", "device"}
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise UserError(f"{file}: holds no part of features ({error}); make it again") from None
    if not right:
        raise UserError(f"{file}: is a damaged part of features; make it again")
    part = Part(number, count)
    if file.stem != str(part):
        raise UserError(
            f"{file}: is {part} under another name, and would count twice; make {file.stem} itself"
        )
    return dict(note)


IMAGES = ("name", "source", "split", "count", "sha256", "left_out", "manifest")


def _check_alike(file: Path, its: dict[str, Any], count: int, facts: dict[str, Any]) -> None:
    """Refuse a part of other work, naming the field."""
    if its["parts"] != count:
        raise UserError(
            f"{file}: is one of {its['parts']} parts, the others are of {count}; keep those of one "
            f"work in a folder"
        )
    for key in {**facts, **its["facts"]}:
        one, other = its["facts"].get(key), facts.get(key)
        if one != other:
            shown = "" if isinstance(other, dict) else f" ({one} and {other})"
            raise UserError(
                f"{file}: differs from the other parts in {key}{shown}; make all parts of the same "
                f"images in the same way, or choose another folder"
            )


def _check_positions(file: Path, its: dict[str, Any]) -> None:
    facts, part = its["facts"], Part(its["part"], its["parts"])
    with _opened(file) as held:
        positions = _tensor(file, held, POSITIONS)
    wanted = np.array(positions_of(facts["num"], facts["batch"], part), np.int64)
    if positions.dtype != np.int64 or not np.array_equal(np.sort(positions, axis=None), wanted):
        raise UserError(f"{file}: its images are not those of {part}; make it again")


def _rows(file: Path, dims: int) -> tuple[Int64, Features | None]:
    """Positions and features of a part; no features if the part has no images."""
    with _opened(file) as held:
        names = set(held.keys())
        arrays = {name: _tensor(file, held, name) for name in (POSITIONS, *KINDS) if name in names}
    positions = arrays.pop(POSITIONS)
    if not len(positions):
        return positions, None
    for name, array in arrays.items():
        fits = array.dtype == np.float32 and array.ndim == 2 and len(array) == len(positions)
        if not fits or not np.isfinite(array).all():
            raise UserError(f"{file}: '{name}' is not an array of finite features; make it again")
    if not {"pool", "logits"} <= set(arrays) or arrays["pool"].shape[1] != dims:
        raise UserError(f"{file}: lacks features of {dims} dimensions; make it again")
    return positions, Features(arrays["pool"], arrays["logits"], arrays.get("spatial"))


def _opened(file: Path) -> Any:
    """The file, open; to be used in a `with`.

    Raises:
        UserError: no readable file of safetensors.
    """
    from safetensors import SafetensorError, safe_open

    try:
        return safe_open(str(file), framework="numpy")
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(f"{file}: is damaged ({error}); make it again") from None


def _tensor(file: Path, held: Any, name: str) -> Any:
    from safetensors import SafetensorError

    try:
        return numpy_array(held, name)
    except MemoryError:
        raise MachineError(f"{file}: is too large for this machine's memory") from None
    except (SafetensorError, TypeError, ValueError) as error:
        raise UserError(f"{file}: '{name}' cannot be read ({error}); make it again") from None


def _save(
    file: Path, positions: list[Int64], rows: dict[str, list[Floating]], note: dict[str, Any]
) -> None:
    from safetensors.numpy import save

    arrays: Arrays = {POSITIONS: np.concatenate([np.empty(0, np.int64), *positions])}
    arrays |= {kind: np.concatenate(held) for kind, held in rows.items() if held}
    data = save(arrays, metadata={"note": json.dumps(note, sort_keys=True, allow_nan=False)})
    with atomic_path(file) as temporary:
        temporary.write_bytes(data)
