"""A machine with a driver for GPUs that a panel cannot use."""

from __future__ import annotations

import importlib
import logging
from unittest import mock

from diptych import backends
from diptych.errors import UserError


def without_cuda(name: str) -> tuple[str, str]:
    """The log line for `auto`, and the refusal of `cuda`."""
    panel = importlib.import_module(f"diptych.backends.{name}.backend")
    seen: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: seen.append(record.getMessage())  # type: ignore[method-assign]
    panel.log.addHandler(handler)
    driver = {"return_value": True}
    with (
        mock.patch(f"diptych.backends.{name}.backend.has_nvidia_driver", **driver),
        mock.patch("diptych.backends.jittor.cuda.has_nvidia_driver", **driver),
        mock.patch.object(panel, "_chosen", [], create=True),  # as in a process that chooses first
    ):
        assert backends.load(name, "auto").device == "cpu"
    panel.log.removeHandler(handler)
    try:
        backends.load(name, "cuda")
    except UserError as error:
        return seen[0], str(error)
    raise AssertionError("a GPU was used")
