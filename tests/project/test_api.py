"""The Python API in both panels: data, networks, callbacks and solvers of one's own."""

from __future__ import annotations

import hashlib
import inspect
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import api_jobs
import diptych
from conftest import Panel
from diptych import api
from diptych.errors import in_python
from diptych.files import read_json
from diptych.runs.reader import read_run


def test_a_network_of_ones_own_is_resumed_to_the_bit(panel: Panel, tmp_path: Path) -> None:
    """With dropout, a batch norm's averages and frozen weights; EMA and Adam's state too."""
    found = panel.call(api_jobs.own_twice, panel.name, tmp_path)
    straight, broken = found["states"]
    assert straight == broken and straight[0] == 6
    assert {"first.weight", "norm.running_mean", "norm.weight", "frozen.bias"} < set(found["names"])
    assert found["same"] and found["shape"] == (3, 14, 14, 1)
    assert "own network of 257 weights" in found["repr"]
    assert found["loss"].shape == (6,) and found["loss"][0] == found["rows"][0]["loss"]
    manifest = read_json(tmp_path / "straight" / "checkpoints" / "step-00000006" / "manifest.json")
    assert manifest["network"] == "own"
    card = [read_run(tmp_path / run).own_network for run in ("straight", "broken")]
    assert card[0] == card[1] and card[0]["class"] == "Net"
    assert len(card[0]["shapes_sha256"]) == 64


def test_a_network_of_ones_own_is_told_the_class(panel: Panel, tmp_path: Path) -> None:
    without, told, guided = panel.call(api_jobs.own_with_classes, panel.name, tmp_path)
    assert without.shape == (2, 14, 14, 1)
    assert not (without == told).all() or not (told == guided).all()


@pytest.mark.parametrize("objective", ["eps", "x0", "v"])
def test_a_wrapped_module_is_read_as_its_objective_says(panel: Panel, objective: str) -> None:
    """Of a module that gives x back: eps is x, x0 is x, or v is x."""
    x, eps, alpha, sigma, shown = panel.call(api_jobs.wrapped, panel.name, objective)
    alpha, sigma = (table[:, None, None, None] for table in (alpha, sigma))
    wanted = {"eps": x, "x0": (x - alpha * x) / sigma, "v": sigma * x + alpha * x}[objective]
    assert eps == pytest.approx(wanted, abs=1e-5, rel=1e-4)
    assert f", {objective}, {panel.name} on cpu>" in shown


def test_a_callback_stops_a_training_which_then_goes_on(panel: Panel, tmp_path: Path) -> None:
    found = panel.call(api_jobs.stopped, panel.name, tmp_path / "run", 3)
    step, rows, seen = found["first"]
    # Rows are read every second step: the fourth was made before the third was seen.
    assert (step, rows, seen) == (4, [1, 2, 3, 4], [1, 2, 3])
    assert found["last"] == 6 and found["loss"].shape == (6,)
    assert found["repr"].startswith(f"<Run '{tmp_path / 'run'}': {panel.name}, step 6, loss ")
    straight = panel.call(api_jobs.stopped, panel.name, tmp_path / "straight", 99)
    assert (found["loss"] == straight["loss"]).all()
    for name in ("run", "straight"):
        grids = sorted(path.name for path in (tmp_path / name / "grids").iterdir())
        assert grids == [f"step-0000000{k}.png" for k in (2, 4, 6)]


def test_a_solver_may_be_an_object(panel: Panel) -> None:
    by_name, by_object, seen = panel.call(api_jobs.two_models, panel.name)
    assert (by_name == by_object).all()
    assert [k for k, _ in seen] == [0, 1, 2, 3]
    assert isinstance(seen[0][1], np.ndarray) and (seen[-1][1] == by_name).all()


