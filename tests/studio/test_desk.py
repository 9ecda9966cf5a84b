"""The desk of the studio with stand-ins for its processes: errors of one, and ones that die."""

from __future__ import annotations

import socket
import threading
import time
from types import SimpleNamespace
from typing import Any, cast

import pytest

from diptych.errors import UserError
from diptych.studio import desk as desk_module
from diptych.studio import server
from diptych.studio.desk import ENDED, Desk, Keeper
from waiting import PATIENCE, until


@pytest.mark.parametrize(
    ("error", "said"),
    [(UserError("no such model"), "no such model"), (OSError("no room"), "OSError: no room")],
)
def test_an_error_is_said_of_the_panel_that_had_it(error: Exception, said: str) -> None:
    ended = []

    def sound(job: Any, tell: Any, stop: Any) -> dict[str, Any]:
        time.sleep(0.3)  # the other one has failed by then
        ended.append(job["id"])
        return {"stopped": True}

    def broken(job: Any, tell: Any, stop: Any) -> dict[str, Any]:
        raise error

    def panel(run: Any) -> Any:
        return SimpleNamespace(run=run, kill=lambda: None)

    desk = Desk({"torch": panel(sound), "jittor": panel(broken)})
    try:
        job = desk.put({"kind": "sample"}, ("torch", "jittor"), "x")
        until(lambda: job.state in ENDED)
        assert job.errors == {"jittor": said} and ended == [job.id]
    finally:
        desk.close()


def test_a_panel_that_was_ready_once_and_then_dies_is_not_started_for_ever() -> None:
    class Dying:
        alive, failure, starts, loaded = False, "", 1, True

        def start(self) -> None:
            self.starts, self.loaded = self.starts + 1, False

    panel = Dying()
    keeper = Keeper(cast(Any, SimpleNamespace(panels={"torch": panel}, idle=True)), ("torch",))
    try:
        keeper.visit()
        until(lambda: panel.starts == 5)  # once again after it was ready, and three tries
        time.sleep(1.5)
        assert panel.starts == 5
    finally:
        keeper.close()


def test_a_job_that_is_stopped_while_it_waits_keeps_no_picture() -> None:
    go = threading.Event()

    def slow(job: Any, tell: Any, stop: Any) -> dict[str, Any]:
        go.wait(PATIENCE)
        return {"stopped": True}

    desk = Desk({"torch": cast(Any, SimpleNamespace(run=slow, kill=lambda: None))})
    try:
        first, second = (desk.put({"kind": "edit", "picture": "x"}, ("torch",), "x") for _ in "ab")
        desk.stop(second)
        go.set()
        until(lambda: first.state in ENDED)
        assert second.state == "stopped"
        assert "picture" not in first.content and "picture" not in second.content
    finally:
        desk.close()


def test_a_browser_that_comes_before_the_server_is_kept_waiting() -> None:
    bound = server.bind("127.0.0.1", 0)
    try:
        socket.create_connection(bound.getsockname(), timeout=PATIENCE).close()
    finally:
        bound.close()


def test_the_jobs_that_ended_first_are_dropped_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not those that were put first: one may run while others that wait are stopped."""
    monkeypatch.setattr(desk_module, "KEPT", 2)
    done = threading.Event()

    def run(job: Any, tell: Any, stop: Any) -> dict[str, Any]:
        done.wait(PATIENCE)
        return {"result": {}}

    desk = Desk({"torch": cast(Any, SimpleNamespace(run=run, kill=lambda: None))})
    try:
        first = desk.put({"kind": "ladder"}, ("torch",), "x")
        rest = [desk.put({"kind": "ladder"}, ("torch",), "x") for _ in range(3)]
        for job in rest:
            desk.stop(job)
        until(lambda: all(job.state in ENDED for job in rest))
        done.set()
        until(lambda: first.state in ENDED)
        assert first.id in desk.jobs and rest[0].id not in desk.jobs and len(desk.jobs) == 2
    finally:
        done.set()
        desk.close()
