"""Four hypotheses on slow first batches and fast later ones in sampling.

Two are about one-time work of a process (compiling, growing its memory), one is about its lazy
graph, and one is about causes outside the process.
"""

from __future__ import annotations

from statistics import median

from tools.experiments.puzzle import Found, Puzzle, Verdict, told

SLOW_FIRST = (
    "Jittor's first batches of 64 took about 43 s each, far longer than PyTorch's; after many "
    "batches the time jumped down, to less than PyTorch's."
)


def first_batches(found: list[Found]) -> Verdict:
    """Sampled batches in order, with and without kernels in the cache."""
    numbers: Found = {}
    for name, each in zip(("torch", "warm", "cold"), found, strict=True):
        rows = each["rows"]
        later = median(row["cpu_s"] for row in rows[1:])
        wall = median(row["wall_s"] for row in rows[1:])
        first = rows[0]
        numbers[name] = {
            "first_wall_s": first["wall_s"], "later_wall_s": wall,
            "first_s": first["cpu_s"], "later_s": later, "compiler_s": first["compiler_s"],
            "second_ratio": rows[1]["cpu_s"] / later,
            "later_kernels": (rows[-1]["kernels"] or 0) - (first["kernels"] or 0),
        }  # fmt: skip
    warm, cold, torch = numbers["warm"], numbers["cold"], numbers["torch"]
    once = cold["second_ratio"] < 2 and not cold["later_kernels"]
    holds = cold["compiler_s"] > 5 * cold["later_s"] and once
    end = "Compiling makes one batch slow, not many: a plateau of many slow batches needs another "
    end += "cause, as the hypotheses below try."
    words = (
        f"With an empty cache the first batch takes {told(cold['first_wall_s'])} by the clock, "
        f"{told(cold['compiler_s'])} of the compiler's processor time in it, later ones "
        f"{told(cold['later_wall_s'])}; with a filled one the first takes "
        f"{told(warm['first_s'])} of processor time and later ones {told(warm['later_s'])} "
        f"(PyTorch: {told(torch['first_s'])}, then {told(torch['later_s'])}). The second batch "
        f"takes {cold['second_ratio']:.2f} times the processor time of all later ones; together "
        f"they load {cold['later_kernels']:.0f} kernels. {end if once else ''}"
    ).rstrip()
    return numbers, "holds" if holds else "fails", words


def piled_chain(found: list[Found]) -> Verdict:
    """A sampling chain that is not submitted step by step."""
    numbers: Found = {}
    for name, each in zip(("submitted", "piled"), found, strict=True):
        rows = each["rows"][1:]
        numbers[name] = {"batch_s": median(row["cpu_s"] for row in rows)}
        ratio = rows[-1]["cpu_s"] / rows[0]["cpu_s"]
        numbers[name]["last_over_second"] = ratio
    ratio = numbers["piled"]["batch_s"] / numbers["submitted"]["batch_s"]
    numbers["ratio"] = ratio
    jumps = numbers["piled"]["last_over_second"] < 0.7
    words = (
        f"A batch whose steps pile up until its end takes {ratio:.2f} times the processor time of "
        f"one submitted step by step, and its last batch "
        f"{numbers['piled']['last_over_second']:.2f} times its second: "
        f"{'a' if jumps else 'no'} jump after some batches."
    )
    return numbers, "holds" if jumps else "fails", words


def growing(found: list[Found]) -> Verdict:
    """Memory held by the allocator after each batch, and batch times once it stops growing."""
    rows = found[0]["rows"]
    last = rows[-1]["held_mb"]
    rests = next(k for k in range(len(rows)) if all(r["held_mb"] > 0.99 * last for r in rows[k:]))
    before, after = rows[1 : rests + 1], rows[rests + 1 :] or rows[-1:]
    usual = median(row["cpu_s"] for row in after)
    ratio = median(row["cpu_s"] for row in before) / usual if before else 1.0
    numbers: Found = {
        "first_held_mb": rows[0]["held_mb"], "last_held_mb": last, "rests_from_batch": rests + 1,
        "batches": len(rows), "growing_over_resting": ratio, "usual_s": usual,
        "first_faults": rows[0]["faults"], "second_faults": rows[1]["faults"],
        "later_faults": median(row["faults"] for row in after),
    }  # fmt: skip
    still = (
        f"The {len(before)} batches after the first that still grow take {ratio:.2f} times the "
        f"processor time of the others."
    )
    words = (
        f"The allocator holds {rows[0]['held_mb']:.0f} MB after the first batch and {last:.0f} MB "
        f"after the last of {len(rows)}; from batch {rests + 1} on it rests. The first batch meets "
        f"{rows[0]['faults']:,} page faults, the second {rows[1]['faults']:,}, later ones "
        f"{numbers['later_faults']:,.0f}. {still if before else 'No later batch still grows.'}"
    )
    return numbers, "holds" if len(before) > 1 and ratio > 1.25 else "fails", words


