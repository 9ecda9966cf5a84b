"""`diptych compare A.json B.json`: the difference of two score files, by metric."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from diptych.errors import UserError
from diptych.evaluation.run import KIND
from diptych.evaluation.score import Score, difference
from diptych.files import check_file, read_json, write_json
from diptych.runs.records import Scores, number


def read_scores(path: Path) -> dict[str, Score]:
    """The scores in a file that `diptych evaluate --out` wrote, by metric.

    Raises:
        UserError: the file holds no scores, or was changed by hand.
    """
    content = read_json(path)
    if content.get("kind") != KIND or not isinstance(content.get("scores"), list):
        raise UserError(f"{path}: holds no scores; expected a file of diptych evaluate --out")
    Scores.of(content, str(path))
    for each in content["scores"]:
        for key in ("std", "split_half"):
            _check_number(path, f"{each['metric']}: {key}", each.get(key))
        for key in ("within", "interval"):
            ends = each.get(key) or (None, None)
            if not isinstance(ends, list | tuple) or len(ends) != 2:
                raise UserError(
                    f"{path}: {each['metric']}: {key} is not two numbers; evaluate again"
                )
            for end in ends:
                _check_number(path, f"{each['metric']}: {key}", end)
    try:
        return {each["metric"]: Score.from_json(each) for each in content["scores"]}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{path}: damaged scores ({error}); evaluate again") from error


def _check_number(path: Path, name: str, value: Any) -> None:
    if value is not None and number(value) is None:
        raise UserError(f"{path}: {name} is not a number; evaluate again")


def compare_scores(
    a: Path, b: Path, across: Sequence[str] = (), out: Path | None = None, overwrite: bool = False
) -> dict[str, Any]:
    """The difference of every metric that both files hold; written to `out` if given.

    Args:
        a, b: files of scores; a difference is B's value minus A's.
        across: protocol fields that are meant to differ.

    Raises:
        UserError: no metric in common, or protocols that differ in another field.
    """
    if out is not None:
        check_file(out, overwrite)
    first, second = read_scores(a), read_scores(b)
    common = [metric for metric in first if metric in second]
    if not common:
        raise UserError(
            f"{a} has {', '.join(first)} and {b} has {', '.join(second)}: no metric in common"
        )
    for field in across:
        if not any(field in first[metric].protocol for metric in common):
            raise UserError(f"--across {field}: the scores' protocols have no such field")
    found = [difference(first[metric], second[metric], across) for metric in common]
    alone = sorted({*first, *second} - set(common))
    result = {"a": str(a), "b": str(b), "differences": found, "only_in_one": alone}
    if out is not None:
        write_json(out, result)
    return result
