"""Training of the classifiers whose features score 28x28 images; run once, the result is shipped.

    python -m tools.train_classifier mnist|fashion_mnist

PyTorch only. Cross-entropy, SGD with Nesterov momentum and a one-cycle rate, an exponential moving
average of weights and norms, small random affine maps (and flips for clothes). The averaged
network's norms are folded into its convolutions, and the folded network is written as safetensors
with a manifest: accuracy, data hashes, seed, versions, recipe. The same seed, number of threads
and machine give the same file.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from torch.optim import swa_utils

import diptych
from diptych import __version__
from diptych.data import Dataset, load_dataset
from diptych.files import atomic_path, sha256_of, write_json
from diptych.network.features.classifier import CLASSES, CONVS, DIMS
from diptych.network.features.conv import fold
from diptych.types import Pixels, Weights

EPS = 1e-5
WEIGHTS = Path(diptych.__file__).parent / "evaluation" / "features" / "weights"


@dataclass(frozen=True)
class Recipe:
    """Training recipe of a classifier; angles in degrees, shifts in pixels.

    `erase` is the largest side of a square that is blanked in every image, 0 for none; it keeps
    the network from relying on one detail.
    """

    epochs: int
    flip: bool
    rotate: float
    shift: float
    zoom: float
    erase: int
    batch: int = 128
    lr: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4
    ema: float = 0.998
    seed: int = 1
    threads: int = 2


RECIPES = {
    "mnist": Recipe(epochs=12, flip=False, rotate=10, shift=2, zoom=0.1, erase=0),
    "fashion_mnist": Recipe(epochs=8, flip=True, rotate=4, shift=1, zoom=0.05, erase=6),
}


class Net(nn.Module):
    """The plan's network with separate norms: (B, 1, 28, 28) in [-1, 1] -> logits (B, 10)."""

    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.ModuleList(
            nn.Conv2d(c.in_ch, c.out_ch, c.kernel, c.stride, c.pad, bias=False) for c in CONVS
        )
        self.norms = nn.ModuleList(nn.BatchNorm2d(c.out_ch, eps=EPS) for c in CONVS)
        self.fc = nn.Linear(DIMS, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = F.relu(norm(conv(x)), inplace=True)
        logits: torch.Tensor = self.fc(x.mean((2, 3)))
        return logits

    def folded(self) -> Weights:
        """The arrays of the plan, with the norms folded in."""
        arrays: Weights = {}
        for spec, conv, norm in zip(CONVS, self.convs, self.norms, strict=True):
            assert isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d)
            parts = conv.weight, norm.weight, norm.bias, norm.running_mean, norm.running_var
            first, *rest = (cast(torch.Tensor, part).detach().numpy() for part in parts)
            weight, bias = fold(first, rest, EPS)
            arrays |= {f"{spec.name}.weight": weight, f"{spec.name}.bias": bias}
        arrays["fc.weight"] = self.fc.weight.detach().numpy()
        return arrays | {"fc.bias": self.fc.bias.detach().numpy()}


def augment(x: torch.Tensor, recipe: Recipe, draw: torch.Generator) -> torch.Tensor:
    """Rotate, zoom and shift each image; the recipe may also mirror it or blank a square."""

    def uniform(scale: float) -> torch.Tensor:
        return (torch.rand(len(x), generator=draw) * 2 - 1) * scale

    angle, zoom = uniform(np.pi / 180 * recipe.rotate), 1 + uniform(recipe.zoom)
    # In grid_sample's units, half the image is 1, so a pixel is 2 / 28.
    dx, dy = uniform(recipe.shift * 2 / 28), uniform(recipe.shift * 2 / 28)
    side = torch.sign(uniform(1.0)) if recipe.flip else torch.ones(len(x))
    rows = [zoom * angle.cos() * side, -zoom * angle.sin(), dx]
    rows += [zoom * angle.sin() * side, zoom * angle.cos(), dy]
    grid = F.affine_grid(torch.stack(rows, 1).view(-1, 2, 3), list(x.shape), align_corners=False)
    # The background around the image is -1, but grid_sample pads with 0.
    x = F.grid_sample(x + 1, grid, align_corners=False) - 1
    if recipe.erase:
        at = torch.arange(28.0)
        half = torch.rand(len(x), generator=draw) * recipe.erase / 2
        inside = [
            (at - 28 * torch.rand(len(x), 1, generator=draw)).abs() < half[:, None]
            for _ in range(2)
        ]
        x = x.masked_fill((inside[0][:, :, None] & inside[1][:, None, :])[:, None], -1.0)
    return x


