"""Fixtures: each backend runs in its own process for the whole session."""

from __future__ import annotations

import importlib.util
import multiprocessing
import os
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
from PIL import Image

from diptych.errors import show_notices

R = TypeVar("R")

# Many small networks in many processes: one thread each, so that they do not wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")

PANELS = ("torch", "jittor")
REQUIRED = os.environ.get("DIPTYCH_REQUIRE_PANELS") == "1"
# What CI may lack: whole data sets, a browser.
MAY_LACK = re.compile(r"DIPTYCH_DATA|no browser")


def fail_if_skipped(report: Any) -> None:
    """Fail a test skipped for any other reason, if everything is required."""
    if REQUIRED and report.skipped and not hasattr(report, "wasxfail"):
        reason = str(report.longrepr)
        if not MAY_LACK.search(reason):
            report.outcome, report.longrepr = "failed", f"skipped, but required here: {reason}"


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport() -> Iterator[None]:
    outcome: Any = yield
    fail_if_skipped(outcome.get_result())


@pytest.hookimpl(hookwrapper=True)
def pytest_make_collect_report() -> Iterator[None]:
    outcome: Any = yield
    fail_if_skipped(outcome.get_result())


@pytest.hookimpl(optionalhook=True)
def pytest_handlecrashitem(crashitem: str, report: Any) -> None:
    """End the session if a worker dies: with another in its place, xdist may wait for ever."""
    code = report.node.gateway._io.popen.wait(10)
    pytest.exit(f"a worker died with exit code {code} in {crashitem}", 1)


class Panel:
    """Runs importable functions in a process with one framework; arguments are pickled."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.pool = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"))

    def call(self, function: Callable[..., R], *args: Any, **named: Any) -> R:
        """Call a function in the backend's process; return its result or raise its exception."""
        return self.pool.submit(function, *args, **named).result()


def available(name: str) -> bool:
    """True if the backend's framework is installed."""
    return importlib.util.find_spec(name) is not None


@pytest.fixture(scope="session", autouse=True)
def lines_on_stderr() -> None:
    """Show the notices of the library as the command line does."""
    show_notices()


@pytest.fixture(scope="session")
def pictures(tmp_path_factory) -> Path:
    """A folder of eleven pictures of 8x8 noise."""
    folder: Path = tmp_path_factory.mktemp("pictures")
    noise = np.random.default_rng(0).integers(0, 256, (11, 8, 8), np.uint8)
    for i, each in enumerate(noise):
        Image.fromarray(each).save(folder / f"{i:02}.png")
    return folder


@pytest.fixture(scope="session")
def panels() -> Iterator[dict[str, Panel]]:
    """Both backends by name."""
    made = {name: Panel(name) for name in PANELS if available(name)}
    if REQUIRED:
        assert set(made) == set(PANELS), "DIPTYCH_REQUIRE_PANELS=1, but a framework is missing"
    yield made
    for panel in made.values():
        panel.pool.shutdown()


@pytest.fixture(scope="session")
def both_installed() -> None:
    """For tests that start both backends themselves."""
    if not all(map(available, PANELS)):
        pytest.skip("both panels are needed")


@pytest.fixture(params=[pytest.param(n, marks=getattr(pytest.mark, n)) for n in PANELS])
def panel(request: pytest.FixtureRequest, panels: dict[str, Panel]) -> Panel:
    """One backend after the other."""
    if request.param not in panels:
        pytest.skip(f"{request.param} is not installed")
    return panels[request.param]


@pytest.fixture
def both(panels: dict[str, Panel]) -> tuple[Panel, Panel]:
    """Both backends at once: (torch, jittor)."""
    missing = [name for name in PANELS if name not in panels]
    if missing:
        pytest.skip(f"{missing[0]} is not installed")
    return panels["torch"], panels["jittor"]
