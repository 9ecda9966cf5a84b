"""The child process of the first compile: import Jittor, which builds it, and try it.

    python -m diptych.backends.jittor.firstcompile RESULT

Writes RESULT (JSON: `cache`, the folder of the compiled files; `core`, the compiled core; `lock`,
the file that Jittor locks while it compiles; `note`, a warning for the user, or null) only if a
convolution through oneDNN gives the right numbers. Compiler output goes to standard output and
error, which `coldstart` redirects to a log.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from diptych.backends.jittor.quickcompile import prepare_compiles, use_compiles
from diptych.backends.jittor.setup import home_not_kept
from diptych.machine.processor import cores


def import_jittor() -> Any:
    """Jittor and its helper; builds what is not yet built."""
    import jittor_utils

    # Jittor sizes its compiler pool by memory alone: 16 processes on a 2-core machine with 48 GB.
    memory = jittor_utils.get_total_mem()
    jittor_utils.get_total_mem = lambda: min(memory, cores() * 3 * 2**30)
    import jittor

    return jittor, jittor_utils


def main(result: Path) -> None:
    with home_not_kept():
        jt, jittor_utils = import_jittor()
    note = prepare_compiles(jt)
    use_compiles(jt)
    found = jt.nn.conv2d(jt.ones((1, 1, 4, 4)), jt.ones((1, 1, 3, 3))).numpy()
    if found.shape != (1, 1, 2, 2) or not (found == 9.0).all():
        raise SystemExit(f"Jittor's convolution of ones is {found.tolist()}, not 9")
    facts = {
        "note": note,
        "cache": jt.flags.cache_path,
        "core": jt.core.__file__,
        "lock": jittor_utils.lock.lock_path,
    }
    new = result.with_suffix(".new")
    new.write_text(json.dumps(facts))
    new.replace(result)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
