"""The runs of a report: what they are called, which of them are compared, and their records.

Runs that share settings, seed, data and host noise match, and are compared step by step, each with
the first such run of the other panel (else of its own). A run that matches none is set beside the
first run, and the report says why no more is possible. Runs that have neither data nor network in
common are refused: no figure of theirs belongs on one page.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from diptych.errors import UserError
from diptych.figures.charts import DARK, LIGHT
from diptych.report.numbers.pair import PairNumbers, RunNumbers, mismatches, two_labels
from diptych.report.sources.gather import Gathered, Record, gather
from diptych.report.sources.study import Plan, opened
from diptych.report.text.template import Source
from diptych.runs.reader import Run, read_run

MOST_RUNS = 12
GO_ON = "To compare times, memory and loss distributions only: --unmatched"
# For further runs of a panel: (light, dark), each with a contrast of 4.5 to its paper.
EXTRA = (("#00735a", "#45c19d"), ("#8445a3", "#c99ae3"), ("#7d6200", "#d6ba55"),
         ("#a92c64", "#f394bb"), ("#4f5963", "#b3bcc6"))  # fmt: skip


@dataclass(frozen=True)
class Study:
    """All that a report is made from."""

    out: Path
    folders: tuple[Path, ...]
    numbers: tuple[RunNumbers, ...]
    pairs: tuple[PairNumbers, ...]
    found: Gathered
    colours: tuple[tuple[str, str], ...]
    plan: Plan | None = None

    @property
    def runs(self) -> tuple[Run, ...]:
        """The runs."""
        return tuple(each.run for each in self.numbers)

    @property
    def labels(self) -> tuple[str, ...]:
        """What the runs are called."""
        return tuple(each.label for each in self.numbers)

    def source(self, run: int, file: str, fields: str) -> Source:
        """A file of a run folder, and fields of it."""
        return self.cite(self.folders[run] / file, fields)

    def metrics(self, fields: str, *runs: int) -> tuple[Source, ...]:
        """Fields of metrics.jsonl of these runs, or of all."""
        chosen = runs or range(len(self.numbers))
        return tuple(self.source(run, "metrics.jsonl", fields) for run in chosen)

    def sources(self, file: str, fields: str) -> tuple[Source, ...]:
        """Fields of a file of every run folder."""
        return tuple(self.source(run, file, fields) for run in range(len(self.numbers)))

    def cite(self, path: Path, fields: str) -> Source:
        """A file as seen from the report's folder."""
        shown = os.path.relpath(path.resolve(), self.out.resolve()).replace(os.sep, "/")
        return Source(shown, fields)

    def typed(self, path: Path) -> str:
        """A path in a command: as seen from the study's folder, or else the report's."""
        home = self.plan.folder if self.plan else self.out
        return os.path.relpath(path.resolve(), home.resolve()).replace(os.sep, "/")

    def of_record(self, record: Record, fields: str) -> Source:
        """Fields of a gathered record."""
        return self.cite(record.path, fields)

    def of_records(self, records: Iterable[Record], fields: str) -> tuple[Source, ...]:
        """The same fields of several gathered records."""
        return tuple(self.of_record(record, fields) for record in records)

    def label_of(self, record: Record) -> str:
        """The label of the run that a record belongs to, else its panel."""
        return record.backend if record.run is None else self.labels[record.run]

    def folder_names(self) -> list[str]:
        """The names of the run folders; where two are alike, with that of the folder above."""
        names = [run.name for run in self.runs]
        above = [folder.resolve().parent.name for folder in self.folders]
        return [
            name if names.count(name) == 1 else f"{up}/{name}"
            for name, up in zip(names, above, strict=True)
        ]

    def trained_with(self, identity: str) -> bool:
        """Whether a run has the settings of this identity, its seed and length aside."""
        seeds = {0, *(run.config.seed for run in self.runs)}
        return any(
            run.config.model_copy(update={"seed": seed}).identity() == identity
            for run in self.runs
            for seed in seeds
        )

    def title_of(self, record: Record) -> str:
        """The label and the folder of a set of images; once, where they are the same."""
        label, folder = self.label_of(record), record.path.parent.name
        return label if label == folder else f"{label}: {folder}"

    def colour_of(self, record: Record) -> str:
        """The colour's name of a record: its run's, else the first run's of its panel."""
        if record.run is not None and record.kind != "sweep":
            return f"run{record.run}"
        return self.panel_colour(record.backend)

    def panel_colour(self, backend: str) -> str:
        """The colour's name of the first run of a panel."""
        for i, run in enumerate(self.runs):
            if run.backend == backend:
                return f"run{i}"
        return "soft"


