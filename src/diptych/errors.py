"""Errors that a user or the machine causes; everything else is a bug and keeps its traceback.

The command line prints such an error as one line and leaves with its exit code.
A message says what is wrong, where, what was expected, and what to do next.
"""

from __future__ import annotations


class UserError(Exception):
    """Something the user asked for or supplied cannot be used; exit code 2."""

    exit_code = 2


# In the environment of a study's stages: `diptych reproduce` itself says what was interrupted, and
# how to go on. A stage's own advice would name a command and a folder that are not the user's.
STAGE = "DIPTYCH_STAGE"


class Interrupted(Exception):
    """The user or the system asked the work to stop; it was saved first. Exit code 128 + signal."""

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + signal_number


class MachineError(Exception):
    """The machine failed us (disk full, no permission, out of memory); exit code 1."""

    exit_code = 1


def nearest(word: str, known: list[str]) -> str:
    """The hint `; did you mean 'known'?` for a misspelt word, or a list of what is known."""
    import difflib

    close = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f"; did you mean '{close[0]}'?" if close else f"; known: {', '.join(sorted(known))}"
