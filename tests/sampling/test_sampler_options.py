"""`SamplerOptions`: verbs, manifests, names of folders and variants have every setting."""

from __future__ import annotations

from dataclasses import asdict, fields, replace
from typing import Any

import click
import pytest

import panel_jobs
from diptych.cli import cli
from diptych.cli.common import chosen_options
from diptych.diffusion.schedule import make_schedule
from diptych.errors import UserError
from diptych.generate.samples import IDENTITY
from diptych.sampling.options import (
    FIELDS,
    INVERTED,
    NAMES,
    SamplerOptions,
    folder_name,
    merged,
    option_name,
)
from diptych.sampling.sampler import Sampler, choose_sampler, make_sampler
from diptych.study.sweep.cells import Sweep
from diptych.study.sweep.variants import KEYS, SWEPT, parse

TOLD = panel_jobs.small("model.num_classes=4")
# A setting's value unlike its default, as the command line gives it, and what else it needs.
ASKED: dict[str, tuple[str, Any, dict[str, Any]]] = {
    "solver": ("heun", "heun", {}),
    "order": ("3", 3, {"solver": "dpmpp"}),
    "steps": ("7", 7, {}),
    "spacing": ("quad", "quad", {}),
    "eta": ("0.5", 0.5, {}),
    "clip": ("", True, {}),
    "threshold": ("0.9", 0.9, {}),
    "classes": ("1,2", [1, 2], {}),
    "guidance": ("2.5", 2.5, {}),
    "guide": ("zoo:mnist-torch", "zoo:mnist-torch", {}),
    "guidance_interval": ("100-650", "100-650", {"guidance": 2.0}),
    "euler_at_final": ("", True, {"solver": "dpmpp", "spacing": "trailing"}),
    "noise": ("host", "host", {}),
}


def option(verb: str, name: str) -> click.Option:
    found = [p for p in cli.commands[verb].params if p.name == name]
    assert len(found) == 1 and isinstance(found[0], click.Option), (verb, name)
    return found[0]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("verb", ["sample", "evaluate", "sweep"])
def test_every_verb_offers_every_setting(verb: str, name: str) -> None:
    flag = f"--{option_name(name)}"
    made = option(verb, name)
    assert flag in made.opts and made.help
    if FIELDS[name].metadata["kind"] is bool:
        assert made.secondary_opts == [f"--no-{option_name(name)}"] and made.default is None
    if (verb, name) not in [("sweep", swept) for swept in SWEPT]:
        assert made.help == FIELDS[name].metadata["help"]


def test_an_inversion_offers_its_settings_and_fixes_the_others() -> None:
    """It is DDIM at eta 0, which gives each image one latent."""
    offered = {p.name for p in cli.commands["encode"].params} & set(NAMES)
    assert offered == set(INVERTED) == {"steps", "spacing"}


def test_the_fields_are_those_of_a_sampler_and_are_all_tried_here() -> None:
    assert {f.name for f in fields(Sampler)} - {"level"} == set(NAMES) == set(ASKED)


def chosen(**settings: Any) -> Sampler:
    return choose_sampler(SamplerOptions(**settings), TOLD)[0]


@pytest.mark.parametrize("objective, first", [("eps", 980), ("v", 999)])
def test_only_a_network_that_can_starts_where_nothing_of_the_image_is_left(
    objective: str, first: int
) -> None:
    """The schedule jsd ends at alpha 0, where eps tells nothing."""
    config = panel_jobs.small("diffusion.schedule=jsd", f"diffusion.objective={objective}")
    sampler = choose_sampler(SamplerOptions(solver="ddim"), config)[0]
    assert sampler.timesteps(make_schedule(config.diffusion))[0] == first


@pytest.mark.parametrize("name", NAMES)
def test_a_setting_reaches_the_sampler_its_manifest_and_its_folder_s_name(name: str) -> None:
    """And what is compared where a folder is resumed."""
    _, value, others = ASKED[name]
    with_it, without = chosen(**others, **{name: value}), chosen(**others)
    wanted = {"classes": (1, 2), "guidance_interval": (100, 650)}.get(name, value)
    assert getattr(with_it, name) == wanted != getattr(without, name)
    from diptych.diffusion.schedule import make_schedule

    cards = [s.card(make_schedule(TOLD.diffusion)) for s in (with_it, without)]
    assert cards[0][name] != cards[1][name]
    assert any(cards[0].get(key) != cards[1].get(key) for key in IDENTITY)
    assert folder_name(with_it) != folder_name(without)


