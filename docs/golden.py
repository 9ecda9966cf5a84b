"""Plant every fault that concerns training, check clean trainings too, and rewrite docs/golden.md.

    python docs/golden.py torch        an hour on two cores; the record is golden.json

A record of 20 steps of a small `tiny` is made with each of KINDS' settings; each fault of the
ladder is planted into a training with settings that use it. Clean trainings are checked against
two of the records: in new processes, with other threads and instruction sets, on the other panel.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from diptych.files import read_json, write_json
from diptych.golden import trainings
from diptych.golden.compare import compare
from diptych.golden.record import Golden
from diptych.pages.blocks import write_block

HERE = Path(__file__).resolve().parent
RECORD, PAGE = HERE / "golden.json", HERE / "golden.md"
STEPS = 20
SMALL = ("model.ch=16", "model.norm_groups=8", "train.batch_size=4")
FAR = (
    "model.dropout=0.25", "model.num_classes=10", "model.norm_eps=1e-3", "diffusion.objective=v",
    "diffusion.schedule=cosine", "train.label_dropout=0.5", "train.weighting=min-snr",
    "train.min_snr_gamma=2.0", "train.loss=sum", "train.grad_clip=0.05", "train.beta1=0.7",
    "train.beta2=0.9", "train.eps=1e-4", "train.ema_rate=0.5", "train.ema_warmup=true",
    "train.lr_decay=linear", "train.lr_final=0.1", "train.steps=40", "train.warmup_steps=5",
    "data.random_flip=true", "data.dequantization=uniform",
)  # fmt: skip
# Settings of a record -> its words. Every fault is planted into the first; into each of the others,
# the faults that it names, so far as the first has missed them.
KINDS: dict[str, tuple[tuple[str, ...], str]] = {
    "far": (SMALL + FAR,
            "settings far from any preset's (dropout, classes, v, min-SNR, `loss: sum`, clipping "
            "at 0.05, other betas, eps and EMA with warm-up, flips, dequantization, cosine "
            "schedule, decay)"),
    "device": ((*SMALL, "train.noise=device", "model.dropout=0.25"),
               "`train.noise=device` and dropout"),
    "resamp": ((*SMALL, "model.resamp_with_conv=false"), "`model.resamp_with_conv=false`"),
    "snr": ((*SMALL, "diffusion.objective=v", "diffusion.zero_terminal_snr=true"),
            "`diffusion.objective=v`, `diffusion.zero_terminal_snr=true`"),
    "epoch": (("model.ch=8", "model.norm_groups=8", "model.attn_resolutions=[]",
               "train.batch_size=600"), "`train.batch_size=600`, so that an epoch ends"),
}  # fmt: skip
SHOWS = {
    "device": ("device_noise_scaled", "device_noise_repeats", "device_noise_shared",
               "device_masks_inverted"),
    "resamp": ("upsample_mode",),
    "snr": ("terminal_snr_ignored",),
    "epoch": ("last_batch_dropped", "epochs_alike"),
}  # fmt: skip
NEEDS = {
    "colours_reversed": "images with colours; `tiny`'s are grey",
    "norm_eps": "changes the default of an operator, and a config always gives its own",
    "karras_rho": "a spacing of sampling, which no training runs",
}
# Clean checks: words, number of trainings in the process, threads, the environment, other panel.
PLACES: tuple[tuple[str, int, int, dict[str, str], bool], ...] = (
    ("same place", 5, 2, {}, False),
    ("same place", 5, 2, {}, False),
    ("same place", 5, 2, {}, False),
    ("1 thread", 3, 1, {}, False),
    ("ATEN_CPU_CAPABILITY=avx2", 3, 2, {"ATEN_CPU_CAPABILITY": "avx2"}, False),
    ("ATEN_CPU_CAPABILITY=default, ONEDNN_MAX_CPU_ISA=SSE41, 1 thread", 3, 1,
     {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41"}, False),
    ("other panel", 3, 2, {}, True),
)  # fmt: skip


def main(backend: str) -> None:
    """Measure, keep the record and rewrite the page's part."""
    far = made("far", backend)
    faults = {"far": planted(far, trainings.choose(["all"]))}
    missed = {name for name, caught in faults["far"].items() if not caught}
    for kind, names in SHOWS.items():
        asked = [name for name in names if name in missed]
        faults[kind] = planted(made(kind, backend), asked) if asked else {}
    plain = made("plain", backend)
    checks = [row for kind, golden in (("plain", plain), ("far", far))
              for place in PLACES for row in clean(kind, golden, *place)]  # fmt: skip
    record = {"backend": backend, "steps": STEPS, "place": far.place, "faults": faults,
              "clean": checks}  # fmt: skip
    write_json(RECORD, record)
    write_page(record)


