"""Two run folders set side by side: numbers, sentences, figures, one page.

Step-by-step differences mean something only where both runs drew the same numbers: equal
settings, seed and data, and host noise. Runs that do not match are refused with the first thing
that differs, or compared without the step-by-step part (`matched=False`), which the page says.
The same records give the same bytes: no clock, no path and no unseeded draw enters the result.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from diptych.config.load import flatten
from diptych.errors import UserError
from diptych.figures import charts
from diptych.files import write_json, write_text
from diptych.profiling import clock
from diptych.report import figures, figures_time, page, statistics
from diptych.report.catalogue import Text
from diptych.report.folder import check_free, new_folder
from diptych.report.loss_end import loss_end
from diptych.report.matching import (
    differences,
    environment_differences,
    labels,
    machine_keys,
    mismatches,
    work_keys,
)
from diptych.report.pair import Draw, Pair
from diptych.report.samples import Samples, compare_samples, read_samples
from diptych.report.sentences import sentences
from diptych.runs.reader import Run, read_run

SCHEMA_VERSION = 1
GO_ON = "To compare times, memory and loss distributions only: --unmatched"

Content = dict[str, Any]
TwoSamples = tuple[Samples, Samples]


def compare_runs(
    run_a: Path,
    run_b: Path,
    out: Path,
    *,
    samples: tuple[Path, Path] | None = None,
    overwrite: bool = False,
    matched: bool = True,
) -> Content:
    """Compare two runs and write compare.json, the figures and index.html into `out`.

    Args:
        run_a, run_b: run folders; a ratio is B's number over A's.
        out: appears whole or not at all.
        samples: sample folders of A and of B.
        overwrite: replace an earlier comparison in `out`.
        matched: compare step by step; refuse runs where that would mean nothing.

    Returns:
        The content of compare.json: plain JSON values.

    Raises:
        UserError: not a run or sample folder, runs that do not match, or `out` in use.
        MachineError: `out` cannot be written.
    """
    check_free(out, overwrite, page.is_ours)
    a, b = read_run(run_a), read_run(run_b)
    reasons = mismatches(a, b)
    if matched and reasons:
        what = f"{run_a} and {run_b} cannot be compared step by step"
        raise UserError(f"{what}: {reasons[0].en}. {GO_ON}")
    images = (read_samples(samples[0], a), read_samples(samples[1], b)) if samples else None
    result = pair_content(pair := Pair(a, b, labels(a, b)), images, matched, reasons)
    drawn = _draw(pair, images, result)
    with new_folder(out) as build:
        for name, pngs in drawn.items():
            (build / name).write_bytes(pngs[0])
        write_json(build / "compare.json", result)
        write_text(build / "index.html", page.render(result, drawn))
    return result


def pair_content(
    pair: Pair, images: TwoSamples | None, matched: bool, reasons: list[Text]
) -> Content:
    """The content of compare.json: numbers, differences and sentences of two runs.

    Args:
        pair: the runs and their names.
        images: a sample folder of each, read.
        matched: whether single steps are compared.
        reasons: why not; see `matching.mismatches`.
    """
    a, b = pair.a, pair.b
    environment = environment_differences(a, b)
    config = differences(flatten(a.config), flatten(b.config))
    result: Content = {
        "schema_version": SCHEMA_VERSION,
        "matched": matched,
        "mismatches": reasons,
        "runs": {"a": _identity(a, pair.names[0]), "b": _identity(b, pair.names[1])},
        "dataset_equal": _dataset_equal(a, b),
        "config_differences": config,
        "environment_differences": environment,
        "machine_differences": machine_keys(environment),
        "work_differences": work_keys(config),
        "numbers": _numbers(a, b, matched)
        | {"samples": compare_samples(*images, matched=matched) if images else None},
    }
    result["figures"] = [name for name, wanted in _wanted(result).items() if wanted]
    result = plain(result)
    said = sentences(result | {"mismatches": reasons})
    result["sentences"] = [
        {"key": s.key, "section": s.section, "text": s.text, "numbers": plain(s.numbers)}
        for s in said
    ]
    return result


def _numbers(a: Run, b: Run, matched: bool) -> Content:
    return {
        "difference": statistics.difference(a, b) if matched else None,
        "loss": {
            "a": statistics.loss_summary(a),
            "b": statistics.loss_summary(b),
            "end": loss_end(a, b, with_ratio=not matched),
        },
        "step_time": {
            "a": statistics.step_time(a),
            "b": statistics.step_time(b),
            "ratio": statistics.step_time_ratio(a, b),
            "together": clock.together(a, b),
        },
        "epoch_time": {"a": statistics.epoch_time(a), "b": statistics.epoch_time(b)},
        "memory": {"a": statistics.memory(a), "b": statistics.memory(b)},
    }


def _identity(run: Run, label: str) -> Content:
    shown = ("backend", "device", "framework_version", "python", "numpy", "cpu", "threads")
    return {
        "label": label,
        "name": run.name,
        **{key: run.environment.get(key) for key in shown},
        "config_sha256": run.config.identity(),
        "seed": run.config.seed,
        "dataset_sha256": run.environment.get("dataset_sha256"),
        "first_step": int(run.step[0]),
        "last_step": int(run.step[-1]),
        "steps": int(run.step.size),
        "torn_last_line": run.torn,
    }


def _dataset_equal(a: Run, b: Run) -> bool | None:
    data = [run.environment.get("dataset_sha256") for run in (a, b)]
    return None if None in data else data[0] == data[1]


def _wanted(result: Content) -> dict[str, bool]:
    """Which figures the numbers allow, in the order of the page."""
    numbers = result["numbers"]
    difference = numbers["difference"]
    return {
        "loss.png": True,
        "loss-every-200.png": bool(difference and difference["every_200"]),
        "difference.png": bool(difference and difference["loss"]),
        "step-time.png": any(numbers["step_time"][run] for run in "ab"),
        "epoch-time.png": any(numbers["epoch_time"][run]["complete"] for run in "ab"),
        "memory.png": any(numbers["memory"][run] for run in "ab"),
        "grids.png": numbers["samples"] is not None,
    }


def _draw(pair: Pair, images: TwoSamples | None, result: Content) -> dict[str, tuple[bytes, bytes]]:
    """The PNG of every figure, on light and on dark paper."""
    draw: dict[str, Draw] = {
        "loss.png": figures.loss,
        "loss-every-200.png": figures.every_200,
        "difference.png": figures.difference,
        "step-time.png": figures_time.step_times,
        "epoch-time.png": figures_time.epoch_times,
        "memory.png": figures.memory,
    }
    if images:
        alike = result["numbers"]["samples"]["pixels"] is not None
        draw["grids.png"] = lambda pair, theme: figures.grids(pair, theme, *images, alike)
    with charts.settings():
        return {
            name: (
                charts.png(draw[name](pair, charts.LIGHT)),
                charts.png(draw[name](pair, charts.DARK)),
            )
            for name in result["figures"]
        }


def plain(value: Any) -> Any:
    """What JSON can hold: no NaN, no infinity, tuples as lists, texts in English."""
    if isinstance(value, Text):
        return value.en
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
