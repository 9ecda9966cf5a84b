"""Jobs of the tests of Jittor's set-up in its process; see `work`."""

from __future__ import annotations

from pathlib import Path


def compiler_flags() -> tuple[str, str]:
    """The flags of Jittor's kernels, and the path of the precompiled headers if there are any."""
    from diptych.backends.jittor import headers, setup

    flags = setup.load().flags
    header = Path(flags.cache_path) / headers.NAME
    return flags.cc_flags, str(header) if header.with_name(f"{header.name}.gch").is_file() else ""
