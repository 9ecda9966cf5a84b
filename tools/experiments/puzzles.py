"""The puzzles: observation, hypothesis, predicted measurement, and verdict.

Each judge takes the measurements of its loops (`tools.experiments.loops`) and returns the numbers,
a verdict (`holds`, `fails` or `open`), and one sentence made from the numbers. Times are processor
seconds, which a busy machine does not stretch; wall seconds are named as such.
"""

from __future__ import annotations

from statistics import median

from tools.experiments import sampling
from tools.experiments.puzzle import Found, Puzzle, Verdict, told

SPIKES = (
    "A Jittor step took 0.12 s, but occasionally 0.6 to 0.7 s; a PyTorch step always took 0.16 s."
)
MEMORY = "On a GPU, the same training held 15 GB throughout in Jittor and 10 GB in PyTorch."


def hasty_timer(found: list[Found]) -> Verdict:
    """Spikes of a timer that does not wait."""
    numbers: Found = {}
    for name, each in zip(("jittor", "torch"), found, strict=True):
        every = each["read_every"]
        unwaited = [row["cpu_s"] for row in each["unwaited"]]
        waited = [row["cpu_s"] for row in each["waited"]]
        reads = unwaited[every - 1 :: every]
        others = [s for k, s in enumerate(unwaited) if (k + 1) % every]
        numbers[name] = {
            "unwaited_usual_s": median(others), "unwaited_reading_s": median(reads),
            "waited_s": median(waited), "spike": median(reads) / median(others),
            "waited_spread": max(waited) / median(waited),
            "sum_ratio": sum(unwaited) / sum(waited), "read_every": every,
        }  # fmt: skip
    j, t = numbers["jittor"], numbers["torch"]
    holds = j["spike"] > 3 and j["waited_spread"] < 2 and t["spike"] < 1.5
    words = (
        f"Timed without waiting, a Jittor step takes {told(j['unwaited_usual_s'])} and every "
        f"{j['read_every']}th, which reads the loss, {told(j['unwaited_reading_s'])}. With "
        f"waiting, each takes {told(j['waited_s'])}, the longest {j['waited_spread']:.2f} times "
        f"the median. PyTorch, which is eager on a CPU, shows a ratio of {t['spike']:.2f} without "
        f"waiting."
    )
    return numbers, "holds" if holds else "fails", words


def late_kernels(found: list[Found]) -> Verdict:
    """Spikes at operations that a process meets for the first time."""
    rows = found[0]["rows"]
    kinds: Found = {}
    for what in dict.fromkeys(row["what"] for row in rows):
        own = [row for row in rows if row["what"] == what]
        before = rows[rows.index(own[0]) - 1]["kernels"] if rows.index(own[0]) else 0
        rest = median(row["cpu_s"] for row in own[1:])
        kinds[what] = {
            "first_s": own[0]["cpu_s"], "first_wall_s": own[0]["wall_s"], "usual_s": rest,
            "usual_wall_s": median(row["wall_s"] for row in own[1:]),
            "ratio": own[0]["cpu_s"] / rest, "new_kernels": own[0]["kernels"] - before,
        }  # fmt: skip
        kinds[what]["wall_ratio"] = kinds[what]["first_wall_s"] / kinds[what]["usual_wall_s"]
    off = {what: k for what, k in kinds.items() if (k["ratio"] > 2) != (k["new_kernels"] > 0)}
    # Slow only by wall time: on a shared machine this may be neighbours, or a wait for a disk.
    waited = all(k["new_kernels"] > 0 and k["wall_ratio"] > 2 for k in off.values())
    verdict = "holds" if not off else "open" if waited else "fails"
    against = "; ".join(
        f"{what}: {'new kernels, not slow' if k['new_kernels'] else 'slow, no new kernels'}"
        for what, k in off.items()
    )
    ends = {
        "holds": "So kernels explain a slow first time of each kind of work, not recurring "
                 "spikes.",
        "fails": f"This contradicts the prediction ({against}).",
        "open": "A first time that is only slow in wall time may be due to the machine; it has to "
                "be measured again on a quiet one.",
    }  # fmt: skip
    small, again, drawn = kinds["smaller batch"], kinds["step again"], kinds["sampling"]
    words = (
        f"The first step loads {kinds['step']['new_kernels']:.0f} kernels, from the cache of "
        f"earlier processes, and takes {kinds['step']['ratio']:.0f} times the processor time of a "
        f"usual one. The first sampling in between loads {drawn['new_kernels']:.0f} more and takes "
        f"{drawn['ratio']:.2f} times ({told(drawn['first_wall_s'])} of wall time, later "
        f"{told(drawn['usual_wall_s'])}). A smaller last batch loads "
        f"{small['new_kernels']:.0f} and takes {small['ratio']:.2f} times its usual; a step after "
        f"sampling {again['ratio']:.2f} times. {ends[verdict]}"
    )
    return kinds, verdict, words


