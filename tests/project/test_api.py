"""The Python API in both panels: data, networks, callbacks and solvers of one's own."""

from __future__ import annotations

import ast
import hashlib
import inspect
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import api_jobs
import diptych
from conftest import Panel
from diptych.api import training
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
    """Of a module that gives x back: eps is x, x0 is x, or v is x.

    With `jsd`, whose last level holds nothing of the image, it is drawn and encoded too.
    """
    x, eps, alpha, sigma, shown, drawn = panel.call(api_jobs.wrapped, panel.name, objective)
    alpha, sigma = (table[:, None, None, None] for table in (alpha, sigma))
    wanted = {"eps": x, "x0": (x - alpha * x) / sigma, "v": sigma * x + alpha * x}[objective]
    assert eps == pytest.approx(wanted, abs=1e-5, rel=1e-4)
    assert f", {objective}, {panel.name} on cpu>" in shown and drawn == 2


def test_a_callback_stops_a_training_which_then_goes_on(panel: Panel, tmp_path: Path) -> None:
    found = panel.call(api_jobs.stopped, panel.name, tmp_path / "run", 3)
    step, rows, seen = found["first"]
    # Rows are read every second step: the fourth was made before the third was seen, and is told.
    assert (step, rows, seen) == (4, [1, 2, 3, 4], [1, 2, 3, 4])
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
        "model.ch only applies to Diptych's own network",
    "diptych.train('tiny', folder / 'a', name, data=PIXELS, network=shapeless(name), set=SET)":
        "it must give the same shape",
    "diptych.train('tiny', folder / 'a', name, callbacks=[3])": "expected functions of a row",
    "diptych.load('zoo:mnist-torch', name, network=network(name))": "no run, checkpoint or saved",
    "diptych.load(folder / 'none', name)": "not found",
    "diptych.Model.of(network(name), (1, 6, 6))": "expected a torch.nn.Module or a Jittor Module",
    "diptych.Model.of(network(name)(), (6, 6))": "expected (C, H, W), not (6, 6)",
    "diptych.Model.of(network(name)(), (1, 6, 6), backend='other')": "is a module of",
    "diptych.Model.of(network(name)(), (1, 6, 6), 'linaer')": "schedule",
    "diptych.load('zoo:mnist-torch', name).sample(2, 'ddpm', eta=0.5)":
        'use solver="ddim" with eta=0.5',
    "diptych.load('zoo:mnist-torch', name).sample(2, diptych.solvers.Heun(), eta=0.5)":
        "has its own eta and order",
    "diptych.load('zoo:mnist-torch', name).sample(2, 3)": "",
    "diptych.Run(folder)": "is not a run",
    "diptych.evaluate(PIXELS, features='mnist')": "give reference, for example mnist:test",
    "diptych.evaluate(PIXELS, PIXELS, features='mnist', protocol='clean-fid')":
        'leave protocol out',
    "diptych.evaluate([PIXELS, PIXELS], PIXELS, features='mnist', repeats=2)": "leave repeats out",
    "diptych.compare(folder / 'x', folder / 'y', out=folder / 'z')": "no such folder",
    "diptych.make_report(folder / 'x', folder / 'z', language='fr')": "expected en or zh",
    "diptych.grid(PIXELS, scale=0)": "expected a whole number, 1 or more, not 0",
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


