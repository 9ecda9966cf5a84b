"""Pictures of a trajectory: animations written frame by frame, and progressive strips."""

from __future__ import annotations

from diptych.figures.movie.gif import gif, indices, palette
from diptych.figures.movie.mp4 import mp4
from diptych.figures.movie.record import FORMATS, Movie, record
from diptych.figures.movie.strip import Strip, StripRecorder
from diptych.figures.movie.webp import webp

__all__ = [
    "FORMATS",
    "Movie",
    "Strip",
    "StripRecorder",
    "gif",
    "indices",
    "mp4",
    "palette",
    "record",
    "webp",
]
