"""Tasks on a Ray cluster: this machine alone, or a running cluster.

    --on ray             this machine: a cluster that lasts as long as the command
    --on ray:ADDRESS     a running cluster, such as ray:10.0.0.1:6379, or ray:auto on its head node

Ray starts the workers, gives each task its processors and one GPU, and moves the tasks. A task is a
function of Diptych with its arguments; its result is in the folders that all machines share. This
module says which processors a task gets, and tries a task again whose worker is lost.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from diptych import __version__
from diptych.errors import MachineError, UserError
from diptych.machine.packages import require
from diptych.machine.processor import cores

log = logging.getLogger(__name__)

RETRIES = 3  # of one task, after lost workers
STORE = 128 * 2**20  # bytes of shared memory for objects; tasks pass files, and Ray wants 75 MiB


@dataclass(frozen=True)
class Task:
    """A unit of work that may be done on any machine, and again.

    Attributes:
        name: what it is called in messages.
        function: importable by the workers; it may raise `UserError` and `MachineError`.
        arguments: of `function`; pickled.
        panel: the backend. Workers of one backend never load another.
    """

    name: str
    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    panel: str


@dataclass(frozen=True)
class Ended:
    """The end of a task in its worker: a result or an error, and the warnings on the way."""

    value: Any = None
    error: UserError | MachineError | None = None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Node:
    """The processors and GPUs of a machine in the cluster."""

    cpus: int
    gpus: int


def address_of(on: str) -> str:
    """Ray's address in the value of `--on`: "local", or that of a running cluster (UserError)."""
    engine, colon, address = on.partition(":")
    if engine != "ray" or (colon and not address):
        raise UserError(
            f"--on {on}: expected ray (this machine), or ray:ADDRESS of a running cluster, such as "
            f"ray:auto or ray:10.0.0.1:6379"
        )
    return address or "local"


