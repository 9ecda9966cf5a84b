"""Image i depends only on (weights, sampler, seed, i)."""

from __future__ import annotations

import numpy as np
import pytest

import panel_jobs
from diptych import rng
from diptych.errors import UserError
from diptych.figures.grids import read_png
from diptych.figures.movie import Movie, Strip
from diptych.files import read_json, write_json
from diptych.training.batches import to_uint8


def contents(folder):
    """Every file but the manifest, which holds times."""
    return {p.name: p.read_bytes() for p in sorted(folder.iterdir()) if p.name != "manifest.json"}


def test_another_batch_size_changes_at_most_rounding(panel):
    """At most 1 in 10,000 uint8 pixels, by one level."""
    one, other = (
        panel.call(panel_jobs.draw, panel.name, panel_jobs.small(), 24, steps=10, eta=0.5, batch=b)
        for b in (24, 7)
    )
    apart = np.abs(one.astype(int) - other.astype(int))
    assert apart.max() <= 1 and (apart > 0).mean() <= 1e-4


def test_a_ragged_last_batch_gives_the_same_bytes(panel):
    whole = panel.call(panel_jobs.draw, panel.name, panel_jobs.small(), 16, steps=5, batch=8)
    ragged = panel.call(panel_jobs.draw, panel.name, panel_jobs.small(), 11, steps=5, batch=8)
    assert np.array_equal(whole[:11], ragged)


def test_seeds_and_images_differ(panel):
    a = panel.call(
        panel_jobs.draw, panel.name, panel_jobs.small(), 4, solver="ddim", steps=5, seed=0
    )
    b = panel.call(
        panel_jobs.draw, panel.name, panel_jobs.small(), 4, solver="ddim", steps=5, seed=1
    )
    assert a.dtype == np.uint8 and a.shape == (4, 14, 14, 1)
    assert (a != b).mean() > 0.5 and (a[0] != a[1]).mean() > 0.5


def test_an_interrupted_folder_is_resumed_to_the_same_bytes(panel, tmp_path):
    asked = {"num": 11, "batch": 4, "seed": 3}
    panel.call(panel_jobs.draw_to, panel.name, panel_jobs.small(), tmp_path / "whole", **asked)
    broken = tmp_path / "broken"
    assert (
        panel.call(panel_jobs.draw_to, panel.name, panel_jobs.small(), broken, fail_at=1, **asked)
        is None
    )
    assert read_json(broken / "manifest.json")["complete"] is False
    panel.call(panel_jobs.draw_to, panel.name, panel_jobs.small(), broken, **asked)
    assert contents(broken) == contents(tmp_path / "whole")
    assert len(list(broken.glob("[0-9]*.png"))) == 11


def test_a_folder_is_resumed_with_its_own_number_of_images_at_once(panel, tmp_path):
    asked = {"num": 9, "seed": 3}
    broken = tmp_path / "broken"
    job = panel_jobs.draw_to, panel.name, panel_jobs.small(), broken
    panel.call(*job, fail_at=1, batch=4, **asked)
    found = panel.call(*job, batch=None, **asked)
    assert found["complete"] and found["batch"] == 4
    job = panel_jobs.draw_to, panel.name, panel_jobs.small(), tmp_path / "new"
    assert panel.call(*job, batch=None, **asked)["batch"] == 64


def test_a_folder_holds_what_it_says(panel, tmp_path):
    out = tmp_path / "out"
    manifest = panel.call(
        panel_jobs.draw_to, panel.name, panel_jobs.small(), out, num=9, batch=9, seed=2
    )
    assert manifest == read_json(out / "manifest.json")
    assert manifest["complete"] and manifest["num"] == 9 and manifest["network_calls"] == 5
    assert manifest["timesteps"] == [800, 600, 400, 200, 0]
    assert manifest["backend"] == panel.name and manifest["weights"] == "raw"
    images = np.load(out / "images.npz")["images"]
    assert images.shape == (9, 14, 14, 1) and images.dtype == np.uint8
    assert np.array_equal(read_png(out / "00004.png"), images[4].transpose(2, 0, 1))
    assert read_png(out / "grid.png").shape[2] > 8 * 14
    assert read_png(out / "progress.png").shape[2] > 5 * 14


def test_a_folder_of_another_sampler_is_not_resumed(panel, tmp_path):
    panel.call(panel_jobs.draw_to, panel.name, panel_jobs.small(), tmp_path, num=2, batch=2, seed=0)
    before = contents(tmp_path)
    with pytest.raises(UserError, match="seed=0, not 1"):
        panel.call(
            panel_jobs.draw_to, panel.name, panel_jobs.small(), tmp_path, num=2, batch=2, seed=1
        )
    assert contents(tmp_path) == before


