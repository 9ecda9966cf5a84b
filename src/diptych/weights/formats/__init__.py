"""Read other libraries' formats safely, and write them: official DDIM, Jittor, diffusers.

Imports neither framework and executes nothing in a file.
"""

from __future__ import annotations

from diptych.weights.formats.diffusers_in import is_diffusers
from diptych.weights.formats.files import Loaded, load_weights
from diptych.weights.formats.foreign import Foreign, read_foreign
from diptych.weights.formats.official import from_official, is_official, read_config
from diptych.weights.pickle.files import read_pickle_weights

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
]
