"""Six ports of docs/ports, five faults planted into each, and the campaign over seeds.

    PYTHONPATH=src python tests/support/port_cases.py OUT.json [--seeds 20] [--models mlp,cnn]

For each model one pair of processes climbs with the sound port and the five faulty ones (seed 0),
and another with the sound port alone for the further seeds.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diptych.pages.blocks import write_block

ROOT = Path(__file__).resolve().parents[2]
PORTS = ROOT / "docs" / "ports"
FAULTS = Path(__file__).resolve().parent / "port_faults"


@dataclass(frozen=True)
class Fault:
    """A planted fault, and where the verdict must put it."""

    name: str
    what: str
    rung: str
    layer: str  # the reference's path; "" is the network's own code, or no layer
    before: str = ""  # the layer that follows, if the fault lies between two
    where: str = ""
    hint: str = ""


CASES: dict[str, list[Fault]] = {
    "mlp": [
        Fault("eps", "a layer norm's eps is 1e-6", "layers", "norm2", hint="eps"),
        Fault("no_bias", "the last layer has no bias", "weights", "head", hint="no_bias"),
        Fault("transposed", "a square weight is used transposed", "operators", "fc2",
              hint="transposed"),
        Fault("activation", "GELU by tanh", "operators", "act1", hint="activation"),
        Fault("adam", "Jittor's own Adam, whose eps is 31.6 times larger", "update", "",
              where="optimizer", hint="adam_eps"),
    ],
    "cnn": [
        Fault("stock_norm", "Jittor's own batch norm, whose running variance is over n", "layers",
              "layer1.bn1", hint="biased_variance"),
        Fault("batch_statistics", "a batch norm is never in eval mode", "layers", "layer1.bn2",
              hint="mode_train"),
        Fault("padding", "a strided convolution pads below and to the right only", "operators",
              "layer1.conv1"),
        Fault("eps", "a batch norm's eps is 1e-3", "operators", "stem.1", hint="eps"),
        Fault("no_relu", "no activation after a residual sum", "layers", "layer2",
              where="between"),
    ],
    "unet": [
        Fault("groups", "a group norm has 8 groups instead of 4", "layers", "mid.norm2"),
        Fault("concat", "skip and upsampled channels in the other order", "layers", "",
              before="up1", where="between"),
        Fault("upsample", "bilinear instead of nearest upsampling", "layers", "",
              before="upconv", where="between"),
        Fault("padding", "a strided convolution pads below and to the right only", "operators",
              "downsample"),
        Fault("embedding", "cosine before sine in the time embedding", "layers", "",
              before="time1", where="between"),
    ],
    "vit": [
        Fault("eps", "a layer norm's eps is 1e-5", "layers", "blocks.1.norm2", hint="eps"),
        Fault("scale", "attention is scaled by the whole width", "layers", "blocks.0.attn",
              before="blocks.0.attn.proj", where="between"),
        Fault("axis", "a softmax over the queries", "layers", "blocks.1.attn",
              before="blocks.1.attn.proj", where="between"),
        Fault("activation", "GELU by tanh", "operators", "blocks.0.mlp.1", hint="activation"),
        Fault("detached", "attention's branch is detached", "gradients", "blocks.1.attn.proj",
              where="behind", hint="no_gradient"),
    ],
    "gru": [
        Fault("gate_order", "reset and update gates are swapped", "operators", "gru"),
        Fault("reset_before", "the reset gate works on the state, not on its product",
              "operators", "gru"),
        Fault("forget_bias", "1 is added to the LSTM's forget gate", "operators", "lstm"),
        Fault("half", "a linear layer multiplies in float16", "operators", "proj"),
        Fault("first_step", "the first step's state instead of the last's", "layers", "",
              before="head", where="between"),
    ],
    "tied": [
        Fault("untied", "the output layer has a weight of its own", "weights", "head",
              hint="untied"),
        Fault("eps", "a norm's eps is 1e-5", "layers", "blocks.0.norm2", hint="eps"),
        Fault("mask", "the causal mask lets the next token through", "layers", "blocks.0",
              before="blocks.0.o", where="between"),
        Fault("gate", "gate and value of a feed-forward are swapped", "layers", "blocks.1",
              before="blocks.1.down", where="between"),
        Fault("positions", "positions start at 1", "layers", "", before="places",
              where="between"),
    ],
}  # fmt: skip


def targets(model: str) -> tuple[str, list[str]]:
    """The reference, and the sound port followed by the faulty ones."""
    faulty = [f"{FAULTS / model}.py:{fault.name}" for fault in CASES[model]]
    return str(PORTS / f"{model}_torch.py"), [str(PORTS / f"{model}_jittor.py"), *faulty]


def ready() -> None:
    """Let the faults' files import the sound ports."""
    folders = [str(PORTS), os.environ.get("PYTHONPATH", "")]
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, folders))


