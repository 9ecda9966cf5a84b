"""Model cards say what the records say, and that the rest is unknown."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import yaml

import panel_jobs
from diptych.backends.protocol import State
from diptych.files import write_json
from diptych.generate.samples import SampleRequest, begin_manifest, sample_to
from diptych.network.parameters import initial_weights
from diptych.network.plan import make_plan
from diptych.runs import checkpoint
from diptych.runs.cards import NAME, samples_card
from diptych.sampling.sampler import make_sampler
from diptych.weights.convert import convert, to_yaml
from diptych.weights.find import find_weights, zoo_names
from numpy_backend import CONFIG, engine

ROOT = Path(__file__).resolve().parents[2]
REQUEST = SampleRequest(make_sampler("ddim", 2), num=3, batch=2)


class Toy:
    """A model on NumPy arrays."""

    def __init__(self) -> None:
        self.engine, self.backend = engine()
        self.backend.describe = lambda: {"backend": "numpy"}  # type: ignore[attr-defined]
        self.config = CONFIG
        self.facts = {"weights": "ema", "weights_sha256": "ab" * 32, "weights_from": "mine"}
        self.guide_facts = lambda sampler: {"guide_sha256": None}


def draw(out: Path, **how: Any) -> str:
    model: Any = Toy()
    sample_to(model, REQUEST, out, progress=False, **how)
    return (out / NAME).read_text("utf-8")


def test_samples_have_a_card_that_an_owner_may_edit(tmp_path: Path) -> None:
    """And a folder from before there were cards gets one when it is resumed."""
    card = draw(tmp_path / "one")
    model: Any = Toy()
    assert card == samples_card(begin_manifest(model, REQUEST)) == draw(tmp_path / "two")
    for words in ("3 images", f"`{'ab' * 32}`", "ddim, 2 steps, eta 0.0", "licence | unknown"):
        assert words in card
    (tmp_path / "one" / NAME).write_text("edited")
    assert draw(tmp_path / "one", resume=True) == "edited"
    (tmp_path / "one" / NAME).unlink()
    assert draw(tmp_path / "one", resume=True) == card


def head(card: str) -> dict[str, Any]:
    """The YAML head that the hub reads."""
    found = yaml.safe_load(card.split("---\n")[1])
    assert isinstance(found, dict)
    return found


def test_a_converted_folder_has_the_hub_s_head_and_the_records_of_its_run(tmp_path: Path) -> None:
    config = panel_jobs.small()
    weights = initial_weights(make_plan(config), 0)
    run = tmp_path / "run"
    state = State(6, weights, weights, weights, weights)
    checkpoint.save(run, state, {"backend": "jittor", "config_identity": config.identity()}, 1)
    (run / "config.yaml").write_text(to_yaml(config))
    own, other = checkpoint.weights_sha256(weights), "00" * 32
    for name, value, scored in (("a", 1.25, own), ("b", 7.5, other)):
        score = {"metric": "fid", "value": value, "protocol": {}, "repeats": [value] * 3}
        score["subject"] = {"weights_sha256": scored}
        write_json(run / f"{name}.json", {"scores": [score]})
    convert(str(run), tmp_path / "out", "diffusers")
    card = (tmp_path / "out" / NAME).read_text("utf-8")
    assert head(card) == {
        "license": "unknown", "library_name": "diffusers",
        "pipeline_tag": "unconditional-image-generation",
        "tags": ["diffusers", "unconditional-image-generation", "ddpm", "ddim", "diptych"],
    }  # fmt: skip
    assert f"6 steps of 8 images of `{config.data.source}` in Jittor, learning rate" in card
    assert "fid 1.25 (3 sets of images)" in card and "7.5" not in card
    assert "licence | unknown" in card
    convert(str(tmp_path / "out"), tmp_path / "again", "diffusers")  # where no run is recorded
    again = (tmp_path / "again" / NAME).read_text("utf-8")
    assert "training | not recorded" in again and "scores | none recorded" in again


def test_only_the_zoo_has_a_licence(tmp_path: Path) -> None:
    convert("zoo:mnist-torch", tmp_path / "out", "diffusers")
    assert head((tmp_path / "out" / NAME).read_text("utf-8"))["license"] == "mit"
    assert find_weights(str(tmp_path / "out"), None, False).path.is_dir()


def test_the_zoo_s_cards_are_those_of_its_manifests() -> None:
    spec = importlib.util.spec_from_file_location("docs_zoo", ROOT / "docs" / "zoo.py")
    assert spec is not None and spec.loader is not None
    zoo: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(zoo)
    for name in zoo_names():
        assert (zoo.ZOO / name / NAME).read_text("utf-8") == zoo.card(name)
