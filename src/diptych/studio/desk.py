"""The desk: one queue of jobs, answered in order, each by its panels at the same time."""

from __future__ import annotations

import io
import itertools
import threading
import time
from collections import deque
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from diptych.errors import MachineError, UserError
from diptych.figures.grids import grid, to_picture
from diptych.report import commands
from diptych.report.numbers.images import difference_picture, pixel_numbers
from diptych.studio.messages import unpacked
from diptych.studio.panel import Panel
from diptych.types import Pixels

MOST_WAITING = 64
KEPT = 30  # finished jobs whose pictures stay
ENDED = ("done", "failed", "stopped")


@dataclass
class Job:
    """A job and what has become of it.

    Attributes:
        content: the message for the workers, without `id`.
        shown: the source's name on the page and the command line.
        state: "waiting", "running", "done", "failed" or "stopped".
        pictures: PNG bytes by name.
    """

    id: int
    panels: tuple[str, ...]
    content: dict[str, Any]
    shown: str
    state: str = "waiting"
    progress: dict[str, Any] = field(default_factory=dict)
    said: list[dict[str, Any]] = field(default_factory=list)  # every message of a climb
    results: dict[str, Any] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)
    difference: dict[str, Any] | None = None
    pictures: dict[str, bytes] = field(default_factory=dict)
    order: int | None = None  # among the finished ones
    stop: threading.Event = field(default_factory=threading.Event)

    def view(self, before: int) -> dict[str, Any]:
        """The job as JSON values; `before`: jobs that are done first."""
        return {
            "id": self.id,
            "kind": self.content["kind"],
            "state": self.state,
            "before": before,
            "panels": self.panels,
            "progress": dict(self.progress),
            "said": list(self.said),
            "results": self.results,
            "errors": self.errors,
            "difference": self.difference,
            "pictures": sorted(self.pictures),
            "order": self.order,
            "stopping": self.stop.is_set(),
            "source": self.shown,
        }


class Desk:
    """Takes jobs and has them done, one after the other."""

    def __init__(self, panels: Mapping[str, Panel]) -> None:
        self.panels = panels
        self.jobs: dict[int, Job] = {}
        self._waiting: deque[Job] = deque()
        self._running: Job | None = None
        self._numbers = itertools.count(1)
        self._orders = itertools.count(1)
        self._changed = threading.Condition()
        self._closed = False
        self._pool = ThreadPoolExecutor(len(panels))
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    @property
    def idle(self) -> bool:
        """True if nothing is running or waiting."""
        return self._running is None and not self._waiting

    def put(self, content: dict[str, Any], panels: tuple[str, ...], shown: str) -> Job:
        """Queue a job. Raises UserError if too many wait."""
        with self._changed:
            if len(self._waiting) >= MOST_WAITING:
                raise UserError(f"{MOST_WAITING} jobs are waiting; stop some, or wait")
            job = Job(next(self._numbers), panels, content, shown)
            self.jobs[job.id] = job
            self._waiting.append(job)
            self._changed.notify()
        return job

    def job(self, number: int) -> Job:
        """A job that is still known. Raises UserError."""
        if number not in self.jobs:
            raise UserError(f"job {number} is not known any more; start it again")
        return self.jobs[number]

    def view(self, job: Job) -> dict[str, Any]:
        """A job as JSON values."""
        with self._changed:
            waits = [each.id for each in self._waiting]
            before = waits.index(job.id) + (self._running is not None) if job.id in waits else 0
        return job.view(before)

    def stop(self, job: Job) -> None:
        """Stop a job: at once if it waits, else at its next step."""
        job.stop.set()
        with self._changed:
            if job in self._waiting:
                self._waiting.remove(job)
                self._end(job, "stopped")

    def close(self) -> None:
        """End all work and every process."""
        with self._changed:
            self._closed = True
            for job in self._waiting:
                job.stop.set()
            self._changed.notify()
        if self._running is not None:
            self._running.stop.set()
        for panel in self.panels.values():
            panel.kill()
        self._thread.join(10)
        self._pool.shutdown(wait=False)

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._waiting and not self._closed:
                    self._changed.wait()
                if self._closed:
                    return
                job = self._running = self._waiting.popleft()
                job.state = "running"
            try:
                self._do(job)
            except (UserError, MachineError) as error:
                job.errors[job.panels[0]] = str(error)
                self._end(job, "failed")
            except Exception as error:  # the queue goes on
                job.errors[job.panels[0]] = f"{type(error).__name__}: {error}"[:300]
                self._end(job, "failed")
            finally:
                self._running = None

    def _do(self, job: Job) -> None:
        message = {"id": job.id, **job.content}

        def one(name: str) -> dict[str, Any]:
            def tell(said: dict[str, Any]) -> None:
                job.progress[name] = said
                if name == "ladder":
                    job.said.append(said)

            try:
                return self.panels[name].run(message, tell, job.stop)
            except (UserError, MachineError) as error:
                return {"error": str(error)}
            except Exception as error:  # the other panel goes on
                return {"error": f"{type(error).__name__}: {error}"[:300]}

        answers = dict(zip(job.panels, self._pool.map(one, job.panels), strict=True))
        for name, answer in answers.items():
            if "error" in answer:
                job.errors[name] = answer["error"]
        found = {name: answer["result"] for name, answer in answers.items() if "result" in answer}
        if job.content["kind"] == "ladder":
            job.results = found
        else:
            job.difference = pictures_of(job, found)
        stopped = any("stopped" in answer for answer in answers.values())
        self._end(job, "stopped" if stopped else "done" if found else "failed")

    def _end(self, job: Job, state: str) -> None:
        with self._changed:
            job.order, job.state = next(self._orders), state
            job.content.pop("picture", None)  # not kept
            ended = [each for each in self.jobs.values() if each.state in ENDED]
            ended.sort(key=lambda each: each.order or 0)
            for old in ended[:-KEPT]:
                del self.jobs[old.id]


