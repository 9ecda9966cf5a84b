"""Put a checkpoint's EMA weights, rounded to half precision, into the package's zoo.

    python docs/zoo.py RUN NAME [--guidance 2]   the run's newest checkpoint becomes zoo:NAME
    python docs/zoo.py --steps FILE NAME         a file of search-steps becomes `--spacing zoo:NAME`
    python docs/zoo.py --cards                   every model's README.md is written anew

The manifest holds what the run's records say, and how the model is best sampled. Half precision
halves the package; the weights are used, hashed and scored in float32, as rounded.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

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
from diptych.weights.find import find_weights, zoo_names
from diptych.weights.found_steps import IN_ZOO, read_spacing

ZOO = Path(__file__).resolve().parents[1] / "src" / "diptych" / "weights" / "zoo"
# Steps with noise of their own correct what a short training gets wrong (docs/scores.md).
SAMPLER = {"solver": "dpmpp-sde", "steps": 15}


def main() -> None:
    """Copy the weights and write the manifest, or write the cards or the found steps alone."""
    if sys.argv[1:] == ["--cards"]:
        for name in zoo_names():
            write_text(ZOO / name / CARD, card(name))
        return
    if sys.argv[1:2] == ["--steps"]:
        found, name = Path(sys.argv[2]), sys.argv[3]
        read_spacing(found)  # refuses a search that has not ended
        judged = read_json(found)["request"]["weights_sha256"]
        held = read_json(ZOO / name / "manifest.json")["weights_sha256"]
        if judged != held:
            raise SystemExit(f"{found}: was searched for weights {judged[:12]}, not {held[:12]}")
        shutil.copyfile(found, ZOO / name / IN_ZOO)
        return
    run, name = Path(sys.argv[1]), sys.argv[2]
    guided = {"guidance": float(sys.argv[4])} if sys.argv[3:4] == ["--guidance"] else {}
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
            "sampler": SAMPLER | guided,
        }
        write_json(folder / "manifest.json", manifest)
        shutil.rmtree(ZOO / name, ignore_errors=True)  # the version before
    write_text(ZOO / name / CARD, card(name))
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