WRONG = {
    "diptych.load(None)": "source: expected a path, not None",
    "diptych.load(model)": "source: expected a path, not <Model 'mnist-torch'",
    "diptych.load('')": "source: expected a path, not ''",
    "diptych.load('a', 3)": "backend: expected a string, not 3",
    "diptych.load('a', device=None)": "device: expected a string, not None",
    "diptych.load('a', config=3)": "config: expected a path, not 3",
    "diptych.Run(3)": "path: expected a path, not 3",
    "diptych.train(None, 'a')": "config: expected a preset's name, a path or a Config, not None",
    "diptych.train('tiny', None)": "run: expected a path, not None",
    "diptych.train('tiny', 3)": "run: expected a path, not 3",
    "diptych.train('tiny', 'a', 3)": "backend: expected a string",
    "diptych.train('tiny', 'a', device=3)": "device: expected a string",
    "diptych.train('tiny', 'a', callbacks=3)": "callbacks: expected functions of a row, not 3",
    "diptych.train('tiny', 'a', callbacks='f')": "callbacks: expected functions of a row, not 'f'",
    "diptych.train('tiny', 'a', set='train.steps=3')": "set: expected a dict such as",
    "diptych.train('tiny', 'a', set=['train.steps=3'])": "set: expected a dict such as",
    "diptych.train('tiny', 'a', set={3: 3})": "set: expected a dict such as",
    "diptych.train('tiny', 'a', set={'train.lr': np.ones(3)})": "set: train.lr: ",
    "diptych.train('tiny', 'a', data=3)": "expected an array",
    "diptych.train('tiny', 'a', data={'a': PIXELS})": "expected an array",
    "diptych.train('tiny', 'a', data_dir=3)": "data_dir: expected a path",
    "diptych.train('tiny', 'a', recording=3)": "recording: expected a Recording",
    "model.sample('4')": "num: expected a whole number, 1 or more, not '4'",
    "model.sample(4.0)": "num: expected a whole number, 1 or more, not 4.0",
    "model.sample(0)": "num: expected a whole number, 1 or more, not 0",
    "model.sample(True)": "num: expected a whole number, 1 or more, not True",
    "model.sample(2, steps='3')": "steps: expected a whole number",
    "model.sample(2, 'ddim', eta='x')": "eta: expected a number, not 'x'",
    "model.sample(2, spacing=[3, 2])": "spacing: expected a name, timesteps such as",
    "model.sample(2, seed=None)": "seed: expected a whole number, 0 or more",
    "model.sample(2, seed=2**63)": "seed: expected 2**63 - 1 or less",
    "model.sample(2, batch=1.5)": "batch: expected a whole number",
    "model.sample(2, x_T='x')": "x_T: expected an array of numbers, not 'x'",
    "model.sample(2, x_T=X[:1])": "images are (1, 1, 28, 28), this network needs (2, 1, 28, 28)",
    "model.sample(2, callback=3)": "callback: expected a function",
    "model.encode(None)": "images: expected an array of numbers, not None",
    "model.encode([[1], [1, 2]])": "images: expected an array of numbers",
    "model.encode(3)": "images are (), this network needs (N, 1, 28, 28)",
    "model.encode(X, refine='x')": "refine: expected a whole number",
    "model.encode(X, batch=0)": "batch: expected a whole number, 1 or more, not 0",
    "model.encode(X, spacing=3)": "spacing: expected a name",
    "model.predict('x', [1, 2])": "x: expected an array of numbers, not 'x'",
    "model.predict(X, None)": "t: expected an array of numbers, not None",
    "model.predict(X, [1])": "t must be 2 integers",
    "model.predict(X, [1, 2], 'x')": "classes: expected an array of numbers",
    "model.save(None)": "out: expected a path, not None",
    "diptych.Model.of(module, None)": "shape: expected (C, H, W), not None",
    "diptych.Model.of(module, (0, 8, 8))": "Model.of: data.channels",
    "diptych.Model.of(module, (1, 8, 8), timesteps='x')": "Model.of: diffusion.timesteps",
    "diptych.load_config(None)": "config: expected a preset's name or a path, not None",
    "diptych.load_config('tiny', 3)": "overrides: expected a list such as",
    "diptych.load_config('tiny', {'train.lr': 1})": "overrides: expected a list such as",
    "diptych.grid(PIXELS, columns='x')": "columns: expected a whole number",
    "diptych.evaluate(None, PIXELS)": "expected an array",
    "diptych.evaluate('', PIXELS)": "images: expected a path, not ''",
    "diptych.evaluate([], PIXELS, features='mnist')": "samples: expected images or paths, not []",
    "diptych.evaluate(PIXELS, PIXELS, 3)": "metrics: expected names, not 3",
    "diptych.evaluate(PIXELS, PIXELS, features=None)": "features: expected a string",
    "diptych.evaluate(PIXELS, PIXELS, num='x')": "num: expected a whole number",
    "diptych.evaluate(PIXELS, PIXELS, repeats=2.0)": "repeats: expected a whole number",
    "diptych.evaluate(PIXELS, PIXELS, features='mnist', weights=3)": "weights: expected a path",
    "diptych.denoise(model, num='x')": "num: expected a whole number",
    "diptych.denoise(3)": "models: expected models of diptych.load, not 3",
    "diptych.search_steps(None, 's.json', 3)": "model: expected a Model",
    "diptych.search_steps(model, None, 3)": "out: expected a path",
    "diptych.search_steps(model, 's.json', 'x')": "calls: expected a whole number",
    "diptych.search_steps(model, 's.json', 3, solvers=3)": "solvers: expected names, not 3",
    "diptych.search_steps(model, 's.json', 3, num='x')": "num: expected a whole number",
    "diptych.compare(None, 'b', 'c')": "a: expected a path, not None",
    "diptych.compare('a', 'b', 'c', samples=3)": "samples: expected paths, not 3",
    "diptych.compare('a', 'b', 'c', samples='ab')": "samples: expected two folders, not 'ab'",
    "diptych.compare('a', 'b', columns=3)": "columns: expected dicts, not 3",
    "diptych.compare('a', 'b', columns='loss=x')": "columns: expected a dict such as",
    "diptych.compare('a', 'b', labels=[3, 4])": "labels: expected names, not [3, 4]",
    "diptych.make_report(None, 'c')": "runs: expected paths, not None",
    "diptych.make_report([], 'c')": "runs: expected one run folder or more, not []",
    "diptych.make_report(['a', None], 'c')": "runs: expected a path, not None",
    "diptych.make_report('a', 'c', search=3)": "search: expected paths, not 3",
    "diptych.make_report('a', 'c', language=3)": "language: expected a string",
}


