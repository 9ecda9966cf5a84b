"""Packages that only some commands need; each stands in an extra of the installation."""

from __future__ import annotations

import importlib
import sys
from typing import Any

from diptych.errors import UserError

PIP = f"{sys.executable} -m pip install"  # into the Python that runs, whatever is on the path


def install(extra: str) -> str:
    """The command that installs what an extra of Diptych brings."""
    return f"pip install 'diptych[{extra}]'"


def require(package: str, extra: str, *, where: str = "", instead: str = "") -> Any:
    """Import a package, or refuse with the command that installs it.

    Args:
        package: the name that is imported.
        extra: the extra of Diptych that brings it.
        where: the file or option that needs it; the message begins with it.
        instead: what else the user may do; the message ends with it.

    Raises:
        UserError: the package is not installed, or cannot be imported.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        missing = isinstance(error, ModuleNotFoundError) and error.name == package
        what = "is not installed" if missing else f"cannot be imported ({error})"
        parts = (f"{package} {what}; {install(extra)}", instead)
        message = ", ".join(part for part in parts if part)
        raise UserError(f"{where}: {message}" if where else message) from error
