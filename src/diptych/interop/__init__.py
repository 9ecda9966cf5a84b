"""What others wrote, read safely: official DDIM checkpoints and configs, Jittor pickles.

Loads neither framework and executes nothing of a file.
"""

from __future__ import annotations

from diptych.interop.official import from_official, is_official, read_config
from diptych.interop.pickles import read_pickle_weights
from diptych.interop.weights import Loaded, load_weights, state_dict

__all__ = [
    "Loaded",
    "from_official",
    "is_official",
    "load_weights",
    "read_config",
    "read_pickle_weights",
    "state_dict",
]
