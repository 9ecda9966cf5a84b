"""`diptych encode`: images to latents and back, and what the round trip loses."""

from __future__ import annotations

from diptych.encoding.folder import encode_to
from diptych.encoding.roundtrip import Request, RoundTrip, errors_of, round_trip

__all__ = ["Request", "RoundTrip", "encode_to", "errors_of", "round_trip"]
