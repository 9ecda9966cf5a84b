"""Error handling of stages that are not `diptych` commands: one line and an exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from diptych.errors import MachineError, UserError
from diptych.training.signals import STAGE


@contextmanager
def in_one_line() -> Iterator[None]:
    """Exit the process if the block is interrupted or raises a UserError or MachineError."""
    try:
        yield
    except KeyboardInterrupt:
        if not os.environ.get(STAGE):
            print("diptych: interrupted", file=sys.stderr)
        sys.exit(130)
    except (UserError, MachineError) as error:
        print(f"diptych: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(error.exit_code)