def pile_up(found: list[Found]) -> Verdict:
    """Memory of loops that let lazy work pile up, compared with one that does not."""
    numbers: Found = {}
    for each in found:
        rows = each["rows"]
        half = rows[len(rows) // 2 :]
        numbers[each["variant"]] = {
            "held_mb": median(row["reserved_mb"] for row in half),
            "peak_rss_mb": max(row["rss_mb"] for row in rows),
            "grown_mb": half[-1]["reserved_mb"] - half[0]["reserved_mb"],
            "live_vars": max(row["live_vars"] for row in rows),
        }  # fmt: skip
    usual = numbers["panel"]
    others = {name: n for name, n in numbers.items() if name != "panel"}
    higher = [n for n in others.values() if n["held_mb"] > 1.25 * usual["held_mb"]]
    settled = [n for n in higher if n["grown_mb"] < 0.1 * n["held_mb"]]
    each_one = "; ".join(
        f"{name}: {n['held_mb'] / usual['held_mb']:.2f} times the held memory, "
        f"{n['grown_mb']:+.0f} MB over the second half of {len(found[0]['rows'])} steps, "
        f"{n['live_vars'] / usual['live_vars']:.1f} times the live arrays"
        for name, n in others.items()
    )
    words = (
        f"The panel's loop holds {usual['held_mb']:.0f} MB and {usual['live_vars']:.0f} live "
        f"arrays at most. Compared with it, {each_one}."
    )
    return numbers, "holds" if settled else "fails", words


def allocator(found: list[Found]) -> Verdict:
    """Free memory kept by Jittor's allocator."""
    held, left = found[0]["held_mb"], found[0]["held_after_gc_mb"]
    numbers = {"held_mb": held, "held_after_gc_mb": left, "ratio": held / left}
    words = (
        f"After training, Jittor's allocator holds {held:.0f} MB, and {left:.0f} MB once its "
        f"cache is emptied: {held / left:.2f} times what is in use between two steps. PyTorch "
        "also keeps a cache on a GPU, and no GPU was measured. It remains open whether 15 and "
        "10 GB differ in what is cached or in what is needed."
    )
    return numbers, "holds" if held > 1.25 * left else "fails", words


PUZZLES = (
    Puzzle(
        "spikes-timer", "Step-time spikes: a timer that does not wait", SPIKES,
        "Jittor defers work until a value is read. A timer that does not wait for the work sees "
        "short steps, and the step that reads the loss includes the work of all steps before it.",
        "Without waiting, steps that read are several times longer than the others, and the same "
        "loop with waiting shows equal steps. PyTorch, which is eager on a CPU, shows equal steps "
        "in both cases.",
        (("timers", "jittor"), ("timers", "torch")), hasty_timer,
    ),
    Puzzle(
        "spikes-kernels", "Step-time spikes: kernels that are met late", SPIKES,
        "Jittor compiles or loads kernels when it first meets a new kind of work.",
        "The first time of a kind of work takes more than twice its usual processor time exactly "
        "if the count of loaded kernels grows.",
        (("kernels", "jittor"),), late_kernels,
    ),
    Puzzle(
        "memory-pile-up", "15 GB against 10 GB: a pile-up of lazy work", MEMORY,
        "Losses that are never read, or a moving average that is never waited for, keep their "
        "graphs alive.",
        "The memory of such a loop settles at a higher level than that of the panel's own loop.",
        (("memory", "jittor", "panel"), ("memory", "jittor", "kept losses"),
         ("memory", "jittor", "unread losses"), ("memory", "jittor", "lazy average")), pile_up,
    ),
    Puzzle(
        "memory-allocator", "15 GB against 10 GB: what the allocator keeps", MEMORY,
        "Jittor's allocator keeps freed memory for later use, so the process looks larger than "
        "its arrays.",
        "Emptying the allocator's cache frees a substantial part of the held memory.",
        (("memory", "jittor", "panel"),), allocator,
    ),
    *sampling.PUZZLES,
)  # fmt: skip
