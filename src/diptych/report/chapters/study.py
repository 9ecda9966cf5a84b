"""Chapter: the study that the runs belong to, if the report is of a study."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from diptych.errors import UserError
from diptych.figures.numbers import seconds
from diptych.pages.catalogue import Text, phrase, same
from diptych.pages.document import Block, Gallery, Picture, Table, cells_of, head
from diptych.pages.template import Sentence, cite, pick, say, words
from diptych.report.sources.collection import Study
from diptych.report.sources.study import Plan, Stage
from diptych.runs.records import Difference

STATES = ("done", "skipped", "failed")
# Numbers of two sets of images: names in sentences, names in records.
COUNTS = {"n": "images", "equal": "images_equal", "differing": "values_differing"}
LINKED = "linked"
REASONS = ("inception", "panels")  # others are shown as they were written


def title(study: Study) -> Text:
    """The page's title: the study's, or the runs'."""
    n = len(study.runs)
    if study.plan:
        quick = phrase("title.quick" if study.plan.quick else "term.nothing")
        return words("title.study", preset=study.plan.preset, n=n, quick=quick)
    if n > 1:
        return words("title.many", runs=study.labels, n=n)
    return words("title.one", runs=study.labels)


def chapter(study: Study) -> Iterator[Block]:
    """The request, the value of a quick study, and the stages left out or still to do."""
    plan = study.plan
    if plan is None:
        return
    yield from cite(
        _sentences(plan), study.cite(plan.path, "preset, backends, seeds, quick, stages")
    )
    rows = [
        [
            stage.name,
            phrase(f"study.{stage.state if stage.state in STATES else 'open'}"),
            seconds(stage.seconds) if stage.seconds else None,
            _reason(stage),
        ]
        for stage in plan.stages
    ]
    if rows:
        fields = "stages.name, stages.state, stages.seconds, stages.reason"
        titles = head("stage", "state", "took", "why")
        source = study.cite(plan.path, fields)
        yield Table(phrase("caption.stages"), titles, cells_of(rows), (source,), long=True)


def _sentences(plan: Plan) -> Iterator[Sentence]:
    skipped = [stage for stage in plan.stages if stage.state == "skipped"]
    linked = [stage for stage in skipped if stage.why == LINKED]
    done = sum(stage.state == "done" for stage in plan.stages)
    counts = {"n": len(plan.stages), "done": done, "given": len(linked)}
    counts["left"] = len(skipped) - len(linked)
    asked = {"preset": plan.preset, "backends": plan.backends, "seeds": list(map(str, plan.seeds))}
    yield say("study.what", **asked, **counts)
    if plan.quick:
        yield say("study.quick")
    for reason in dict.fromkeys(_reason(stage) for stage in skipped if stage not in linked):
        names = [stage.name for stage in skipped if _reason(stage) == reason]
        yield say(f"study.left.{names[0]}", "study.left", stages=names, reason=reason)
    if linked:
        runs = [f"{stage.name.removeprefix('train-')} ({_linked(stage)})" for stage in linked]
        yield say("study.linked", runs=runs)
    failed = [stage.name for stage in plan.stages if stage.state == "failed"]
    if failed:
        yield say("study.failing", stages=failed)
    waiting = [stage.name for stage in plan.stages if stage.state not in STATES]
    if waiting:
        yield say("study.waiting", stages=waiting)
    if plan.absent:
        yield say("study.absent", runs=plan.absent)


def _reason(stage: Stage) -> Text:
    """The reason for skipping a stage, in both languages if it is a known one."""
    if stage.why == LINKED:
        return words("study.reason_linked", run=_linked(stage))
    return phrase(f"study.reason_{stage.why}") if stage.why in REASONS else same(stage.reason)


def _linked(stage: Stage) -> str:
    """Name of the run given for a training, without its path, which varies by machine."""
    return Path(stage.linked).name


def difference(study: Study, shown: Sequence[Block]) -> Iterator[Block]:
    """The study's own difference of the backends' images: its numbers and its picture.

    Args:
        shown: blocks already in the chapter; the same difference is not repeated.
    """
    if study.plan is None:
        return
    folder = study.plan.folder
    numbers = _difference(folder / "difference.json")
    if numbers is None or any(_same(numbers, each) for each in shown):
        return
    share = numbers["values_differing"] / numbers["values"]
    told = pick(numbers, "values", **COUNTS, mean="mean_levels", most="max_levels")
    yield say("study.difference", share=share, **told).by(
        study.cite(folder / "difference.json", "all")
    )
    picture = folder / "difference.png"
    if picture.is_file():
        title, alt = same("torch, jittor, |torch - jittor|"), phrase("alt.study_difference")
        drawn = Picture("grid-difference", title, alt, picture.read_bytes())
        yield Gallery(phrase("caption.study_difference"), [drawn], (study.cite(picture, "all"),))


def _same(numbers: dict[str, Any], block: Block) -> bool:
    """Return True if a sentence of the chapter has these numbers of two image sets."""
    if not isinstance(block, Sentence) or "levels" not in block.numbers:
        return False
    told = pick(numbers, "values", **COUNTS, levels="max_levels")
    return all(block.numbers[key] == value for key, value in told.items())


def _difference(path: Path) -> dict[str, Any] | None:
    """The numbers of difference.json; None if it is missing or does not hold them."""
    try:
        return Difference.read(path).model_dump() if path.is_file() else None
    except UserError:
        return None
