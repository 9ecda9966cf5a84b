"""Facts that are told whatever the verdict: what is left out, guessed, folded or switched off."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from diptych.align.ports.evidence import Evidence
from diptych.align.ports.matching import BY_ORDER
from diptych.align.ports.reasons import Why, told, why
from diptych.align.ports.weights import buffers_alone


def notes_of(
    seen: Evidence, unchecked: Mapping[str, list[str]], failed: bool
) -> list[dict[str, Any]]:
    """Facts to be told, whatever the verdict."""
    notes: list[dict[str, Any]] = []
    if seen.about["truth"] != "float64":
        notes.append(
            {
                "key": "no_float64",
                "framework": seen.about["framework"],
                "reason": seen.about["note"],
            }
        )
    if seen.about["note"] and seen.about["framework"] == "torch":
        notes[-1]["key"] = "float64_failed"
    count = int(seen.about["dropouts"]) + int(seen.subject["dropouts"])
    if count:
        notes.append({"key": "dropout", "count": count})
    if seen.subject["stopped"] and seen.subject["stopped"] != seen.about["stopped"]:
        notes.append({"key": "stopped", "names": ", ".join(seen.subject["stopped"][:5])})
    if own := [n for n in seen.about["inputs"] if n not in seen.about["taken"]]:
        notes.append({"key": "loss_only", "names": ", ".join(own)})
    guessed = [n for n, how in seen.subject["match"]["how"].items() if how in BY_ORDER[1:]]
    if failed and guessed:
        notes.append({"key": "by_order", "names": ", ".join(guessed[:5]), "count": len(guessed)})
    if folded := list(seen.subject.get("folded", ())):
        notes.append({"key": "folded", "names": ", ".join(folded[:5]), "count": len(folded)})
    if alone := buffers_alone(seen):
        notes.append({"key": "buffers_alone", "names": ", ".join(alone[:5]), "count": len(alone)})
    if seen.subject.get("left_out"):
        notes.append(_left_out(seen.subject["left_out"]))
    for path, what in unchecked.items():
        if what:
            notes.append(_left_out(why("cut_elsewhere", path=path, what=", ".join(what))))
    if len(seen.rungs()) > 3 and not seen.about["own"].get("optimizer"):
        notes.append({"key": "plain_descent"})
    if seen.about["own"].get("loss") is seen.subject["own"].get("loss") is False:
        notes.append({"key": "own_loss"})
    return notes


def _left_out(reason: Why) -> dict[str, Any]:
    return {"key": "left_out", "reason": told(reason).en, "why": reason}