def test_wrong_types_are_refused(panel: Panel, tmp_path: Path) -> None:
    said = panel.call(api_jobs.errors_of, panel.name, tmp_path, list(WRONG))
    assert [call for call in WRONG if WRONG[call] not in said[call]] == []
    assert list(tmp_path.iterdir()) == []


def test_yes_and_no_are_true_and_false() -> None:
    """Any word counts as true: raw="no" would be raw=True, so every flag refuses words."""
    functions = [*(getattr(diptych, name) for name in diptych.__all__), diptych.Run.load,
                 *(getattr(diptych.Model, name) for name in dir(diptych.Model))]  # fmt: skip
    seen = []
    for function in filter(inspect.isfunction, functions):
        for name, kind in function.__annotations__.items():
            if name != "return" and kind in ("bool", "bool | None"):
                for wrong in ("no", 1, *([] if kind.endswith("None") else [None])):
                    with pytest.raises(diptych.UserError, match=f"^{name}: expected True or False"):
                        function(**{name: wrong})
                seen.append(name)
    assert {"raw", "overwrite", "progress", "euler_at_final", "as_float", "static"} <= set(seen)
    with pytest.raises(diptych.UserError, match=r"^overwrite: expected True or False, not 'no'"):
        diptych.Model.save(None, "out", "no")  # type: ignore[arg-type]


def test_a_model_is_saved_over_a_saved_model_only(panel: Panel, tmp_path: Path) -> None:
    found = panel.call(api_jobs.saved, panel.name, tmp_path)
    assert found["again"].endswith(
        "not empty; give another out folder, or overwrite=True to replace it"
    )
    assert found["replaced"] == "nothing was refused" and found["equal"]
    assert "holds 'notes.txt'" in found["foreign"]


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
    """A torch data set as seen from outside."""

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
        (None, None, "expected an array"),
        ("pictures", None, "expected an array"),
        ({"a": 1}, None, "expected an array"),
        (np.array(3, np.uint8), None, "expected an array"),
        (np.zeros((2, 1, 0, 8), np.uint8), None, "expected"),
        ([[[1], [1, 2]]], None, "cannot be read as an array"),
        (np.zeros((2, 8, 8), np.uint8), [[1], [1, 2]], "cannot be read as an array"),
        (np.zeros((2, 8, 8), np.uint8), "ab", "expected 2 integers"),
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


