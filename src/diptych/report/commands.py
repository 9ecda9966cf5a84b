"""The command lines that follow from records: what makes the same run, images or scores again."""

from __future__ import annotations

import shlex
from typing import Any

from diptych.config.size import size_option
from diptych.runs.reader import Run
from diptych.sampling.solvers.kinds import KINDS


def data(run: Run) -> str:
    """`diptych data info` for what a run read; it shows the sha256 that its record has."""
    asked = run.config.data
    found = ["diptych", "data", "info", asked.source, "--split", asked.split]
    found += ["--size", size_option(asked.image_size), "--channels", str(asked.channels)]
    return shlex.join(found + (["--crop", asked.crop] if asked.crop else []))


def train(config: str, run: Run) -> str:
    """`diptych train` for the same run, from its config."""
    out = f"NEW-{run.name}"
    return shlex.join(["diptych", "train", config, "--backend", run.backend, "--out", out])


def recorded(command: Any, verb: str) -> str | None:
    """The command line as it was typed, where it was one of `diptych`; else None."""
    if not isinstance(command, list) or len(command) < 2 or command[1] != verb:
        return None
    return shlex.join(["diptych", *map(str, command[1:])])


def _sampler(card: dict[str, Any], prefix: str = "") -> list[str]:
    found: list[str] = []
    for key in ("solver", "steps", "order", "eta", "spacing", "threshold", "noise"):
        value = card.get(f"{prefix}{key}")
        if value is not None:
            found += [f"--{key}", _number(value)]
    # A card tells what happened, in words of the option; other solvers have no such option.
    kind = KINDS.get(str(card.get(f"{prefix}solver")))
    if kind and kind.multistep and f"{prefix}euler_at_final" in card:
        no = "" if card[f"{prefix}euler_at_final"] else "no-"
        found += [f"--{no}euler-at-final"]
    return found


def _number(value: Any) -> str:
    """A setting as it is typed; a number with all its digits."""
    short = f"{value:g}" if isinstance(value, float) else str(value)
    return short if not isinstance(value, float) or float(short) == value else repr(value)


def _conditions(card: dict[str, Any], prefix: str = "") -> list[str]:
    """Classes and guidance, but for the guide."""
    found: list[str] = []
    if classes := card.get(f"{prefix}classes"):
        found += ["--class", ",".join(map(str, classes))]
    if (weight := card.get(f"{prefix}guidance")) is not None:
        found += ["--guidance", str(weight)]
    if interval := card.get(f"{prefix}guidance_interval"):
        found += ["--guidance-interval", "-".join(map(str, interval))]
    return found


def sample(model: str, backend: str, card: dict[str, Any], out: str) -> str:
    """`diptych sample` for the images of a manifest."""
    found = ["diptych", "sample", model, "--backend", backend, *_sampler(card)]
    found += ["--clip"] if card.get("clip") else ["--no-clip"]
    found += _conditions(card)
    for key in ("guide", "seed", "num", "batch"):
        if card.get(key) is not None:
            found += [f"--{key}", str(card[key])]
    found += ["--raw"] if card.get("weights") == "raw" else []
    if card.get("precision", "fp32") != "fp32":
        found += ["--precision", str(card["precision"])]
    return shlex.join([*found, "--out", out])


def evaluate(model: str, backend: str, scores: list[dict[str, Any]]) -> str:
    """`diptych evaluate` for the scores of a file."""
    first = scores[0]
    protocol, repeats = first.get("protocol", {}), max(1, len(first.get("repeats") or ()))
    found = ["diptych", "evaluate", model, "--backend", backend or "torch"]
    if protocol.get("reference.name"):
        split = protocol.get("reference.split")
        found += ["--reference", f"{protocol['reference.name']}" + (f":{split}" if split else "")]
    features = str(protocol.get("extractor"))
    found += ["--features", features, "--metrics", ",".join(_metrics(scores))]
    if protocol.get("protocol") not in (None, "native"):
        found += ["--protocol", str(protocol["protocol"])]
    found += ["--num", str(protocol.get("num")), "--repeats", str(repeats)]
    card = {key: value for key, value in protocol.items() if key != "sampler.timesteps"}
    found += _sampler(card, "sampler.") + (["--clip"] if card.get("sampler.clip") else [])
    found += _conditions(card, "sampler.")
    if guide := card.get("sampler.guide_sha256"):  # a score knows its guide's weights alone
        found += ["--guide", f"GUIDE-{guide[:12]}"]
    return shlex.join(found)


def _metrics(scores: list[dict[str, Any]]) -> list[str]:
    """The names that --metrics takes, of the names that scores bear."""
    prdc = {"precision", "recall", "density", "coverage"}
    short = [str(score["metric"]).rpartition("-")[2] for score in scores]
    known = {"frechet": "fid"} | dict.fromkeys(prdc, "prdc")
    return list(dict.fromkeys(known.get(name, name) for name in short))