REFUSED = {
    "diptych.train('tinny', folder / 'a', name)": "did you mean 'tiny'",
    "diptych.train('tiny', folder / 'a', 'torhc')": "did you mean 'torch'",
    "diptych.train('tiny', folder / 'a', name, device='gpu')": "use auto, cpu",
    "diptych.train('tiny', folder / 'a', name, set={'train.lrr': 1})": "'train.lrr' is not known",
    "diptych.train('tiny', folder / 'a', name, set={'lr.x.y': 1})": "'lr.x.y' is not known",
    "diptych.train('tiny', folder / 'a', name, set={'train.lr': -1})": "train.lr",
    "diptych.train('tiny', folder / 'a', name, set={'train': {'steps': 5}})":
        "'train' is a section; set its keys one by one, as train.KEY",
    "diptych.load('zoo:mnist-torch', name).sample(2, diptych.solvers.Heun(), clip='image')":
        'clip="image" is for Ddim alone',
    "diptych.load('zoo:mnist-torch', name, config='cifar10')": "the weights were trained with",
    "diptych.train('tiny', folder / 'a', name, resume=True, overwrite=True)":
        "resume=True and overwrite=True exclude each other",
    "diptych.train('tiny', folder / 'a', name, data=PIXELS / 255)": "expected uint8",
    "diptych.train('tiny', folder / 'a', name, data=PIXELS[:, :, 1:])":
        "the width 13 cannot be halved",
    "diptych.train('tiny', folder / 'a', name, data=PIXELS, set={'data.image_size': 28})":
        "data.image_size is 28, the images given as data have 14",
    "diptych.train('tiny', folder / 'a', name, data=PIXELS, set={'model.num_classes': 3})":
        'use set={"model.num_classes": 0}',
    "diptych.train('tiny', folder / 'a', name, network=network(name)())": "give a function",
    "diptych.train('tiny', folder / 'a', name, network=lambda: 3)": "gave a int, expected a",
    "diptych.train('tiny', folder / 'a', name, network=network(name), set={'model.ch': 64})":
        "model.ch is of Diptych's own network",
    "diptych.train('tiny', folder / 'a', name, data=PIXELS, network=shapeless(name), set=SET)":
        "it must give the same shape",
    "diptych.train('tiny', folder / 'a', name, callbacks=[3])": "expected functions of a row",
    "diptych.load('zoo:mnist-torch', name, network=network(name))": "no run, checkpoint or saved",
    "diptych.load(folder / 'none', name)": "not found",
    "diptych.Model.of(network(name), (1, 6, 6))": "expected a torch.nn.Module or a Jittor Module",
    "diptych.Model.of(network(name)(), (6, 6))": "expected (C, H, W)",
    "diptych.Model.of(network(name)(), (1, 6, 6), backend='other')": "is a module of",
    "diptych.Model.of(network(name)(), (1, 6, 6), 'linaer')": "schedule",
    "diptych.load('zoo:mnist-torch', name).sample(2, 'ddpm', eta=0.5)":
        'use solver="ddim" with eta=0.5',
    "diptych.load('zoo:mnist-torch', name).sample(2, diptych.solvers.Heun(), eta=0.5)":
        "has its own eta and order",
    "diptych.load('zoo:mnist-torch', name).sample(2, 3)": "",
    "diptych.Run(folder)": "is not a run",
    "diptych.evaluate(PIXELS, features='mnist')": "Give reference, for example mnist:test",
    "diptych.evaluate(PIXELS, PIXELS, features='mnist', protocol='clean-fid')":
        'leave protocol out',
    "diptych.evaluate([PIXELS, PIXELS], PIXELS, features='mnist', repeats=2)": "leave repeats out",
    "diptych.compare(folder / 'x', folder / 'y', out=folder / 'z')": "no such folder",
    "diptych.make_report(folder / 'x', folder / 'z', language='fr')": "expected en or zh",
    "diptych.grid(PIXELS, scale=0)": "must be 1 or more",
}  # fmt: skip


@pytest.mark.parametrize("call", REFUSED)
def test_wrong_arguments_are_refused_in_the_terms_of_python(
    panels: dict[str, Panel], tmp_path: Path, call: str
) -> None:
    name, panel = next(iter(panels.items()))
    said = panel.call(api_jobs.error_of, name, tmp_path, call)
    assert REFUSED[call] in said and "nothing was refused" not in said
    assert "\n" not in said and "--" not in said
    assert list(tmp_path.iterdir()) in ([], [tmp_path / "a"])


def test_a_run_from_arrays_wants_them_again(panels: dict[str, Panel], tmp_path: Path) -> None:
    name, panel = next(iter(panels.items()))
    call = "diptych.train('tiny', folder / 'run', name, {}, set=SET, progress=False)"
    assert panel.call(api_jobs.error_of, name, tmp_path, call.format("data=PIXELS")) == (
        "nothing was refused"
    )
    assert "source: arrays" in (tmp_path / "run" / "config.yaml").read_text()
    start = read_json(tmp_path / "run" / "environment.json")["starts"][0]
    own = diptych.Dataset.from_arrays(api_jobs.PIXELS)
    assert start["dataset_sha256"] == own.sha256 and start["labels_sha256"] is None
    again = "diptych.train(folder / 'run' / 'config.yaml', folder / 'run', name, {}resume=True)"
    said = panel.call(api_jobs.error_of, name, tmp_path, again.format(""))
    assert "was trained on images given in Python; give the same ones" in said
    said = panel.call(api_jobs.error_of, name, tmp_path, again.format("data=PIXELS[::-1], "))
    assert "the images are not those of the 6 steps before" in said
    assert "allow_changed_data=True" in said
    said = panel.call(api_jobs.error_of, name, tmp_path, again.format("data=PIXELS, "))
    assert said == "nothing was refused"


