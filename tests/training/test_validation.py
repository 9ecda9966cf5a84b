"""Held-out pictures are never trained on, and their loss depends on the weights alone."""

from __future__ import annotations

import json

import numpy as np
import pytest

import panel_jobs
from diptych import rng
from diptych.config.load import load_config
from diptych.diffusion.objective import target
from diptych.errors import UserError
from diptych.evaluation.images import not_trained_on, trained_on
from diptych.evaluation.nearest import make_nearest, search
from diptych.network.plan import make_plan
from diptych.runs.reader import read_run
from diptych.training.batches import Batches, to_float
from diptych.training.callbacks.journal import read_rows
from diptych.training.validation import Validation

CHANGES = ["train.validate_every=2", "data.held_out=40", "train.steps=4", "train.log_every=4",
           "train.checkpoint_every=2", "diffusion.timesteps=20"]  # fmt: skip
IMAGES = np.random.default_rng(0).integers(0, 256, (30, 1, 14, 14), np.uint8)


def batches(*changes: str) -> Batches:
    config = load_config("tiny", ["train.batch_size=4", *changes])
    return Batches(config, make_plan(config), IMAGES, None)


def test_no_batch_holds_a_held_out_picture() -> None:
    source = batches("data.held_out=7")
    assert len(set(source.held_out)) == 7 and source.steps_per_epoch == 6
    for epoch in range(3):
        assert sorted([*source.order(epoch), *source.held_out]) == list(range(30))
    assert source.batch(6).x0.shape[0] == 3


def test_scores_of_memory_are_of_the_pictures_trained_on(tmp_path) -> None:
    """Held-out pictures are what copies are judged by, and are nobody's nearest training image."""
    np.savez(tmp_path / "own.npz", images=IMAGES.transpose(0, 2, 3, 1))
    source = f"data.source=npz:{tmp_path / 'own.npz'}"
    config = load_config("tiny", [source, "data.held_out=7", "train.batch_size=4"])
    held_out = Batches(config, make_plan(config), IMAGES, None).held_out
    seen, fresh = trained_on(config), not_trained_on(config)
    assert (seen.count, fresh.count) == (23, 7) and seen.identify() != fresh.identify()
    rows = [image.tobytes() for image in IMAGES.transpose(0, 2, 3, 1)]
    assert {image.tobytes() for image in fresh.stream()} == {rows[i] for i in held_out}
    assert {image.tobytes() for image in seen.stream()} == set(rows) - {rows[i] for i in held_out}
    nearest = search(make_nearest(config, 3), IMAGES[held_out], None)
    assert not np.isin(nearest.index, held_out).any() and (nearest.distance > 0).all()
    whole = load_config("tiny", [source])
    assert trained_on(whole).count == 30 and not_trained_on(whole) is None
    assert (search(make_nearest(whole, 3), IMAGES, None).distance[:, 0] == 0).all()


def test_the_split_is_keyed_by_the_seed() -> None:
    one, same, other = (batches("data.held_out=0.3", f"seed={seed}") for seed in (1, 1, 2))
    assert len(one.held_out) == 9 and one.held_out.tolist() == same.held_out.tolist()
    assert set(one.held_out) != set(other.held_out)


def test_without_held_out_pictures_the_order_is_as_before() -> None:
    order = batches().order(2)
    assert order.tolist() == rng.stream(0, "order", 2).permutation(30).tolist()


@pytest.mark.parametrize("share", ["30", "0.01", "31"])
def test_a_split_that_leaves_nothing_is_refused(share: str) -> None:
    with pytest.raises(UserError, match=f"data.held_out={float(share)} of 30 pictures"):
        batches(f"data.held_out={share}")


class Plain:
    """A backend whose network is a function of images, embedding and classes."""

    def array(self, values):
        return values

    numpy = array

    def predict(self, network, *given):
        return network(*given)


@pytest.mark.parametrize("objective", ["eps", "x0", "v"])
@pytest.mark.parametrize("loss", ["mean", "sum"])
def test_the_loss_is_the_training_loss_of_each_picture_once(objective: str, loss: str) -> None:
    source = batches(
        "data.held_out=7", "train.validate_every=1", f"diffusion.objective={objective}",
        f"train.loss={loss}", "train.weighting=min-snr",
    )  # fmt: skip
    found = Validation(source.config, source, 5).loss(Plain(), lambda x, embedding: 0.5 * x)
    total = 0.0
    for place, row in enumerate(source.held_out):  # one by one, written independently
        t = int((place + 0.5) * 1000 / 7)
        x0 = to_float(IMAGES[[row]])
        eps = rng.normal_per_image(0, "validation_noise", [place], (1, 14, 14))
        alpha, sigma = source.alpha[[t]], source.sigma[[t]]
        error = target(objective, x0, eps, alpha, sigma) - 0.5 * (alpha * x0 + sigma * eps)
        one = (error.astype(np.float64) ** 2).mean() * source.weight[t].item()
        total += one * (196 if loss == "sum" else 1)
    assert found == pytest.approx(total / 7, rel=1e-5)


def test_both_panels_agree_and_a_resumed_run_is_exact(both, tmp_path):
    """The loss is in the rows of its steps alone, alike in both panels, and after a resume."""
    losses = []
    for panel in both:
        run = tmp_path / panel.name
        panel.call(panel_jobs.run, panel.name, panel_jobs.small(*CHANGES), run)
        rows = read_rows(run / "metrics.jsonl")
        assert ["validation_loss" in row for row in rows] == [False, True, False, True]
        losses.append([row["validation_loss"] for row in rows if "validation_loss" in row])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4) and losses[0][0] != losses[0][1]
    half = panel_jobs.small(*CHANGES, "train.steps=2")
    for panel, whole in zip(both, losses, strict=True):
        run = tmp_path / f"{panel.name}-half"
        panel.call(panel_jobs.run, panel.name, half, run)
        panel.call(panel_jobs.run, panel.name, panel_jobs.small(*CHANGES), run, resume=True)
        rows = read_rows(run / "metrics.jsonl")
        assert [row["validation_loss"] for row in rows if "validation_loss" in row] == whole
    split = json.loads((tmp_path / "torch" / "environment.json").read_text())["held_out"]
    theirs = json.loads((tmp_path / "jittor" / "environment.json").read_text())["held_out"]
    assert split == theirs and split["images"] == 40 and len(split["indices_sha256"]) == 64
    assert read_run(tmp_path / "torch").steps_per_epoch == (10_000 - 40) // 8
