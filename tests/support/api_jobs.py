"""Jobs for tests of the Python API, run in a panel's own process."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np

import diptych
from diptych import backends
from diptych.runs import checkpoint

SET = {
    "train.batch_size": 8, "train.log_every": 2, "train.checkpoint_every": 2, "train.steps": 6,
    "train.lr": 1e-3,
}  # fmt: skip
PIXELS = np.random.default_rng(0).integers(0, 256, (40, 14, 14, 1), dtype=np.uint8)
LABELS = np.arange(40) % 3


def layers(name: str) -> Any:
    """The framework's `nn`, imported as it should be: after Diptych has prepared the framework."""
    backends.load(name, "cpu")
    return importlib.import_module(f"{name}.nn")


def network(name: str, classes: bool = False) -> Any:
    """A small module of the panel's framework with dropout and averages of its own."""
    nn = layers(name)

    class Net(nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Conv2d(1, 8, 3, padding=1)
            self.norm = nn.BatchNorm2d(8)
            self.drop = nn.Dropout(0.3)
            self.last = nn.Conv2d(8, 1, 3, padding=1)
            self.frozen = nn.Conv2d(8, 8, 1)
            for array in self.frozen.parameters():
                array.requires_grad = False
            if classes:
                self.by_class = nn.Embedding(4, 8)

        def forward(self, x: Any, t: Any, *given: Any) -> Any:
            h = self.norm(self.first(x)) + t.reshape(-1, 1, 1, 1) / 1000
            if classes:
                h = h + self.by_class(given[0]).reshape(-1, 8, 1, 1)
            return self.last(self.drop(h) + self.frozen(h))

        execute = forward

    return Net


def shapeless(name: str) -> Any:
    """A module that gives another shape than it is given."""
    base = network(name)

    class Wrong(base):  # type: ignore[misc]
        def forward(self, x: Any, t: Any) -> Any:
            return super().forward(x, t)[:, :, 1:]

        execute = forward

    return Wrong


def states(path: Path) -> tuple[Any, ...]:
    """The hashes of a run's newest checkpoint, and its step."""
    state = checkpoint.load_state(checkpoint.latest(path), None)
    hashes = [checkpoint.weights_sha256(getattr(state, group)) for group in checkpoint.GROUPS]
    return (state.step, *hashes)


def own_twice(name: str, folder: Path) -> dict[str, Any]:
    """A network of one's own trained straight, and with a break and records that ask for gradients;
    loaded, saved, sampled."""
    given = {"backend": name, "device": "cpu", "progress": False, "network": network(name)}
    given["data"] = PIXELS, LABELS
    straight = diptych.train("tiny", folder / "straight", set=SET, **given)
    given["recording"] = diptych.Recording(histograms=1)
    diptych.train("tiny", folder / "broken", set=SET | {"train.steps": 4}, **given)
    diptych.train("tiny", folder / "broken", set=SET, resume=True, **given)
    model = straight.load(device="cpu")
    model.save(folder / "saved")
    again = diptych.load(folder / "saved", name, device="cpu", network=network(name))
    first = model.sample(3, steps=3)
    return {
        "states": [states(folder / run) for run in ("straight", "broken")],
        "names": sorted(model.weights),
        "same": bool((again.sample(3, steps=3) == first).all()),
        "shape": first.shape,
        "repr": repr(model),
        "loss": straight.metrics["loss"],
        "rows": straight.rows,
    }


def own_with_classes(name: str, folder: Path) -> Any:
    """A network of one's own that is told the class: what guidance makes of it."""
    run = diptych.train(
        "tiny", folder / "run", name, data=(PIXELS, LABELS), network=network(name, True),
        set=SET | {"model.num_classes": 3, "train.steps": 2}, device="cpu", progress=False,
    )  # fmt: skip
    model = run.load(device="cpu")
    return [model.sample(2, "ddim", 3, guidance=w, classes=[1, 2]) for w in (0, 1, 3)]


def wrapped(name: str, objective: str) -> Any:
    """`Model.of` predicts noise from what a module gives: here x itself."""
    nn = layers(name)

    class Same(nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.unused = nn.Linear(1, 1)

        def forward(self, x: Any, t: Any) -> Any:
            assert x.shape[0] == t.shape[0] and "int" in str(t.dtype)
            return x

        execute = forward

    model = diptych.Model.of(Same(), shape=(1, 6, 8), objective=objective, device="cpu")
    noisy = diptych.Model.of(Same(), (1, 6, 8), "jsd", objective=objective, device="cpu")
    starts: list[int] = []
    noisy.sample(1, "ddim", 2, callback=lambda k, x: starts.append(k))
    noisy.encode(np.zeros((1, 6, 8, 1), np.uint8), steps=2)
    x = np.random.default_rng(1).standard_normal((2, 1, 6, 8)).astype(np.float32)
    tables = model.engine.schedule
    return (
        x,
        model.predict(x, [3, 700]),
        tables.alpha[[3, 700]],
        tables.sigma[[3, 700]],
        repr(model),
        len(starts),
    )


def error_of(name: str, folder: Path, call: str, **more: Any) -> str:
    """The line of the `UserError` that an expression raises."""
    space = {"diptych": diptych, "folder": folder, "name": name, "PIXELS": PIXELS, "np": np}
    space |= {"LABELS": LABELS, "SET": SET, "network": network, "shapeless": shapeless} | more
    try:
        eval(call, space)
    except diptych.UserError as error:
        return str(error)
    return "nothing was refused"


def errors_of(name: str, folder: Path, calls: list[str]) -> dict[str, str]:
    """As `error_of`, of several expressions about the arguments of a `model` and a `module`."""
    more = {"model": diptych.load("zoo:mnist-torch", name, device="cpu")}
    more |= {"module": network(name)(), "X": np.zeros((2, 1, 28, 28), np.float32)}
    return {call: error_of(name, folder, call, **more) for call in calls}


def saved(name: str, folder: Path) -> dict[str, Any]:
    """The second and the third saving of a model, and one into a folder with another file."""
    model = diptych.load("zoo:mnist-torch", name, device="cpu")
    model.save(folder / "saved")
    space = {"model": model, "out": folder / "saved"}
    again = error_of(name, folder, "model.save(out)", **space)
    replaced = error_of(name, folder, "model.save(out, overwrite=True)", **space)
    (folder / "saved" / "notes.txt").write_text("mine")
    foreign = error_of(name, folder, "model.save(out, overwrite=True)", **space)
    same = diptych.load(folder / "saved", name, device="cpu").weights
    equal = all((array == same[key]).all() for key, array in model.weights.items())
    return {"again": again, "replaced": replaced, "foreign": foreign, "equal": equal}


def stopped(name: str, folder: Path, at: int) -> dict[str, Any]:
    """A run that a callback stops, and that is then resumed to its end."""
    seen: list[int] = []

    def stop(row: dict[str, Any]) -> None:
        seen.append(row["step"])
        assert row["seconds"] > 0 and np.isfinite(row["loss"])
        if row["step"] == at:
            raise diptych.StopTraining

    given: dict[str, Any] = {"backend": name, "device": "cpu", "progress": False}
    narrow = {"model.ch": 8, "model.norm_groups": 4}
    given |= {"data": PIXELS, "set": SET | narrow | {"train.grid_every": 2}}
    run = diptych.train("tiny", folder, callbacks=stop, **given)
    first = run.step, [row["step"] for row in run.rows], list(seen)
    run = diptych.train("tiny", folder, resume=True, **given)
    return {"first": first, "last": run.step, "loss": run.metrics["loss"], "repr": repr(run)}


def two_models(name: str) -> list[Any]:
    """The same images by a solver's name and by an object; and what a callback saw."""
    model = diptych.load("zoo:mnist-torch", name, device="cpu")
    seen: list[Any] = []
    by_name = model.sample(3, "heun", 4, seed=5, as_float=True)
    by_object = model.sample(
        3, diptych.solvers.Heun(), 4, seed=5, as_float=True,
        callback=lambda k, x: seen.append((k, x)),
    )  # fmt: skip
    return [by_name, by_object, seen]
