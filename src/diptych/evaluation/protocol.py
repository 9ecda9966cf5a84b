"""A protocol: every choice between an image and its features, named after its tool.

                    pytorch-fid              torch-fidelity          clean-fid
    resize to 299   bilinear                 tf1-bilinear            pil-bicubic, clipped to 0..255
    scaling         2 (x / 255) - 1          (x - 128) / 128         (x - 128) / 128
    mean            float64                  float32                 float32
    covariance      float64, ddof 1          float64, ddof 1         float64, ddof 1

The same pixels and random weights gave FIDs of 20.8, 20.5 and 25.4 under these three
(tests/golden/fid.json), so a score carries the protocol's name. The small classifiers use 28 x 28
pixels unchanged but for x / 255: `native`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from diptych.errors import UserError, nearest
from diptych.evaluation.feature_network import Extractor, Features
from diptych.evaluation.resize import matrix, resize
from diptych.evaluation.statistics import Moments
from diptych.types import Float32, Pixels


@dataclass(frozen=True)
class Protocol:
    """The map from pixels x in 0..255 to a network's input: x * scale + shift, after the resize.

    Attributes:
        name: the tool's name.
        resize: a key of `resize.RESIZES`; None: pixels as they are.
        clip: whether a resize's overshoot is clipped to 0..255.
        scale, shift: map pixels to the network's range.
        mean_dtype: dtype to which the mean of the features is rounded.
    """

    name: str
    resize: str | None
    clip: bool
    scale: float
    shift: float
    mean_dtype: str

    def facts(self) -> dict[str, Any]:
        """The choices, for a score's protocol."""
        return asdict(self) | {"covariance": "float64 ddof 1", "features_dtype": "float32"}

    def prepare(self, images: Pixels) -> Float32:
        """Images (N, H, W, C) uint8, C = 1 or 3, as the network's input (N, C, H', W') float32.

        Greyscale becomes three equal channels if there is a resize (Inception). Without one (the
        classifiers) images are expected with a single channel; see `as_digits`.
        """
        if self.resize is None:
            pixels = images.transpose(0, 3, 1, 2).astype(np.float32)
        else:
            pixels = resize(images, self.resize)
            pixels = np.clip(pixels, 0, 255) if self.clip else pixels
            pixels = np.repeat(pixels, 3, axis=1) if pixels.shape[1] == 1 else pixels
        pixels *= np.float32(self.scale)
        pixels += np.float32(self.shift)
        return pixels

    def features(self, extractor: Extractor, images: Pixels) -> Features:
        """The features of images (N, H, W, C), resized on the extractor's device if it can."""
        if not extractor.dims:  # no network: pixels alone are compared
            empty = np.empty((len(images), 0), np.float32)
            return Features(empty, empty, None)
        if self.resize is None:
            return extractor(self.prepare(as_digits(images)))
        resized = getattr(extractor, "resized", None)
        if resized is None:
            return extractor(self.prepare(images))
        # Copies: the cached matrices are read-only, and PyTorch warns about that.
        rows, columns = (matrix(self.resize, n).copy() for n in images.shape[1:3])
        limits = {"limits": (0.0, 255.0)} if self.clip else {}
        found: Features = resized(images, rows, columns, self.scale, self.shift, **limits)
        return found

    def rounded(self, moments: Moments) -> Moments:
        """The moments with the mean in this protocol's precision."""
        mean = moments.mean.astype(self.mean_dtype).astype(np.float64)
        return Moments(moments.n, mean, moments.cov)


NATIVE = Protocol("native", None, False, 1.0 / 255.0, 0.0, "float64")
PROTOCOLS = {
    "pytorch-fid": Protocol("pytorch-fid", "bilinear", False, 2.0 / 255.0, -1.0, "float64"),
    "torch-fidelity": Protocol(
        "torch-fidelity", "tf1-bilinear", False, 1.0 / 128.0, -1.0, "float32"
    ),
    "clean-fid": Protocol("clean-fid", "pil-bicubic", True, 1.0 / 128.0, -1.0, "float32"),
}


def protocol_for(extractor: str, name: str | None) -> Protocol:
    """The protocol of an extractor: the named tool's for Inception, else `native`.

    Raises:
        UserError: an unknown name, or a tool's protocol for a classifier.
    """
    if extractor != "inception":
        if name not in (None, NATIVE.name):
            raise UserError(
                f"--protocol {name} is for --features inception; {extractor} sees the pixels "
                f"as they are: leave --protocol out"
            )
        return NATIVE
    chosen = "pytorch-fid" if name is None else name
    if chosen not in PROTOCOLS:
        raise UserError(f"protocol '{chosen}' is not known{nearest(chosen, list(PROTOCOLS))}")
    return PROTOCOLS[chosen]


def check_made_alike(
    path: Path, stored: dict[str, Any], extractor: Extractor, protocol: Protocol
) -> None:
    """Refuse stored statistics or features of another protocol, naming the field.

    Raises:
        UserError: a field that differs.
    """
    now = {"extractor": extractor.name, "extractor_sha256": extractor.sha256, **protocol.facts()}
    for key, value in now.items():
        if stored and stored.get(key) != value:
            raise UserError(
                f"{path}: was made with {key}={stored.get(key)}, this evaluation has {value}; "
                f"compute it again (diptych stats) or evaluate with that"
            )


def as_digits(images: Pixels) -> Pixels:
    """Images as (N, 28, 28, 1).

    Raises:
        UserError: another size, or real colour.
    """
    if images.shape[1:3] != (28, 28):
        raise UserError(
            f"the images are {images.shape[1]}x{images.shape[2]}, the 28x28 classifiers need "
            f"28x28; score these with --features inception"
        )
    grey = images[..., :1]
    if images.shape[3] == 3 and not (images == grey).all():
        raise UserError(
            "the images are in colour, the 28x28 classifiers know greyscale only; score these "
            "with --features inception"
        )
    return grey