@pytest.mark.parametrize(
    "line",
    [
        "settings to keep: diptych train small_colour --data-source folder:/pictures "
        "--set data.image_size=64 --set 'model.ch_mult=[1, 2, 2, 2]'",
        "nock: holds no checkpoint; train it first: diptych train --resume --out nock",
        "which runs? Give one run folder or more: diptych report RUN... --out OUT",
        "a run: is a run, not a folder of pictures; go on with it by diptych train --out 'a run' "
        "--resume",
        "celeba: the pictures have several sizes: diptych data prepare celeba --size 64 --out "
        "FILE.npy, then give FILE.npy",
        "empty: not a run folder; expected the --out folder of `diptych train`",
        "start the command with srun, or with srun --ntasks=1 to run it alone",
        "torchrun --nproc-per-node 2 train.py; python -m diptych train tiny --out a",
        "it is not installed; pip install --upgrade 'diptych[hf]'",
        "parts are missing; add them with `diptych stats --part 1/2 (of 2), --out a`",
    ],
)
def test_commands_are_said_as_they_are(line: str) -> None:
    assert in_python(line, training._TERMS) == line
    assert in_python(f"{line}; or use --device cpu") == (
        f"{line}; or use {'--device cpu' if line.startswith('settings') else 'device=' + CPU}"
    )


CPU = '"cpu"'


@pytest.mark.parametrize(
    "line, here",
    [
        (
            "choose a size and a crop, for example --size 64 --crop center",
            'choose a size and a crop, for example set={"data.image_size": 64, "data.crop": '
            '"center"}',
        ),
        ("--size ab: expected 4 to 1024", 'set={"data.image_size": "ab"}: expected 4 to 1024'),
        ("--size 49 cannot be halved", 'set={"data.image_size": 49} cannot be halved'),
        (
            "keep their shape with --size 48x64",
            'keep their shape with set={"data.image_size": "48x64"}',
        ),
        ("--size chooses one", 'set={"data.image_size": ...} chooses one'),
        ("--language fr: expected en or zh", 'language="fr": expected en or zh'),
        (
            "use --steps 500, or diptych train --steps 500",
            'use set={"train.steps": 500}, or diptych train --steps 500',
        ),
    ],
)
def test_values_are_said_with_their_arguments(line: str, here: str) -> None:
    assert in_python(line, training._TERMS) == here


def test_no_message_has_its_commands_translated() -> None:
    """On the texts of the sources, as far as they are literal."""
    commands = []
    for path in sorted(Path(diptych.__file__).parent.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "UserError":
                parts = [getattr(each, "value", "") for each in ast.walk(node)]
                text = "".join(part for part in parts if isinstance(part, str))
                found = re.findall(r"diptych [a-z-]+(?: [\w./-]+)*", text)
                assert [
                    each for each in found if each not in in_python(text, training._TERMS)
                ] == []
                commands += found
    assert len(commands) > 20


def test_own_pictures_are_told_of_in_the_terms_of_python(tmp_path: Path, capsys: Any) -> None:
    """Refusals, and the notes on what is chosen for the user."""
    training.said(True)("size 48x48 (--size changes it), --channels 3, or --skip-bad")
    said = capsys.readouterr().err
    assert said == (
        'size 48x48 (set={"data.image_size": ...} changes it), set={"data.channels": 3}, or '
        'set={"data.skip_bad": True}\n'
    )


def test_results_are_shown_in_a_line(tmp_path: Path) -> None:
    facts = {"num": 64, "protocol": "native"}
    assert repr(diptych.Score("fid", 5.7912, facts)) == "<Score fid 5.791 (64 images, native)>"
    assert repr(diptych.Score("fid", 2.0, facts, (1.0, 2.0, 3.0))) == (
        "<Score fid 2, 95 % interval -0.4841 to 4.484 (3 x 64 images, native)>"
    )
    log = tmp_path / "log.csv"
    log.write_text("step,loss\n1,2\n2,1\n3,0.5\n")
    found = diptych.compare(log, log, tmp_path / "page")
    page = tmp_path / "page"
    assert repr(found).startswith(f"<Content of {str(page / 'index.html')!r}: ")
    assert len(repr(found)) < 300 + len(str(page)) and found == read_json(page / "compare.json")


def test_public_functions_say_their_arguments() -> None:
    """Every argument stands in the docstring."""
    for name in ("train", "evaluate", "compare", "make_report", "grid", "load"):
        function = getattr(diptych, name)
        for argument in inspect.signature(function).parameters:
            assert argument in (function.__doc__ or ""), (name, argument)
