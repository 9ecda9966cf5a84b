"""The timed sizes: a config, its images, and the amount of work for a fair measurement."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from diptych.config.load import Config, load_config
from diptych.data import load_dataset
from diptych.errors import UserError, nearest

RANDOM_IMAGES = 1024
DIGITS = (7, 14, 28)  # sides of the packaged digits, and of their averages


@dataclass(frozen=True)
class Amount:
    """The amount timed: `rounds` rounds, in which each contender does `steps` steps."""

    batch: int
    rounds: int
    steps: int


@dataclass(frozen=True)
class Size:
    """One network and one batch size, the same for every contender."""

    name: str
    config: Config
    training: Amount
    sampling: Amount

    def describe(self) -> str:
        """The network in one line."""
        data, model = self.config.data, self.config.model
        return (
            f"{data.size_text}x{data.channels}, {model.ch} channels "
            f"x {list(model.ch_mult)}, {model.num_res_blocks} block(s) a level, "
            f"attention at {list(model.attn_resolutions)}, dropout {model.dropout:g}"
        )


# Fixed, so that records of different dates can be compared; eps is what the peers train.
_EPS = ("diffusion.objective=eps", "train.weighting=none")
_MNIST = ("model.ch=32", "model.ch_mult=[1, 2, 2]", *_EPS)

# The official DDIM network for CIFAR-10. The cost of a step does not depend on the pixel values.
_CIFAR10 = (
    "data.image_size=32",
    "data.channels=3",
    "model.ch=128",
    "model.ch_mult=[1, 2, 2, 2]",
    "model.num_res_blocks=2",
    "model.attn_resolutions=[16]",
    "model.dropout=0.1",
    "train.lr=0.0002",
    "train.warmup_steps=0",
    "train.ema_rate=0.9999",
    *_EPS,
)

# name -> preset, changes to it, and amounts that take a few minutes on two cores.
_SIZES = {
    "tiny": ("tiny", (), Amount(64, 20, 10), Amount(64, 20, 10)),
    "mnist": ("mnist", _MNIST, Amount(64, 12, 4), Amount(64, 12, 5)),
    "cifar10-size": ("mnist", _CIFAR10, Amount(4, 6, 2), Amount(4, 6, 3)),
}
NAMES = tuple(_SIZES)


def size(name: str) -> Size:
    """The size with this name. Raises UserError if there is none."""
    if name not in _SIZES:
        raise UserError(f"size '{name}' is not known{nearest(name, list(NAMES))}")
    preset, changes, training, sampling = _SIZES[name]
    return Size(name, load_config(preset, list(changes)), training, sampling)


def images(config: Config) -> npt.NDArray[np.uint8]:
    """Training images, (N, C, H, W) uint8: the packaged digits if they come in that shape, else
    random pixels."""
    data = config.data
    if data.channels == 1 and data.image_size in DIGITS:
        return load_dataset("mnist-10k", image_size=data.image_size).images
    shape = (RANDOM_IMAGES, *data.shape)
    return np.random.Generator(np.random.Philox(key=0)).integers(0, 256, shape, dtype=np.uint8)
