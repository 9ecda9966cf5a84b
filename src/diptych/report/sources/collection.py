"""The runs of a report: their labels, the pairs that are compared, and their records.

Runs that share settings, seed, data and noise match and are compared step by step, each with
the first such run of the other backend (else of its own). A run that matches none is set beside the
first run, and the report says why no more is possible. Runs that have neither data nor network in
common are refused: their figures do not belong on one page.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from diptych.errors import UserError
from diptych.figures.charts import DARK, LIGHT
from diptych.pages.template import Source
from diptych.report.numbers.pair import (
    PairNumbers,
    RunNumbers,
    different_networks,
    mismatches,
    two_labels,
)
from diptych.report.sources.gather import Gathered, Record, gather
from diptych.report.sources.study import Plan, opened
from diptych.runs.reader import Run, read_run

MOST_RUNS = 12
GO_ON = "To compare times, memory and loss distributions only: --unmatched"
# For further runs of a backend: (light, dark), each with a contrast of 4.5 to its background.
EXTRA = (("#00735a", "#45c19d"), ("#8445a3", "#c99ae3"), ("#7d6200", "#d6ba55"),
         ("#a92c64", "#f394bb"), ("#4f5963", "#b3bcc6"))  # fmt: skip


@dataclass(frozen=True)
class Study:
    """All inputs of a report."""

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
        """The labels of the runs."""
        return tuple(each.label for each in self.numbers)

    def source(self, run: int, file: str, fields: str) -> Source:
        """Cite fields of a file in a run folder."""
        return self.cite(self.folders[run] / file, fields)

    def metrics(self, fields: str, *runs: int) -> tuple[Source, ...]:
        """Cite fields of metrics.jsonl for these runs, or for all if none is given."""
        chosen = runs or range(len(self.numbers))
        return tuple(self.source(run, "metrics.jsonl", fields) for run in chosen)

    def sources(self, file: str, fields: str) -> tuple[Source, ...]:
        """Cite fields of a file in every run folder."""
        return tuple(self.source(run, file, fields) for run in range(len(self.numbers)))

    def cite(self, path: Path, fields: str) -> Source:
        """Cite fields of a file, by its path relative to the report's folder."""
        shown = os.path.relpath(path.resolve(), self.out.resolve()).replace(os.sep, "/")
        return Source(shown, fields)

    def typed(self, path: Path) -> str:
        """A path for a command, relative to the study's folder or else the report's."""
        home = self.plan.folder if self.plan else self.out
        return os.path.relpath(path.resolve(), home.resolve()).replace(os.sep, "/")

    def of_record(self, record: Record, fields: str) -> Source:
        """Cite fields of a gathered record."""
        return self.cite(record.path, fields)

    def of_records(self, records: Iterable[Record], fields: str) -> tuple[Source, ...]:
        """Cite the same fields of several gathered records."""
        return tuple(self.of_record(record, fields) for record in records)

    def label_of(self, record: Record) -> str:
        """The label of the run that a record belongs to, else the record's backend."""
        return record.backend if record.run is None else self.labels[record.run]

    def folder_names(self) -> list[str]:
        """The names of the run folders, prefixed by the parent folder's if two are alike."""
        names = [run.name for run in self.runs]
        above = [folder.resolve().parent.name for folder in self.folders]
        return [
            name if names.count(name) == 1 else f"{up}/{name}"
            for name, up in zip(names, above, strict=True)
        ]

    def trained_with(self, identity: str) -> bool:
        """True if a run has the settings of this identity, regardless of seed and length."""
        seeds = {0, *(run.config.seed for run in self.runs)}
        return any(
            run.config.model_copy(update={"seed": seed}).identity() == identity
            for run in self.runs
            for seed in seeds
        )

    def title_of(self, record: Record) -> str:
        """The label and the folder of a set of images; the label alone if they are the same."""
        label, folder = self.label_of(record), record.path.parent.name
        return label if label == folder else f"{label}: {folder}"

    def colour_of(self, record: Record) -> str:
        """The colour name of a record: its run's, else that of its backend's first run."""
        if record.run is not None and record.kind != "sweep":
            return f"run{record.run}"
        return self.panel_colour(record.backend)

    def panel_colour(self, backend: str) -> str:
        """The colour name of a backend's first run; "soft" if it has none."""
        for i, run in enumerate(self.runs):
            if run.backend == backend:
                return f"run{i}"
        return "soft"


