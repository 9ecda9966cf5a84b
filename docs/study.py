"""Renew all that is shown: train the zoo's models, then every page and picture made of them.

    make study                            in the folder study/, or: make study STUDY=FOLDER
    python docs/study.py FOLDER --list    the stages, and which are done
    python docs/study.py FOLDER --only zoo-mnist-torch

A stage is some commands, done in order; study.json in FOLDER holds a hash of what each finished one
was made of: its commands, the preset, and the weights that it uses. A stage of which these have
changed since is done again, so what is shown and what the zoo holds are the same weights. Every
command resumes, so after an interruption the same call goes on. On two cores all of it takes days.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from diptych.config.load import load_config, to_yaml
from diptych.errors import UserError
from diptych.files import hold, read_json, write_json
from diptych.runs import checkpoint
from diptych.weights.find import zoo_folder

ROOT = Path(__file__).resolve().parents[1]
SEEDS = (0, 1, 2)
PANELS = ("torch", "jittor")
CALLS = 5
MNIST = tuple(f"mnist-{panel}" for panel in PANELS)
# A guide: a network of half the width, trained shortly with a constant rate (docs/log.md).
SMALL = ("--steps", "3600", "--set", "model.ch=8", "--set", "train.batch_size=16",
         "--set", "train.lr=0.001", "--set", "train.lr_decay=none")  # fmt: skip
BY = ("--guidance", "2", "--guidance-interval", "100-650")
GUIDED = ("mnist-torch", "mnist-conditional")  # by a guide of their own
SHARED = ("--guide", "zoo:mnist-torch/guide", *BY)  # one guide for the training in both panels

Command = tuple[str, ...]


@dataclass(frozen=True)
class Stage:
    """Commands (the words after `python`), and the preset, runs and models that they use."""

    name: str
    commands: tuple[Command, ...]
    uses: tuple[Path | str, ...] = ()

    def made_of(self) -> str:
        """A hash of the commands and of what they use."""
        used = [content(path) for path in self.uses]
        return hashlib.sha256(json.dumps([self.commands, used]).encode()).hexdigest()


def content(used: Path | str) -> str | None:
    """A preset's or a file's settings, or which weights a run or a zoo model holds and how it is
    sampled; None: nothing is there."""
    if isinstance(used, str):
        return to_yaml(load_config(str(ROOT / used) if used.endswith(".yaml") else used))
    if (used / "manifest.json").is_file():
        manifest, guide = read_json(used / "manifest.json"), content(used / "guide")
        return json.dumps([manifest["weights_sha256"], manifest.get("sampler"), guide])
    if (used / "checkpoints").is_dir():
        return (checkpoint.latest(used) / "manifest.json").read_text("utf-8")
    return None


def stages(folder: Path) -> Iterator[Stage]:
    """All stages, in their order."""
    emoji, study = folder / "emoji32.npz", folder / "mnist"
    yield Stage("emoji", (("-m", "tools.emoji", "--out", str(emoji)),))
    zoo = {name: ("mnist", "--backend", panel) for name, panel in zip(MNIST, PANELS, strict=True)}
    zoo["mnist-conditional"] = ("mnist_conditional",)
    zoo["fashion-mnist"] = ("fashion_mnist",)
    zoo["emoji"] = ("tools/emoji.yaml", "--data-source", f"npz:{emoji}")
    for name, words in zoo.items():
        run = folder / "runs" / name
        train = _diptych("train", *words, "--out", run, "--resume")
        yield Stage(f"train-{name}", (train,), words[:1])
        how = {"emoji": BY[:2], "mnist-jittor": SHARED}  # emoji: few pictures, of many kinds
        guided = how.get(name, ())
        runs: tuple[Path, ...] = (run,)
        publish: tuple[Command, ...] = (("docs/zoo.py", str(run), name, *guided),)
        if name in GUIDED:
            guide = run.with_name(f"{name}-guide")
            train = _diptych("train", *words, "--out", guide, *SMALL, "--resume")
            yield Stage(f"train-{name}-guide", (train,), words[:1])
            publish += (("docs/zoo.py", str(guide), f"{name}/guide", *BY),)
            runs += (guide,)
        yield Stage(f"zoo-{name}", publish, runs)
        if name != "emoji":  # whose pictures no classifier of ours knows
            found = folder / f"steps-{held(name)}" / f"{name}.json"
            # Digits without a class are judged by real ones: docs/log.md says why.
            real = ("--reference", "mnist:train", "--features", "mnist") if name in MNIST else ()
            search = _diptych("search-steps", f"zoo:{name}", "--calls", CALLS, *real,
                              "--out", found, "--resume")  # fmt: skip
            keep = ("docs/zoo.py", "--steps", str(found), name)
            yield Stage(f"steps-{name}", (search, keep), models(name))
    linked = [word for name, panel in zip(MNIST, PANELS, strict=True)
              for word in ("--use", f"{panel}-seed0={folder / 'runs' / name}")]  # fmt: skip
    seeds = ",".join(map(str, SEEDS))
    yield Stage("study", (
        _diptych("reproduce", "mnist", "--seeds", seeds, "--sweep-images", 10_000, *linked,
                 "--out", study),
        ("docs/results.py", str(study)),
    ), models(*MNIST))  # fmt: skip
    yield Stage(
        "quality",
        (("docs/quality.py", str(folder / "images"), "--emoji", str(emoji)),),
        models(*zoo),
    )
    records = str(folder / f"scores-{held(*MNIST)}")
    scores = ("docs/scores.py", "zoo", records, "--sampler")
    yield Stage("scores-ddim", ((*scores, "ddim"),), models(*MNIST))
    yield Stage("scores-ddpm", ((*scores, "ddpm", "--num", "3000"),), models(*MNIST))
    yield Stage("scores-solvers", (("docs/scores.py", "solvers", records),), models(*MNIST))
    few = (("docs/scores.py", "few", records), ("docs/scores.py", "write"))
    yield Stage("scores-few", few, models(*zoo))
    yield Stage("editing", (("docs/editing.py",),), models(*MNIST))
    yield Stage("cards", (("docs/zoo.py", "--cards"),), models(*zoo))


def models(*names: str) -> tuple[Path, ...]:
    """The folders of these models of the zoo."""
    return tuple(zoo_folder() / name for name in names)


def held(*names: str) -> str:
    """A name for folders of what is made of these models' weights, and of no others."""
    weights = [content(path) for path in models(*names)]
    return hashlib.sha256(json.dumps(weights).encode()).hexdigest()[:8]


