"""The processor's name where the kernel tells none, and the threads that are asked for."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

import pytest

from diptych.golden import place
from diptych.machine.processor import asked_threads, openmp_threads, processor_name, share_cores


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
    assert openmp_threads() == (asked or os.cpu_count())


def test_cores_are_shared_unless_the_user_says_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    for cores, half in ((1, "1"), (5, "2"), (None, "1")):
        monkeypatch.setattr(os, "cpu_count", lambda cores=cores: cores)
        environment: dict[str, str] = {}
        share_cores(environment)
        assert environment == {"OMP_NUM_THREADS": half, "OMP_WAIT_POLICY": "passive"}
    told = {"OMP_NUM_THREADS": "7", "OMP_WAIT_POLICY": "active"}
    share_cores(told)
    assert told == {"OMP_NUM_THREADS": "7", "OMP_WAIT_POLICY": "active"}
