"""Whether a batch fits into this machine's memory, asked before a framework finds out.

PyTorch raises an error when memory runs out; Jittor ends the process. So the tensors that a
forward pass must hold at once are counted from the plan: the skip connections made so far, and of a
block its input, its output and one intermediate of each. Measured on CPUs a call took 1.1 to 2.1
times that in PyTorch and 0.9 to 1.8 times in Jittor (tiny, mnist, cifar10), so a batch is refused
for PyTorch where the count itself does not fit, and for Jittor where twice the count does not.
Memory of a GPU is not looked at.
"""

from __future__ import annotations

import contextlib
import resource
from collections.abc import Iterator
from pathlib import Path

import psutil

from diptych.errors import UserError
from diptych.network.own import AnyPlan
from diptych.network.plan import Block, Plan

_FACTOR = {"jittor": 2.0}  # where running out ends the process


def activation_bytes(plan: Plan) -> int:
    """What a forward pass of one image holds at once, at least; float32, without the weights."""
    return 4 * max(_held(plan))


def _held(plan: Plan) -> Iterator[int]:
    """Numbers held while each block is computed."""
    skips = [plan.ch * plan.size**2]
    for stage in plan.down:
        for block in stage.blocks:
            yield sum(skips) + _work(block)
            skips.append(block.out_ch * block.size**2)
        if stage.resample:
            skips.append(stage.out_ch * (stage.blocks[0].size // 2) ** 2)
    for block in plan.mid:
        yield sum(skips) + _work(block)
    for stage in plan.up:
        for block in stage.blocks:
            yield sum(skips) + _work(block)
            skips.pop()


def _work(block: Block) -> int:
    pixels = block.size**2
    residual = 2 * (block.in_ch + block.out_ch) * pixels
    attention = 5 * block.out_ch * pixels + pixels**2 if block.attention else 0
    return max(residual, attention)


def available() -> int:
    """Bytes that this process may still take: of the machine, its control group and its limits."""
    found = [psutil.virtual_memory().available]
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    if soft != resource.RLIM_INFINITY:
        found.append(soft - psutil.Process().memory_info().vms)
    group = Path("/sys/fs/cgroup")
    with contextlib.suppress(OSError, ValueError):  # no control group, or one without a limit
        limit = int((group / "memory.max").read_text())
        found.append(limit - int((group / "memory.current").read_text()))
    return max(0, min(found))


def check_batch(plan: AnyPlan, count: int, backend: str, device: str) -> None:
    """Refuse a batch that cannot fit.

    Args:
        plan: of the network; one of the user's own is not looked at.
        count: images in one call, both halves of guidance counted.
        backend, device: of the panel.

    Raises:
        UserError: says what is needed, what there is, and which batch would fit.
    """
    if device != "cpu" or not isinstance(plan, Plan):
        return
    each = activation_bytes(plan) * _FACTOR.get(backend, 1.0)
    free = available()
    if each * count <= free:
        return
    fits = int(free / each)
    way = f"{fits} would fit: lower --batch" if fits else "not even one fits: end other programs"
    raise UserError(
        f"{count} images at once need about {each * count / 1e9:.1f} GB of memory in {backend}, "
        f"{free / 1e9:.1f} GB are free; {way}"
    )