def test_a_folder_of_another_schedule_is_not_resumed(panel, tmp_path):
    """A bare file of weights may be read with another config."""
    panel.call(panel_jobs.draw_to, panel.name, panel_jobs.small(), tmp_path, num=2, batch=2)
    (tmp_path / "00001.png").unlink()
    other = panel_jobs.small("diffusion.beta_end=0.03")
    with pytest.raises(UserError, match=r"diffusion\.beta_end=0\.02, not 0\.03"):
        panel.call(panel_jobs.draw_to, panel.name, other, tmp_path, num=2, batch=2)
    other = panel_jobs.small("model.norm_groups=8")
    with pytest.raises(UserError, match=r"model\.norm_groups=32, not 8"):
        panel.call(panel_jobs.draw_to, panel.name, other, tmp_path, num=2, batch=2)
    written = read_json(tmp_path / "manifest.json")
    del written["config"]["model.norm_groups"]  # as of before there was such a key
    write_json(tmp_path / "manifest.json", written)
    with pytest.raises(UserError, match=r"model\.norm_groups=32, not 8"):
        panel.call(panel_jobs.draw_to, panel.name, other, tmp_path, num=2, batch=2)
    assert panel.call(panel_jobs.draw_to, panel.name, panel_jobs.small(), tmp_path, num=2, batch=2)


def test_an_animation_with_other_settings_is_drawn_again(panels, tmp_path):
    def draw(out, **asked):
        panels["torch"].call(
            panel_jobs.draw_to, "torch", panel_jobs.small(), out, num=2, batch=2, **asked
        )
        return contents(out).get("trajectory.gif"), read_json(out / "manifest.json")["trajectory"]

    first, _ = draw(tmp_path / "a", movie=Movie("both"), strip=Strip())
    kept, card = draw(tmp_path / "a")
    assert kept == first and card["movie"] == {"show": "both", "frames": None}
    again, card = draw(tmp_path / "a", movie=Movie("x0", 3))
    fresh, _ = draw(tmp_path / "b", movie=Movie("x0", 3))
    assert again == fresh != first
    assert sorted(card) == ["movie", "strip"] and card["movie"]["frames"] == 3


def test_given_noise_replaces_the_keyed_one(panel):
    config = panel_jobs.small()
    given = rng.normal_per_image(5, "initial_noise", range(6), (1, 14, 14), noise="keyed")
    plain = {"solver": "ddim", "steps": 5}
    keyed = panel.call(panel_jobs.draw, panel.name, config, 6, seed=5, as_float=True, **plain)
    ours = panel.call(panel_jobs.draw, panel.name, config, 6, steps=5, x_T=given, as_float=True)
    assert keyed.dtype == np.float32 and keyed.shape == (6, 1, 14, 14)
    assert np.array_equal(keyed, ours)
    as_bytes = panel.call(panel_jobs.draw, panel.name, config, 6, seed=5, **plain)
    assert np.array_equal(as_bytes, to_uint8(keyed).transpose(0, 2, 3, 1))


@pytest.mark.parametrize(
    "solver, steps, eta", [("ddim", 20, 0.0), ("ddim", 20, 1.0), ("ddpm", 30, None)]
)
def test_the_panels_draw_the_same_images(both, solver, steps, eta):
    options = {"solver": solver, "steps": steps, "eta": eta}
    a, b = (p.call(panel_jobs.draw, p.name, panel_jobs.small(), 8, **options) for p in both)
    apart = np.abs(a.astype(int) - b.astype(int))
    assert apart.max() <= 1 and (apart > 0).mean() < 0.01


def test_clipping_limits_each_predicted_image(panel):
    plain, clipped = (
        panel.call(
            panel_jobs.draw, panel.name, panel_jobs.small(), 4, steps=5, clip=c, as_float=True
        )
        for c in (False, True)
    )
    assert np.abs(clipped).max() <= 1 + 1e-5 < np.abs(plain).max()


BAD = [
    ({"num": 0}, "num"),
    ({"num": 2, "batch": 0}, "batch"),
    ({"num": 2, "steps": 1001}, "1001 steps"),
    ({"num": 2, "steps": 0}, "steps: expected a whole number, 1 or more, not 0"),
    ({"num": 2, "eta": -0.1}, "eta"),
    ({"num": 2, "eta": float("nan")}, "eta"),
    ({"num": 2, "solver": "ddmi"}, "did you mean 'dd"),
    ({"num": 2, "spacing": "cubic"}, "spacing 'cubic'"),
    ({"num": 2, "solver": "ddpm", "eta": 0.5}, "eta 1"),
    ({"num": 2, "x_T": np.zeros((2, 3, 14, 14))}, r"\(2, 3, 14, 14\)"),
    ({"num": 2, "seed": -1}, "seed"),
    ({"num": 2, "spacing": ""}, "spacing: expected a name, .* not ''"),
]


@pytest.mark.parametrize("options, message", BAD, ids=[m for _, m in BAD])
def test_bad_requests_are_one_line(panels, options, message):
    with pytest.raises(UserError, match=message) as caught:
        panels["torch"].call(panel_jobs.draw, "torch", panel_jobs.small(), **options)
    assert "\n" not in str(caught.value)


def test_a_schedule_that_ends_in_pure_noise_is_refused(panels):
    with pytest.raises(UserError, match="t=999"):
        panels["torch"].call(
            panel_jobs.draw, "torch", panel_jobs.small("diffusion.schedule=jsd"), 2, steps=1000
        )
