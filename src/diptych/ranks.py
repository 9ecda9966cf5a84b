"""Ranks: which of several equal processes this one is, as its launcher says.

    rows of rank r of w in a batch of n:   [r n // w, (r + 1) n // w)

A launcher (torchrun, OpenMPI's mpirun, SLURM's srun) starts the same command several times and
tells each process its number in environment variables. Nothing else of the world enters a number:
a batch is a function of its step, so ranks take rows of the same batch. This module loads no
framework; `diptych.backends` connects the processes.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from diptych.errors import UserError

# By launcher: the variables of the rank, the world's size, and the rank on its machine. A launcher
# further up is closer to the process: torchrun and mpirun are themselves started by SLURM.
LAUNCHERS = {
    "torchrun": ("RANK", "WORLD_SIZE", "LOCAL_RANK"),
    "mpirun": ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK"),
    "srun": ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID"),
}


@dataclass(frozen=True)
class Ranks:
    """The place of this process among equal ones.

    Attributes:
        rank: 0-based number of this process; rank 0 owns the output folder.
        world: number of processes.
        local: 0-based number of this process on its machine; chooses its GPU.
        launcher: a key of `LAUNCHERS`; "": none, this process is alone.
    """

    rank: int = 0
    world: int = 1
    local: int = 0
    launcher: str = ""

    @property
    def first(self) -> bool:
        """True for the rank that owns the output folder."""
        return self.rank == 0

    @property
    def alone(self) -> bool:
        """True if there is no other rank."""
        return self.world == 1

    def rows(self, count: int) -> slice:
        """This rank's rows of `count`: consecutive, in order of ranks, each row on one rank."""
        return slice(self.rank * count // self.world, (self.rank + 1) * count // self.world)

    def __str__(self) -> str:
        return f"rank {self.rank} of {self.world}"


ALONE = Ranks()


def of_environment(variables: Mapping[str, str] | None = None) -> Ranks:
    """The ranks that the launcher states in the environment; `ALONE` without a launcher.

    Args:
        variables: the environment; None: that of this process.

    Raises:
        UserError: a launcher's variables are incomplete, are no ranks, or contradict another's; or
            this is the batch script of a SLURM job of several tasks, outside `srun`.
    """
    given = os.environ if variables is None else variables
    found = [ranks for name in LAUNCHERS if (ranks := _of_launcher(name, given))]
    inner = [ranks for ranks in found if ranks.launcher != "srun"]
    for other in inner[1:]:
        if (other.rank, other.world) != (inner[0].rank, inner[0].world):
            raise UserError(
                f"{inner[0].launcher} says {inner[0]}, and {other.launcher} says {other}; "
                f"start the command with one launcher"
            )
    if inner:
        return inner[0]
    if found and "SLURM_JOB_ID" in given and "SLURM_STEP_ID" not in given and not found[0].alone:
        raise UserError(
            f"SLURM reserved {found[0].world} tasks, and only one process was started here; start "
            f"the command with srun, or with srun --ntasks=1 to run it alone"
        )
    return found[0] if found else ALONE


def _of_launcher(name: str, given: Mapping[str, str]) -> Ranks | None:
    rank, world, local = LAUNCHERS[name]
    if name == "srun" and "SLURM_STEP_NUM_TASKS" in given:  # a step may have fewer than the job
        world = "SLURM_STEP_NUM_TASKS"
    # A job's batch script and other programs set one of these alone for their own purposes.
    if world not in given or (name == "srun" and rank not in given):
        return None
    size = _number(given, world, name)
    if size == 1 and (rank not in given or local not in given):
        return None  # alone, whoever said so
    for key in (rank, local):
        if key not in given:
            raise UserError(
                f"{world}={size} is set, and {key} is not; start the command with {name}, or "
                f"unset {world}"
            )
    found = Ranks(_number(given, rank, name), size, _number(given, local, name), name)
    if found.world < 1 or not 0 <= found.rank < found.world:
        raise UserError(
            f"{rank}={found.rank} is not a rank of {world}={found.world}; expected 0 to "
            f"{max(0, found.world - 1)}; start the command with {name}"
        )
    if not 0 <= found.local <= found.rank:
        raise UserError(
            f"{local}={found.local} is not a local rank of {rank}={found.rank}; expected 0 to "
            f"{found.rank}; start the command with {name}"
        )
    return found


def _number(given: Mapping[str, str], key: str, name: str) -> int:
    try:
        return int(given[key])
    except ValueError as error:
        raise UserError(
            f"{key}={given[key]!r} is not a whole number; start the command with {name}"
        ) from error


@dataclass(frozen=True)
class Part:
    """Part `number`, from 0, of a job in `count` parts: the batches j with j mod count = number."""

    number: int
    count: int

    @staticmethod
    def parse(text: str) -> Part:
        """The part of `K/N`.

        Raises:
            UserError: not two whole numbers, or no K from 0 to N - 1.
        """
        found = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text)
        if found is None or not int(found[1]) < int(found[2]):
            raise UserError(
                f"--part {text}: expected K/N with K from 0 to N - 1, such as 0/4, 1/4, 2/4, 3/4"
            )
        return Part(int(found[1]), int(found[2]))

    @staticmethod
    def of(ranks: Ranks) -> Part | None:
        """The part of a rank; None for a process that is alone."""
        return None if ranks.alone else Part(ranks.rank, ranks.world)

    def has(self, batch: int) -> bool:
        """True if the batch with this 0-based number belongs to this part."""
        return batch % self.count == self.number

    def __str__(self) -> str:
        return f"part-{self.number}-of-{self.count}"


def unlaunched() -> dict[str, str]:
    """This process's environment without its launcher: for a child that works on its own."""
    ours = {name for names in LAUNCHERS.values() for name in names} | {"SLURM_STEP_NUM_TASKS"}
    return {name: value for name, value in os.environ.items() if name not in ours}


def own_gpu(ranks: Ranks) -> None:
    """Let this process see one GPU of those that it may use, by its number on the machine.

    To be called before a framework is loaded; Jittor only uses the first GPU that it sees.
    """
    if not ranks.alone:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        if visible == "":  # the user hides all GPUs
            return
        names = [str(ranks.local)] if visible is None else visible.split(",")
        os.environ["CUDA_VISIBLE_DEVICES"] = names[ranks.local % len(names)]


def buckets(sizes: Sequence[int], most: int) -> list[slice]:
    """Consecutive groups of arrays with these sizes, each of at most `most` elements together.

    An array that is larger on its own is a group of its own. Ranks sum a group in one message.
    """
    found: list[slice] = []
    start = held = 0
    for i, size in enumerate(sizes):
        if i > start and held + size > most:
            found.append(slice(start, i))
            start, held = i, 0
        held += size
    return [*found, slice(start, len(sizes))] if sizes else []
