"""Protocols: resize, scale and clip as in the tools; the classifiers accept only digits."""

from __future__ import annotations

import numpy as np
import pytest

from diptych.errors import UserError
from diptych.evaluation.protocol import NATIVE, PROTOCOLS, as_digits, protocol_for
from fake_features import Fake

RANDOM = np.random.RandomState(0)


@pytest.mark.parametrize("name", PROTOCOLS)
def test_protocols_scale_as_their_tools(name):
    white = np.full((1, 28, 28, 1), 255, np.uint8)
    found = PROTOCOLS[name].prepare(white)
    assert found.shape == (1, 3, 299, 299) and found.dtype == np.float32
    top = 1.0 if name == "pytorch-fid" else 127 / 128
    np.testing.assert_allclose(found, top, atol=1e-6)
    np.testing.assert_allclose(PROTOCOLS[name].prepare(0 * white), -1.0, atol=1e-6)


def test_only_clean_fid_clips_its_overshoot():
    edge = np.zeros((1, 28, 28, 3), np.uint8)
    edge[:, :, 14:] = 255
    assert PROTOCOLS["clean-fid"].prepare(edge).min() == -1.0
    assert PROTOCOLS["clean-fid"].prepare(edge).max() <= 127 / 128


def test_a_network_that_resizes_itself_is_handed_the_matrices():
    class Resizing(Fake):
        def resized(self, images, rows, columns, scale, shift, limits=(-1e9, 1e9)):
            planes = rows @ (images.transpose(0, 3, 1, 2).astype(np.float32) @ columns.T)
            return self(np.repeat(np.clip(planes, *limits), 3 // planes.shape[1], 1) * np.float32(
                scale) + np.float32(shift))  # fmt: skip

    images = RANDOM.randint(0, 256, (2, 28, 28, 1), dtype=np.uint8)
    for protocol in PROTOCOLS.values():
        one, other = (protocol.features(kind(), images).pool for kind in (Fake, Resizing))
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_classifiers_take_digits_only():
    grey = RANDOM.randint(0, 256, (2, 28, 28, 1), dtype=np.uint8)
    assert np.array_equal(as_digits(np.repeat(grey, 3, axis=3)), grey)
    assert NATIVE.prepare(grey).max() <= 1.0
    with pytest.raises(UserError, match="in colour"):
        as_digits(np.dstack([grey, grey, 255 - grey]).reshape(2, 28, 28, 3))
    with pytest.raises(UserError, match="need 28x28"):
        as_digits(np.zeros((1, 32, 32, 1), np.uint8))
    with pytest.raises(UserError, match="leave --protocol out"):
        protocol_for("mnist", "clean-fid")
    with pytest.raises(UserError, match="did you mean 'pytorch-fid'"):
        protocol_for("inception", "pytorchfid")