def named(fault: Fault, found: dict[str, Any] | None) -> bool:
    """True if the verdict puts a fault where it was planted."""
    return (
        found is not None
        and (found["rung"], found["layer"]) == (fault.rung, fault.layer)
        and (not fault.before or found["before"] == fault.before)
        and (not fault.where or found["where"] == fault.where)
    )


def climb(model: str, seeds: list[int], faulty: bool = True) -> list[Any]:
    """The results of a model's ports."""
    from diptych.align.ports.prove import ports

    reference, subjects = targets(model)
    return ports(reference, subjects if faulty else subjects[:1], seeds=seeds)


def tables(record: dict[str, Any]) -> str:
    """The record as two Markdown tables."""
    lines = ["| port | matched by itself | rungs | seeds, alarms | seconds for all six |",
             "| --- | ---: | ---: | ---: | ---: |"]  # fmt: skip
    for model, each in record.items():
        found, seeds = each["matched"], each["seeds"]
        told = f"{seeds['count']}, {len(seeds['alarms'])}" if seeds else "1, 0"
        lines.append(f"| {model} | {found['by_itself']} of {found['of']} | {len(each['rungs'])} | "
                     f"{told} | {each['seconds']:.0f} |")  # fmt: skip
    rows = [(model, row) for model, each in record.items() for row in each["faults"]]
    named_ = sum(row["named"] for _, row in rows)
    lines += ["", f"{named_} of {len(rows)} planted faults are named at the right layer:", "",
              "| port | fault | rung | named | error | allowed | hint |",
              "| --- | --- | --- | --- | ---: | ---: | --- |"]  # fmt: skip
    for model, row in rows:
        found = row["found"] or {}
        place = found.get("layer") or found.get("where") or "nothing"
        if found.get("where") == "between":
            place = f"`{found['layer']}`, its own code" if found["layer"] else "the network's code"
            place += f", before `{found['before']}`" if found["before"] else ""
        elif found.get("layer"):
            place = f"`{place}`"
        numbers = [f"{found[k]:.1e}" if found.get(k) else "" for k in ("error", "allowed")]
        lines.append(f"| {model} | {row['what']} | {found.get('rung', '')} | {place}"
                     f"{'' if row['named'] else ' (wrong)'} | {numbers[0]} | {numbers[1]} | "
                     f"{', '.join(row['hints'])} |")  # fmt: skip
    return "\n".join(lines) + "\n"


def write_page(record: dict[str, Any]) -> None:
    """Put the tables into docs/alignment.md."""
    write_block(ROOT / "docs" / "alignment.md", "ports", tables(record))


def main() -> None:
    """Run the campaign and write its record; with --page, write the page's tables from it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--models", default=",".join(CASES))
    parser.add_argument("--page", action="store_true", help="Only write docs/alignment.md.")
    asked = parser.parse_args()
    if asked.page:
        write_page(json.loads(asked.out.read_text()))
        return
    ready()
    record = json.loads(asked.out.read_text()) if asked.out.exists() else {}
    for model in asked.models.split(","):
        began = time.perf_counter()
        sound, *faulty = climb(model, [0])
        first = time.perf_counter() - began
        rows = []
        for fault, each in zip(CASES[model], faulty, strict=True):
            found = each.fault
            hints = [h["key"] for h in found["hints"]] if found else []
            rows.append({"fault": fault.name, "what": fault.what, "named": named(fault, found),
                         "conclusion": each.conclusion, "hints": hints,
                         "found": found and {k: found[k] for k in (
                             "rung", "layer", "where", "after", "before", "tensor", "error",
                             "floor", "allowed")}})  # fmt: skip
            print(model, fault.name, "named" if rows[-1]["named"] else "MISSED", hints,
                  each.conclusion, flush=True)  # fmt: skip
        record[model] = {"sound": sound.conclusion, "matched": sound.content["matched"],
                         "seconds": first, "faults": rows,
                         "rungs": [{k: r[k] for k in ("rung", "error", "floor", "margin")}
                                   for r in sound.content["rungs"]],
                         "seeds": record.get(model, {}).get("seeds", {})}  # fmt: skip
        print(model, sound.conclusion, sound.content["matched"], f"{first:.0f} s", flush=True)
        asked.out.write_text(json.dumps(record, indent=1))
        rest = list(range(1, asked.seeds))
        if rest:
            alarms = [r.conclusion for r in climb(model, rest, faulty=False) if not r.passed]
            record[model]["seeds"] = {"count": len(rest) + 1, "alarms": alarms}
            print(model, len(rest) + 1, "seeds,", len(alarms), "alarms", *alarms, flush=True)
            asked.out.write_text(json.dumps(record, indent=1))


if __name__ == "__main__":
    sys.exit(main())
