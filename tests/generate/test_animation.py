"""WebP and MP4 animations: every frame is there, memory stays flat, refusals are clear."""

from __future__ import annotations

import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any, cast

import numpy as np
import psutil
import pytest
from PIL import Image

from diptych.backends.protocol import Backend
from diptych.config.load import load_config
from diptych.diffusion.schedule import make_schedule
from diptych.errors import MachineError, UserError
from diptych.figures.movie import FORMATS, Movie, Strip, mp4, record, webp
from diptych.figures.movie import mp4 as _mp4_function
from diptych.figures.movie import record as _record_function
from diptych.generate.trajectory import Pictures, watching
from diptych.network.plan import make_plan
from diptych.rng import normal_per_image
from diptych.sampling.engine import Engine
from diptych.sampling.sampler import make_sampler
from diptych.types import Pixels
from numpy_backend import NumpyBackend

assert callable(_mp4_function) and callable(_record_function)
MP4 = sys.modules["diptych.figures.movie.mp4"]
RECORD = sys.modules["diptych.figures.movie.record"]


def scene(channels: int, k: int) -> Pixels:
    """A smooth picture of odd size that moves with k."""
    y, x = np.mgrid[0:41, 0:63]
    planes = [127 + 120 * np.sin((x + 3 * k) / 9 + c) * np.cos(y / 11) for c in range(channels)]
    return np.stack(planes).astype(np.uint8)


def psnr(a: Any, b: Any) -> float:
    return float(10 * np.log10(255**2 / max(1e-9, ((a.astype(float) - b) ** 2).mean())))


@pytest.mark.parametrize("channels", [1, 3])
def test_a_webp_holds_every_frame(tmp_path: Path, channels: int) -> None:
    given = [scene(channels, k) for k in range(7)]
    with webp(tmp_path / "x.webp") as frame:
        for k, picture in enumerate(given):
            frame(picture, 30 + 10 * k)
    data = (tmp_path / "x.webp").read_bytes()
    assert int.from_bytes(data[4:8], "little") == len(data) - 8 and len(data) % 2 == 0
    with Image.open(tmp_path / "x.webp") as image:
        assert image.n_frames == 7 and image.size == (63, 41) and image.info["loop"] == 0
        for k, picture in enumerate(given):
            image.seek(k)
            shown = np.asarray(image.convert("RGB")).transpose(2, 0, 1)
            assert image.info["duration"] == 30 + 10 * k
            assert np.array_equal(np.broadcast_to(picture, shown.shape), shown)


@pytest.mark.parametrize("channels", [1, 3])
def test_an_mp4_holds_every_frame_for_its_time(tmp_path: Path, channels: int) -> None:
    pytest.importorskip("imageio_ffmpeg")
    given = [scene(channels, k) for k in range(6)]
    path = tmp_path / "x.mp4"
    with mp4(path) as frame:
        for picture in given[:-1]:
            frame(picture, 100)
        frame(given[-1], 500)
    command = [MP4.find_ffmpeg(), "-loglevel", "error", "-i", str(path)]
    raw = subprocess.run(
        [*command, "-f", "rawvideo", "-pix_fmt", "rgb24", "-"], capture_output=True, check=True
    ).stdout
    frames = np.frombuffer(raw, np.uint8).reshape(-1, 42, 64, 3).transpose(0, 3, 1, 2)
    assert len(frames) == 5 + 5
    for shown, picture in zip(frames, given, strict=False):
        inside = shown[:, :41, :63]
        assert psnr(np.broadcast_to(picture, inside.shape), inside) > 28
    assert [p.name for p in tmp_path.iterdir()] == ["x.mp4"]


def test_an_ffmpeg_that_fails_is_one_line_and_leaves_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = tmp_path / "ffmpeg"
    bad.write_text("#!/bin/sh\necho first >&2\necho no such codec >&2\nexit 3\n")
    bad.chmod(0o755)
    monkeypatch.setattr(MP4, "find_ffmpeg", lambda: str(bad))
    fault = pytest.raises(MachineError, match=r"x\.mp4: ffmpeg failed: no such codec")
    with fault, mp4(tmp_path / "x.mp4") as frame:
        for k in range(200):
            frame(scene(3, k), 20)
    assert [p.name for p in tmp_path.iterdir()] == ["ffmpeg"]


