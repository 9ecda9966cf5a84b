"""Jittor's kernels compiled in about a third of the time: from compiled headers, and at once.

Jittor generates C++ for every kernel, and most of a kernel's compile is the parsing of the same
headers. GCC takes them from a precompiled file that lies beside a header of the same name, if the
flags are those it was made with, and else parses the header.

Jittor hands each kernel to its `asm_tuner.py`, which compiles it to assembly with debugging
symbols, reads that line by line for places to rewrite, writes it again, and assembles it. Nine of
ten kernels have no mark of such a place and come out as they went in: they are compiled in one go,
without symbols. The machine code is the same in both cases.
"""

from __future__ import annotations

import hashlib
import os
import shlex
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any

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
SCRIPT = "diptych_compile.sh"
# Called as Python: TUNER --cc_path=COMPILER KERNEL.cc FLAGS... -o KERNEL.so
COMMANDS = """\
case $1 in
*/asm_tuner.py)
    grep -q '@begin' "$3"
    if [ $? = 1 ]; then
        compiler=${2#--cc_path=}
        shift 2
        exec "$compiler" "$@"
    fi ;;
esac
exec %s "$@"
"""
# With -g, as the tuner compiles; GCC then uses the headers without it too, but not the reverse.
AS_HEADER = ("-g", "-x", "c++-header")
KEY = hashlib.sha256(f"{TEXT}{COMMANDS}{AS_HEADER}".encode()).hexdigest()[:8]
_LINKING = ("-l", "-L", "-Wl,", "-shared")  # as Jittor leaves them out where it compiles


def prepare_compiles(jittor: Any) -> str | None:
    """Put the script and the compiled headers into Jittor's cache; return why that failed, or None.

    Without success kernels compile as ever. Other processes may be using both meanwhile.
    """
    if jittor.flags.cc_type != "g++":
        return None
    cache = Path(jittor.flags.cache_path)
    made = _precompiled(cache)
    text, new = (cache / f"{NAME}.{os.getpid()}.{kind}" for kind in ("text", "new"))
    flags = [f for f in shlex.split(jittor.flags.cc_flags) if not f.startswith(_LINKING)]
    command = [jittor.flags.cc_path, *flags, *AS_HEADER, str(text), "-o", str(new)]
    try:
        text.write_text(COMMANDS % shlex.quote(jittor.flags.python_path))
        text.replace(cache / SCRIPT)
        text.write_text(TEXT)
        subprocess.run(command, capture_output=True, text=True, check=True)
        with new.open("rb") as file:  # GCC stops at one that is cut short
            os.fsync(file.fileno())
        text.replace(cache / NAME)
        new.replace(made)
    except (OSError, subprocess.CalledProcessError) as error:
        for path in (text, new, made):
            with suppress(OSError):
                path.unlink(missing_ok=True)
        said = str(getattr(error, "stderr", None) or error)
        return f"Jittor's kernels compile slowly, as its headers do not: {said.strip()[-500:]}"
    return None


def use_compiles(jittor: Any) -> None:
    """Let this process's kernels be compiled in that way, if it was prepared."""
    cache = Path(jittor.flags.cache_path)
    if _precompiled(cache).is_file() and (cache / SCRIPT).is_file():
        # One word: Jittor takes any word without a dash for a source of the kernel.
        jittor.flags.cc_flags += f' --include="{cache / NAME}" '
        # As such it takes the script too, so that a kernel is compiled anew if that is another.
        jittor.flags.python_path = f'/bin/sh "{cache / SCRIPT}"'


def _precompiled(cache: Path) -> Path:
    return cache / f"{NAME}.gch"
