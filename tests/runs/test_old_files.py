"""A run with a checkpoint, a packed file and statistics as version 0.1.0 first wrote them.

    checkpoint       tiny, --set model.ch_mult=[1] --set model.attn_resolutions=[]
                     --set train.batch_size=4 --set train.steps=4 --set train.checkpoint_every=2;
                     metrics of 4 steps, the checkpoint of step 2
    packed.npy       data prepare folder:pictures --size 8, five of each of two classes
    statistics.npz   stats mnist:test --num 40 --features mnist

Never renew them.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import Panel
from diptych import api
from diptych.data import load_dataset
from diptych.model import load

OLD = Path(__file__).parents[1] / "old_records"


def losses(run: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (run / "metrics.jsonl").read_text().splitlines()]


def resumed(out: Path) -> list[float]:
    api.train(out / "config.yaml", out, resume=True, progress=False)
    return losses(out)


@pytest.mark.torch
def test_an_old_run_goes_on_as_it_did(panels: dict[str, Panel], tmp_path: Path) -> None:
    out = Path(shutil.copytree(OLD / "checkpoint", tmp_path / "run"))
    before = losses(out)
    after = panels["torch"].call(resumed, out)
    assert after[:2] == before[:2]  # rows of the steps that are not done again
    np.testing.assert_allclose(after, before, rtol=1e-5)


def drawn(name: str) -> Any:
    model = load(str(OLD / "checkpoint"), name)
    return model.sample(2, solver="ddim", steps=2, noise="host")


def test_an_old_checkpoint_is_drawn_from(panel: Panel) -> None:
    assert panel.call(drawn, panel.name).shape == (2, 14, 14, 1)


def test_an_old_packed_file_is_read() -> None:
    data = load_dataset(f"packed:{OLD / 'packed.npy'}", image_size=8, channels=3)
    assert data.images.shape == (10, 3, 8, 8) and np.bincount(data.labels).tolist() == [5, 5]
    stored = np.load(OLD / "packed.npy")
    np.testing.assert_array_equal(np.asarray(data.images), stored.transpose(0, 3, 1, 2))


def distance(count: int) -> float:
    images = load_dataset("mnist-10k").images[:count]
    reference = str(OLD / "statistics.npz")
    return float(api.evaluate(images, reference, features="mnist", progress=False).value)


@pytest.mark.torch
def test_old_statistics_are_a_reference(panels: dict[str, Panel]) -> None:
    same, other = (panels["torch"].call(distance, count) for count in (40, 80))
    assert same < 1e-6 < other