@pytest.mark.parametrize("name", NAMES)
def test_the_command_line_s_text_becomes_the_setting(name: str) -> None:
    text, value, _ = ASKED[name]
    flag = f"--{option_name(name)}"

    @click.command(params=[option("evaluate", each) for each in NAMES])
    def command(**given: Any) -> SamplerOptions:
        found = chosen_options(given)
        assert not given
        return found

    made = command.main([flag, text] if text else [flag], standalone_mode=False)
    assert made == replace(SamplerOptions(), **{name: value})


def test_a_variant_of_a_sweep_takes_every_setting_that_is_not_swept() -> None:
    assert sorted([*KEYS.values(), *SWEPT]) == sorted(NAMES)
    for name in KEYS.values():
        text, value, _ = ASKED[name]
        flag = option_name(name)
        variant = parse(f"ddim:{flag}={text}" if text else f"ddim:{flag}")
        assert dict(variant.settings) == {"solver": "ddim", name: value}


def test_a_sweep_is_compared_by_every_setting_that_is_not_swept() -> None:
    from diptych.evaluation.sets import Settings
    from diptych.generate.for_scoring import Drawing

    def request(**settings: Any) -> dict[str, Any]:
        drawing = Drawing(SamplerOptions(**settings))
        return Sweep("x", (2,), (0.0,), drawing, Settings(num=1), None).request("sha")

    for name in KEYS.values():
        assert request(**{name: ASKED[name][1]}) != request()


# The names of folders as they were before the options had one home


@pytest.mark.parametrize(
    "sampler, name",
    [
        (Sampler(), "ddim-50-uniform-eta0-keyed"),
        (make_sampler(), "dpmpp-sde-15-uniform-eta1-keyed"),
        (make_sampler("dpmpp", 4, spacing="logsnr", order=3, threshold=0.99),
         "dpmpp-order3-4-logsnr-eta0-threshold0.99-keyed"),
        (make_sampler("ddim", 10, 0.5, clip=True, classes=[7], guidance=2, num_classes=10),
         "ddim-10-uniform-eta0.5-clip-class7-w2-keyed"),
        (make_sampler("unipc", 10, num_classes=10, noise="host"),
         "unipc-order2-10-uniform-eta0-class0to9-w1"),
    ],
)  # fmt: skip
def test_folders_keep_their_names(sampler: Sampler, name: str) -> None:
    assert folder_name(sampler) == name


def test_manifests_keep_their_keys() -> None:
    assert set(asdict(Sampler())) == {*NAMES, "level"}
    before = {"solver", "timesteps", "eta", "clip", "order", "threshold", "classes", "guidance"}
    assert before < set(IDENTITY)


# What the model recommends

TRAILING = {"clip": True, "spacing": "trailing", "solver": "ddim"}  # of a folder of diffusers
LISTED = {"solver": "ddim", "steps": 3, "spacing": "900,500,100"}


@pytest.mark.parametrize(
    "asked, recommended, wanted",
    [
        ({}, TRAILING, TRAILING),
        ({"steps": 10}, TRAILING, TRAILING | {"steps": 10}),
        ({"steps": 9}, {"solver": "ddpm", "clip": False},
         {"solver": "ddpm", "clip": False, "steps": 9}),
        ({"eta": 0.5}, TRAILING, TRAILING | {"eta": 0.5}),
        ({"eta": 0.5}, {"solver": "dpmpp-sde", "steps": 15}, {"eta": 0.5}),
        ({"clip": False}, TRAILING, TRAILING | {"clip": False}),
        ({"threshold": 0.9}, TRAILING,
         {"spacing": "trailing", "solver": "ddim", "threshold": 0.9}),
        ({"spacing": "quad"}, TRAILING, TRAILING | {"spacing": "quad"}),
        ({"guidance": 2.0}, TRAILING, TRAILING | {"guidance": 2.0}),
        ({"solver": "heun"}, TRAILING, {"solver": "heun"}),
        ({"solver": "ddim", "steps": 3}, TRAILING, {"solver": "ddim", "steps": 3}),
        ({"steps": 4}, None, {"steps": 4}),
        ({"steps": 4}, LISTED, {"solver": "ddim", "steps": 4}),
        ({"steps": 3}, LISTED, LISTED),
        ({"spacing": "8,2"}, LISTED, {"solver": "ddim", "spacing": "8,2"}),
        ({"steps": 4, "spacing": "quad"}, LISTED, LISTED | {"steps": 4, "spacing": "quad"}),
    ],
)  # fmt: skip
def test_options_change_what_a_model_recommends_one_by_one(
    asked: dict[str, Any], recommended: dict[str, Any] | None, wanted: dict[str, Any]
) -> None:
    before = dict(recommended or {})
    assert merged(SamplerOptions(**asked), recommended)[0] == wanted
    assert dict(recommended or {}) == before


