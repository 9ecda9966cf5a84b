"""MP4 written frame by frame: ffmpeg reads raw pixels from a pipe and encodes H.264.

ffmpeg comes with the optional package imageio-ffmpeg: `pip install 'diptych[video]'`. The H.264
that players support halves the colour resolution and needs even sides, so a picture of odd width
or height gets one more white column or row. A video has one frame rate: a frame that stays longer
than the first is sent repeatedly.
"""

from __future__ import annotations

import contextlib
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np

from diptych.errors import MachineError, UserError
from diptych.files import atomic_path
from diptych.machine.packages import require
from diptych.types import Pixels

QUALITY = "18"  # x264's rate factor: 0 is lossless, 23 the default


def find_ffmpeg() -> str:
    """Path of the ffmpeg executable.

    Raises:
        UserError: the optional package is not installed, or has no executable for this machine.
    """
    package = require("imageio_ffmpeg", "video", where="an MP4", instead="or use --gif or --webp")
    try:
        return str(package.get_ffmpeg_exe())
    except RuntimeError as error:
        raise UserError(f"an MP4 needs ffmpeg: {error}; or use --gif or --webp") from error


@contextmanager
def mp4(path: Path) -> Iterator[Callable[[Pixels, int], None]]:
    """Write an MP4 atomically: yields `frame(picture, milliseconds)`.

    Pictures are (1 or 3, H, W) uint8, all of one shape; the first duration sets the frame rate.

    Raises:
        UserError: ffmpeg is not installed.
        MachineError: ffmpeg failed; the message ends with its last line.
    """
    program = find_ffmpeg()
    with atomic_path(path) as temporary, tempfile.TemporaryFile() as said:
        running: list[_Running] = []

        def frame(picture: Pixels, milliseconds: int) -> None:
            if not running:
                command = _command(program, picture, milliseconds, temporary)
                process = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=said)
                running.append(_Running(process, picture.shape, milliseconds))
            running[0].send(path, picture, milliseconds, said)

        try:
            yield frame
            if not running:
                raise ValueError(f"{path}: an MP4 needs a frame")
            running[0].finish(path, said)
        finally:
            for each in running:
                each.stop()


def _command(program: str, picture: Pixels, milliseconds: int, path: Path) -> list[str]:
    channels, height, width = picture.shape
    size, kind = f"{width + width % 2}x{height + height % 2}", "gray" if channels == 1 else "rgb24"
    return [
        program,
        "-y",
        "-loglevel",
        "error",
        "-f",
        "rawvideo",
        "-pix_fmt",
        kind,
        "-s",
        size,
        "-r",
        f"1000/{milliseconds}",
        "-i",
        "-",
        "-c:v",
        "libx264",
        "-crf",
        QUALITY,
        "-pix_fmt",
        "yuv420p",
        "-threads",
        "2",
        "-movflags",
        "+faststart",
        "-f",
        "mp4",
        str(path),
    ]


class _Running:
    """A running ffmpeg process that writes one file."""

    def __init__(self, process: subprocess.Popen[bytes], shape: Any, milliseconds: int) -> None:
        self.process, self.shape, self.milliseconds = process, shape, milliseconds

    def send(self, path: Path, picture: Pixels, milliseconds: int, said: IO[bytes]) -> None:
        """Send one frame, repeated to fill its duration."""
        if picture.shape != self.shape:
            raise ValueError(f"a frame is {picture.shape}, the first one {self.shape}")
        _, height, width = picture.shape
        edge = ((0, 0), (0, height % 2), (0, width % 2))
        pixels = np.pad(picture, edge, constant_values=255).transpose(1, 2, 0).tobytes()
        assert self.process.stdin is not None
        try:
            for _ in range(max(1, round(milliseconds / self.milliseconds))):
                self.process.stdin.write(pixels)
        except BrokenPipeError:
            self.finish(path, said)

    def finish(self, path: Path, said: IO[bytes]) -> None:
        """Wait for ffmpeg to end. Raises MachineError if it failed."""
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        if self.process.wait():
            said.seek(0)
            lines = said.read().decode(errors="replace").strip().splitlines()
            reason = lines[-1] if lines else f"code {self.process.returncode}"
            raise MachineError(f"{path}: ffmpeg failed: {reason}")

    def stop(self) -> None:
        """Kill the process if it is still running."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        if self.process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self.process.stdin.close()
