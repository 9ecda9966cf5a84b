"""What others wrote, read safely, and written for them: official DDIM, Jittor, diffusers.

Loads neither framework and executes nothing of a file.
"""

from __future__ import annotations

from diptych.interop.diffusers_in import is_diffusers
from diptych.interop.foreign import Foreign, read_foreign
from diptych.interop.official import from_official, is_official, read_config
from diptych.interop.pickles import read_pickle_weights
from diptych.interop.weights import Loaded, load_weights, state_dict

__all__ = [
    "Foreign",
    "Loaded",
    "from_official",
    "is_diffusers",
    "is_official",
    "load_weights",
    "read_config",
    "read_foreign",
    "read_pickle_weights",
    "state_dict",
]
