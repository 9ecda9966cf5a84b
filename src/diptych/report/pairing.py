"""Two runs of a report set side by side: the same numbers and sentences as `diptych compare`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from diptych.report.compare import pair_content
from diptych.report.pair import Pair
from diptych.report.subjects import Pairing, Study


@dataclass(frozen=True)
class Compared:
    """A pairing with its numbers, as `compare.json` has them, and the labels of both."""

    pairing: Pairing
    a: str
    b: str
    content: Mapping[str, Any]

    @property
    def across(self) -> bool:
        """Whether the two are of different panels."""
        runs = self.content["runs"]
        return bool(runs["a"]["backend"] != runs["b"]["backend"])

    @property
    def numbers(self) -> Mapping[str, Any]:
        """Differences, losses, times, memory."""
        found: Mapping[str, Any] = self.content["numbers"]
        return found


def compared(study: Study) -> list[Compared]:
    """Every pairing of the study with its numbers."""
    found = []
    for pairing in study.pairings:
        names = (study.labels[pairing.a], study.labels[pairing.b])
        pair = Pair(study.runs[pairing.a], study.runs[pairing.b], names)
        content = pair_content(pair, None, pairing.matched, list(pairing.reasons))
        found.append(Compared(pairing, *names, content | {"mismatches": pairing.reasons}))
    return found
