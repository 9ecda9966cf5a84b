"""Classifiers of 28x28 greyscale images: one plan, and one set of shipped weights per data set.

    (1, 28, 28) -> 32 -> 32 /2 -> 64 -> 64 /2 -> 96 -> 96 (7 x 7) -> mean = 96 features -> 10 logits

3x3 convolutions with relu; "/2" is strided. Inputs are in [0, 1] and are scaled to [-1, 1] before
the first convolution. Trained by this project (`python -m tools.train_classifier`); about 200,000
parameters. Distances between these features are not FID, so they have their own name; the hash of
the weights is pinned here.
"""

from __future__ import annotations

from dataclasses import dataclass

from diptych.network.features.conv import Conv

SIZE, CLASSES, DIMS = 28, 10, 96

CONVS: tuple[Conv, ...] = (
    Conv("conv1", 1, 32, (3, 3), 1, (1, 1)),
    Conv("conv2", 32, 32, (3, 3), 2, (1, 1)),
    Conv("conv3", 32, 64, (3, 3), 1, (1, 1)),
    Conv("conv4", 64, 64, (3, 3), 2, (1, 1)),
    Conv("conv5", 64, DIMS, (3, 3), 1, (1, 1)),
    Conv("conv6", DIMS, DIMS, (3, 3), 1, (1, 1)),
)


@dataclass(frozen=True)
class Shipped:
    """A trained classifier in the package: the SHA-256 of its file, and its test-set accuracy."""

    sha256: str
    accuracy: float


SHIPPED: dict[str, Shipped] = {
    "mnist": Shipped("24ce76410294f2ef28c2bbfdaa25b7ab5b58348fd2e7708f8586bdba7c8439cb", 0.9962),
    "fashion_mnist": Shipped(
        "c90f9bf56f78461b24ba80d3c6eb928f4dbc3dec5fdaa2f476f8f35273312167", 0.9234
    ),
}
