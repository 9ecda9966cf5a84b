"""A profile's record as text for the terminal."""

from __future__ import annotations

from typing import Any

FUSED = "inside the optimizer's one pass over the weights"
WORDS = {
    "data": "data",
    "to_device": "to the device",
    "forward": "forward",
    "backward": "backward",
    "optimizer": "clip and optimizer",
    "ema": "moving average",
    "compile": "compile, once",
}


def render(record: dict[str, Any]) -> str:
    """The table of phases, the split's overhead, and memory."""
    head = f"{record['backend']}, {record['preset']}, batch {record['batch_size']}"
    lines = [f"{head}: {record['steps']} split steps, as many whole, in turns", ""]
    lines.append(f"{'phase':<20}{'median':>10}{'5 %':>10}{'95 %':>10}{'share':>8}")
    for phase in record["phases"]:
        share = "" if phase["share"] is None else f"{phase['share']:.0%}"
        numbers = "".join(f"{_ms(phase[key]):>10}" for key in ("median_s", "p5_s", "p95_s"))
        notes = [FUSED] if phase["fused"] else [phase["note"]] if phase["note"] else []
        notes += [f"{phase['kernels']} kernels loaded"] if phase["kernels"] else []
        note = f"  {'; '.join(notes)}" if notes else ""
        lines.append(f"{WORDS[phase['name']]:<20}{numbers}{share:>8}{note}")
    for key, word in (("split", "sum without data"), ("unsplit", "the same step whole")):
        spread = record[key]
        numbers = "".join(f"{_ms(spread[name]):>10}" for name in ("median_s", "p5_s", "p95_s"))
        lines.append(f"{word:<20}{numbers}")
    over = record["overhead"]
    interval = ""
    if over["low"] is not None:
        interval = f" (95 % interval {over['low']:.3f} to {over['high']:.3f})"
    lines += ["", f"split / whole: {over['ratio']:.3f}{interval}"]
    first, last = record["memory"][0], record["memory"][-1]
    lines.append(f"resident memory: {first['rss_mb']:.0f} MiB, at the end {last['rss_mb']:.0f} MiB")
    for key, word in (("allocated_mb", "allocated"), ("reserved_mb", "held by the allocator")):
        if last[key] is not None:
            lines.append(f"{word}: {first[key]:.0f} MiB, at the end {last[key]:.0f} MiB")
    if last["live_vars"] is not None:
        lines.append(f"live arrays: {first['live_vars']:.0f}, at the end {last['live_vars']:.0f}")
    return "\n".join(lines)


def _ms(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    return f"{seconds:.2f} s" if seconds >= 10 else f"{seconds * 1000:.2f} ms"


def render_outliers(found: dict[str, Any], most: int = 20) -> str:
    """The causes of a run's slow steps as a table."""
    count = len(found["outliers"])
    lines = [
        f"{found['steps']} timed steps, median {_ms(found['median_s'])}; {count} slower than "
        f"{found['k']:g} medians, {found['unexplained']} of them unexplained",
    ]
    if not found["evidence"]:
        lines.append("only step times were recorded; few of the slow steps can be explained")
    for cause, sums in sorted(found["by_cause"].items(), key=lambda c: -c[1]["excess_s"]):
        lines.append(f"  {cause:<14}{sums['steps']:>6} steps{_ms(sums['excess_s']):>12} in excess")
    worst = sorted(found["outliers"], key=lambda o: -o["excess_s"])[:most]
    if worst:
        lines += ["", f"{'step':>8}{'seconds':>11}  cause"]
    for row in worst:
        share = "" if row["cause"] == "unexplained" else f", {row['share']:.0%} of the excess"
        lines.append(f"{row['step']:>8}{_ms(row['seconds']):>11}  {row['cause']}{share}")
    return "\n".join(lines)
