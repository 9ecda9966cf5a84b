"""Reference features of pytorch-fid's and torch-fidelity's own networks -> inception.npz.

    pip install torch==2.13.0 torch-fidelity==0.4.0 pytorch-fid==0.3.0     (separate environment)
    PYTHONPATH=src:tests/support python tests/golden/make_inception.py

Both run in PyTorch on a CPU, in float32 and float64, on `inception_file`'s random weights and
images. The file keeps the float64 features as float32, and the distance of each tool's float32
features from them (the best accuracy that can be expected of any implementation).
"""

from __future__ import annotations

import importlib.metadata
import tempfile
from pathlib import Path

import numpy as np
import torch

from inception_file import images, preprocessed, random_weights

COUNT = 4
LIBRARY = torch.library.Library("torchvision", "FRAGMENT")


def with_torchvision():
    """Import torchvision without its compiled operators, which the networks do not use."""
    if importlib.metadata.version("torchvision") and not hasattr(torch.ops.torchvision, "nms"):
        for name in ("nms", "qnms"):
            LIBRARY.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")


def pytorch_fid(pixels, state, dtype):
    """Pool features, (N, 2048)."""
    from pytorch_fid import inception

    inception.load_state_dict_from_url = lambda *_, **__: state
    network = inception.InceptionV3([3], resize_input=False, normalize_input=False)
    x = torch.tensor(preprocessed(pixels), dtype=dtype)
    with torch.no_grad():
        return network.eval().to(dtype)(x)[0].flatten(1).numpy()


def torch_fidelity(pixels, path, dtype):
    """(pool, unbiased logits, Mixed_6d.branch1x1's first 7 channels pixel by pixel)."""
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    network = FeatureExtractorInceptionV3("reference", ["2048", "logits_unbiased"], path)
    network.to(dtype).feature_extractor_internal_dtype = dtype
    seen = []
    network.Mixed_6d.branch1x1.register_forward_hook(lambda *given: seen.append(given[2]))
    with torch.no_grad():  # takes pixels; at 299x299 its resize has no effect
        pool, logits = network(torch.tensor(pixels.transpose(0, 3, 1, 2).copy()))
    spatial = seen[0][:, :7].permute(0, 2, 3, 1).flatten(1)
    return pool.numpy(), logits.numpy(), spatial.numpy()


def main():
    with_torchvision()
    state = {name: torch.tensor(array) for name, array in random_weights(True).items()}
    pixels, names = images(COUNT), ("pool", "logits", "spatial")
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "random.pth")
        torch.save(state, path)
        truth = torch_fidelity(pixels, path, torch.float64)
        single = torch_fidelity(pixels, path, torch.float32)
    compared = {f"{n}, torch-fidelity float32": i for i, n in enumerate(names)}
    got = [*single, *(pytorch_fid(pixels, state, t) for t in (torch.float64, torch.float32))]
    compared |= {"pool, pytorch-fid float64": 3, "pool, pytorch-fid float32": 4}
    for name, i in compared.items():
        other = truth[i % 3 if i < 3 else 0]
        print(f"{name}: {np.abs(got[i] - other).max() / np.abs(other).max():.1e}")
    kept = {name: value.astype(np.float32) for name, value in zip(names, truth, strict=True)}
    np.savez_compressed(Path(__file__).with_name("inception.npz"), **kept)


if __name__ == "__main__":
    main()
