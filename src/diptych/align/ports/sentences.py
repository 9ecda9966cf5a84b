"""The words of a port's verdict, from the numbers in port.json, in both languages."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from diptych.align.ports.reasons import told
from diptych.pages.catalogue import Text, phrase
from diptych.pages.template import words


def conclusion_of(content: Mapping[str, Any], language: str) -> str:
    """The last line: every rung passes, or the first failure."""
    return conclusion(content).within(language)


def conclusion(content: Mapping[str, Any]) -> Text:
    """The verdict in one sentence."""
    fault = content["fault"]
    if fault is None:
        rungs = [r["rung"] for r in content["rungs"]]
        return words("port.passes", count=len(rungs), rungs=rungs)
    return words(
        "port.fails",
        rung=fault["rung"],
        layer=place(fault),
        tensor=fault["tensor"],
        numbers=numbers(fault),
    )


def place(fault: Mapping[str, Any]) -> Text:
    """The layer that a fault lies in, or the code between two."""
    name, where = fault["layer"], fault["where"]
    after, before = fault.get("after", ""), fault.get("before", "")
    if where in ("optimizer", "loss", "lockstep", "resume", "raised"):
        return phrase(f"port.whole_{where}")
    if where == "behind":
        return words("port.behind", after=after, before=before or "-")
    if where == "value":
        shown = f"'{name}' ({fault['kind']})" if fault.get("kind") else f"'{name}'"
        if after:
            return words("port.value_after", name=shown, after=after)
        return words("port.value", name=shown)
    if where == "between" and name:
        if before:
            return words("port.own_code", name=name, after=after or "-", before=before)
        if after:
            return words("port.own_code_after", name=name, after=after)
        return words("port.own_code_only", name=name)
    if not name:
        if after and before:
            return words("port.root", after=after, before=before)
        if before:
            return words("port.root_before", before=before)
        return words("port.root_after", after=after) if after else phrase("port.whole_network")
    if fault.get("kind"):
        return words("port.layer_kind", name=name, kind=fault["kind"])
    return words("port.layer", name=name)


def numbers(fault: Mapping[str, Any]) -> Text:
    """A fault's error, floor and gate."""
    if fault.get("why"):
        return words("port.text", text=told(fault["why"]))
    if fault.get("text"):
        return words("port.text", text=fault["text"])
    if fault.get("error") is None:
        return phrase("port.not_finite")
    if fault["measure"] == "bits":
        return words("port.bits", error=fault["error"])
    return words(
        "port.numbers", error=fault["error"], allowed=fault["allowed"], floor=fault["floor"]
    )


def hint_texts(fault: Mapping[str, Any]) -> Iterator[Text]:
    """The hints of a fault."""
    for hint in fault["hints"]:
        facts = {k: v for k, v in hint.items() if k != "key"}
        yield words("port.hint", hint=words(f"hint.{hint['key']}", **facts))


def note_texts(content: Mapping[str, Any]) -> Iterator[Text]:
    """One sentence for each note."""
    for note in content["notes"]:
        facts = {k: v for k, v in note.items() if k not in ("key", "why")}
        if note.get("why"):
            facts["reason"] = told(note["why"])
        yield words(f"note.{note['key']}", **facts)
