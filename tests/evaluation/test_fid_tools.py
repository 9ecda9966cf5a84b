"""FID from PNGs to the number, with both backends, against the tools' values for the same files."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import pytest

from feature_jobs import extractor
from inception_file import fid_folders, write

GOLDEN = json.loads(((Path(__file__).parents[1] / "golden") / "fid.json").read_text())["fid"]
# Of the number itself. 24 images span few of 2,048 dimensions, where the tools' matrix square
# roots are off by some 1e-4 of it (docs/evaluation.md).
RELATIVE = 1e-3


def fids(backend, weights, a, b):
    """The FID of folder a against folder b by each protocol."""
    from diptych.evaluation.run import evaluate
    from diptych.evaluation.sets import Settings

    network = extractor(backend, "inception", weights)
    found = {}
    for protocol in GOLDEN:
        settings = Settings(("fid",), "inception", protocol, progress=False)
        found[protocol] = evaluate([a], str(b), settings, network)["scores"][0]["value"]
    return found


def test_fid_is_the_tools_own(panels, tmp_path):
    weights = write(tmp_path / "random.safetensors")
    a, b = fid_folders(tmp_path)
    both = {name: panel.call(fids, name, weights, a, b) for name, panel in panels.items()}
    for name, found in both.items():
        assert found == pytest.approx(GOLDEN, rel=RELATIVE), name
    assert both["torch"] == pytest.approx(both["jittor"], rel=1e-5)
    # The protocols differ by far more than the bound: a mix-up of two would be noticed.
    ordered = sorted(GOLDEN.values())
    assert all(high > low * (1 + 5 * RELATIVE) for low, high in pairwise(ordered))
