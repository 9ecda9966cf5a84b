"""Reports computed from run records; nothing in them is written by hand."""

from __future__ import annotations

from diptych.report.build import compare_runs

__all__ = ["compare_runs"]
