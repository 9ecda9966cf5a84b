"""Put a checkpoint's EMA weights, rounded to half precision, into the package's zoo.

    python docs/zoo.py RUN NAME [--guidance 2]   the run's newest checkpoint becomes zoo:NAME
    python docs/zoo.py RUN NAME/guide --guidance 2 --guidance-interval 100-650
                                                 and guides it so from now on
    python docs/zoo.py --steps FILE NAME         a file of search-steps becomes `--spacing zoo:NAME`
    python docs/zoo.py --cards                   every model's README.md is written anew

The manifest holds what the run's records say, and how the model is best sampled. Half precision
halves the package; the weights are used, hashed and scored in float32, as rounded.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from diptych.config.load import load_config, to_yaml
from diptych.files import atomic_path, read_json, sha256_of, write_json, write_text
from diptych.network.plan import make_plan
from diptych.runs import checkpoint
from diptych.runs.cards import NAME as CARD
from diptych.runs.cards import model_card
from diptych.training.callbacks.journal import read_rows
from diptych.weights.convert import PACKAGE_LICENCE
from diptych.weights.find import GUIDE, find_weights, zoo_names
from diptych.weights.found_steps import IN_ZOO, read_spacing
from diptych.weights.guides import check_guide

ZOO = Path(__file__).resolve().parents[1] / "src" / "diptych" / "weights" / "zoo"
# Steps with noise of their own correct what a short training gets wrong (docs/scores.md).
SAMPLER = {"solver": "dpmpp-sde", "steps": 15}


def main() -> None:
    """Copy the weights and write the manifest, or write the cards or the found steps alone."""
    parser = argparse.ArgumentParser(description="Put a model into the package's zoo.")
    parser.add_argument("run", type=Path, nargs="?", help="a run's folder")
    parser.add_argument("name", nargs="?", help="in the zoo; NAME/guide: the model that guides it")
    parser.add_argument("--guidance", type=float, help="recommended with the model")
    parser.add_argument("--guide", help="recommended with the model: one that is in the zoo")
    parser.add_argument("--guidance-interval", help="as of `diptych sample`")
    parser.add_argument("--steps", type=Path, nargs=1, help="a file of search-steps for NAME")
    parser.add_argument("--cards", action="store_true", help="write every model's README.md anew")
    asked = parser.parse_args()
    if asked.cards:
        for name in zoo_names():
            write_text(ZOO / name / CARD, card(name))
    elif asked.steps:
        add_steps(asked.steps[0], str(asked.name or asked.run))
    elif asked.name is None:
        parser.error("give a run and a name")
    else:
        names = ("guide", "guidance", "guidance_interval")
        given = {name: getattr(asked, name) for name in names}
        publish(asked.run, asked.name, {k: v for k, v in given.items() if v is not None})


def add_steps(found: Path, name: str) -> None:
    """Put the timesteps that were found for a model beside it."""
    read_spacing(found)  # refuses a search that has not ended
    judged = read_json(found)["request"]["weights_sha256"]
    held = read_json(ZOO / name / "manifest.json")["weights_sha256"]
    if judged != held:
        raise SystemExit(f"{found}: was searched for weights {judged[:12]}, not {held[:12]}")
    shutil.copyfile(found, ZOO / name / IN_ZOO)


def publish(run: Path, name: str, guided: dict[str, Any]) -> None:
    """Put a run's weights into the zoo, or beside a model, whose sampler they then guide."""
    owner, _, guide = name.partition("/")
    if guide:
        if guide != GUIDE or owner not in zoo_names():
            raise SystemExit(f"{name}: give NAME/{GUIDE}, where NAME is in the zoo")
        held = read_json(ZOO / owner / "manifest.json")
        check_guide(f"zoo:{name}", load_config(str(ZOO / owner / "config.yaml")),
                    load_config(str(run / "config.yaml")))  # fmt: skip
    newest = checkpoint.latest(run)
    config = load_config(str(run / "config.yaml"))
    kind, colon, place = config.data.source.partition(":")
    source = kind + colon + Path(place).name * bool(colon)  # not where it lay on one machine
    config = config.model_copy(update={"data": config.data.model_copy(update={"source": source})})
    environment = read_json(run / "environment.json")
    step = int(read_json(newest / "manifest.json")["step"])
    losses = [row["loss"] for row in read_rows(run / "metrics.jsonl")[:step][-500:]]
    trained = checkpoint.load_weights(newest, "ema", make_plan(config))
    stored = {key: array.astype(np.float16) for key, array in trained.items()}
    weights = {key: array.astype(np.float32) for key, array in stored.items()}
    with atomic_path(ZOO / name) as folder:
        folder.mkdir()
        save_file(stored, folder / "ema.safetensors")
        write_text(folder / "config.yaml", to_yaml(config))
        keys = ("backend", "framework_version", "diptych", "python", "numpy", "dataset_sha256")
        manifest = {
            "schema": 1,
            "step": step,
            "config_identity": config.identity(),
            **{key: environment[key] for key in keys},
            "mean_loss_of_last_500_steps": sum(losses) / len(losses),
            "weights_sha256": checkpoint.weights_sha256(weights),
            "files": {"ema.safetensors": sha256_of(folder / "ema.safetensors")},
            **({} if guide else {"sampler": SAMPLER | guided}),
        }
        write_json(folder / "manifest.json", manifest)
        shutil.rmtree(ZOO / name, ignore_errors=True)  # the version before
    if guide:
        held["sampler"] = SAMPLER | {"guide": f"zoo:{name}"} | guided
        write_json(ZOO / owner / "manifest.json", held)
    write_text(ZOO / owner / CARD, card(owner))
    print(f"zoo:{name}: step {step}, {sum(w.size for w in weights.values()):,} parameters")


def card(name: str) -> str:
    """The README.md of a model of the zoo."""
    found = find_weights(f"zoo:{name}", None, False)
    return model_card(
        found.config,
        {**found.facts(), "weights_from": f"zoo:{name}"},
        sum(array.size for array in found.weights.values()),
        title=f"zoo:{name}",
        commands=[
            f"diptych sample zoo:{name} --out images",
            f"diptych convert zoo:{name} {name}.safetensors",
        ],
        manifest=read_json(found.path / "manifest.json"),
        sampler=found.sampler,
        licence=PACKAGE_LICENCE,
    )


if __name__ == "__main__":
    main()