# Data sets


class Pairs:
    """What a torch data set looks like from outside."""

    def __len__(self) -> int:
        return 5

    def __getitem__(self, i: int) -> Any:
        return api_jobs.PIXELS[i, :, :, 0], int(api_jobs.LABELS[i])


def test_a_data_set_is_its_arrays_however_they_are_laid_out() -> None:
    pixels = api_jobs.PIXELS[:5]
    forms = [pixels, pixels[..., 0], pixels.transpose(0, 3, 1, 2), list(pixels), Pairs()]
    made = [diptych.Dataset.from_arrays(form) for form in forms]
    assert {each.sha256 for each in made} == {
        hashlib.sha256(b"uint8 5 1 14 14\n" + pixels.tobytes()).hexdigest()
    }
    assert made[-1].labels is not None and made[-1].labels.tolist() == [0, 1, 2, 0, 1]
    labelled = diptych.Dataset.from_arrays(pixels, [0, 1, 2, 0, 1])
    assert labelled.labels_sha256 == made[-1].labels_sha256 is not None
    assert repr(labelled).startswith("<Dataset arrays: 5 images of 1x14x14, 3 classes, sha256 ")
    own = pixels.copy()
    kept = diptych.Dataset.from_arrays(own)
    own[:] = 0
    assert (kept.images[:] == made[2].images[:]).all(), "a copy"


@pytest.mark.parametrize(
    "images, labels, said",
    [
        (3, None, "expected an array, or an object with len"),
        ([], None, "holds no image"),
        (np.zeros((2, 14, 14), np.float32), None, "are float32, expected uint8"),
        (np.zeros((2, 3, 14, 3), np.uint8), None, "1 to 4 channels"),
        (np.zeros((2, 9, 14, 9), np.uint8), None, "1 to 4 channels"),
        (np.zeros((14, 14), np.uint8), None, "expected"),
        ([np.zeros((8, 8), np.uint8), np.zeros((9, 8), np.uint8)], None, "number 1 is"),
        ([(np.zeros((8, 8), np.uint8), 1), np.zeros((8, 8), np.uint8)], None, "a label or none"),
        (Pairs(), [0] * 5, "leave labels out"),
        (np.zeros((2, 8, 8), np.uint8), [0], "expected 2 integers"),
        (np.zeros((2, 8, 8), np.uint8), [0.0, 1.0], "expected 2 integers"),
        (np.zeros((2, 8, 8), np.uint8), [0, -1], "classes are 0 or more"),
    ],
)
def test_arrays_that_are_no_images_are_refused(images: Any, labels: Any, said: str) -> None:
    with pytest.raises(diptych.UserError, match=said) as error:
        diptych.Dataset.from_arrays(images, labels)
    assert str(error.value).startswith("Dataset.from_arrays: ")


# Messages


@pytest.mark.parametrize(
    "line, here",
    [
        ("use --solver ddim with --eta 0.5", 'use solver="ddim" with eta=0.5'),
        ("use --set data.channels=3", 'use set={"data.channels": 3}'),
        ("--set data.source=mnist-10k.", 'set={"data.source": "mnist-10k"}.'),
        ("lower --num or --repeats", "lower num or repeats"),
        ("go on with --resume, or --overwrite", "go on with resume=True, or overwrite=True"),
        ("no GPU; use --device cpu", 'no GPU; use device="cpu"'),
        ("leave --protocol out", "leave protocol out"),
        ("--no-clip for ddpm", "clip=False for ddpm"),
        ("a - b -- c", "a - b -- c"),
    ],
)
def test_options_are_said_as_arguments(line: str, here: str) -> None:
    assert in_python(line) == here
    assert in_python(here) == here


def test_own_pictures_are_told_of_in_the_terms_of_python(tmp_path: Path, capsys: Any) -> None:
    """Refusals, and the notes on what is chosen for the user."""
    api.said(True)("size 48x48 (--size changes it), --channels 3, or --skip-bad")
    said = capsys.readouterr().err
    assert said == (
        'size 48x48 (set={"data.image_size": ...} changes it), set={"data.channels": ...} 3, or '
        'set={"data.skip_bad": True}\n'
    )


def test_public_functions_say_their_arguments() -> None:
    """Every argument stands in the docstring."""
    for name in ("train", "evaluate", "compare", "make_report", "grid", "load"):
        function = getattr(diptych, name)
        for argument in inspect.signature(function).parameters:
            assert argument in (function.__doc__ or ""), (name, argument)
