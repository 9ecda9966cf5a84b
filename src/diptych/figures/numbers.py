"""Numbers as text: significant digits, and durations in a suitable unit."""

from __future__ import annotations

import math


def significant(value: float, digits: int = 2) -> str:
    """A number with `digits` significant digits: 0.031, 712, 1,230, 3.1e-6."""
    if value == 0 or not math.isfinite(value):
        return "0" if value == 0 else str(value)
    mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
    power = int(exponent)
    if power < -3 or power > 6:
        return f"{mantissa}e{power}"
    return f"{float(f'{value:.{digits - 1}e}'):,.{max(0, digits - 1 - power)}f}"


def seconds(value: float) -> str:
    """A duration in seconds as text: three significant digits, in a suitable unit."""
    for unit, size, upto in (("ms", 1e-3, 0.9995), ("s", 1.0, 119.5), ("min", 60.0, 7170.0)):
        if value < upto:
            return f"{significant(value / size, 3)} {unit}"
    return f"{significant(value / 3600.0, 3)} h"
