"""Guidance by a second network and at some levels alone: its formula, its costs, its refusals."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import class_jobs
import numpy_backend
from diptych.config.load import Config, load_config
from diptych.diffusion.schedule import Level
from diptych.errors import UserError
from diptych.evaluation.sets import Settings
from diptych.generate.for_scoring import Drawing
from diptych.network.plan import make_plan
from diptych.report.commands import evaluate as evaluate_command
from diptych.sampling.denoiser import Predictor
from diptych.sampling.engine import Engine
from diptych.sampling.guidance import read_interval
from diptych.sampling.options import SamplerOptions, merged
from diptych.sampling.sampler import Sampler, choose_sampler, make_sampler
from diptych.study.sweep.cells import Sweep, cell_path, cells_of
from diptych.study.sweep.variants import parse
from diptych.types import Float32
from diptych.weights.find import find_weights
from diptych.weights.guides import check_guide

NOISE = np.random.default_rng(0).standard_normal((3, 1, 14, 14)).astype(np.float32)
GUIDE = "zoo:mnist-conditional"


def engines(objective: str = "eps") -> tuple[Engine, list[str]]:
    """An engine and its guide, of other functions; and whom each call asked."""
    asked: list[str] = []

    def network(x: Float32, embedding: Float32) -> Float32:
        asked.append("network")
        return (0.5 * x + 0.1).astype(np.float32)

    def guide(x: Float32, embedding: Float32) -> Float32:
        asked.append("guide")
        return (0.2 * x - 0.3).astype(np.float32)

    own, _ = numpy_backend.engine(network)
    other = make_plan(load_config("tiny", [f"diffusion.objective={objective}"]))
    held = Predictor(own.backend, guide, other)
    return replace(own, guide=lambda name: held), asked


@pytest.mark.parametrize("w", [0.5, 1.5, 3.0])
def test_a_guide_pushes_away_from_its_prediction(w: float) -> None:
    """eps = eps_guide + w (eps - eps_guide), and the implied image follows from that eps."""
    drawn, _ = engines()
    level = Level(400, 0.8, 0.6)
    eps = drawn.denoiser(make_sampler(steps=4, guide="any", guidance=w))(NOISE, level)
    ours, theirs = 0.5 * NOISE + 0.1, 0.2 * NOISE - 0.3
    np.testing.assert_allclose(eps, theirs + w * (ours - theirs), atol=1e-6)


def test_a_guide_of_another_objective_is_compared_as_noise() -> None:
    """A guide that predicts v: sigma x + alpha v is its noise."""
    drawn, _ = engines("v")
    eps = drawn.denoiser(make_sampler(steps=4, guide="any", guidance=2.0))(
        NOISE, Level(9, 0.8, 0.6)
    )
    theirs = 0.6 * NOISE + 0.8 * (0.2 * NOISE - 0.3)
    np.testing.assert_allclose(eps, 2 * (0.5 * NOISE + 0.1) - theirs, atol=1e-6)


@pytest.mark.parametrize("solver, steps", [("dpmpp-sde", 10), ("heun", 6), ("ddpm", 1000)])
def test_evaluations_are_counted_where_the_interval_guides(solver: str, steps: int) -> None:
    drawn, asked = engines()
    sampler = make_sampler(solver, steps, guide="any", guidance=2.0, guidance_interval=(100, 650))
    drawn.draw(sampler, range(2))
    card = sampler.card(drawn.schedule)
    assert asked.count("network") == card["network_calls"]
    assert len(asked) == card["network_evaluations"]
    assert 0 < asked.count("guide") < card["network_calls"]
    assert card["guidance_interval"] == [100, 650] and card["guide"] == "any"


def test_the_ends_of_the_interval_are_guided() -> None:
    drawn, asked = engines()
    sampler = make_sampler(steps=4, guide="any", guidance=2.0, guidance_interval="100-650")
    denoise = drawn.denoiser(sampler)
    for t, calls in ((99, 1), (100, 2), (650, 2), (651, 1)):
        asked.clear()
        denoise(NOISE, Level(t, 0.8, 0.6))
        assert len(asked) == calls, t


def test_weight_one_and_no_guide_draw_the_plain_image() -> None:
    drawn, asked = engines()
    plain = drawn.draw(make_sampler(steps=4), range(2))
    for settings in ({"guide": "any", "guidance": 1.0}, {"guide": "none"}):
        assert np.array_equal(drawn.draw(make_sampler(steps=4, **settings), range(2)), plain)
    assert "guide" not in asked
    assert not np.array_equal(drawn.draw(make_sampler(steps=4, guide="any"), range(2)), plain)


def test_a_guide_that_changes_nothing_is_not_recorded() -> None:
    """The images are those of the plain sampler, and so are the card and the folder's name."""
    for count in (0, 4):
        idle = make_sampler(guide="any", guidance=1.0, guidance_interval="1-5", num_classes=count)
        assert idle == make_sampler(num_classes=count)


