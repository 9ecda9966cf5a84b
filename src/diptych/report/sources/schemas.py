"""Recognition of a record by its file's content, and a check that it can be used.

    of another program   no `kind` of ours, no sampler card: ignored
    damaged              ours, but torn, without a field that the report needs, or with text where
                         a number belongs: left out, and named with the reason

A truncated file cannot be parsed; it counts as damaged if its kind is still visible in the
remaining text.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from diptych.errors import UserError
from diptych.evaluation.score import Score
from diptych.files import parse_json
from diptych.profiling.record import Profile
from diptych.runs import records
from diptych.runs.records import Part

KINDS = {
    "diptych scores": "scores",
    "diptych sweep": "sweep",
    "align": "ladder",
    "align-train": "training",
    "profile": "profile",
    "batch_times": "batches",
}
MODELS: Mapping[str, type[Part]] = {
    "samples": records.Manifest,
    "scores": records.Scores,
    "sweep": records.Sweep,
    "ladder": records.Ladder,
    "training": records.FreeTraining,
    "profile": Profile,
    "batches": records.BatchTimes,
}
MOST_BYTES = 20_000_000


def known(path: Path) -> tuple[str, dict[str, Any], str] | None:
    """The kind of a record, its content, and the reason why it cannot be used ("" if it can).

    Returns:
        None for a file that is not a record of ours.
    """
    try:
        usable = path.is_file() and path.stat().st_size <= MOST_BYTES
        raw = path.read_bytes() if usable else b""
    except OSError:
        return None
    try:
        content = parse_json(raw)
    except ValueError as error:
        kind = _torn_kind(path, raw)
        return (kind, {}, f"it is not complete JSON ({error})") if kind else None
    kind = _kind(path, content) if isinstance(content, dict) else None
    if kind is None:
        return None
    try:
        found = MODELS[kind].of(content, "").model_dump()
        for score in content["scores"] if kind == "scores" else ():
            Score.from_json(score)
    except (UserError, ValueError) as error:  # a protocol with NaN has no id
        return kind, content, str(error).removeprefix(": ")
    return kind, found, ""


def _kind(path: Path, content: Mapping[str, Any]) -> str | None:
    if path.name == "manifest.json" and {"solver", "num", "weights_sha256"} & set(content):
        return "samples" if "solver" in content else None
    return KINDS.get(str(content.get("kind")))


def _torn_kind(path: Path, raw: bytes) -> str | None:
    if path.name == "manifest.json":
        return "samples" if b'"solver"' in raw else None
    found = re.search(rb'"kind":\s*"([^"]+)"', raw)
    return KINDS.get(found[1].decode("utf-8", "replace")) if found else None
