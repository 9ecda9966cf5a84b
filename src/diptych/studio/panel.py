"""A worker process as the server sees it: kept warm, stopped, ended, started again."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from diptych.backends import TITLES
from diptych.errors import one_line
from diptych.machine.processor import share_cores
from diptych.studio.messages import line

GRACE = 5.0  # seconds from the stop button to the end of a process that does not answer
TRIES = 2  # for a job during which the process ends
NAMES = {**TITLES, "ladder": "ladder"}


class Panel:
    """One worker process and its state.

    Attributes:
        state: "missing" (the framework is not installed), "off", "starting", "ready", "busy" or
            "failed".
        facts: the framework's version and device, once it is loaded.
        starts: how many processes there have been.
    """

    def __init__(self, name: str, device: str, environment: Callable[[], dict[str, str]]) -> None:
        self.name, self.device, self.environment = name, device, environment
        self.missing = name != "ladder" and importlib.util.find_spec(name) is None
        self.facts: dict[str, Any] = {}
        self.failure = ""
        self.starts = 0
        self._busy = False
        self._loaded = False
        self._process: subprocess.Popen[bytes] | None = None
        self._messages: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self._lock = threading.Lock()

    @property
    def alive(self) -> bool:
        """True while the process runs."""
        return self._process is not None and self._process.poll() is None

    @property
    def loaded(self) -> bool:
        """True if the process that was started last became ready."""
        return self._loaded

    @property
    def pid(self) -> int | None:
        """Number of the running process."""
        return self._process.pid if self._process is not None and self.alive else None

    @property
    def state(self) -> str:
        """See the class."""
        if self.missing:
            return "missing"
        if self.alive:
            return "busy" if self._busy else "ready" if self._loaded else "starting"
        return "failed" if self.failure else "off"

    def view(self) -> dict[str, Any]:
        """The state as JSON values."""
        return {"state": self.state, "failure": self.failure, "pid": self.pid, **self.facts}

    def start(self) -> None:
        """Start the process if it is not running."""
        with self._lock:
            if self.missing or self.alive:
                return
            self.failure, self._loaded, self._messages = "", False, queue.Queue()
            environment = dict(os.environ) | self.environment()
            share_cores(environment)
            self._process = subprocess.Popen(
                [sys.executable, "-m", "diptych.studio.worker", self.name, self.device],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=environment,
                start_new_session=True,
            )
            self.starts += 1
            reader = threading.Thread(
                target=self._read, args=(self._process, self._messages), daemon=True
            )
            reader.start()

    def _read(
        self, process: subprocess.Popen[bytes], messages: queue.Queue[dict[str, Any] | None]
    ) -> None:
        assert process.stdout is not None
        for text in process.stdout:
            try:
                message = json.loads(text)
            except ValueError:  # the half of a line that a killed process leaves
                continue
            if "ready" in message:
                self.facts, self._loaded = message["ready"], True
            elif "failed" in message:
                self.failure = message["failed"]
            else:
                messages.put(message)
        process.wait()
        process.stdout.close()
        if process.stdin is not None:
            with contextlib.suppress(OSError):  # what was still to be sent
                process.stdin.close()
        messages.put(None)

    def run(
        self, job: dict[str, Any], tell: Callable[[Any], None], stop: threading.Event
    ) -> dict[str, Any]:
        """Do a job; return {"result": ...}, {"error": "..."} or {"stopped": True}.

        A process that ends meanwhile is started again, and the job is done anew, once.
        """
        if self.missing:
            return {"error": f"{NAMES[self.name]} is not installed on this machine"}
        self._busy = True
        try:
            for _ in range(TRIES):
                answer = self._once(job, tell, stop)
                if answer is not None:
                    return answer
                if self.failure:
                    return {"error": self.failure}
            said = f"its process ended twice ({self._ending()}); out of memory? Try fewer images"
            return {"error": f"{NAMES[self.name]}: {said}"}
        finally:
            self._busy = False

    def _once(
        self, job: dict[str, Any], tell: Callable[[Any], None], stop: threading.Event
    ) -> dict[str, Any] | None:
        """One try; None if the process ended during it."""
        self.start()
        with self._lock:  # one process and its own messages, whoever starts the next
            process, messages = self._process, self._messages
        self._send(process, job)
        asked = 0.0
        while True:
            if stop.is_set() and not asked:
                asked = time.monotonic()
                self._send(process, {"cancel": job["id"]})
            grace = 0.0 if self.name == "ladder" else GRACE  # a climb never answers
            if asked and time.monotonic() - asked > grace and self._process is process:
                self.kill()
            try:
                message = messages.get(timeout=0.05)
            except queue.Empty:
                continue
            if message is None:
                return {"stopped": True} if stop.is_set() else None
            if message.get("id") != job["id"]:
                continue
            if "progress" in message:
                tell(message["progress"])
            else:
                return message

    def _send(self, process: subprocess.Popen[bytes] | None, message: dict[str, Any]) -> None:
        if process is not None and process.stdin is not None:
            with contextlib.suppress(OSError, ValueError):  # it has ended, which its reader tells
                process.stdin.write(line(message))
                process.stdin.flush()

    def _ending(self) -> str:
        code = self._process.poll() if self._process is not None else None
        if code is not None and code < 0:
            return one_line(signal.Signals(-code).name)
        return f"code {code}"

    def kill(self) -> None:
        """End the process and its children at once."""
        with self._lock:
            process = self._process
            if process is None:
                return
            if process.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
