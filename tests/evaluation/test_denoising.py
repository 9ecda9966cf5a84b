"""The error of the predicted image: right by hand, paired, and the same in both panels."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import diptych
from commands import call
from conftest import Panel
from diptych.config.load import load_config
from diptych.diffusion.schedule import make_schedule
from diptych.errors import UserError
from diptych.evaluation import denoising
from diptych.evaluation.denoising import LEVELS, Pictures, Subject, ratio, source_of


def subject(name: str, scale: float, **changes: Any) -> Subject:
    """A model whose predicted image is `scale` times the real one, whatever it is given."""
    config = load_config("tiny", [f"{key}={value}" for key, value in changes.items()])
    schedule = make_schedule(config.diffusion)

    def predict(x: Any, t: Any, classes: Any) -> Any:
        alpha, sigma = schedule.alpha[t[0]], schedule.sigma[t[0]]
        here = IMAGES.still[seen[name] : seen[name] + len(x)]
        seen[name] = (seen[name] + len(x)) % len(IMAGES.still)
        return (x - alpha * scale * here) / sigma

    return Subject(name, config, schedule, predict, lambda pixels: IMAGES.still, {})


class IMAGES:
    """Twelve images, as pixels and as network inputs."""

    pixels = np.random.RandomState(0).randint(0, 256, (12, 1, 14, 14), dtype=np.uint8)
    still = pixels.astype(np.float32) / np.float32(127.5) - 1


seen: dict[str, int] = {}


def compared(*subjects: Subject, batch: int = 5) -> dict[str, Any]:
    seen.update({each.name: 0 for each in subjects})
    pictures = Pictures("own", "0" * 64, IMAGES.pixels, None)
    return denoising.denoise(subjects, pictures, batch=batch, progress=False)


def test_errors_and_ratios_by_hand() -> None:
    """x0_hat = s x0 has the error (s - 1)^2 mean(x0^2) at every level, so ratios are exact."""
    found = compared(subject("a", 0.5), subject("b", 0.6), subject("c", 0.5))
    a, b, c = found["models"]
    assert a["errors"] == pytest.approx([0.25 * (IMAGES.still**2).mean()] * len(LEVELS), rel=1e-3)
    assert a["ratio"] is None and c["ratio"]["value"] == pytest.approx(1, rel=1e-4)
    assert b["ratio"]["value"] == pytest.approx(0.64, rel=1e-3)
    assert found["timesteps"] == [20, 50, 100, 200, 300, 400, 500, 600, 700, 850]
    text = denoising.render(found)
    assert "b / a: 0.6400" in text and "the error is smaller" in text
    assert compared(subject("a", 0.5), batch=12)["models"][0]["errors"] == pytest.approx(
        a["errors"], rel=1e-3
    )


def test_the_interval_holds_the_truth_as_often_as_it_says() -> None:
    random = np.random.RandomState(0)
    held = 0
    for _ in range(400):
        first = random.gamma(3, 1, (10, 1)) * random.gamma(5, 1, (1, 60))
        other = first * 1.1 * np.exp(random.normal(0, 0.2, (10, 60)))
        low, high = ratio(first, other)["interval"]
        held += low <= 1.1 <= high
    assert 0.92 <= held / 400 <= 0.98


def test_what_cannot_be_compared_is_refused() -> None:
    with pytest.raises(UserError, match=r"^b: has diffusion.schedule=cosine, a has linear"):
        compared(subject("a", 1), subject("b", 1, **{"diffusion.schedule": "cosine"}))
    ends = {"diffusion.zero_terminal_snr": True, "diffusion.objective": "v"}
    with pytest.raises(UserError, match=r"^b: has diffusion.zero_terminal_snr=True, a has False"):
        compared(subject("a", 1), subject("b", 1, **ends))
    wide = subject("wide", 1, **{"data.channels": 3})
    with pytest.raises(UserError, match=r"^wide: is for images of 3x14x14, own has 1x14x14"):
        compared(wide)
    with pytest.raises(UserError, match=r"--images"):
        source_of(load_config("tiny", ["data.source=folder:x"]).data, None)
    assert source_of(load_config("mnist").data, None).source == "mnist:test"
    with pytest.raises(UserError, match=r"^--num 13: expected 3 to 12, the images of own"):
        Pictures("own", "", IMAGES.pixels, None).some(13)
    with pytest.raises(UserError, match=r"^few: holds 2 images; 3 or more are needed"):
        Pictures("few", "", IMAGES.pixels[:2], None).some(None)


def test_images_are_of_the_whole_source() -> None:
    """A folder is in the order of its classes: the first images would be of one class."""
    some = Pictures("own", "", IMAGES.pixels, np.arange(12) // 4).some(3)
    assert some.labels is not None and some.labels.tolist() == [0, 1, 2]
    assert (some.pixels == IMAGES.pixels[[0, 5, 11]]).all()


def test_both_panels_see_the_same_error(panels: dict[str, Panel]) -> None:
    """The same trained weights in both panels: no difference, and the class is told."""
    found = {name: panels[name].call(of_zoo, name) for name in panels}
    (torch, told), (jittor, _) = (found[name]["models"] for name in ("torch", "jittor"))
    assert jittor["errors"] == pytest.approx(torch["errors"], rel=1e-4)
    assert told["classes"] and not torch["classes"]
    assert told["errors"][7] < 0.95 * torch["errors"][7]
    assert torch["errors"] == sorted(torch["errors"])  # more noise, more error


def of_zoo(backend: str) -> dict[str, Any]:
    """Two models of the zoo on 24 digits of the package."""
    names = ("zoo:mnist-torch", "zoo:mnist-conditional")
    models = {name: diptych.load(name, backend) for name in names}
    return diptych.denoise(models, "mnist-10k", num=24, progress=False)


def test_the_command_and_python_say_the_same(monkeypatch: Any, capsys: Any, tmp_path: Path) -> None:
    words = ["denoise", "zoo:mnist-torch", "--images", "mnist-10k", "--num", 4, "--quiet"]
    code, text, err = call(monkeypatch, capsys, *words, "--json")
    assert code == 0, err
    model = diptych.load("zoo:mnist-torch")
    found = diptych.denoise({"zoo:mnist-torch": model}, "mnist-10k", num=4, progress=False)
    assert json.loads(text) == found and found["images"] == "mnist-10k"
    pixels = diptych.Dataset.from_arrays(np.zeros((4, 28, 28, 1), np.uint8))
    own = diptych.denoise([model, model], pixels, progress=False)["models"]
    assert [each["model"] for each in own] == ["model 1", "model 2"]
    assert own[1]["ratio"]["value"] == 1
    code, text, _ = call(monkeypatch, capsys, *words)
    assert code == 0 and "error of the predicted image, 4 images of mnist-10k" in text
    for wrong, said in (([], "models: expected models"), ([3], "models: expected models")):
        with pytest.raises(UserError, match=said):
            diptych.denoise(wrong)
    with pytest.raises(UserError, match=r"^seed is 18446744073709551616; it must be 0 or more"):
        diptych.denoise(model, pixels, seed=2**64)
    code, _, err = call(monkeypatch, capsys, "denoise", "zoo:mnist-torch", "--images", "nope")
    assert code == 2 and "nope" in err and err.count("\n") == 1
    code, _, err = call(monkeypatch, capsys, "denoise", "runs/a", "runs/a")
    assert code == 2 and "named twice" in err
