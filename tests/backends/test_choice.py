"""A model's own backend is used unless another is asked for; what differs is said."""

from __future__ import annotations

import importlib.util
import json
import logging
import re
import sys

import pytest

import device_jobs
from diptych import backends
from diptych.errors import UserError
from diptych.runs.folder import backend_of_run
from diptych.weights.find import trained_by


@pytest.fixture
def said(caplog, monkeypatch):
    """No framework is loaded, both are installed; gives what is logged."""
    for name in backends.BACKENDS:
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    caplog.set_level(logging.INFO, "diptych")
    return caplog


def test_as_asked_or_as_recorded(said):
    assert backends.choose("torch", "jittor") == "torch"
    assert backends.choose(None, None) == "torch" and backends.choose(None, "numpy") == "torch"
    assert backends.choose(None, "torch") == "torch" and not said.records
    assert backends.choose(None, "jittor") == "jittor"
    assert "using jittor, which trained this; --backend torch" in said.text


def test_the_other_where_the_own_cannot_be(said, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", object())
    assert backends.choose(None, "jittor") == "torch"
    assert "torch is loaded in this process" in said.text
    monkeypatch.delitem(sys.modules, "torch")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert backends.choose(None, "jittor") == "torch"
    assert "jittor, which trained this, is not installed" in said.text


def test_records_say_who_trained(tmp_path):
    assert trained_by("zoo:mnist-jittor") == "jittor" and trained_by("zoo:mnist-torch") == "torch"
    assert trained_by(tmp_path) is None and trained_by("zoo:none") is None
    run = tmp_path / "run"
    folder = run / "checkpoints" / "step-00000001"
    folder.mkdir(parents=True)
    (run / "config.yaml").write_text("seed: 1\n")
    (folder / "manifest.json").write_text(json.dumps({"backend": "jittor", "files": {}}))
    assert trained_by(run) == trained_by(str(folder)) == "jittor"
    samples = tmp_path / "samples"
    samples.mkdir()
    (samples / "manifest.json").write_text('{"backend": "jittor", "solver": "ddim"}')
    assert trained_by(samples) is None  # images, which either can score


def test_a_resumed_run_keeps_its_backend(tmp_path):
    (tmp_path / "environment.json").write_text('{"backend": "jittor"}')
    assert backend_of_run(tmp_path, None, True) == "jittor"
    assert backend_of_run(tmp_path, "torch", True) == "torch"
    assert backend_of_run(tmp_path, None, False) == "torch"


WHY = {
    "torch": ("PyTorch here is a build without CUDA|PyTorch finds no GPU", "PyTorch "),
    "jittor": (r"Jittor has no CUDA \(.*nvcc.*\); see diptych doctor", "no NVIDIA driver"),
}


def test_a_panel_says_why_it_has_no_gpu(panel):
    """With a driver and no toolkit `auto` falls back and says so; `cuda` is refused alike."""
    said, refused = panel.call(device_jobs.without_cuda, panel.name)
    why, inside = WHY[panel.name]
    assert re.search("^device auto: the CPU, although there is an NVIDIA driver: ", said)
    assert re.search(why, said)
    assert refused.startswith("device 'cuda' cannot be used: ") and inside in refused


def test_a_panel_that_is_missing_is_refused_with_its_extra(said, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for name in backends.BACKENDS:
        with pytest.raises(UserError, match=rf"'{name}' is not .*pip install 'diptych\[{name}\]'"):
            backends.load(name)