def test_a_guide_is_not_a_batch_of_twice_the_size() -> None:
    assert make_sampler(guidance=2.0, num_classes=4).doubled
    guided = make_sampler(guide="any")
    assert guided.guided and not guided.doubled


def test_a_start_that_implies_no_class_leaves_the_guide_its_weight() -> None:
    implied = {"solver": "ddim", "guidance": 0.0}
    config = tiny("model.num_classes=10")
    chosen, _ = choose_sampler(SamplerOptions(guide="any"), config, None, implied)
    assert (chosen.guide, chosen.guidance) == ("any", 1.5)
    assert choose_sampler(SamplerOptions(), config, None, implied)[0].guidance == 0.0


def test_a_sweep_s_cell_knows_its_guide(tmp_path: Path) -> None:
    """Its file lies in the table's folder, and another guide's weights are another request."""
    variant = parse(f"ddim:guide={GUIDE}/guide:guidance=2")
    drawing = variant.drawing(Drawing(), 3, None)
    path = cell_path(tmp_path, "torch", variant, drawing)
    assert path.parent == tmp_path / "cells"
    again = parse(f"ddim:guide={GUIDE}-guide:guidance=2")
    assert cell_path(tmp_path, "torch", again, again.drawing(Drawing(), 3, None)) != path
    settings = Settings(metrics=("is",), num=4, features="mnist")
    sweep = Sweep("zoo:mnist-torch", (3,), (0.0,), Drawing(), settings, None, (variant,))
    held = find_weights(f"{GUIDE}/guide").facts()["weights_sha256"]
    assert cells_of(sweep).request["guides"] == {f"{GUIDE}/guide": held}
    plain = replace(sweep, variants=(parse("ddim"), parse("ddim:guide=none")))
    assert "guides" not in cells_of(plain).request
    for name, message in (
        ("", "no model is named"),
        ("nowhere", "guide nowhere: not found"),
        ("zoo:emoji", "image_size"),
    ):
        wrong = replace(sweep, variants=(parse("ddim"), parse(f"ddim:guide={name}")))
        with pytest.raises(UserError, match=message):
            cells_of(wrong)


def test_a_score_s_command_says_how_it_was_guided() -> None:
    protocol = {
        "num": 4, "extractor": "mnist", "sampler.solver": "ddim", "sampler.steps": 3,
        "sampler.classes": [1, 2], "sampler.guidance": 2.0, "sampler.guidance_interval": [1, 5],
        "sampler.guide_sha256": "ab" * 32,
    }  # fmt: skip
    said = evaluate_command("runs/a", "torch", [{"metric": "mnist-is", "protocol": protocol}])
    for words in ("--class 1,2", "--guidance 2.0", "--guidance-interval 1-5", "--guide GUIDE-abab"):
        assert words in said


def test_the_weight_of_a_guide_that_is_not_given() -> None:
    assert make_sampler(guide="any").guidance == 1.5
    told = make_sampler(guide="any", num_classes=4)
    assert (told.guidance, told.classes) == (1.5, (0, 1, 2, 3))
    assert make_sampler(num_classes=4).guidance == 1.0


OWN = {"solver": "dpmpp-sde", "steps": 15, "guide": GUIDE, "guidance": 2.0}


@pytest.mark.parametrize(
    "given, kept",
    [
        ({}, OWN),
        ({"guidance": 1.2}, OWN | {"guidance": 1.2}),
        ({"guide": "mine"}, OWN | {"guide": "mine"}),
        ({"guide": "none"}, {"solver": "dpmpp-sde", "steps": 15, "guide": "none"}),
        ({"guidance": 0.0}, {"solver": "dpmpp-sde", "steps": 15, "guidance": 0.0}),
        ({"solver": "ddim"}, {"solver": "ddim"}),
    ],
)
def test_a_recommended_guide_is_left_out_with_its_weight(
    given: dict[str, Any], kept: dict[str, Any]
) -> None:
    assert merged(SamplerOptions(**given), OWN)[0] == kept


