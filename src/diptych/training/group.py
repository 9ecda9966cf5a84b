"""The ranks of a training as one: they start, stop and fail together, and rank 0 speaks.

Every method is called by all ranks at the same place, and waits for the others; alone, it does
nothing. What only rank 0 does (the folder's lock, records, checkpoints, grids) runs inside
`together`, so that its failure is the failure of all.
"""

from __future__ import annotations

import atexit
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from logging.handlers import MemoryHandler
from pathlib import Path

import numpy as np

from diptych.backends.protocol import Backend
from diptych.errors import Followed, Interrupted, MachineError, UserError
from diptych.ranks import Ranks
from diptych.types import Array

log = logging.getLogger(__name__)

STOP = 1  # a callback asked to stop; larger numbers are signals
MESSAGE = 500  # bytes of an error that is passed on


class Group:
    """This rank's side of the group.

    Args:
        ranks: this rank.
        backend: connects the ranks; may be None if this process is alone.
    """

    def __init__(self, ranks: Ranks, backend: Backend | None) -> None:
        self.ranks, self.backend = ranks, backend
        self.buffer: MemoryHandler | None = None
        self.alike = False  # an error was raised on all ranks

    def most(self, number: int) -> int:
        """The largest of the ranks' numbers."""
        return number if self.ranks.alone else int(self._gather([number]).max())

    def of_first(self, number: int) -> int:
        """Rank 0's number."""
        return number if self.ranks.alone else int(self._gather([number])[0, 0])

    def same(self, what: str, digest: str | None, advice: str) -> None:
        """Refuse ranks whose `what` has another hash than rank 0's.

        Args:
            what: named in the message, such as "weights".
            digest: SHA-256 in hexadecimal digits; None: unknown, which must hold for all ranks.
            advice: ends the message.

        Raises:
            UserError: on all ranks; it names the first rank that differs.
        """
        if self.ranks.alone:
            return
        text = digest or "0" * 64
        table = self._gather([int(text[i : i + 4], 16) for i in range(0, 64, 4)])
        for rank, row in enumerate(table):
            if (row != table[0]).any():
                theirs, ours = (
                    "".join(f"{word:04x}" for word in each[:3]) for each in (row, table[0])
                )
                self.alike = True
                raise UserError(
                    f"rank {rank} has other {what} than rank 0 (sha256 {theirs}..., and "
                    f"{ours}...); {advice}"
                )

    @contextmanager
    def together(self) -> Iterator[None]:
        """Work of some ranks, or of each: an error of one is raised on all, after the work.

        No method of the group may be called inside.

        Raises:
            UserError, MachineError: this rank's, or that of the first rank that failed.
        """
        if self.ranks.alone:
            yield
            return
        error: UserError | MachineError | None = None
        try:
            yield
        except (UserError, MachineError) as found:
            error = found
        codes = self._gather([error.exit_code if error else 0])[:, 0]
        if not codes.any():
            return
        self.alike = True
        text = str(error or "").encode(errors="backslashreplace")[:MESSAGE]
        texts = self._gather([*text, *[0] * (MESSAGE - len(text))])
        rank = int(np.flatnonzero(codes)[0])
        if error is not None and rank == self.ranks.rank:
            raise error
        said = bytes(texts[rank][texts[rank] > 0].tolist()).decode(errors="replace")
        kind = UserError if codes[rank] == UserError.exit_code else MachineError
        raise kind(f"{said} (rank {rank} of {self.ranks.world})" if rank else said) from error

    @contextmanager
    def led(self) -> Iterator[None]:
        """A whole training: rank 0 speaks, the others write what they say to `rank-N.log`.

        Raises:
            Followed: on the other ranks, in place of an error that rank 0 reports.
        """
        if self.ranks.first:
            try:
                yield
            except (UserError, MachineError, Interrupted) as error:
                self._leave(error)
                raise
            return
        logger = logging.getLogger("diptych")
        before, level = logger.handlers, logger.level
        self.buffer = MemoryHandler(10000, flushLevel=logging.CRITICAL + 1, flushOnClose=True)
        logger.handlers = [self.buffer]
        logger.setLevel(logging.INFO)
        try:
            yield
        except (UserError, MachineError, Interrupted) as error:
            log.error("%s", error)
            self._leave(error)
            raise Followed(f"{self.ranks}: {error}", error.exit_code) from error
        finally:
            target = self.buffer.target
            self.buffer.close()
            if target is not None:
                target.close()
            logger.handlers = before
            logger.setLevel(level)

    def open_log(self, run: Path) -> None:
        """From now on, a rank other than 0 writes its notices to `rank-N.log` in the run folder."""
        if self.buffer is not None:
            file = logging.FileHandler(run / f"rank-{self.ranks.rank}.log", encoding="utf-8")
            file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
            self.buffer.setTarget(file)
            self.buffer.capacity = 1  # each line at once

    def wait(self) -> None:
        """Wait until every rank is here."""
        self.most(0)

    def _leave(self, error: Exception) -> None:
        """After an error of all ranks, leave the process only when rank 0 does: a launcher ends all
        ranks as soon as one fails, and rank 0 must first say why."""
        if not self.ranks.alone and (self.alike or isinstance(error, Interrupted)):
            self.wait()
            atexit.register(self.wait)

    def _gather(self, numbers: list[int]) -> Array:
        assert self.backend is not None
        return self.backend.gather(np.array(numbers, np.int32))
