"""Weights files of feature networks: accepted and refused ones, and the messages."""

from __future__ import annotations

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from safetensors.numpy import save_file

from diptych.data.sources.registry import File
from diptych.errors import UserError
from diptych.evaluation.features import NAMES, open_extractor, weights_file
from diptych.evaluation.features.weights_file import (
    classifier_weights,
    inception_weights,
    shipped_file,
)
from diptych.files import sha256_of
from diptych.network.features import inception as inception_plan
from diptych.network.features.classifier import SHIPPED
from feature_jobs import save_pth
from inception_file import random_weights


@pytest.fixture(scope="module")
def published():
    return random_weights(counters=True)


def folded(published, **changes):
    return inception_plan.folded(published | changes, "FILE")


def refused(published, **changes):
    with pytest.raises(UserError) as error:
        folded(
            {k: v for k, v in published.items() if k not in changes},
            **{k: v for k, v in changes.items() if v is not None},
        )
    assert str(error.value).startswith("FILE: is not an FID InceptionV3: ")
    return str(error.value)


def test_the_plan_is_the_published_network():
    shapes = inception_plan.published_shapes()
    assert len(inception_plan.CONVS) == 94 and len(shapes) == 472
    buffers = sum(np.prod(s) for n, s in shapes.items() if ".running_" in n)
    assert sum(np.prod(s) for s in shapes.values()) - buffers == 23_850_960


def test_both_layouts_are_taken(published):
    short = {k: v for k, v in published.items() if not k.endswith("num_batches_tracked")}
    assert (len(short), len(published)) == (472, 566)
    one, other = folded(short), folded(published)
    assert one.keys() == other.keys() and len(one) == 190
    assert all(np.array_equal(one[k], other[k]) for k in one)


def test_safetensors_and_pth_give_the_same(panels, published, tmp_path):
    if "torch" not in panels:
        pytest.skip("torch is not installed")
    save_file(published, tmp_path / "a.safetensors")
    panels["torch"].call(save_pth, tmp_path / "a.pth", published)
    one, other = (inception_weights(tmp_path / f"a.{end}") for end in ("safetensors", "pth"))
    assert all(np.array_equal(one.arrays[k], other.arrays[k]) for k in one.arrays)
    assert one.sha256 == sha256_of(tmp_path / "a.safetensors") != other.sha256


def test_folding_is_the_norm_after_the_convolution(published):
    """The 1x1 convolution 3b on one pixel."""
    x, name = np.random.default_rng(0).standard_normal(64), "Conv2d_3b_1x1"
    gamma, beta, mean, var = (
        published[f"{name}.bn.{k}"].astype(np.float64)
        for k in ("weight", "bias", "running_mean", "running_var")
    )
    y = published[f"{name}.conv.weight"][:, :, 0, 0].astype(np.float64) @ x
    arrays = folded(published)
    got = arrays[f"{name}.weight"][:, :, 0, 0] @ x + arrays[f"{name}.bias"]
    assert np.abs(got - ((y - mean) / np.sqrt(var + 1e-3) * gamma + beta)).max() < 1e-6


def test_other_layouts_are_refused_by_name(published):
    assert "'Mixed_6d.branch1x1.bn.bias' is missing." in refused(
        published, **{"Mixed_6d.branch1x1.bn.bias": None}
    )
    assert "'AuxLogits.fc.bias' does not belong there" in refused(
        published, **{"AuxLogits.fc.bias": np.zeros(8, np.float32)}
    )
    assert "'fc.weight' is (1000, 2048), expected (1008, 2048)" in refused(
        published, **{"fc.weight": np.zeros((1000, 2048), np.float32)}
    )
    assert "'Mixed_5b.branch1x1.bn.num_batches_tracked' is missing" in refused(
        published, **{"Mixed_5b.branch1x1.bn.num_batches_tracked": None}
    )
    assert "'fc.bias' holds values that are not finite" in refused(
        published, **{"fc.bias": np.full(1008, np.nan, np.float32)}
    )


