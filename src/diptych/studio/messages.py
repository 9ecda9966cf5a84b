"""Messages between the server and its workers: one JSON object a line, arrays in base64."""

from __future__ import annotations

import base64
import json
from typing import Any

import numpy as np

from diptych.types import Pixels


def packed(images: Pixels) -> dict[str, Any]:
    """uint8 images of any shape as JSON values."""
    data = np.ascontiguousarray(images, np.uint8).tobytes()
    return {"shape": list(images.shape), "data": base64.b64encode(data).decode()}


def unpacked(message: dict[str, Any]) -> Pixels:
    """The inverse of `packed`."""
    flat = np.frombuffer(base64.b64decode(message["data"]), np.uint8)
    return flat.reshape(message["shape"])


def line(message: dict[str, Any]) -> bytes:
    """A message as a line."""
    return json.dumps(message, separators=(",", ":")).encode() + b"\n"