@pytest.mark.parametrize(
    "asked, said",
    [
        ({}, "sampling as this model recommends: clip True, spacing trailing, solver ddim"),
        ({"guidance": 2.0}, "sampling as this model recommends: clip True, spacing trailing, "
                            "solver ddim"),
        ({"steps": 10}, "sampling as this model recommends, but for what was asked: clip True, "
                        "spacing trailing, solver ddim, steps 10"),
        ({"solver": "heun"}, "note: this model recommends clip True, spacing trailing, solver "
                             "ddim; another solver is asked for, so its clip, "
                             "spacing are not used"),
        ({"solver": "ddim", "spacing": "quad", "clip": False}, None),
    ],
)  # fmt: skip
def test_what_was_chosen_is_said(asked: dict[str, Any], said: str | None) -> None:
    guided = {"solver": "ddim", "guidance": 2.0}
    told = choose_sampler(SamplerOptions(steps=4), TOLD, guided)[1]
    assert told is not None and told.endswith(": solver ddim, guidance 2.0, steps 4")
    guided |= {"guide": "zoo:mnist-torch/guide", "guidance_interval": "1-9"}
    told = choose_sampler(SamplerOptions(guidance=1.0), TOLD, guided)[1]
    assert told is not None and told.endswith("for what was asked: solver ddim")  # none guides
    assert choose_sampler(SamplerOptions(solver="heun", guidance=1.0), TOLD, guided)[1] is None
    assert choose_sampler(SamplerOptions(**asked), TOLD, TRAILING)[1] == said


def test_steps_that_are_asked_for_overrule_the_models_list_and_this_is_said() -> None:
    """A list that is recommended, or implied by a start; before, the steps were refused."""
    asked = SamplerOptions(steps=4)
    sampler, said = choose_sampler(asked, TOLD, LISTED)
    assert (sampler.steps, sampler.spacing) == (4, "uniform")
    assert said is not None and said.endswith("timesteps are not used, as they are not so many")
    sampler, _ = choose_sampler(asked, TOLD, None, LISTED)
    assert (sampler.steps, sampler.spacing) == (4, "uniform")
    sampler, _ = choose_sampler(SamplerOptions(spacing="8,2"), TOLD, None, LISTED)
    assert (sampler.steps, sampler.spacing) == (2, "8,2")
    sampler, said = choose_sampler(SamplerOptions(steps=3), TOLD, LISTED)
    assert sampler.spacing == LISTED["spacing"] and said is not None and "not used" not in said
    alone = choose_sampler(asked, TOLD, {"spacing": "900,500,100"})[1]
    assert alone is not None and "another number of steps is asked for" in alone


def test_nothing_is_said_where_nothing_is_chosen() -> None:
    assert choose_sampler(SamplerOptions(steps=3), TOLD)[1] is None
    zoo = {"solver": "dpmpp-sde", "steps": 15}
    assert choose_sampler(SamplerOptions(solver="ddim"), TOLD, zoo)[1] is None


def test_settings_of_a_sampler_are_refused_where_nothing_is_sampled(tmp_path: Any) -> None:
    from diptych.cli.evaluate import refuse_unused

    refuse_unused(SamplerOptions())
    for name, (_, value, _others) in ASKED.items():
        with pytest.raises(UserError, match=f"--{option_name(name)} is a setting of a sampler"):
            refuse_unused(SamplerOptions(**{name: value}))
