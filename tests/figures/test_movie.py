"""GIFs of trajectories: every frame is there, grey exact, colour within its bound, memory flat."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import panel_jobs
from conftest import Panel
from diptych.errors import UserError
from diptych.figures.movie import Movie, gif, indices, palette
from diptych.sampling.sampler import make_sampler
from diptych.types import Pixels
from numpy_backend import engine


def frames_of(path: Path) -> list[Pixels]:
    found = []
    with Image.open(path) as image:
        for k in range(getattr(image, "n_frames", 1)):
            image.seek(k)
            found.append(np.asarray(image.convert("RGB")).transpose(2, 0, 1).copy())
    return found


def pictures(channels: int, count: int) -> Pixels:
    random = np.random.default_rng(0)
    return random.integers(0, 256, (count, channels, 20, 30), dtype=np.uint8)


@pytest.mark.parametrize("channels", [1, 3])
def test_every_frame_is_there(tmp_path: Path, channels: int) -> None:
    given = pictures(channels, 12)
    with gif(tmp_path / "x.gif") as frame:
        for k, picture in enumerate(given):
            frame(picture, 30 + 10 * k)
    back = frames_of(tmp_path / "x.gif")
    assert len(back) == 12
    for picture, shown in zip(given, back, strict=True):
        worst = np.abs(np.broadcast_to(picture, shown.shape).astype(int) - shown).max()
        assert worst <= (0 if channels == 1 else 25)
    with Image.open(tmp_path / "x.gif") as image:
        assert image.info["loop"] == 0 and image.info["duration"] == 30


def test_the_loss_of_the_colour_palette() -> None:
    """As the module says: for each of the 16.7 million colours the nearest level a channel."""
    values = np.arange(256, dtype=np.uint8)
    for channel, worst in enumerate((25, 21, 25)):
        picture = np.zeros((3, 1, 256), np.uint8)
        picture[channel, 0] = values
        shown = palette(3)[indices(picture)][0, :, channel]
        loss = np.abs(shown.astype(int) - values)
        assert loss.max() == worst and 9 < loss.mean() < 13.5


def test_frames_of_unlike_shape_or_none_leave_no_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="a frame is"), gif(tmp_path / "x.gif") as frame:
        frame(pictures(1, 1)[0], 20)
        frame(pictures(1, 1)[0][:, :5], 20)
    with pytest.raises(ValueError, match="needs a frame"), gif(tmp_path / "x.gif"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_memory_does_not_grow_with_the_frames(tmp_path: Path) -> None:
    """Sixty frames need no more than six; a frame here is 75 kB."""
    random = np.random.default_rng(0)
    picture = random.integers(0, 256, (3, 274, 274), dtype=np.uint8)

    def peak(count: int) -> int:
        tracemalloc.start()
        with gif(tmp_path / f"{count}.gif") as frame:
            for _ in range(count):
                frame(picture, 20)
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    assert peak(60) < 1.2 * peak(6)


def test_which_steps_have_a_frame() -> None:
    assert list(Movie().milliseconds(5)) == [0, 1, 2, 3, 4]
    assert list(Movie(frames=3).milliseconds(1000)) == [0, 500, 999]
    assert list(Movie(frames=1).milliseconds(7)) == [6]
    assert len(Movie(frames=90).milliseconds(10)) == 10
    assert Movie().milliseconds(1000)[0] == 20 and Movie().milliseconds(10)[9] == 2000
    for settings, message in (({"show": "eps"}, "--show is 'eps'"), ({"frames": 0}, "--frames is")):
        with pytest.raises(UserError, match=message):
            Movie(**settings)


def test_the_predicted_image_is_seen_after_each_step() -> None:
    drawn, backend = engine()
    sampler = make_sampler("heun", 5)
    seen: list[Any] = []
    watched = drawn.draw(sampler, [0], predicted=lambda k, level, x0: seen.append((k, x0)))
    assert [k for k, _ in seen] == [0, 1, 2, 3, 4] and backend.calls == 9
    assert np.array_equal(watched, engine()[0].draw(sampler, [0]))
    # The last step goes to the predicted image itself.
    np.testing.assert_allclose(seen[-1][1], watched, rtol=1e-4, atol=1e-5)


@pytest.mark.torch
@pytest.mark.parametrize("show", ["x_t", "x0"])
def test_a_gif_beside_the_images(panels: dict[str, Panel], tmp_path: Path, show: str) -> None:
    if "torch" not in panels:
        pytest.skip("torch is not installed")
    out = tmp_path / "out"
    options = {"num": 6, "batch": 4, "movie": Movie(show, 4)}
    panels["torch"].call(panel_jobs.draw_to, "torch", panel_jobs.small(), out, **options)
    frames = frames_of(out / "trajectory.gif")
    assert len(frames) == 4
    last = np.stack([np.asarray(Image.open(out / f"{i:05d}.png")) for i in range(4)])
    assert np.array_equal(frames[-1][0, 2:16, 2:16], last[0])
    (out / "trajectory.gif").unlink()  # resumed: only the GIF is missing
    panels["torch"].call(panel_jobs.draw_to, "torch", panel_jobs.small(), out, **options)
    assert all(
        np.array_equal(a, b) for a, b in zip(frames, frames_of(out / "trajectory.gif"), strict=True)
    )