@pytest.mark.parametrize("given", [{"guidance": 1.2}, {"guide": "none"}, {"guide": "mine"}])
def test_another_guidance_than_recommended_is_said(given: dict[str, Any]) -> None:
    _, said = choose_sampler(SamplerOptions(**given), tiny(), OWN)
    assert said is not None and "but for what was asked: solver dpmpp-sde, steps 15" in said
    assert ("guide zoo" in said) == ("guide" not in given)
    _, said = choose_sampler(SamplerOptions(), tiny(), OWN)
    assert said is not None and "but for" not in said and said.endswith("guidance 2.0")


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"guide": "any", "guidance": 0.0}, "from the guide alone"),
        ({"guidance_interval": "1-5"}, "nothing guides"),
        ({"guidance_interval": "1-5", "num_classes": 4}, "nothing guides"),
        ({"guidance_interval": "1-5", "guidance": 0.0, "num_classes": 4}, "nothing guides"),
        ({"guide": "any", "guidance_interval": 100}, "two timesteps"),
        ({"guide": "any", "guidance_interval": (100.9, 650.7)}, "two timesteps"),
        ({"guide": "any", "guidance_interval": (1, float("inf"))}, "two timesteps"),
        ({"guide": "any", "guidance_interval": "650-100"}, "the lower first"),
        ({"guide": "any", "guidance_interval": "5"}, "two timesteps"),
        ({"guide": "any", "guidance_interval": (0, 1000)}, "0 to 999"),
        ({"guide": "any", "classes": [3]}, "trained without classes"),
        ({"guide": "any", "guidance": -1.0}, "guidance is -1.0"),
        ({"guidance": 2.0}, "trained without classes"),
    ],
)
def test_settings_that_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        make_sampler(**settings)


def test_an_interval_is_text_or_two_numbers() -> None:
    assert read_interval("100-650", 1000) == read_interval([100, 650], 1000) == (100, 650)
    assert read_interval(None, 1000) is None


def tiny(*settings: str) -> Config:
    return load_config("tiny", list(settings))


@pytest.mark.parametrize(
    "guide, message",
    [
        (["data.image_size=28"], "data.image_size is 28, the model's is 14"),
        (["data.channels=3"], "data.channels is 3"),
        (["model.num_classes=3"], "3 classes, the model has 10"),
        (["diffusion.schedule=cosine"], "another noise schedule"),
        (["diffusion.timesteps=500"], "another noise schedule"),
    ],
)
def test_a_guide_that_cannot_guide_is_refused(guide: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        check_guide("other", tiny("model.num_classes=10"), tiny(*guide))
    smaller = tiny("model.ch=16", "model.norm_groups=8", "diffusion.objective=v")
    check_guide("fits", tiny("model.num_classes=10"), smaller)
    check_guide("fits", tiny(), tiny("model.num_classes=10"))


def test_the_sampler_keeps_its_defaults_without_a_guide() -> None:
    assert Sampler().guide is Sampler().guidance_interval is None


@pytest.mark.parametrize("model", [GUIDE, "zoo:mnist-torch"])
def test_panels_agree_and_the_manifest_names_the_guide(
    both: Any, tmp_path: Path, model: str
) -> None:
    """Of a model with classes and of one without, whose guide has them."""
    drawn = []
    for panel in both:
        settings = {"guide": GUIDE if model != GUIDE else "zoo:mnist-torch", "guidance": 2.0}
        out = tmp_path / panel.name
        drawn.append(panel.call(class_jobs.guided_by, panel.name, model, settings, out))
        manifest = json.loads((out / "manifest.json").read_text())
        assert manifest["guide"] == settings["guide"] and len(manifest["guide_sha256"]) == 64
    apart = np.abs(drawn[0].astype(int) - drawn[1])
    assert apart.max() <= 1 and drawn[0].std() > 10


def test_python_draws_the_same_and_a_refused_guide_leaves_nothing(
    panel: Any, tmp_path: Path
) -> None:
    settings = {"guide": GUIDE, "guidance": 2.0, "guidance_interval": "100-650"}
    out = tmp_path / "out"
    images = panel.call(class_jobs.guided_by, panel.name, "zoo:mnist-torch", settings, out)
    settings["guidance_interval"] = (100, 650)
    again = panel.call(class_jobs.guided_in_python, panel.name, "zoo:mnist-torch", settings)
    assert np.array_equal(images, again)
    manifests = panel.call(class_jobs.guide_replaced, panel.name, tmp_path)
    assert manifests[0] == manifests[1]  # the weights that guided, not those on the disk since
    said = panel.call(
        class_jobs.refused_guide, panel.name, "zoo:mnist-torch", "zoo:emoji", tmp_path / "no"
    )
    assert "data.image_size is 32" in said and not (tmp_path / "no").exists()
