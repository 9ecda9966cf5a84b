"""Jobs of the tests of Jittor's set-up in its process; see `work`."""

from __future__ import annotations


def compiler_flags() -> tuple[str, str, str]:
    """The flags of Jittor's kernels, its interpreter, and the folder of its cache."""
    from diptych.backends.jittor import setup

    flags = setup.load().flags
    return flags.cc_flags, flags.python_path, flags.cache_path