def _diptych(*words: object) -> Command:
    return ("-m", "diptych", *map(str, words))


def run_command(words: Command) -> None:
    """One command, in the repository, with its output shown."""
    subprocess.run([sys.executable, *words], check=True, cwd=ROOT)


def go(folder: Path, only: str, run: Callable[[Command], None] = run_command) -> list[str]:
    """Do the stages that are not done; returns their names.

    Args:
        folder: holds the runs, images and records.
        only: a pattern that the whole name of a stage must match.
        run: does one command, and raises if it fails.
    """
    folder.mkdir(parents=True, exist_ok=True)
    done = []
    with hold(folder):
        for stage in stages(folder):
            kept = state(folder)
            if not re.fullmatch(only, stage.name) or kept.get(stage.name) == stage.made_of():
                continue
            began = time.monotonic()
            print(f"study: {stage.name}", flush=True)
            for words in stage.commands:
                run(words)
            write_json(folder / "study.json", {**kept, stage.name: stage.made_of()})
            minutes = (time.monotonic() - began) / 60
            print(f"study: {stage.name} done in {minutes:.1f} min", flush=True)
            done.append(stage.name)
    return done


def state(folder: Path) -> dict[str, str]:
    """Hash of each finished stage, as `Stage.made_of`."""
    path = folder / "study.json"
    return read_json(path) if path.is_file() else {}


def main() -> None:
    """Do or list the stages."""
    parser = argparse.ArgumentParser(description="Renew the zoo and all that is made of it.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", default=".*", help="a pattern of stages' names")
    parser.add_argument("--list", action="store_true", help="say what is done, and do nothing")
    asked = parser.parse_args()
    folder = Path(os.path.abspath(asked.folder))
    if folder.exists() and not folder.is_dir():
        parser.error(f"{folder} is not a folder; choose another one")
    names = [stage.name for stage in stages(folder)]
    if not any(re.fullmatch(asked.only, name) for name in names):
        parser.error(f"--only {asked.only}: no stage has such a name; known: {', '.join(names)}")
    if asked.list:
        kept = state(folder)
        for stage in stages(folder):
            left = "" if kept.get(stage.name) == stage.made_of() else "  to do"
            print(f"{stage.name}{left}")
        return
    try:
        go(folder, asked.only)
    except UserError as error:  # such as another process at work in the folder
        parser.error(str(error))
    except subprocess.CalledProcessError as error:  # which has said why
        sys.exit(f"study: a command failed: {' '.join(map(str, error.cmd[1:]))}")
    except KeyboardInterrupt:
        sys.exit("study: interrupted; the same command goes on")


if __name__ == "__main__":
    main()
