"""Files that are there whole or not at all, and folders that nothing overwrites by accident.

Reading is bounded: only regular files are opened (a FIFO would wait for ever, a device never ends),
and a text holds no more bytes, values or levels than its reader allows.
"""

from __future__ import annotations

from diptych.files.atomic import atomic_path, write_json, write_text
from diptych.files.folders import (
    MARKS,
    check_folder,
    check_free,
    claim_folder,
    contents,
    new_folder,
    output_folder,
)
from diptych.files.locks import (
    INHERITED,
    LOCK,
    Held,
    hold,
    hold_part,
    hold_place,
    inherited,
    part_at_work,
)
from diptych.files.paths import (
    check_file,
    check_path,
    check_replaceable,
    check_writable,
    expanded,
    look,
    machine_faults,
    open_file,
    read_bytes,
    read_ends,
    sha256_of,
    user_cache,
)
from diptych.files.reading import (
    MOST_BYTES,
    MOST_LEVELS,
    MOST_VALUES,
    numpy_array,
    parse_json,
    read_json,
)
from diptych.files.rows import Line, Tail, read_lines

__all__ = [
    "expanded",
    "INHERITED",
    "LOCK",
    "Line",
    "Held",
    "MARKS",
    "MOST_BYTES",
    "MOST_LEVELS",
    "MOST_VALUES",
    "Tail",
    "atomic_path",
    "check_file",
    "check_folder",
    "check_free",
    "check_path",
    "check_replaceable",
    "check_writable",
    "claim_folder",
    "contents",
    "hold",
    "hold_part",
    "hold_place",
    "inherited",
    "look",
    "machine_faults",
    "new_folder",
    "numpy_array",
    "open_file",
    "output_folder",
    "parse_json",
    "part_at_work",
    "read_bytes",
    "read_ends",
    "read_json",
    "read_lines",
    "sha256_of",
    "user_cache",
    "write_json",
    "write_text",
]
