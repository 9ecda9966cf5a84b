"""Folders of samples, latents and a sweep, written while a call to the disk fails.

Runs in a panel's process: a network is built once, and every call is tried in its turn.
"""

from __future__ import annotations

import errno
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import panel_jobs
from diptych.errors import MachineError
from diptych.figures.grids import read_png
from diptych.figures.movie import Movie, Strip
from diptych.files import hold
from diptych.generate.encode import encode_to
from diptych.generate.inputs import Inputs
from diptych.generate.latents import read_latents
from diptych.generate.roundtrip import EncodeRequest
from diptych.generate.samples import SampleRequest, sample_to
from diptych.model import Model
from diptych.sampling.inversion import make_inversion
from diptych.sampling.sampler import make_sampler
from diptych.study.sweep import output as tables
from diptych.study.sweep.cells import read_cells
from full_disk import failing

Write = Callable[[Model, Path], Any]
# What is tried is the disk, some hundred times: the network is as small as one can be.
NETWORK = ["model.ch=8", "model.norm_groups=4", "model.ch_mult=[1]", "model.attn_resolutions=[]"]


def samples(model: Model, out: Path) -> None:
    request = SampleRequest(make_sampler("ddim", 2), 3, batch=2, movie=Movie(), strip=Strip())
    sample_to(model, request, out, resume=True, npz=True, progress=False)


def latents(model: Model, out: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, 1, 14, 14), np.uint8)
    inversions = make_inversion(2), (make_inversion(3),)
    request = EncodeRequest(Inputs(pixels, "noise", "sha"), *inversions, batch=1)
    encode_to(model, request, out, resume=True, progress=False)


def sweep(_: Model, out: Path) -> None:
    """The tables and the figure; each cell is one such file, and its samples are those above."""
    score = {"metric": "fid", "value": 3.0, "interval": [2.0, 4.0], "split_half": None}
    cells = [
        cell | {"scores": [score | {"protocol_id": "x"}]}
        for cell in read_cells(Path(__file__).parents[1] / "old_records" / "samples" / "sweep")
    ]
    with hold(out):
        tables.write_all(cells, out)


WAYS: dict[str, Write] = {"sample": samples, "encode": latents, "sweep": sweep}


def contents(out: Path) -> dict[str, bytes]:
    """All files by name but the manifest, which holds the seconds."""
    return {
        str(path.relative_to(out)): path.read_bytes()
        for path in sorted(out.rglob("*"))
        if path.is_file() and path.name != "manifest.json"
    }


def check_whole(out: Path) -> None:
    """Nothing half-written: whatever is there can be read."""
    for path in out.rglob("*"):
        assert not path.name.endswith(".tmp") and path.name != ".lock", path
        if path.suffix == ".png" and path.stem.isdecimal():
            assert read_png(path).shape == (1, 14, 14), path
        if path.suffix == ".json":
            json.loads(path.read_text("utf-8"))
        if path.suffix == ".npz":
            np.load(path)
        if path.suffix == ".safetensors":
            read_latents(path, (1, 14, 14))


def each_call_fails(way: str, folder: Path, code: int, stride: int) -> int:
    """Let call 1 fail, 1 + stride, ..., and go on after each; gives how many calls there are."""
    write, model = WAYS[way], panel_jobs.make("torch", panel_jobs.small(*NETWORK))
    write(model, folder / "whole")
    wanted, number = contents(folder / "whole"), 1 - stride
    while True:
        number += stride
        out = folder / f"{number}"
        failed = False
        with failing(number, code) as asked:
            try:
                write(model, out)
            except MachineError as error:
                failed = True
                assert "\n" not in str(error), error
                said = "disk is full" if code == errno.ENOSPC else "Input/output error"
                assert said in str(error) and str(out) in str(error), error
        if len(asked) < number:
            assert not failed and contents(out) == wanted
            return len(asked)
        assert failed, f"call {number}, {asked[-1]}, failed, and nothing was said"
        if out.exists():
            check_whole(out)
        write(model, out)
        assert contents(out) == wanted, f"after call {number}, {asked[number - 1]}"
