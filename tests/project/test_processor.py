"""The processor's name where the kernel tells none, and the threads that are asked for."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

import pytest

from diptych.golden import place
from diptych.machine.processor import (
    asked_threads,
    cores,
    openmp_threads,
    processor_name,
    share_cores,
)


def test_a_processor_always_has_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: Any) -> str:
        raise OSError("no such file")

    monkeypatch.setattr(Path, "read_text", refused)
    monkeypatch.setattr(platform, "processor", lambda: "")
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    assert processor_name() == place.processor() == "riscv64"
    monkeypatch.setattr(platform, "processor", lambda: "arm")
    assert processor_name() == "arm"


@pytest.mark.parametrize(
    "given, asked", [("3", 3), (" 4,2", 4), ("", None), ("0", None), ("many", None), ("-1", None)]
)
def test_threads_are_those_asked_for_or_one_a_core(
    monkeypatch: pytest.MonkeyPatch, given: str, asked: int | None
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", given)
    assert asked_threads() == asked
    assert openmp_threads() == (asked or len(os.sched_getaffinity(0)))


def test_cores_are_those_that_the_process_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3, 5, 6})
    assert cores() == openmp_threads() == 3
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert cores() == 1


def test_cores_are_shared_unless_the_user_says_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    for usable, half in (({0}, "1"), ({0, 1, 4, 5, 6}, "2")):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _, usable=usable: usable)
        environment: dict[str, str] = {}
        share_cores(environment)
        assert environment == {"OMP_NUM_THREADS": half, "OMP_WAIT_POLICY": "passive"}
    told = {"OMP_NUM_THREADS": "7", "OMP_WAIT_POLICY": "active"}
    share_cores(told)
    assert told == {"OMP_NUM_THREADS": "7", "OMP_WAIT_POLICY": "active"}
