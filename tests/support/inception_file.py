"""A random Inception file in the published layout, and images: the same bits on every machine.

    python tests/support/inception_file.py FILE.safetensors [--counters]

The published file is not available everywhere, and parity does not need it. Weights are scaled so
that activations neither explode nor vanish over 94 layers and still distinguish images. Scales,
shifts and running statistics differ between channels, so that a missing norm or a changed eps is
detected. NumPy's PCG64 is the only source of random numbers.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from diptych.network.features.inception import published_shapes

SEED = 2015


def random_weights(counters=False):
    """name -> float32 array, 472 of them, or 566 with the counters."""
    draw = np.random.default_rng(SEED)
    arrays = {}
    for name, shape in published_shapes().items():
        part = name.rpartition(".")[2]
        if len(shape) > 1:
            # Relu halves the second moment: gain 2. With a larger gain, or without the filters'
            # means, images would be less alike, and rounding errors would grow from layer to layer.
            values = draw.standard_normal(shape) * (2 / np.prod(shape[1:])) ** 0.5
        elif part == "running_var":
            values = draw.uniform(0.5, 1.5, shape)
        elif part == "weight":
            values = draw.uniform(0.8, 1.2, shape)
        else:
            values = draw.standard_normal(shape) * 0.1
        arrays[name] = values.astype(np.float32)
        if counters and part == "running_var":
            counter = name.replace("running_var", "num_batches_tracked")
            arrays[counter] = np.array(100, np.int64)
    return arrays


def write(path, counters=False):
    """Write the weights as safetensors; return the file's path."""
    from safetensors.numpy import save_file

    save_file(random_weights(counters), path)
    return path


def images(count, size=299, seed=0):
    """Smooth random pictures, uint8 (N, size, size, 3): noise of several sizes, enlarged."""
    draw = np.random.default_rng([SEED, seed])
    total = np.zeros((count, size, size, 3))
    for cells in (3, 12, 60):
        coarse = draw.uniform(-1, 1, (count, cells, cells, 3))
        at = np.arange(size) * cells // size
        total += coarse[:, at][:, :, at]
    return np.clip(127.5 + 60 * total, 0, 255).astype(np.uint8)


def fid_folders(root, count=24):
    """Write two folders of PNGs, 32x32 and 40x40, the second set softer; return both paths."""
    from PIL import Image

    made = []
    for k, size in enumerate((32, 40)):
        folder = root / f"set{k}"
        folder.mkdir(parents=True)
        for i, pixels in enumerate(images(count, 120, seed=1 + k)):
            picture = Image.fromarray(pixels).resize((size, size), Image.Resampling.BOX)
            picture.save(folder / f"{i:03d}.png")
        made.append(folder)
    return tuple(made)


def preprocessed(pixels):
    """uint8 (N, H, W, 3) as float32 (N, 3, H, W), (x - 128) / 128."""
    return ((pixels.astype(np.float32) - 128) / 128).transpose(0, 3, 1, 2).copy()


if __name__ == "__main__":
    write(Path(sys.argv[1]), "--counters" in sys.argv)
