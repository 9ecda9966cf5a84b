"""Classes on the host: keyed labels and label dropout, the guidance formula, the card, refusals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from commands import call
from diptych.backends.protocol import Backend, State
from diptych.config.load import Config, load_config, to_yaml
from diptych.data import load_dataset
from diptych.diffusion.classes import (
    choose_classes,
    class_rows,
    drop_labels,
    labels_of,
    parse_classes,
    short_name,
)
from diptych.diffusion.schedule import CLEAN, Level, make_schedule
from diptych.errors import UserError
from diptych.generate.samples import SampleRequest, default_folder
from diptych.network.parameters import initial_weights
from diptych.network.plan import make_plan
from diptych.runs import checkpoint
from diptych.sampling.denoiser import Predictor
from diptych.sampling.engine import Engine
from diptych.sampling.options import SamplerOptions
from diptych.sampling.sampler import choose_sampler, make_sampler
from diptych.training.batches import Batches
from diptych.types import Float32
from diptych.weights.find import find_weights, zoo_names
from numpy_backend import NumpyBackend

OLD = Path(__file__).parents[1] / "old_records" / "mnist-torch"
PLAIN = load_config("tiny", ["train.batch_size=16"])
TOLD = load_config("tiny", ["train.batch_size=16", "model.num_classes=10"])


def batches(config: Config, count: int = 300) -> Batches:
    """Of images whose first pixel is their label."""
    labels = np.arange(count) * 7 % 10
    images = np.zeros((count, 1, 14, 14), np.uint8)
    images[:, 0, 0, 0] = labels
    return Batches(config, make_plan(config), images, labels)


# Labels


def test_labels_go_with_their_images_and_are_dropped_by_a_keyed_stream() -> None:
    source, seen = batches(TOLD), []
    for step in range(1, 60):
        batch = source.batch(step)
        assert batch.labels is not None and batch.classes is not None
        true = np.rint((batch.x0[:, 0, 0, 0] + 1) * 127.5).astype(int)
        dropped = batch.labels == 10
        assert np.array_equal(batch.labels[~dropped], true[~dropped])
        assert np.array_equal(batch.labels, drop_labels(true, 10, 0.1, 0, step))
        assert np.array_equal(batch.classes, np.eye(11, dtype=np.float32)[batch.labels])
        seen += dropped.tolist()
    assert abs(np.mean(seen) - 0.1) < 4 * (0.1 * 0.9 / len(seen)) ** 0.5


def test_the_label_stream_is_that_of_every_earlier_run() -> None:
    """A change here changes every conditional run: it belongs under "Numerics"."""
    labels = drop_labels(np.arange(12) % 10, 10, 0.5, seed=3, step=5)
    assert labels.tolist() == [0, 10, 2, 3, 10, 10, 6, 7, 10, 10, 0, 1]


def test_all_else_of_a_batch_is_as_without_classes() -> None:
    told, plain = batches(TOLD).batch(3), batches(PLAIN).batch(3)
    for name in ("x0", "t", "alpha", "sigma", "embedding", "eps"):
        assert np.array_equal(getattr(told, name), getattr(plain, name))
    assert plain.labels is None and plain.classes is None and plain.weight is None


def test_no_dropout_and_nothing_but_dropout() -> None:
    labels = np.arange(100) % 10
    assert np.array_equal(drop_labels(labels, 10, 0.0, 0, 1), labels)
    assert np.all(drop_labels(labels, 10, 1.0, 0, 1) == 10)


def test_mnist_has_labels_as_integers() -> None:
    labels = load_dataset("mnist-10k").labels
    assert labels is not None and labels.dtype == np.int64 and not labels.flags.writeable


@pytest.mark.parametrize("labels, message", [
    (None, "data.source mnist-10k has no labels, model.num_classes is 10"),
    (np.arange(12), "model.num_classes is 10, but mnist-10k has labels up to 11; use --set"),
])  # fmt: skip
def test_labels_that_do_not_fit_are_refused(labels: Any, message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        Batches(TOLD, make_plan(TOLD), np.zeros((12, 1, 14, 14), np.uint8), labels)
    assert "\n" not in str(error.value)


# Weights and identity


def test_a_network_with_classes_starts_as_the_one_without() -> None:
    plain, told = (initial_weights(make_plan(c), 0) for c in (PLAIN, TOLD))
    assert list(told) == [*plain, "class_embed.weight"]
    assert told["class_embed.weight"].shape == (11, 128)
    assert all(np.array_equal(plain[name], told[name]) for name in plain)
    assert np.unique(told["class_embed.weight"]).size > 1000


@pytest.mark.parametrize("name", ["mnist-torch", "mnist-jittor"])
def test_the_zoo_s_manifests_name_their_configs(name: str) -> None:
    source = find_weights(f"zoo:{name}")
    recorded = json.loads((source.path / "manifest.json").read_text())["config_identity"]
    assert name in zoo_names() and source.config.identity() == recorded


def test_the_identity_of_earlier_runs_is_kept() -> None:
    """This manifest was written before there were classes."""
    source = find_weights(str(OLD))
    recorded = json.loads((source.path / "manifest.json").read_text())["config_identity"]
    assert source.config.identity() == recorded
    changes = ["model.num_classes=10", "diffusion.objective=v", "train.weighting=min-snr"]
    changed = {load_config(str(source.path / "config.yaml"), [c]).identity() for c in changes}
    assert len(changed | {recorded}) == 4


def test_the_conditional_preset_is_mnist_with_classes() -> None:
    told = load_config("mnist_conditional")
    pace = {key: getattr(told.train, key) for key in
            ("batch_size", "lr", "epochs", "checkpoint_every", "grid_every")}  # fmt: skip
    paced = [f"train.{key}={value}" for key, value in pace.items()]
    assert load_config("mnist", ["model.num_classes=10", *paced]) == told


def test_the_zoo_holds_the_conditional_preset() -> None:
    held = find_weights("zoo:mnist-conditional").config
    assert held.identity() == load_config("mnist_conditional").identity()


# Guidance


def a_network(x: Float32, embedding: Float32, rows: Float32) -> Float32:
    """Each row on its own; class k bends the image by k."""
    labels = rows.argmax(axis=1).astype(np.float32)[:, None, None, None]
    return np.asarray(np.tanh(x + np.float32(0.1) * labels), np.float32)


class Told(NumpyBackend):
    """A backend that counts images too."""

    evaluations = 0

    def predict(self, network: Any, x: Any, embedding: Any, classes: Any = None) -> Any:
        self.calls += 1
        self.evaluations += len(x)
        assert len(classes) in (1, len(x)) and classes.dtype == np.float32
        return network(x, embedding, classes)

    def twice(self, x: Float32) -> Float32:
        return np.concatenate([x, x])


def engine(objective: str = "eps") -> tuple[Engine, Told]:
    config = load_config("tiny", ["model.num_classes=10", f"diffusion.objective={objective}"])
    backend = Told()
    schedule = make_schedule(config.diffusion)
    return Engine(cast(Backend, backend), a_network, make_plan(config), schedule), backend


@pytest.mark.parametrize("objective", ["eps", "x0", "v"])
def test_guidance_is_its_formula(objective: str) -> None:
    """w = 0 and w = 1 are the two predictions, bit for bit; w = 2 goes as far again."""
    drawn, level = engine(objective)[0], Level(400, 0.8, 0.6)
    x = np.random.default_rng(0).standard_normal((3, 1, 14, 14)).astype(np.float32)

    def ask(classes: tuple[int, ...], w: float) -> Float32:
        return cast(Float32, drawn.predictor.denoise(classes, w, [0, 1, 2])(x, level))

    rows = {k: class_rows([k] * 3, 10) for k in (4, 10)}
    bare = {k: a_network(x, np.empty(0, np.float32), r) for k, r in rows.items()}
    to_eps = {
        "eps": lambda out: out,
        "x0": lambda out: (x - 0.8 * out) / 0.6,
        "v": lambda out: 0.6 * x + 0.8 * out,
    }[objective]
    np.testing.assert_allclose(ask((4,), 0.0), to_eps(bare[10]), atol=1e-6)
    np.testing.assert_allclose(ask((4,), 1.0), to_eps(bare[4]), atol=1e-6)
    given, none = ask((4,), 1.0), ask((4,), 0.0)
    np.testing.assert_allclose(ask((4,), 2.0), none + 2 * (given - none), atol=3e-6)
    assert np.abs(given - none).max() > 0.1


def test_the_card_counts_calls_and_evaluations() -> None:
    for guidance, each in ((None, 1), (0.0, 1), (1.0, 1), (2.5, 2)):
        drawn, backend = engine()
        sampler = make_sampler("heun", 6, guidance=guidance, num_classes=10)
        drawn.draw(sampler, range(3))
        card = sampler.card(drawn.schedule)
        assert card["network_calls"] == backend.calls == 11
        assert card["network_evaluations"] == 11 * each and backend.evaluations == 33 * each
        assert card["classes"] == list(range(10))
        assert card["guidance"] == (1.0 if guidance is None else guidance)
    plain = make_sampler("heun", 6).card(make_schedule(PLAIN.diffusion))
    assert plain["classes"] is plain["guidance"] is None
    assert plain["network_evaluations"] == plain["network_calls"]


@pytest.mark.parametrize("guidance", [0.0, 1.0, 3.0])
def test_an_image_depends_on_its_index_and_class_alone(guidance: float) -> None:
    sampler = make_sampler(steps=4, classes=[2, 5, 9], guidance=guidance, num_classes=10)
    whole = engine()[0].draw(sampler, range(7), seed=3)
    assert np.array_equal(engine()[0].draw(sampler, [4, 1], seed=3), whole[[4, 1]])
    only = make_sampler(steps=4, classes=[5], guidance=guidance, num_classes=10)
    fives = engine()[0].draw(only, range(7), seed=3)
    assert np.array_equal(fives[[1, 4]], whole[[1, 4]])
    assert np.array_equal(fives[0], whole[0]) == (guidance == 0.0)


def test_the_folder_says_class_and_guidance() -> None:
    sampler = make_sampler(steps=5, classes=[7], guidance=2.0, num_classes=10)
    assert "-class7-w2-keyed-seed0" in default_folder(Path("run"), SampleRequest(sampler, 4)).name
    assert default_folder(Path("run"), SampleRequest(make_sampler("ddim", steps=5), 4)).name == (
        "ddim-5-uniform-eta0-keyed-seed0"
    )


def test_samples_of_a_checkpoint_outlive_it() -> None:
    request = SampleRequest(make_sampler("ddim", steps=5), 4)
    folder = default_folder(Path("run/checkpoints/step-00000469"), request)
    assert folder == Path("run/samples/ddim-5-uniform-eta0-keyed-seed0-step-00000469")


@pytest.mark.parametrize("classes, columns", [(None, 10), ([7], 8), ([1, 2, 3], 3)])
def test_a_grid_shows_a_class_a_column(classes: Any, columns: int) -> None:
    assert make_sampler(steps=5, classes=classes, num_classes=10).columns == columns
    assert make_sampler(steps=5, num_classes=1000).columns == make_sampler(steps=5).columns == 8


def test_a_folders_name_stays_short() -> None:
    assert short_name((7,)) == "7" and short_name((0, 1)) == "0-1" and short_name((3, 1)) == "3-1"
    assert short_name(tuple(range(1000))) == "0to999"
    long = [short_name(tuple(range(first, 1000))) for first in (1, 2)]
    assert max(map(len, long)) < 20 and len(set(long)) == 2


def test_a_shifted_guidance_would_be_noticed() -> None:
    """The agreement above can fail: 1 + w in place of w gives other images."""
    right = make_sampler(steps=4, guidance=2.0, num_classes=10)
    shifted = make_sampler(steps=4, guidance=3.0, num_classes=10)
    a, b = (engine()[0].draw(s, range(3)) for s in (right, shifted))
    assert np.abs(a - b).max() > 0.01


# Choices


def test_classes_by_turns() -> None:
    assert parse_classes(None) is None and parse_classes("all") == "all"
    assert parse_classes("7") == [7] and parse_classes("0, 1,2") == [0, 1, 2]
    assert choose_classes(None, None, 3) == choose_classes("all", 1, 3) == ((0, 1, 2), 1.0)
    assert choose_classes(None, None, 0) == (None, None)
    assert choose_classes("10", None, 11)[0] == (10,) and choose_classes("0,2", 1, 3)[0] == (0, 2)
    assert choose_classes(np.array([2, 0]), None, 3)[0] == (2, 0)  # type: ignore[arg-type]
    assert labels_of((4, 6), [0, 1, 2, 7]).tolist() == [4, 6, 4, 6]


@pytest.mark.parametrize(
    "classes, guidance, count, message",
    [
        ([3], None, 0, "a class is asked for, but this model was trained without classes"),
        (None, 2.0, 0, "guidance is asked for, but this model was trained without classes"),
        ([10], None, 10, "class 10 is not known; this model has the classes 0 to 9"),
        ([1, -1], None, 10, "class -1 is not known"),
        ([], None, 10, "no class is given"),
        (7, None, 10, "classes: expected 'all' or whole numbers, as in [0, 1, 2], not 7"),
        ([1.5], None, 10, "not [1.5]"),
        ("seven", None, 10, "--class seven: give a class"),
        (None, -0.5, 10, "guidance is -0.5; it must be 0 (no class) or more"),
        (None, float("nan"), 10, "guidance is nan"),
    ],
)
def test_choices_that_are_refused(classes: Any, guidance: Any, count: int, message: str) -> None:
    with pytest.raises(UserError) as error:
        choose_classes(classes, guidance, count)
    assert message in str(error.value) and "\n" not in str(error.value)


@pytest.fixture
def conditional(tmp_path: Path) -> Path:
    """A run folder with fresh weights."""
    weights = initial_weights(make_plan(TOLD), 0)
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.yaml").write_text(to_yaml(TOLD))
    checkpoint.save(run, State(1, weights, weights, weights, weights), {}, 1)
    return run


def test_a_class_given_with_latents_is_told(conditional: Path) -> None:
    """Without one, images are decoded as they were encoded: without a class."""
    found = find_weights(str(conditional), None, False)
    implied = {"solver": "ddim", "steps": 5, "guidance": 0.0}
    plain, told = (
        choose_sampler(SamplerOptions(classes=classes), found.config, None, implied)[0]
        for classes in (None, [7])
    )
    assert plain.guidance == 0.0
    assert (told.classes, told.guidance) == ((7,), 1.0)


def test_one_class_is_one_row_for_all_images() -> None:
    predictor = engine()[0].predictor
    assert predictor.rows((7,), 1.0, range(5)).shape == (1, 11)
    assert predictor.rows((7, 8), 1.0, range(5)).shape == (5, 11)
    assert predictor.rows((7,), 2.0, range(5)).shape == (10, 11)


@pytest.mark.parametrize(
    "words, message",
    [
        (["sample", "PLAIN", "--class", "3"], "trained without classes"),
        (["sample", "PLAIN", "--guide", "none", "--guidance", "2"], "guide by another model"),
        (["sample", "TOLD", "--class", "10"], "this model has the classes 0 to 9"),
        (["sample", "TOLD", "--class", "seven"], "--class seven: give a class, a list"),
        (["sample", "TOLD", "--guidance", "-1"], "guidance is -1.0"),
        (["sample", "TOLD", "--class", "3", "--guidance", "0"], "leave out --class"),
        (["sample", "PLAIN", "--solver", "ddim", "--steps", "1"], "visits t=0 alone"),
        (["evaluate", "PLAIN", "--class", "3", "--metrics", "is", "--features", "mnist",
          "--num", "4", "--samples-out", "x"], "trained without classes"),
        (["train", "tiny", "--set", "model.num_classes=4"], "has labels up to 9"),
        (["train", "tiny", "--set", "diffusion.zero_terminal_snr=true"], "objective v or x0"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line(
    monkeypatch: Any, capsys: Any, tmp_path: Path, conditional: Path, words: Any, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    named = {"PLAIN": "zoo:mnist-torch", "TOLD": str(conditional)}
    given = [named.get(word, word) for word in words]
    out = [] if words[0] == "evaluate" else ["--out", "out"]
    code, stdout, stderr = call(monkeypatch, capsys, *given, *out)
    assert code == 2 and stdout == "" and message in stderr
    assert len(stderr.strip().splitlines()) == 1


def test_a_weights_file_without_the_class_rows_is_refused() -> None:
    from diptych.network.parameters import check_weights

    with pytest.raises(UserError, match=r"'class_embed\.weight' is missing"):
        check_weights(make_plan(TOLD), initial_weights(make_plan(PLAIN), 0), "x")
    with pytest.raises(UserError, match=r"'class_embed\.weight' is not in this config"):
        check_weights(make_plan(PLAIN), initial_weights(make_plan(TOLD), 0), "x")


def test_the_last_level_is_still_the_clean_image() -> None:
    assert make_sampler(steps=3).levels(make_schedule(PLAIN.diffusion))[-1] is CLEAN


def test_without_a_choice_no_class_is_told() -> None:
    drawn, x = engine()[0], np.ones((3, 1, 14, 14), np.float32)
    level = Level(400, 0.8, 0.6)
    silent = Predictor(drawn.backend, a_network, drawn.plan).denoise(None, None, ())
    none = drawn.predictor.denoise((4,), 0.0, range(3))
    assert np.array_equal(silent(x, level), none(x, level))
