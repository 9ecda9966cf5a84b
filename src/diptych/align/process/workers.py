"""Workers as child processes: started with their jobs, followed line by line, ended with us.

PyTorch and Jittor cannot share a process, and a fault planted into one must not reach another.
Each child takes half of the machine's cores, so that two run side by side without spinning.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diptych.align.process.workbench import Spec
from diptych.errors import MachineError, UserError
from diptych.files import write_json
from diptych.machine.processor import share_cores

Say = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class PortJob:
    """The task of one side of a port's ladder, for `diptych.align.ports.worker`."""

    panel: str
    content: dict[str, Any]

    @property
    def label(self) -> str:
        """A name for the worker's files."""
        return self.panel

    def tree(self) -> dict[str, Any]:
        """The task as JSON values."""
        return self.content


class Subject:
    """One child process and its messages."""

    def __init__(
        self,
        spec: Spec | PortJob,
        jobs: Sequence[dict[str, Any]],
        folder: Path,
        say: Say,
        module: str = "diptych.align.process.subject",
    ) -> None:
        self.name = spec.panel
        path = folder / f"{spec.label}.json"
        write_json(path, {"spec": spec.tree(), "jobs": list(jobs)})
        environment = dict(os.environ)
        share_cores(environment)
        self.log = folder / f"{spec.label}.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", module, str(path)],
                stdin=subprocess.PIPE,  # held open: the worker ends with us
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=environment,
            )
        self.done: dict[str, threading.Event] = {job["out"]: threading.Event() for job in jobs}
        self.left = set(self.done)  # the jobs of which it has not said that they are done
        self.error: dict[str, Any] | None = None
        self.say = say
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None and self.process.stdin is not None
        for line in self.process.stdout:
            try:
                said = json.loads(line)
            except ValueError:
                continue  # something that a framework or a port printed
            if not isinstance(said, dict):
                continue
            if "done" in said:
                self.left.discard(said["done"])
                self.done[said["done"]].set()
            elif "error" in said:
                self.error = said
            else:
                self.say(said)
        self.process.wait()
        self.process.stdout.close()
        self.process.stdin.close()
        for event in self.done.values():
            event.set()

    def wait(self, out: str | None = None) -> None:
        """Wait until one job (or all) is done.

        Raises:
            UserError: if the worker refused its task or raised; the message is its own. Or the
                user's code ended the process.
            MachineError: if the machine failed it or it was ended from outside.
        """
        if out is None:
            self.reader.join()
        else:
            self.done[out].wait()
        missing = self.left if out is None else self.left & {out}
        if self.process.poll() in (None, 0) and self.error is None and not missing:
            return
        self._fail()

    def _fail(self) -> None:
        said = self.error or {}
        if said.get("kind") in ("UserError", "raised"):
            raise UserError(f"{self.name}: {said['error']}{self._where(said)}")
        if said:
            raise MachineError(f"{self.name}: {said['error']}")
        text = self.log.read_text(errors="replace").strip().splitlines()
        last = text[-1][:300] if text else "it said nothing"
        if self.process.poll() == 0:
            raise UserError(
                f"{self.name}: its code ended the process before the work was done ({last}); "
                f"remove the call of sys.exit or os._exit"
            )
        raise MachineError(
            f"{self.name}: its process ended with code {self.process.poll()} ({last}); out of "
            f"memory? Try a smaller batch"
        )

    def _where(self, said: dict[str, Any]) -> str:
        """The traceback's last file line if the worker raised, else ''."""
        if said.get("kind") != "raised":
            return ""
        lines = [x.strip() for x in self.log.read_text(errors="replace").splitlines()]
        files = [line for line in lines if line.startswith('File "')]
        return f" (at {files[-1]})" if files else ""

    def stop(self) -> None:
        """End the child if it is still running."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(5)
            except subprocess.TimeoutExpired:
                self.process.kill()


@contextmanager
def subjects() -> Iterator[list[Subject]]:
    """A list to add workers to; all are ended with the block."""
    running: list[Subject] = []
    try:
        yield running
    finally:
        for each in running:
            each.stop()
