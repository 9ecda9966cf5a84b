"""Four hypotheses on slow first batches and fast later ones in sampling.

Two are about one-time work of a process (compiling, growing its memory), one is about its lazy
graph, and one is about causes outside the process.
"""

from __future__ import annotations

from statistics import median

from tools.experiments.puzzle import Found, Puzzle, Verdict, told

SLOW_FIRST = (
    "Jittor's first batches of 64 took about 43 s each, far longer than PyTorch's. After many "
    "batches the time dropped suddenly, to less than PyTorch's."
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
    end = "Compiling makes one batch slow, not many: many slow batches need another cause, such "
    end += "as those of the hypotheses below."
    words = (
        f"With an empty cache the first batch takes {told(cold['first_wall_s'])} of wall "
        f"time, including {told(cold['compiler_s'])} of the compiler's processor time, and later "
        f"ones take {told(cold['later_wall_s'])}. With a filled cache the first takes "
        f"{told(warm['first_s'])} of processor time and later ones {told(warm['later_s'])} "
        f"(PyTorch: {told(torch['first_s'])}, then {told(torch['later_s'])}). With an empty cache "
        f"the second batch takes {cold['second_ratio']:.2f} times the median processor time of the "
        f"batches after the first, which load {cold['later_kernels']:.0f} kernels in all. "
        f"{end if once else ''}"
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
        f"one submitted step by step. The last batch of the piled loop takes "
        f"{numbers['piled']['last_over_second']:.2f} times the second: "
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
        f"The {len(before)} batches after the first during which it still grows take {ratio:.2f} "
        f"times the processor time of the others."
    )
    words = (
        f"The allocator holds {rows[0]['held_mb']:.0f} MB after the first batch and {last:.0f} MB "
        f"after the last of {len(rows)}; from batch {rests + 1} on it no longer grows. The first "
        f"batch causes {rows[0]['faults']:,} page faults, the second {rows[1]['faults']:,}, later "
        f"ones {numbers['later_faults']:,.0f}. "
        f"{still if before else 'It grows during no batch after the first.'}"
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
    end = "So a neighbour that ends causes slow batches and then a sudden drop. The published "
    end += "times are wall times, so they cannot show whether there was one; processor times, or "
    end += "the device's list of processes, would."
    told_spells = ", ".join(told(each) for each in wall)
    words = (
        f"{len(wall)} spells of {numbers['batches_a_spell']} batches on one core, every second one "
        f"beside a busy process, take {told_spells} of wall time a batch. Each spell beside it "
        f"takes at least {least:.2f} times as long as the one before or after. In processor time "
        f"the ratio is {numbers['cpu_ratio']:.2f}. {end if holds else ''}"
    ).rstrip()
    return numbers, "holds" if holds else "fails", words


PUZZLES = (
    Puzzle(
        "sampling-compile", "Slow first sampling batches: compiling", SLOW_FIRST,
        "The first batch compiles the kernels of the network without gradients.",
        "With an empty kernel cache the first batch takes longer by the compiler's time, and the "
        "second is as fast as all later ones.",
        (("sampling", "torch", "warm"), ("sampling", "jittor", "warm"),
         ("sampling", "jittor", "cold")), first_batches,
    ),
    Puzzle(
        "sampling-pile-up", "Slow first sampling batches: a chain that piles up", SLOW_FIRST,
        "Sampling steps that are not submitted one by one pile up into one large graph, whose "
        "cost falls after it was run many times.",
        "Batches of a piled chain are slow at first and suddenly become faster.",
        (("sampling", "jittor", "warm"), ("sampling", "jittor", "piled")), piled_chain,
    ),
    Puzzle(
        "sampling-growth", "Slow first sampling batches: an allocator that grows", SLOW_FIRST,
        "During the first batches Jittor's allocator requests more and more memory from the "
        "system, and each new page costs time; once it has enough, batches become fast.",
        "The held memory grows over several batches, and these take clearly more processor time "
        "than the batches after it stopped growing.",
        (("sampling", "jittor", "long"),), growing,
    ),
    Puzzle(
        "sampling-neighbour", "Slow first sampling batches: a neighbour", SLOW_FIRST,
        "Another process (such as the other framework's sampling) works on the same device at "
        "first, and then ends.",
        "Each time a neighbour comes and goes, batches beside it take at least a quarter more wall "
        "time than those before and after it, but the same processor time.",
        (("shared", "jittor"),), neighbour,
    ),
)  # fmt: skip
