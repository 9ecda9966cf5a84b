"""Error handling of stages that are not `diptych` commands: one line and an exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from diptych.errors import STAGE, MachineError, UserError, show_notices


@contextmanager
def in_one_line() -> Iterator[None]:
    """Leaves the process where what is inside is interrupted, or raises an error of the house."""
    show_notices()
    try:
        yield
    except KeyboardInterrupt:
        if not os.environ.get(STAGE):
            print("diptych: interrupted", file=sys.stderr)
        sys.exit(130)
    except (UserError, MachineError) as error:
        print(f"diptych: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(error.exit_code)
