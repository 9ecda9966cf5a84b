"""Arguments that the functions of the Python API accept: paths, names, columns, data."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from diptych.data import Dataset
from diptych.errors import path_text, refused, several

Where = str | Path


def as_dataset(data: Any) -> Dataset:
    """The user's data as a `Dataset`; for the accepted forms see `train`."""
    if isinstance(data, Dataset):
        return data
    if isinstance(data, tuple) and len(data) == 2:
        return Dataset.from_arrays(*data)
    return Dataset.from_arrays(data)


def path_of(name: str, given: Where | None) -> Path | None:
    """The path, if one is given."""
    return None if given is None else Path(path_text(name, given))


def paths_of(name: str, given: Any) -> list[Path]:
    """One path or several."""
    return [Path(path_text(name, each)) for each in several(name, given, "paths")]


def names_of(name: str, given: Any) -> tuple[str, ...]:
    """One name or several."""
    names = several(name, given, "names")
    if not all(isinstance(each, str) for each in names):
        raise refused(name, given, "names")
    return tuple(map(str, names))


def columns_of(given: Any) -> list[Mapping[str, str]]:
    """Columns for all logs, or of each."""
    single = isinstance(given, Mapping) and given
    columns: list[Any] = [given] if single else several("columns", given, "dicts")
    for each in columns:
        texts = [*each, *each.values()] if isinstance(each, Mapping) else [None]
        if not all(isinstance(text, str) for text in texts):
            raise refused("columns", given, 'a dict such as {"loss": "train/loss"}, or one a log')
    return columns