def made(kind: str, backend: str) -> Golden:
    """The record of a kind's training."""
    settings = KINDS[kind][0] if kind in KINDS else SMALL
    print(f"recording {kind}", flush=True)
    return trainings.record(trainings.Asked("tiny", STEPS, backend, settings))


def planted(golden: Golden, names: list[str]) -> dict[str, bool]:
    """Of each fault, whether the record catches it; the clean training has to pass."""
    verdict, found = trainings.check(golden, mutations=names, say=print)
    if not verdict.passed:
        raise SystemExit(f"the clean training differs from its record: {verdict.text()}")
    return {name: not each.passed for name, each in found.items()}


def clean(
    kind: str, golden: Golden, words: str, count: int, threads: int, variables: dict[str, str],
    other: bool,
) -> list[dict[str, Any]]:  # fmt: skip
    """The verdicts of clean trainings, run in one new process."""
    backend = golden.subject.backend  # type: ignore[union-attr]
    if other:
        backend = "jittor" if backend == "torch" else "torch"
    subject = golden.subject.model_copy(update={"threads": threads, "backend": backend})
    with environment(variables):
        traces = trainings.run_jobs(subject, STEPS, [{"nudge": 0}] * count, None, trainings.quiet)
    verdicts = [compare(golden, each) for each in traces]
    print(f"{kind}, {words}: {sum(each.passed for each in verdicts)} of {count} pass", flush=True)
    return [{"record": kind, "place": words, "passed": each.passed, "bits": each.bits,
             "nearest": each.nearest} for each in verdicts]  # fmt: skip


@contextmanager
def environment(variables: dict[str, str]) -> Iterator[None]:
    """Set variables of the environment while the block runs."""
    before = dict(os.environ)
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def text(record: dict[str, Any]) -> str:
    """The page's part: the faults, those missed, and the clean checks."""
    faults, checks = record["faults"], record["clean"]
    total = len(faults["far"])
    caught = {name for each in faults.values() for name, seen in each.items() if seen}
    panel, steps = record["backend"], record["steps"]
    head = f"record of {steps} steps of `tiny` ({panel}; 16 channels, batch 4)"
    lines = [f"| {head} | planted faults caught at the recorded place |", "|---|---|"]
    for kind, each in faults.items():
        seen = [name for name, found in each.items() if found]
        names = ", ".join(f"`{name}`" for name in seen) if kind != "far" else ""
        lines.append(f"| with {KINDS[kind][1]} | {names or f'{len(seen)} of {total}'} |")
    lines += ["", f"So {len(caught)} of {total} are caught. The others, and what they would need:"]
    lines += ["", "| fault | needs |", "|---|---|"]
    left = [name for name in faults["far"] if name not in caught]
    lines += [f"| `{name}` | {NEEDS.get(name, 'not known')} |" for name in left]
    alarms = sum(not each["passed"] for each in checks)
    exact = sum(each["bits"] for each in checks)
    nearest = max(each["nearest"] for each in checks)
    place, where = record["place"], dict.fromkeys(each["place"] for each in checks)
    versions = ", ".join(" ".join(each) for each in place["frameworks"].items())
    lines += [
        "",
        f"**False alarms in {len(checks)} clean checks of two records: {alarms or 'none'}.** "
        f"{exact} compared bits; the numbers of",
        f"the others took at most {nearest:.0%} of their tolerance. Places: {'; '.join(where)}.",
        f"Recorded on {place['processor'].rpartition(' ')[0]}, {versions}, "
        f"{place['threads']} threads.",
    ]
    return "\n".join(lines) + "\n"


def write_page(record: dict[str, Any]) -> None:
    """Rewrite the page's table."""
    write_block(PAGE, "campaign", text(record))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("panel", choices=("torch", "jittor"), nargs="?")
    parser.add_argument("--page", action="store_true", help="only the page, from the record")
    asked = parser.parse_args()
    if asked.page:
        write_page(read_json(RECORD))
    elif asked.panel:
        main(asked.panel)
    else:
        parser.error("which panel? python docs/golden.py torch")
