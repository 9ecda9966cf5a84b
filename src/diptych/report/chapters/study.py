"""Chapter: the study that the runs belong to, if the report was asked of one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from diptych.errors import UserError
from diptych.figures.numbers import seconds
from diptych.report.document import Block, Gallery, Picture, Table, cells_of, head
from diptych.report.sources.collection import Study
from diptych.report.sources.study import Plan, Stage
from diptych.report.text.catalogue import Text, phrase, same
from diptych.report.text.template import Sentence, cite, pick, say, words
from diptych.runs.records import Difference

STATES = ("done", "skipped", "failed")
# Numbers of two sets of images: as sentences name them, as records do.
COUNTS = {"n": "images", "equal": "images_equal", "differing": "values_differing"}
# What `diptych reproduce` gives as reasons, by their beginnings.
LINKED = "linked: "
REASONS = {"no Inception weights": "inception", "needs both panels": "panels"}


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
    """What was asked, what a quick study is worth, what was left out or is still to be done."""
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
    linked = [stage for stage in skipped if stage.reason.startswith(LINKED)]
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
    """Why a stage was left out, in both languages where the reason is a known one."""
    if stage.reason.startswith(LINKED):
        return words("study.reason_linked", run=_linked(stage))
    for start, key in REASONS.items():
        if stage.reason.startswith(start):
            return phrase(f"study.reason_{key}")
    return same(stage.reason)


def _linked(stage: Stage) -> str:
    """The name of the run that a training was given by; where it lies is the machine's affair."""
    return Path(stage.reason.removeprefix(LINKED)).name


def difference(study: Study, shown: Sequence[Block]) -> Iterator[Block]:
    """The study's own difference of the panels' images: its numbers and its picture.

    Args:
        shown: what the chapter holds already; the same difference is not told twice.
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
    """Whether a sentence of the chapter tells these numbers of two sets of images."""
    if not isinstance(block, Sentence) or "levels" not in block.numbers:
        return False
    told = pick(numbers, "values", **COUNTS, levels="max_levels")
    return all(block.numbers[key] == value for key, value in told.items())


def _difference(path: Path) -> dict[str, Any] | None:
    """The numbers of difference.json; None where it is missing or does not hold them."""
    try:
        return Difference.read(path).model_dump() if path.is_file() else None
    except UserError:
        return None
