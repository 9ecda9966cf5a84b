"""Jittor's headers, compiled once, so that each of its kernels compiles in about half the time.

Jittor generates C++ for every kernel, and most of a kernel's compile is the parsing of the same
headers. GCC takes them from a precompiled file that lies beside a header of the same name, if the
flags are those it was made with, and else parses the header. The machine code is the same.
"""

from __future__ import annotations

import logging
import os
import shlex
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)

NAME = "diptych_headers.h"
# Macros and headers with which Jittor's kernels for a CPU begin, counted in its cache.
TEXT = """\
#define JIT 1
#define JIT_cpu 1
#include <algorithm>
#include <assert.h>
#include <cmath>
#include <vector>
#include "var.h"
#include "ops/op_register.h"
#include "ops/broadcast_to_op.h"
#include "ops/binary_op.h"
#include "ops/array_op.h"
#include "ops/code_op.h"
#include "fused_op.h"
#include "executor.h"
#include "misc/cuda_flags.h"
"""
_LINKING = ("-l", "-L", "-Wl,", "-shared")  # as Jittor leaves them out where it compiles


def compile_headers(jittor: Any) -> None:
    """Compile the headers into Jittor's cache; without success, kernels compile as ever."""
    if jittor.flags.cc_type != "g++":
        return
    header = Path(jittor.flags.cache_path) / NAME
    made, new = _precompiled(header), header.with_suffix(f".{os.getpid()}.new")
    flags = [f for f in shlex.split(jittor.flags.cc_flags) if not f.startswith(_LINKING)]
    # Jittor adds -g to a kernel, and a precompiled header is only used with the same.
    command = [jittor.flags.cc_path, *flags, "-g", "-x", "c++-header", str(header), "-o", str(new)]
    try:
        header.write_text(TEXT)
        subprocess.run(command, capture_output=True, text=True, check=True)
        with new.open("rb") as file:  # GCC stops at one that is cut short
            os.fsync(file.fileno())
        new.replace(made)
    except (OSError, subprocess.CalledProcessError) as error:
        said = getattr(error, "stderr", None) or str(error)
        log.warning("Jittor's headers were not precompiled: %s", said.strip()[-500:])
        with suppress(OSError):
            new.unlink(missing_ok=True)
            made.unlink(missing_ok=True)


def use_headers(jittor: Any) -> None:
    """Let this process's kernels be compiled with the precompiled headers, if there are any."""
    header = Path(jittor.flags.cache_path) / NAME
    if _precompiled(header).is_file():
        # One word: Jittor takes any word without a dash for a source of the kernel.
        jittor.flags.cc_flags += f' --include="{header}" '


def _precompiled(header: Path) -> Path:
    return header.with_name(header.name + ".gch")
