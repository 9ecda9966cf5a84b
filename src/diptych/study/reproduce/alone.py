"""Error handling of stages that are not `diptych` commands: one line and an exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from diptych.errors import STAGE, MachineError, UserError, show_notices
from diptych.machine.stopping import ending, stop_in_order


@contextmanager
def in_one_line() -> Iterator[None]:
    """Leaves the process where what is inside is interrupted, or raises an error of the house."""
    show_notices()
    stop_in_order()
    try:
        yield
    except KeyboardInterrupt as stop:
        word, code = ending(stop)
        if not os.environ.get(STAGE):
            print(f"diptych: {word}", file=sys.stderr)
        sys.exit(code)
    except (UserError, MachineError) as error:
        print(f"diptych: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(error.exit_code)