def open_study(
    asked: Sequence[Path], out: Path, search: Sequence[Path] = (), progress: bool = False
) -> Study:
    """Read the runs and the records beside them.

    Args:
        asked: run folders, or folders of `diptych reproduce` in place of their runs.
        progress: show a bar on stderr.

    Raises:
        UserError: if there is no run or more than MOST_RUNS, one is not a run folder or holds no
            step, one is given twice, two have neither data nor network in common, or a folder to
            search is missing.
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
    bar = tqdm(folders, "runs", unit="run", disable=not progress, delay=2)
    runs = [read_run(folder, strict=False) for folder in bar]
    _check_common(folders, runs)
    found = gather(folders, [*studies, *search], [f for f in folders if f in asked])
    panels = [run.backend for run in runs]
    found.records.sort(key=lambda r: _rank(r, panels))  # stable: kinds stay together
    numbers = tuple(map(RunNumbers, runs, _labels(runs)))
    pairs = tuple(_pairs(numbers))
    return Study(out, tuple(folders), numbers, pairs, found, colours_of(panels), plan)


def open_pair(
    folders: tuple[Path, Path],
    out: Path,
    found: Gathered,
    matched: bool,
    progress: bool = False,
) -> Study:
    """Read two runs strictly for `diptych compare`.

    Raises:
        UserError: if a folder is not a run's, a record is broken, or the runs do not match and
            `matched` requires it.
    """
    bar = tqdm(folders, "runs", unit="run", disable=not progress, delay=2)
    a, b = [read_run(folder) for folder in bar]
    reasons = mismatches(a, b)
    if matched and reasons:
        what = f"{folders[0]} and {folders[1]} cannot be compared step by step"
        raise UserError(f"{what}: {reasons[0].en}. {GO_ON}")
    one, other = map(RunNumbers, (a, b), two_labels(a, b))
    pair = PairNumbers(one, other, (0, 1), matched, tuple(reasons))
    colours = colours_of([a.backend, b.backend])
    return Study(out, folders, (one, other), (pair,), found, colours)


def _rank(record: Record, panels: Sequence[str]) -> tuple[str, int]:
    """Sort key: records by kind, then in the order of the runs or of their backends."""
    if record.run is not None:
        return record.kind, record.run
    return record.kind, panels.index(record.backend) if record.backend in panels else MOST_RUNS


def _check_common(folders: Sequence[Path], runs: Sequence[Run]) -> None:
    first = runs[0]
    for folder, run in zip(folders[1:], runs[1:], strict=True):
        data = [r.environment.get("dataset_sha256") or r.config.data.source for r in (first, run)]
        apart = first.config.model != run.config.model or different_networks(first, run)
        if data[0] != data[1] and apart:
            raise UserError(
                f"{folders[0]} and {folder} have nothing in common: other data "
                f"({first.config.data.source} and {run.config.data.source}) and another network; "
                "make a report of each"
            )


def _labels(runs: Sequence[Run]) -> list[str]:
    """Backends as labels if each ran once, else folders, numbered if their names are alike."""
    panels = [run.backend for run in runs]
    if len(set(panels)) == len(panels) and len(runs) > 1:
        return panels
    names = [run.name for run in runs]
    count = Counter(names)
    return [name if count[name] == 1 else f"{name} ({i + 1})" for i, name in enumerate(names)]


def _pairs(runs: Sequence[RunNumbers]) -> list[PairNumbers]:
    """Matching pairs, first those across backends; then runs that match none, beside the first."""
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


def colours_of(backends: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """A pair of colours for each: the panels' own for the first of a panel."""
    own = {"torch": (LIGHT.torch, DARK.torch), "jittor": (LIGHT.jittor, DARK.jittor)}
    rest, found = list(EXTRA) * MOST_RUNS, []
    for backend in backends:
        found.append(own.pop(backend) if backend in own else rest.pop(0))
    return tuple(found)
