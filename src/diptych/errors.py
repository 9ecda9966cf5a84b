"""Errors caused by the user or the machine; anything else is a bug and keeps its traceback.

The command line prints such an error as one line and exits with its exit code.
A message says what is wrong, where, what was expected, and what to do next.
"""

from __future__ import annotations


class UserError(Exception):
    """An unusable request or input from the user; exit code 2."""

    exit_code = 2


class MachineError(Exception):
    """A failure of the machine (full disk, no permission, out of memory); exit code 1."""

    exit_code = 1


def nearest(word: str, known: list[str]) -> str:
    """The hint `; did you mean 'known'?` for a misspelt word, or a list of the known words."""
    import difflib

    close = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f"; did you mean '{close[0]}'?" if close else f"; known: {', '.join(sorted(known))}"