def open_study(asked: Sequence[Path], out: Path, search: Sequence[Path] = ()) -> Study:
    """Read the runs and what was recorded beside them.

    Args:
        asked: run folders, or folders of `diptych reproduce` in place of their runs.

    Raises:
        UserError: no run, one that is no run folder or holds no step, one given twice, or two
            without data and network in common.
    """
    folders, studies, plan = opened(asked)
    if not folders:
        raise UserError("which runs? Give one run folder or more: diptych report RUN... --out OUT")
    if len(folders) > MOST_RUNS:
        raise UserError(f"{len(folders)} runs; a report holds {MOST_RUNS} at most: choose some")
    twice = [name for name, n in Counter(str(f.resolve()) for f in folders).items() if n > 1]
    if twice:
        raise UserError(f"{twice[0]}: given twice; give every run once")
    for folder in search:
        if not folder.is_dir():
            raise UserError(f"{folder}: no such folder to search")
    runs = [read_run(folder, strict=False) for folder in folders]
    _check_common(folders, runs)
    found = gather(folders, [*studies, *search], [f for f in folders if f in asked])
    panels = [run.backend for run in runs]
    found.records.sort(key=lambda r: _rank(r, panels))  # stable: kinds stay together
    numbers = tuple(map(RunNumbers, runs, _labels(runs)))
    pairs = tuple(_pairs(numbers))
    return Study(out, tuple(folders), numbers, pairs, found, _colours(panels), plan)


def open_pair(folders: tuple[Path, Path], out: Path, found: Gathered, matched: bool) -> Study:
    """Two runs, read strictly, as the subjects of `diptych compare`.

    Raises:
        UserError: no run folder, a broken record, or runs that do not match though `matched`.
    """
    a, b = (read_run(folder) for folder in folders)
    reasons = mismatches(a, b)
    if matched and reasons:
        what = f"{folders[0]} and {folders[1]} cannot be compared step by step"
        raise UserError(f"{what}: {reasons[0].en}. {GO_ON}")
    one, other = map(RunNumbers, (a, b), two_labels(a, b))
    pair = PairNumbers(one, other, (0, 1), matched, tuple(reasons))
    colours = _colours([a.backend, b.backend])
    return Study(out, folders, (one, other), (pair,), found, colours)


def _rank(record: Record, panels: Sequence[str]) -> tuple[str, int]:
    """Records of a kind in the order of the runs, or of the panels as they ran."""
    if record.run is not None:
        return record.kind, record.run
    return record.kind, panels.index(record.backend) if record.backend in panels else MOST_RUNS


def _check_common(folders: Sequence[Path], runs: Sequence[Run]) -> None:
    first = runs[0]
    for folder, run in zip(folders[1:], runs[1:], strict=True):
        data = [r.environment.get("dataset_sha256") or r.config.data.source for r in (first, run)]
        if data[0] != data[1] and first.config.model != run.config.model:
            raise UserError(
                f"{folders[0]} and {folder} have nothing in common: other data "
                f"({first.config.data.source} and {run.config.data.source}) and another network; "
                "make a report of each"
            )


def _labels(runs: Sequence[Run]) -> list[str]:
    """By panel where each ran once, else by folder, numbered where folders are alike."""
    panels = [run.backend for run in runs]
    if len(set(panels)) == len(panels) and len(runs) > 1:
        return panels
    names = [run.name for run in runs]
    count = Counter(names)
    return [name if count[name] == 1 else f"{name} ({i + 1})" for i, name in enumerate(names)]


def _pairs(runs: Sequence[RunNumbers]) -> list[PairNumbers]:
    """Matching pairs, those across the panels first; then what matches none beside another run."""
    across: list[tuple[int, int]] = []
    within: list[tuple[int, int]] = []
    for b in range(1, len(runs)):
        matched = [a for a in range(b) if not mismatches(runs[a].run, runs[b].run)]
        other = [a for a in matched if runs[a].run.backend != runs[b].run.backend]
        if other:
            across.append((other[0], b))
        elif matched:
            within.append((matched[0], b))
    paired = {i for pair in across + within for i in pair}
    beside = [(0, i) for i in range(1, len(runs)) if i not in paired]
    if 0 not in paired and len(runs) > 1 and not beside:
        beside = [(0, 1)]
    found = []
    for a, b in across + within + beside:
        reasons = tuple(mismatches(runs[a].run, runs[b].run))
        found.append(PairNumbers(runs[a], runs[b], (a, b), not reasons, reasons))
    return found


def _colours(backends: Sequence[str]) -> tuple[tuple[str, str], ...]:
    own = {"torch": (LIGHT.torch, DARK.torch), "jittor": (LIGHT.jittor, DARK.jittor)}
    rest, found = list(EXTRA) * MOST_RUNS, []
    for backend in backends:
        found.append(own.pop(backend) if backend in own else rest.pop(0))
    return tuple(found)