def threads_for(nodes: Sequence[Node], tasks: int, gpu: bool) -> int:
    """Processors of a task: all are used if there are few tasks, and none by two of them."""
    if gpu:
        return max(1, min(node.cpus // node.gpus for node in nodes if node.gpus))
    able = [node.cpus for node in nodes if node.cpus]
    return max(1, min(min(able), sum(able) // max(1, tasks)))


class Cluster:
    """A connection to Ray; see `open_cluster`."""

    def __init__(self, ray: Any) -> None:
        self.ray = ray
        found = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        nodes = [Node(int(each.get("CPU", 0)), int(each.get("GPU", 0))) for each in found]
        self.nodes = [node for node in nodes if node.cpus]
        if not self.nodes:
            raise UserError("--on: the cluster has no processors; start its workers first")

    def uses_gpus(self, device: str) -> bool:
        """True if a task gets a GPU for this `--device`.

        Raises:
            UserError: there is no GPU, or `device` numbers one: Ray assigns them.
        """
        if device.startswith("cuda:"):
            raise UserError(f"--device {device}: Ray chooses each worker's GPU; give cuda")
        there = any(node.gpus for node in self.nodes)
        if device == "cuda" and not there:
            raise UserError("--device cuda: the cluster has no GPU that Ray knows of")
        return there and device != "cpu"

    def run(
        self,
        tasks: Sequence[Task],
        *,
        gpu: bool = False,
        progress: bool = True,
        title: str = "tasks",
        grace: float = 0.0,
        done: Callable[[Task, Any], None] = lambda task, value: None,
    ) -> int:
        """Do all tasks, in any order; return how often a task was tried again.

        Args:
            gpu: give each task a GPU, see `uses_gpus`.
            grace: seconds in which tasks that are cancelled may save their work.
            done: called with each task and its result, in this process.

        Raises:
            UserError, MachineError: the first error of a task; the others are cancelled.
            MachineError: the workers of one task were lost more than `RETRIES` times.
        """
        ray = self.ray
        threads = threads_for(self.nodes, len(tasks), gpu)
        remote = ray.remote(_in_worker)
        folder = os.getcwd()

        def begin(task: Task) -> Any:
            variables = {"OMP_NUM_THREADS": str(threads), "DIPTYCH_WORKER": task.panel}
            how = {"num_cpus": threads, "num_gpus": int(gpu), "max_retries": 0}
            options = remote.options(**how, runtime_env={"env_vars": variables}, name=task.name)
            return options.remote(__version__, folder, task.function, task.arguments)

        lost: dict[str, int] = {}
        waiting = {begin(task): task for task in tasks}
        try:
            with tqdm(total=len(tasks), desc=title, disable=not progress) as bar:
                while waiting:
                    [reference], _ = ray.wait(list(waiting), num_returns=1)
                    task = waiting.pop(reference)
                    try:
                        ended: Ended = ray.get(reference)
                    except _losses(ray) as error:
                        lost[task.name] = lost.get(task.name, 0) + 1
                        _say_lost(task, lost[task.name], error)
                        waiting[begin(task)] = task
                        continue
                    for line in ended.warnings:
                        log.warning("%s: %s", task.name, line)
                    if ended.error is not None:
                        raise ended.error
                    done(task, ended.value)
                    bar.update()
        finally:
            for reference in waiting:
                ray.cancel(reference, force=not grace)
            if waiting and grace:
                ray.wait(list(waiting), num_returns=len(waiting), timeout=grace)
        return sum(lost.values())


@contextlib.contextmanager
def open_cluster(on: str) -> Iterator[Cluster]:
    """Connect to the cluster that `--on` names, or start one on this machine for the duration.

    Sends no usage statistics, and starts no dashboard. Until the end stdout goes to stderr, as Ray
    prints what happens to workers there.

    Raises:
        UserError: `on` is no address, Ray is not installed, or no cluster answers there.
    """
    address = address_of(on)
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # read when it is imported, as is the next
    if address != "local" and _has_token():
        os.environ.setdefault("RAY_AUTH_MODE", "token")  # without it a running cluster refuses us
    ray = require("ray", "ray", where=f"--on {on}")
    how: dict[str, Any] = {}
    if address == "local":
        how = {
            "num_cpus": cores(),
            "include_dashboard": False,
            "object_store_memory": STORE,
        }
    with contextlib.redirect_stdout(sys.stderr):
        try:
            ray.init(address, log_to_driver=False, logging_level=logging.CRITICAL, **how)
        except (ConnectionError, RuntimeError, ValueError, OSError) as error:
            hint = "; all machines need the same ~/.ray/auth_token" if address != "local" else ""
            raise UserError(
                f"--on {on}: Ray does not start or answer "
                f"({' '.join(str(error).split())[:300]}){hint}"
            ) from error
        try:
            yield Cluster(ray)
        finally:
            ray.shutdown()


def _has_token() -> bool:
    """True if this machine has the token of Ray's clusters, where Ray looks for it."""
    named = ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")
    return any(name in os.environ for name in named) or (Path.home() / ".ray/auth_token").is_file()


def _losses(ray: Any) -> tuple[type[Exception], ...]:
    """The errors by which Ray says that a worker or its machine is gone, and not that it failed."""
    kinds = ray.exceptions
    return (
        kinds.WorkerCrashedError,
        kinds.NodeDiedError,
        kinds.OutOfMemoryError,
        kinds.ObjectLostError,
    )


def _say_lost(task: Task, times: int, error: Exception) -> None:
    why = " ".join(str(error).split())[:200]
    if times > RETRIES:
        raise MachineError(
            f"{task.name}: its worker was lost {times} time{'s' * (times > 1)}: {why}. What is "
            f"done is kept: go on with --resume"
        ) from error
    log.warning("%s: its worker was lost; tried again (%d of %d)", task.name, times, RETRIES)


def _in_worker(
    version: str, folder: str, function: Callable[..., Any], arguments: tuple[Any, ...]
) -> Ended:
    """Run a task in a worker, from the folder of the command that asked for it."""
    warnings = _Kept()
    logger = logging.getLogger("diptych")
    logger.addHandler(warnings)
    where = f"on {os.uname().nodename}"
    try:
        if __version__ != version:
            raise UserError(f"Diptych {__version__} is installed {where}, and {version} here")
        try:
            os.chdir(folder)
        except OSError as error:
            raise UserError(f"{folder}: is not there {where}; use a shared folder") from error
        return Ended(function(*arguments), warnings=tuple(warnings.lines))
    except (UserError, MachineError) as error:
        return Ended(error=type(error)(str(error)), warnings=tuple(warnings.lines))
    finally:
        logger.removeHandler(warnings)


class _Kept(logging.Handler):
    """Warnings as a list."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(" ".join(record.getMessage().split()))
