"""Data sources: find, download, read, crop and shrink images."""

from __future__ import annotations

from diptych.data.dataset import Dataset, load_configured, load_dataset
from diptych.data.decoded import Decoded, Images
from diptych.data.readers.idx import read_idx
from diptych.data.resize import shrink
from diptych.data.sources.registry import SOURCES, Located, Source, find

__all__ = [
    "SOURCES",
    "Dataset",
    "Decoded",
    "Images",
    "Located",
    "Source",
    "find",
    "load_configured",
    "load_dataset",
    "read_idx",
    "shrink",
]