def neighbour(found: list[Found]) -> Verdict:
    """The same batches in spells, with another process on the core in every second spell."""
    rows = found[0]["rows"]
    wall, cpu = (
        [median(row[key] for row in rows if row["spell"] == spell)
         for spell in range(rows[-1]["spell"] + 1)]
        for key in ("wall_s", "cpu_s")
    )  # fmt: skip
    beside = range(1, len(wall) - 1, 2)
    numbers: Found = {"wall_s": wall, "cpu_s": cpu, "batches_a_spell": len(rows) // len(wall)}
    numbers["begins"] = [wall[k] / wall[k - 1] for k in beside]
    numbers["ends"] = [wall[k] / wall[k + 1] for k in beside]
    numbers["cpu_ratio"] = median(cpu[1::2]) / median(cpu[::2])
    least = min(*numbers["begins"], *numbers["ends"])
    holds = least > 1.25 and 0.8 < numbers["cpu_ratio"] < 1.25
    end = "So a neighbour that ends gives slow batches and then a jump; whether there was one, the "
    end += "published times, which are by the clock, cannot say. Processor time beside them, or "
    end += "the device's list of processes, would."
    told_spells = ", ".join(told(each) for each in wall)
    words = (
        f"{len(wall)} spells of {numbers['batches_a_spell']} batches on one core, every second one "
        f"beside a busy process, take {told_spells} a batch by the clock: each spell beside it is "
        f"{least:.2f} times the one before or after, or more. In processor time the ratio is "
        f"{numbers['cpu_ratio']:.2f}. {end if holds else ''}"
    ).rstrip()
    return numbers, "holds" if holds else "fails", words


PUZZLES = (
    Puzzle(
        "sampling-compile", "Slow first sampling batches: compiling", SLOW_FIRST,
        "The first batch compiles the kernels of the network without gradients.",
        "With an empty kernel cache the first batch is slow by the compiler's time and the second "
        "is as quick as all later ones.",
        (("sampling", "torch", "warm"), ("sampling", "jittor", "warm"),
         ("sampling", "jittor", "cold")), first_batches,
    ),
    Puzzle(
        "sampling-pile-up", "Slow first sampling batches: a chain that piles up", SLOW_FIRST,
        "Sampling steps that are not submitted one by one pile up into one large graph, and its "
        "cost falls once it has been met often.",
        "Batches of a piled chain start slow and jump to a quicker time.",
        (("sampling", "jittor", "warm"), ("sampling", "jittor", "piled")), piled_chain,
    ),
    Puzzle(
        "sampling-growth", "Slow first sampling batches: an allocator that grows", SLOW_FIRST,
        "Over the first batches Jittor's allocator asks the system for more and more memory, whose "
        "pages are met for the first time; once it has enough, batches become quick.",
        "The memory that is held grows over several batches, and those take clearly more "
        "processor time than the batches after it rests.",
        (("sampling", "jittor", "long"),), growing,
    ),
    Puzzle(
        "sampling-neighbour", "Slow first sampling batches: a neighbour", SLOW_FIRST,
        "Another process (the other framework's sampling, for instance) works on the same device "
        "at first, and ends.",
        "By the clock batches beside a neighbour are slower than those before it and after it, by "
        "a quarter or more, as often as it comes and goes, at the same processor time.",
        (("shared", "jittor"),), neighbour,
    ),
)  # fmt: skip