def test_an_mp4_without_its_package_is_refused_with_the_command(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    with pytest.raises(UserError, match=r"pip install 'diptych\[video\]'"):
        Movie(formats=("mp4",))


@pytest.mark.parametrize("name", ["webp", "mp4"])
def test_frames_of_unlike_shape_or_none_leave_no_file(tmp_path: Path, name: str) -> None:
    if name == "mp4":
        pytest.importorskip("imageio_ffmpeg")
    writer = FORMATS[name]
    with pytest.raises(ValueError, match="a frame is"), writer(tmp_path / "x") as frame:
        frame(scene(1, 0), 20)
        frame(scene(1, 0)[:, :5], 20)
    with pytest.raises(ValueError, match="needs a frame"), writer(tmp_path / "x"):
        pass
    with pytest.raises(KeyboardInterrupt), writer(tmp_path / "x") as frame:
        frame(scene(1, 0), 20)
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_memory_does_not_grow_with_the_frames_of_a_webp(tmp_path: Path) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (3, 138, 138), dtype=np.uint8)

    def peak(count: int) -> int:
        tracemalloc.start()
        with webp(tmp_path / "x.webp") as frame:
            for _ in range(count):
                frame(picture, 20)
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    assert peak(40) < 1.2 * peak(4)


@pytest.mark.slow
def test_a_thousand_steps_of_a_colour_grid_take_no_more_memory_than_a_hundred(
    tmp_path: Path,
) -> None:
    """Frames that were kept would be 200 MB; benchmarks/pictures.py measures every format."""
    config = load_config("tiny", ["data.image_size=32", "data.channels=3"])
    backend = NumpyBackend()
    table = make_schedule(config.diffusion)
    drawer = Engine(cast(Backend, backend), lambda x, _: 0.3 * x, make_plan(config), table)
    sampler = make_sampler("ddim", 1000)
    start = normal_per_image(0, "initial_noise", range(64), drawer.shape)
    marks: list[float] = []
    asked = Pictures(Movie("x0"), Strip("both"))
    with watching(drawer, sampler, asked, start, tmp_path, 64) as watch:

        def observe(k: int, level: Any, x: Any) -> None:
            watch.observe(k, level, x)
            if k in (100, 999):
                marks.append(psutil.Process().memory_info().rss / 2**20)

        drawer.draw(sampler, range(64), 0, start, observe=observe, predicted=watch.predicted)
    assert backend.calls == 1000 and marks[1] - marks[0] < 24
    with Image.open(tmp_path / "trajectory.gif") as image:
        assert image.n_frames == 1000 and image.size == (274, 274)


def test_both_stand_side_by_side_in_every_format(tmp_path: Path) -> None:
    movie = Movie("both", None, ("gif", "webp"))
    with record(tmp_path, movie, 3, lambda images: images) as see:
        for k in range(3):
            see(k, [np.full((1, 4, 6), 0, np.uint8), np.full((1, 4, 6), 255, np.uint8)])
    for path in movie.paths(tmp_path):
        with Image.open(path) as image:
            assert image.n_frames == 3 and image.size == (12, 4)
            shown = np.asarray(image.convert("L"))
            assert shown[:, :5].max() < 20 and shown[:, 7:].min() > 235


def test_animations_that_fill_the_disk_or_never_end_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shape = (3, 274, 274)
    Movie(formats=("gif", "webp")).check_room(tmp_path / "new", 1000, shape)
    with pytest.raises(UserError, match=r"50,000 frames play for 17 minutes; .* --frames 500"):
        Movie().check_room(tmp_path, 50_000, shape)
    usage = type("Usage", (), {"free": 50_000_000})
    monkeypatch.setattr(RECORD.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(UserError, match=r"1,000 frames may take 0\.1 GB, 0\.1 GB are free"):
        Movie().check_room(tmp_path, 1000, shape)
    Movie(frames=100).check_room(tmp_path, 1000, shape)