def train(data: Dataset, test: Dataset, recipe: Recipe) -> Net:
    """Train by the recipe and return the averaged network; progress goes to stderr."""
    torch.manual_seed(recipe.seed)
    draw = torch.Generator().manual_seed(recipe.seed)
    net = Net().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    assert data.labels is not None  # MNIST-like data sets have labels
    images, labels = to_floats(data.images[:]), torch.from_numpy(data.labels.copy())
    mean = swa_utils.get_ema_multi_avg_fn(recipe.ema)  # type: ignore[no-untyped-call]
    average = swa_utils.AveragedModel(net, multi_avg_fn=mean, use_buffers=True)
    module = cast(Net, average.module)
    optimizer = torch.optim.SGD(
        net.parameters(), recipe.lr, recipe.momentum, weight_decay=recipe.weight_decay,
        nesterov=True,
    )  # fmt: skip
    steps = len(images) // recipe.batch
    rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.lr, recipe.epochs * steps)
    start = time.perf_counter()
    for epoch in range(recipe.epochs):
        net.train()
        order = torch.randperm(len(images), generator=draw)
        for k in range(steps):
            pick = order[k * recipe.batch : (k + 1) * recipe.batch]
            loss = F.cross_entropy(net(augment(images[pick], recipe, draw)), labels[pick])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            rate.step()
            average.update_parameters(net)
        score, seconds = accuracy(module, test), time.perf_counter() - start
        print(f"epoch {epoch + 1}: test {score:.4%}, {seconds:.0f} s", file=sys.stderr)
    return module


def to_floats(images: Pixels) -> torch.Tensor:
    """uint8 (N, 1, 28, 28) as float32 in [-1, 1]."""
    return torch.from_numpy(images / np.float32(127.5) - np.float32(1))


@torch.no_grad()
def accuracy(net: Net, data: Dataset) -> float:
    """The share of images whose largest logit is that of their label."""
    net.eval()
    found = [net(to_floats(part)).argmax(1) for part in np.array_split(data.images[:], 20)]
    return float((torch.cat(found).numpy() == data.labels).mean())


def manifest(data: Dataset, test: Dataset, recipe: Recipe, score: float) -> dict[str, Any]:
    """A description of the weights, and everything needed to make them again."""
    return {
        "network": "diptych.network.features.classifier",
        "source": data.name,
        "test_accuracy": score,
        "train_images": len(data.images),
        "test_images": len(test.images),
        "train_sha256": data.sha256,
        "test_sha256": test.sha256,
        "recipe": asdict(recipe),
        "command": f"python -m tools.train_classifier {data.name}",
        "versions": {"diptych": __version__, "torch": torch.__version__, "numpy": np.__version__},
    }


def main(arguments: list[str] | None = None) -> int:
    """Train, test, fold, write NAME.safetensors and NAME.json."""
    from safetensors.numpy import save_file

    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("name", choices=sorted(RECIPES))
    parser.add_argument("--out", type=Path, default=WEIGHTS)
    parser.add_argument("--epochs", type=int, help="instead of the recipe's")
    given = parser.parse_args(arguments)
    recipe = RECIPES[given.name]
    if given.epochs:
        recipe = Recipe(**{**asdict(recipe), "epochs": given.epochs})
    torch.set_num_threads(recipe.threads)
    data, test = (load_dataset(given.name, split) for split in ("train", "test"))
    net = train(data, test, recipe)
    score, path = accuracy(net, test), given.out / f"{given.name}.safetensors"
    with atomic_path(path) as temporary:
        # Contiguous, because safetensors writes an array's memory and ignores its strides.
        save_file({k: np.ascontiguousarray(v) for k, v in net.folded().items()}, temporary)
        temporary.chmod(0o644)
    digest = sha256_of(path)
    facts = {**manifest(data, test, recipe, score), "sha256": digest}
    write_json(given.out / f"{given.name}.json", facts)
    print(f"{path}: test accuracy {score:.4f}, sha256 {digest}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
