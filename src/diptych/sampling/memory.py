"""A memory check that refuses a batch too large for this machine before a framework runs out.

PyTorch raises an error when memory runs out; Jittor ends the process. So the tensors that a
forward pass must hold at once are counted from the plan: the skip connections made so far and, for
the current block, its input, its output and one intermediate of each size. On CPUs a call took 1.1
to 2.1 times that count in PyTorch and 0.9 to 1.8 times in Jittor (measured on tiny, mnist,
cifar10), so PyTorch's batch is refused if the count does not fit, Jittor's if twice the count does
not. On a GPU, where both frameworks raise an error, a batch is refused if the count does not fit in
what the framework says is free. Jittor gives the card's memory without what this process has taken;
it does not know of other processes, so on a shared card a batch that passes may still not fit.

Training also holds the activations for the backward pass, the gradients and the optimiser's state.
They are not counted, so its message names a batch above which nothing fits, not one that fits.
"""

from __future__ import annotations

import contextlib
import math
import resource
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil

from diptych.errors import UserError
from diptych.network.own import AnyPlan
from diptych.network.plan import Block, Plan

ON_CPU = 64
HELD = 4e9  # bytes of a call's activations on a GPU
_FACTOR = {"jittor": 2.0}  # running out of memory ends the process


def activation_bytes(plan: Plan) -> int:
    """Bytes that a float32 forward pass of one image holds at least, without the weights."""
    return 4 * max(_held(plan))


def _held(plan: Plan) -> Iterator[int]:
    """Numbers held while each block is computed."""
    skips = [plan.ch * plan.height * plan.width]
    for stage in plan.down:
        for block in stage.blocks:
            yield sum(skips) + _work(block)
            skips.append(math.prod(block.shape))
        if stage.resample:
            skips.append(math.prod(stage.blocks[-1].shape) // 4)
    for block in plan.mid:
        yield sum(skips) + _work(block)
    for stage in plan.up:
        for block in stage.blocks:
            yield sum(skips) + _work(block)
            skips.pop()


def _work(block: Block) -> int:
    pixels = block.height * block.width
    residual = 2 * (block.in_ch + block.out_ch) * pixels
    attention = 5 * block.out_ch * pixels + pixels**2 if block.attention else 0
    return max(residual, attention)


def available() -> int:
    """Bytes this process may still allocate, by the machine, its control group and its limits."""
    found = [psutil.virtual_memory().available]
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    if soft != resource.RLIM_INFINITY:
        found.append(soft - psutil.Process().memory_info().vms)
    group = Path("/sys/fs/cgroup")
    with contextlib.suppress(OSError, ValueError):  # no control group, or one without a limit
        limit = int((group / "memory.max").read_text())
        found.append(limit - int((group / "memory.current").read_text()))
    return max(0, min(found))


def batch_of(plan: AnyPlan, device: str, device_free: Callable[[], int | None]) -> int:
    """Images in a call where no number is asked for.

    64 on a CPU, which gains nothing from more, and for a user's own network. On a GPU the largest
    power of two up to 1,024 whose activations take 4 GB, so that the plan alone determines it and
    with it the rounding; if less than twice that is free, as many fewer as fit.
    """
    if device == "cpu" or not isinstance(plan, Plan):
        return ON_CPU
    each, free = activation_bytes(plan), device_free()
    room = HELD if free is None else min(HELD, free // 2)
    return int(2 ** min(10, max(0, math.floor(math.log2(max(1, room / each))))))


def check_batch(
    plan: AnyPlan,
    count: int,
    backend: str,
    device: str,
    device_free: Callable[[], int | None] = lambda: None,
    option: str = "--batch",
    training: bool = False,
    guided: bool = False,
) -> None:
    """Refuse a batch that cannot fit.

    Args:
        plan: the network's plan; a user's own network is not checked.
        count: images in one call.
        backend, device: names of the backend and its device.
        device_free: gives the bytes free on a GPU, None if unknown; see `Backend.free_memory`.
        option: what to lower if the batch does not fit.
        training: the count is only a lower bound of what is needed.
        guided: a call computes each image twice, with and without its class.

    Raises:
        UserError: names the memory needed, the memory free, and the batch that would fit, or for
            training the largest that is not certain to fail.
    """
    if not isinstance(plan, Plan):
        return
    on_cpu = device == "cpu"
    each = activation_bytes(plan) * (_FACTOR.get(backend, 1.0) if on_cpu else 1.0) * (1 + guided)
    free = available() if on_cpu else device_free()
    if free is None or each * count <= free:
        return
    fits = int(free / each)
    way = f"more than {fits} cannot fit" if training else f"{fits} would fit"
    way = f"{way}: lower {option}" if fits else "not even one fits: end other programs"
    raise UserError(
        f"{count} images at once need {'more than' if training else 'about'} "
        f"{each * count / 1e9:.1f} GB of memory in {backend}, "
        f"{free / 1e9:.1f} GB are free{'' if on_cpu else f' on {device}'}; {way}"
    )
