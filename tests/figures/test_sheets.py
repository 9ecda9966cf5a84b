"""Labelled sheets, strips and the nearest-neighbour search: exact pixels, exact distances."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from PIL import Image

import editing_jobs
import panel_jobs
from conftest import Panel
from diptych.backends.protocol import Backend
from diptych.data import Dataset, load_dataset
from diptych.errors import UserError
from diptych.evaluation import nearest as nearest_module
from diptych.evaluation.features.extractor import classifier_of
from diptych.evaluation.nearest import Nearest, make_nearest, save_nearest, search
from diptych.figures.grids import read_png
from diptych.figures.movie import Movie, Strip, StripRecorder
from diptych.figures.sheets import save_arcs, sheet
from diptych.files import read_json
from diptych.training.batches import to_uint8
from diptych.types import Pixels

NOBODY = cast(Backend, None)


def pixels(*shape: int) -> Pixels:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def found_in(picture: Any, image: Pixels, scale: int) -> list[tuple[int, int]]:
    """Places of an image (1, H, W), its pixels repeated, in a picture."""
    page = np.asarray(picture.convert("L"))
    large = image[0].repeat(scale, axis=0).repeat(scale, axis=1)
    windows = np.lib.stride_tricks.sliding_window_view(page, large.shape)
    rows, columns = np.nonzero(windows[..., 0, 0] == large[0, 0])
    return [
        (int(y), int(x))
        for y, x in zip(rows, columns, strict=True)
        if np.array_equal(windows[y, x], large)
    ]


def test_a_sheet_holds_every_image_pixel_by_pixel_in_its_place() -> None:
    cells = pixels(2, 3, 1, 14, 14)
    words = {"top": ["a", "b", "a rather long one"], "left": ["one", "two"]}
    for more in ({}, {"under": [["x", "y", "z"]] * 2}):
        page = sheet(cells, **words, **more)
        places = [[found_in(page, cell, 4) for cell in row] for row in cells]
        assert all(len(each) == 1 for row in places for each in row)
        ys = [[each[0][0] for each in row] for row in places]
        xs = [[each[0][1] for each in row] for row in places]
        assert all(len(set(row)) == 1 for row in ys) and ys[0][0] < ys[1][0]
        assert xs[0] == xs[1] == sorted(xs[0])


def test_arcs_stand_in_rows_with_both_ends(tmp_path: Path) -> None:
    images = pixels(7, 1, 14, 14)
    save_arcs(tmp_path / "x.png", images, ["0:1", "0:5", "0:9"])
    with Image.open(tmp_path / "x.png") as page:
        middle = found_in(page, images[3], 4)  # the end of one arc and the start of the next
        assert len(middle) == 2 and middle[0][0] < middle[1][0] and middle[0][1] > middle[1][1]
        assert len(found_in(page, images[0], 4)) == 1


# Strips


def test_a_strip_shows_x_t_and_the_image_predicted_from_it(tmp_path: Path) -> None:
    timesteps = [800, 600, 400, 200, 0]
    recorder = StripRecorder(Strip("both", 3), timesteps)
    assert recorder.moments == [0, 2, 5]
    x = (pixels(6, 2, 1, 14, 14) / np.float32(127.5) - np.float32(1)).astype(np.float32)
    x0 = -x
    recorder.start(x[0])
    for k in range(5):
        recorder.reached(k, np.asarray, x[k + 1])
        recorder.predicted(k, np.asarray, x0[k])
    assert sorted(recorder.x_t) == [0, 2, 5] and sorted(recorder.x0) == [0, 2]
    recorder.save(tmp_path / "strip.png", to_uint8, ["0", "1"])
    with Image.open(tmp_path / "strip.png") as page:
        places = [found_in(page, to_uint8(images[0]), 4) for images in (x[0], x[2], x0[0], x0[2])]
        assert [len(each) for each in places] == [1, 1, 1, 1]
        ends = found_in(page, to_uint8(x[5][0]), 4)
        assert len(ends) == 2 and ends[0][1] == ends[1][1] > places[1][0][1] > places[0][0][1]
        assert places[0][0][1] == places[2][0][1] and places[2][0][0] > places[0][0][0]
        assert not found_in(page, to_uint8(x[3][0]), 4)


def test_which_moments_a_strip_shows() -> None:
    assert Strip(moments=10).chosen(50)[0] == 0 and Strip(moments=10).chosen(50)[-1] == 50
    assert Strip(moments=10).chosen(3) == [0, 1, 2, 3]
    settings: list[tuple[dict[str, Any], str]] = [
        ({"show": "eps"}, "--show"),
        ({"moments": 1}, "2"),
    ]
    for bad, message in settings:
        with pytest.raises(UserError, match=message):
            Strip(**bad)


@pytest.mark.torch
def test_the_pictures_beside_the_images(panels: dict[str, Panel], tmp_path: Path) -> None:
    """Strip, GIF and neighbours in one folder; the strip ends on the images, all are resumed."""
    out = tmp_path / "out"
    data = load_dataset("mnist-10k", image_size=14)
    options = {"num": 3, "batch": 2, "strip": Strip("both", 4), "movie": Movie("both", 3)}
    options["nearest"] = Nearest(data, 2)

    def draw() -> Any:
        return panels["torch"].call(panel_jobs.draw_to, "torch", panel_jobs.small(), out, **options)

    manifest = draw()
    wanted = ["grid.png", "nearest.png", "progress.png", "strip.png", "trajectory.gif"]
    assert manifest["pictures"] == wanted
    record = read_json(out / "nearest.json")
    assert np.array(record["index"]).shape == (3, 2) and record["data_sha256"] == data.sha256
    image = read_png(out / "00001.png")
    brute = np.sqrt((((data.images - image.astype(float)) / 255) ** 2).sum(axis=(1, 2, 3)))
    assert record["index"][1][0] == brute.argmin()
    assert record["distances"][1] == pytest.approx(np.sort(brute)[:2].tolist(), rel=1e-12)
    with Image.open(out / "strip.png") as page:
        assert found_in(page, image, 4)
    before = {p.name: p.read_bytes() for p in out.glob("*.png")}
    (out / "strip.png").unlink()
    draw()
    assert {p.name: p.read_bytes() for p in out.glob("*.png")} == before


@pytest.mark.torch
def test_at_level_0_there_is_no_trajectory_to_show(
    panels: dict[str, Panel], tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="no trajectory"):
        panels["torch"].call(
            editing_jobs.from_images, "torch", tmp_path / "x", -1, 5, strip=Strip()
        )
    assert not (tmp_path / "x").exists()


# Neighbours


def dataset(images: Pixels, name: str = "mnist") -> Dataset:
    labels = np.zeros(len(images), np.uint8)
    return Dataset(name, "train", images, labels, "sha", "here")


def test_a_training_image_finds_itself_at_distance_0(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nearest_module, "ENTRIES", 256 * 108)  # blocks of 256
    images = pixels(700, 3, 6, 6)
    samples = np.stack([images[650], images[3] ^ 1, images[123]])
    wanted = Nearest(dataset(images), 4)
    found = search(wanted, samples, NOBODY)
    assert found.index[:, 0].tolist() == [650, 3, 123]
    assert found.distance[0, 0] == found.distance[2, 0] == 0.0 < found.distance[1, 0]
    apart = (samples[:, None].astype(float) - images[None]) / 255
    brute = np.sqrt((apart**2).sum(axis=(2, 3, 4)))
    np.testing.assert_allclose(found.distance, np.sort(brute, axis=1)[:, :4], rtol=1e-12)
    assert np.array_equal(found.index, np.argsort(brute, axis=1, kind="stable")[:, :4])
    saved = save_nearest(tmp_path, wanted, found, samples)
    assert saved["index"][0][0] == 650 and saved["distances"][0][0] == 0.0
    assert saved["images"] == 700 and (tmp_path / "nearest.png").is_file()


def test_a_block_of_large_images_is_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """One sample and images of 48 numbers: not all 40 at once."""
    monkeypatch.setattr(nearest_module, "ENTRIES", 500)
    seen: list[int] = []

    def measured(samples: Pixels) -> Any:
        distances = by_pixels(samples)
        return lambda block: (seen.append(block.size), distances(block))[1]

    by_pixels = nearest_module.by_pixels
    monkeypatch.setattr(nearest_module, "by_pixels", measured)
    images = pixels(40, 3, 4, 4)
    assert search(Nearest(dataset(images), 1), images[7:8], NOBODY).index.tolist() == [[7]]
    assert max(seen) <= 500 and sum(seen) == images.size


@pytest.mark.parametrize(
    ("source", "shape", "name"),
    [
        ("mnist", (1, 28, 28), "mnist"),
        ("mnist-10k", (1, 28, 28), "mnist"),
        ("mnist:train+test", (1, 28, 28), "mnist"),
        ("fashion_mnist", (1, 28, 28), "fashion_mnist"),
        ("mnist-10k", (1, 14, 14), None),
        ("cifar10", (3, 32, 32), None),
        ("folder:mnist", (1, 28, 28), None),
    ],
)
def test_the_classifier_of_a_data_source(source: str, shape: Any, name: str | None) -> None:
    assert classifier_of(source, shape) == name


def test_where_training_mirrored_its_images_the_search_does_too() -> None:
    images = pixels(40, 1, 6, 6)
    images[7] = images[7, ..., :1]  # equal to its own mirror image: still found once
    samples = np.stack([images[21, ..., ::-1], images[7]])
    plain = search(Nearest(dataset(images), 3), samples, NOBODY)
    assert plain.distance[0, 0] > 0
    found = search(Nearest(dataset(images), 3, mirrored=True), samples, NOBODY)
    assert found.index[:, 0].tolist() == [21, 7] and found.distance[:, 0].tolist() == [0.0, 0.0]
    assert all(len(set(row)) == 3 for row in found.index.tolist())


def test_neighbours_by_features(monkeypatch: pytest.MonkeyPatch) -> None:
    def sums(images: Pixels) -> Any:
        return images.reshape(len(images), -1).sum(axis=1, keepdims=True).astype(np.float64)

    monkeypatch.setattr(nearest_module, "_extractor", lambda nearest, backend: sums)
    images = pixels(60, 1, 28, 28)
    moved = np.roll(images[30:31], 5, axis=3)  # the same sum, other pixels
    found = search(Nearest(dataset(images), 2, "features"), moved, NOBODY)
    assert found.index[0, 0] == 30 and found.distance[0, 0] == 0.0


def test_the_classifiers_of_both_panels_find_an_image_itself(panel: Panel) -> None:
    index, distance = panel.call(editing_jobs.feature_neighbours, panel.name)
    assert index[:, 0].tolist() == [3, 17]
    assert np.abs(distance[:, 0]).max() < 1e-3 < distance[:, 1].min()


def test_a_search_that_cannot_be_made_is_refused() -> None:
    config = panel_jobs.small("data.source=mnist-10k")
    for settings, message in (
        ({"by": "taste"}, "by pixels or features"),
        ({"count": 0}, "1 to 20"),
        ({"by": "features"}, "no classifier of mnist-10k at 14x14; use --nearest-by pixels"),
    ):
        with pytest.raises(UserError, match=message):
            make_nearest(config, **cast(Any, settings))
    few = panel_jobs.small("data.source=mnist-10k", "data.held_out=9998")
    with pytest.raises(UserError, match=r"--neighbours is 3, but 2 image\(s\) were trained on"):
        make_nearest(few, 3)
    assert make_nearest(few, 2).count == 2
    assert make_nearest(config, 3).data.images.shape == (10000, 1, 14, 14)
