"""`did you mean` suggests accepted words: each place is asked with its own answer."""

from __future__ import annotations

import re

import pytest

from diptych.align.faults import mutations
from diptych.align.ladder import rungs
from diptych.align.ladder.climb import LadderRequest
from diptych.align.ports.names import matched
from diptych.config.load import flatten, load_config, preset_names
from diptych.config.schema import DiffusionConfig
from diptych.data.crops import CROPS, check_crop
from diptych.data.sources.registry import SOURCES, lookup
from diptych.data.sources.spec import parse
from diptych.diffusion.schedule import SCHEDULES, SPACINGS, make_betas, make_schedule, make_spacing
from diptych.diffusion.timesteps import ALL_SPACINGS, choose_timesteps
from diptych.errors import UserError
from diptych.evaluation.collect import METRICS
from diptych.evaluation.protocol import PROTOCOLS, protocol_for
from diptych.evaluation.sets import Settings
from diptych.sampling.sampler import SOLVERS, make_sampler
from diptych.sampling.solvers.ddpm import Ddpm
from diptych.sampling.solvers.kinds import KINDS
from diptych.study.sweep.variants import parse as variant

TINY = load_config("tiny")
KEYS = [key for key in flatten(TINY) if "." in key]


def with_key(key):
    return load_config("tiny", [f"{key}={flatten(TINY).get(key, 1)}".replace("None", "null")])


def with_backends(*names):
    return LadderRequest("tiny", TINY, names)


PLACES = {
    "preset": (load_config, preset_names()),
    "key": (with_key, KEYS),
    "schedule": (lambda name: make_betas(name, 1e-4, 0.02, 100), SCHEDULES),
    "spacing of a table": (lambda name: make_spacing(name, 5, 100), SPACINGS),
    "spacing": (
        lambda name: choose_timesteps(name, 5, make_schedule(DiffusionConfig())), ALL_SPACINGS,
    ),
    "solver": (lambda name: make_sampler(name, 10), SOLVERS),
    "solver of a sweep": (variant, SOLVERS),
    "variance": (Ddpm, ["small", "large"]),
    "protocol": (lambda name: protocol_for("inception", name), list(PROTOCOLS)),
    "metric": (lambda name: Settings((name,)), METRICS),
    "metric on digits": (lambda name: Settings((name,), features="mnist"), METRICS),
    "crop": (check_crop, CROPS),
    "data set": (lambda name: lookup(name, "train"), list(SOURCES)),
    "split": (lambda name: lookup("mnist", name), ["train", "test"]),
    "split of the package's digits": (lambda name: parse(f"mnist-10k:{name}"), ["train", "test"]),
    "mutation": (lambda name: mutations.choose([name]), list(mutations.MUTATIONS)),
    "rung": (lambda name: rungs.choose([name]), list(rungs.LADDER)),
    "first panel": (lambda name: with_backends(name, "jittor"), ["torch"]),
    "second panel": (lambda name: with_backends("torch", name), ["torch", "jittor"]),
    **{
        f"spacing of {solver}": (
            lambda name, solver=solver: make_sampler(solver, 10, spacing=name), ALL_SPACINGS,
        )
        for solver in KINDS
    },
}  # fmt: skip


def suggestion(take, word):
    """The suggestion for a word; None if the word is accepted or nothing is suggested."""
    try:
        take(word)
    except UserError as error:
        found = re.search(r"did you mean '([^']+)'", str(error))
        return found and found[1]
    return None


@pytest.mark.parametrize("take, words", PLACES.values(), ids=PLACES.keys())
def test_a_suggestion_is_taken(take, words):
    tried = 0
    for word in words:
        for wrong in (word[:-1], word[1:], word + "x", word.replace("e", "a")):
            head, dot, last = word.partition(".")
            found = suggestion(take, wrong)
            if found is not None and found != wrong:
                tried += 1
                right = f"{head}.{found}" if wrong.startswith(f"{head}.") else f"{found}.{last}"
                take(right if dot else found)
    assert tried, "nothing was suggested at all"


def test_a_weight_that_is_spoken_for_is_not_suggested():
    wanted = {"a.weight": (2,), "a.weights": (2,), "b.bias": (3,)}
    for found, hint in (
        ({"a.weight": (2,), "b.bias": (3,)}, None),
        ({"a.weight": (2,), "b.bias": (3,), "a.weightz": (2,)}, "a.weightz"),
        ({"a.weight": (2,), "b.bias": (3,), "a.weightz": (5,)}, None),
    ):
        with pytest.raises(UserError, match=r"'a\.weights' is missing") as caught:
            matched(wanted, found, {}, "port")
        said = re.search(r"did you mean '([^']+)'", str(caught.value))
        assert (said and said[1]) == hint
