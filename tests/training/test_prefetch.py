"""Prefetching changes when items are made, never which items, and can always be stopped."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace

import pytest

from diptych.training import prefetch as module
from diptych.training.prefetch import Prefetch
from waiting import PATIENCE, until


def test_items_come_in_order_and_end_at_stop():
    with Prefetch(lambda step: step * step, start=3, stop=9) as ahead:
        assert [ahead.get(step) for step in range(3, 9)] == [9, 16, 25, 36, 49, 64]
        with pytest.raises(IndexError, match="step 9 is beyond the last one, 8"):
            ahead.get(9)


def test_a_step_out_of_order_is_refused():
    with Prefetch(lambda step: step, start=0, stop=None) as ahead:
        ahead.get(0)
        for step in (0, 2):
            with pytest.raises(ValueError, match="the next one is 1"):
                ahead.get(step)


@pytest.mark.parametrize("depth", [1, 2, 5])
def test_at_most_depth_items_are_made_ahead(depth):
    made: list[int] = []
    with Prefetch(lambda step: made.append(step), start=0, stop=None, depth=depth) as ahead:
        for taken in range(1, 4):
            ahead.get(taken - 1)
            until(lambda taken=taken: len(made) >= taken + depth)
            time.sleep(0.02)  # for one too many, which would be a fault
            assert made == list(range(taken + depth))


def test_the_threads_error_reaches_the_caller_after_the_good_items():
    def make(step: int) -> int:
        if step == 2:
            raise OSError("disk gone")
        return step

    with Prefetch(make, start=0, stop=None) as ahead:
        assert [ahead.get(0), ahead.get(1)] == [0, 1]
        for _ in range(2):
            with pytest.raises(OSError, match="disk gone"):
                ahead.get(2)


def test_early_close_ends_the_thread(monkeypatch):
    monkeypatch.setattr(module, "_JOIN_SECONDS", PATIENCE)
    for depth in (1, 3):
        for stop in (None, 0, 1, 100):
            ahead = Prefetch(lambda step: bytes(1000), start=0, stop=stop, depth=depth)
            ahead.close()
            ahead.close()
            assert not ahead._thread.is_alive()
    with pytest.raises(RuntimeError, match="closed"):
        Prefetch.get(ahead, 0)


def test_close_does_not_wait_for_ever_and_frees_a_waiting_caller(monkeypatch):
    monkeypatch.setattr(module, "_JOIN_SECONDS", 0.05)
    hang = threading.Event()
    ahead = Prefetch(lambda step: hang.wait(2 * PATIENCE), start=0, stop=None)
    said: list[str] = []

    def wait() -> None:
        try:
            ahead.get(0)
        except RuntimeError as error:
            said.append(str(error))

    caller = threading.Thread(target=wait)
    caller.start()
    ahead.close()
    caller.join(PATIENCE)
    assert ahead._thread.is_alive(), "close waited until the item was made"
    assert said == ["the prefetcher is closed"]
    hang.set()


def test_the_wait_is_measured(monkeypatch):
    """By a clock that moves while an item is made that the caller waits for."""
    now, asked = [10.0], threading.Event()

    def clock() -> float:
        found = now[0]
        asked.set()
        return found

    def make(step: int) -> int:
        if step == 0:
            assert asked.wait(PATIENCE)  # the caller has read the clock, and waits
            now[0] += 3.0
        return step

    monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=clock))
    with Prefetch(make, start=0, stop=None) as ahead:
        ahead.get(0)
        assert ahead.last_wait == 3.0
        ahead.get(1)
        assert ahead.last_wait == 0.0


@pytest.mark.parametrize("start, stop, depth", [(0, 1, 0), (5, 4, 1)])
def test_nonsense_is_refused(start, stop, depth):
    with pytest.raises(ValueError, match="depth"):
        Prefetch(lambda step: step, start, stop, depth)