def pictures_of(job: Job, found: dict[str, Any]) -> dict[str, Any] | None:
    """Draw a job's pictures from the panels' results; return the numbers of their difference."""
    images: dict[str, Pixels] = {}
    columns = 1
    for name, result in found.items():
        images[name] = unpacked(result["images"])
        columns = min(result["columns"], len(images[name]))
        job.pictures[name] = png(grid(images[name], columns))
        for kind in ("x", "x0"):
            if kind in result:
                for k, frame in enumerate(unpacked(result[kind])):
                    job.pictures[f"{name}-{kind}-{k}"] = png(grid(frame, columns))
        for kind in ("original", "noise"):
            if kind in result:
                job.pictures[f"{name}-{kind}"] = png(grid(unpacked(result[kind])))
        arrays = ("images", "x", "x0", "original", "noise")
        facts = {key: value for key, value in result.items() if key not in arrays}
        job.results[name] = facts | {"num": len(images[name]), "size": images[name].shape[1:]}
        if job.content["kind"] == "sample":
            card = result["card"] | {"seed": job.content["seed"], "num": job.content["num"]}
            job.results[name]["command"] = commands.sample(job.shown, name, card, "OUT")
    if len(images) < 2:
        return None
    a, b = images.values()
    if a.shape != b.shape:
        return None
    gap = difference_picture(a, b)
    most = int(gap.max())
    stretched = (gap.astype(np.float64) / max(1, most) * 255).astype(np.uint8)
    job.pictures["difference"] = png(grid(stretched, columns))
    return pixel_numbers(a, b)


def png(pixels: Pixels) -> bytes:
    """PNG bytes of one picture (C, H, W)."""
    buffer = io.BytesIO()
    to_picture(pixels).save(buffer, format="PNG")
    return buffer.getvalue()


class Keeper:
    """Keeps the panels warm while a page is open, and ends them when none has been for a while.

    A panel that ended by itself is started again, except after three starts that failed.
    """

    PATIENCE = 300.0  # seconds; a hidden tab may ask only once a minute

    def __init__(self, desk: Desk, warm: tuple[str, ...]) -> None:
        self.desk, self.warm = desk, warm
        self.seen = 0.0
        self._failed = dict.fromkeys(warm, 0)
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._keep, daemon=True)
        self._thread.start()

    def visit(self) -> None:
        """Note that a page is open."""
        self.seen = time.monotonic()

    def _keep(self) -> None:
        while not self._end.wait(0.5):
            open_page = self.seen and time.monotonic() - self.seen < self.PATIENCE
            for name in self.warm:
                panel = self.desk.panels[name]
                if open_page and not panel.alive and self._failed[name] < 3:
                    if panel.failure or (panel.starts and not panel.loaded):
                        self._failed[name] += 1
                    panel.start()
                elif not open_page and panel.alive and self.desk.idle:
                    panel.kill()

    def close(self) -> None:
        """Stop keeping them."""
        self._end.set()
        self._thread.join()