@pytest.mark.parametrize("name", SHIPPED)
def test_a_changed_classifier_is_refused(name, tmp_path, monkeypatch):
    content = bytearray(shipped_file(name).read_bytes())
    content[-1] ^= 1
    changed = tmp_path / "changed.safetensors"
    changed.write_bytes(content)
    assert classifier_weights(name, None).sha256 == SHIPPED[name].sha256
    monkeypatch.setattr(weights_file, "shipped_file", lambda _: changed)
    with pytest.raises(UserError, match="the package is damaged; install it again"):
        classifier_weights(name, None)
    # Given by the user it is another extractor, with an identity of its own.
    assert classifier_weights(name, changed).sha256 != SHIPPED[name].sha256


@pytest.mark.parametrize("name", SHIPPED)
def test_the_manifest_is_of_this_file(name):
    facts = json.loads(shipped_file(name).with_suffix(".json").read_text())
    assert facts["sha256"] == SHIPPED[name].sha256
    assert facts["test_accuracy"] == SHIPPED[name].accuracy
    assert shipped_file(name).stat().st_size < 2**20
    assert set(NAMES) == {"inception", *SHIPPED}


def test_files_that_are_not_there(tmp_path):
    with pytest.raises(UserError, match="there is no such weights file"):
        inception_weights(tmp_path / "no.pth")
    with pytest.raises(UserError, match="did you mean 'inception'"):
        open_extractor("inceptoin")
    with pytest.raises(
        UserError, match=r"is not a classifier of 28x28 images: 'conv1\.bias' is missing"
    ):
        save_file({"a": np.zeros(1, np.float32)}, tmp_path / "a.safetensors")
        classifier_weights("mnist", tmp_path / "a.safetensors")


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return tmp_path


def test_offline_says_which_file_goes_where(cache, monkeypatch):
    monkeypatch.setattr(weights_file, "MIRRORS", ("http://127.0.0.1:9/a.pth",))
    with pytest.raises(UserError) as error:
        inception_weights(None)
    message = str(error.value)
    assert f"Put {weights_file.PUBLISHED.name}" in message and "\n" not in message
    assert str(cache / "cache" / "diptych" / "features") in message


def test_a_wrong_file_in_the_cache_is_refused(cache):
    path = weights_file.cache_folder() / weights_file.PUBLISHED.name
    path.parent.mkdir(parents=True)
    path.write_bytes(b"something else")
    with pytest.raises(UserError, match="the published file's is 6726825d0af5"):
        inception_weights(None)


def test_the_other_tools_copy_is_found(cache, monkeypatch):
    content = b"weights"
    name, digest = "pt_inception.pth", hashlib.sha256(content).hexdigest()
    monkeypatch.setattr(weights_file, "PUBLISHED", File(name, digest))
    monkeypatch.setattr(weights_file, "MIRRORS", ("http://127.0.0.1:9/other_name.pth",))
    path = cache / "torch" / "hub" / "checkpoints" / "other_name.pth"
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    assert weights_file.published_file() == path


def test_a_download_is_checked_and_kept(cache, monkeypatch):
    content, served = b"weights" * 1000, []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            served.append(self.path)
            body = content if self.path == "/right.pth" else b"wrong"
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(weights_file, "MIRRORS", (f"{url}/wrong.pth", f"{url}/right.pth"))
    digest = hashlib.sha256(content).hexdigest()
    monkeypatch.setattr(weights_file, "PUBLISHED", File("pt_inception.pth", digest))
    try:
        path = weights_file.published_file()
        assert path == weights_file.published_file()
    finally:
        server.shutdown()
        server.server_close()
    assert path.read_bytes() == content and served == ["/wrong.pth", "/right.pth"]
    assert sorted(p.name for p in path.parent.iterdir()) == [".lock", "pt_inception.pth"]
