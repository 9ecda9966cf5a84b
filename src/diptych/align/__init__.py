"""Instruments that measure the agreement of the two backends; no framework is loaded here.

from diptych.align import port
port("reference.py", "subject.py", inputs={"x": {"shape": [2, 3, 32, 32]}})
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from diptych.align.ports.prove import PortResult, port

__all__ = ["PortResult", "port"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'diptych.align' has no attribute '{name}'")
    import importlib

    return getattr(importlib.import_module("diptych.align.ports.prove"), name)
