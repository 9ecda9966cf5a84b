"""Jobs of the tests of Jittor's set-up in its process; see `work`."""

from __future__ import annotations


def compiler_flags() -> tuple[str, str, str, str]:
    """The compiler of Jittor's kernels, its flags, Jittor's interpreter and its cache's folder."""
    from diptych.backends.jittor import setup

    flags = setup.load().flags
    return flags.cc_path, flags.cc_flags, flags.python_path, flags.cache_path
