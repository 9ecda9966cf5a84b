"""Makes metrics.json and metrics-resize.npz: reference values by the tools' own code.

Run once, outside this project's environment, with pytorch-fid 0.3.0, torch-fidelity 0.4.0,
clean-fid 0.1.35, prdc 0.2, torch 2.13.0, numpy 1.26.4, scipy 1.15.3, Pillow, mpmath:

    python make_metrics.py FOLDER

The tests regenerate the inputs from the seeds below (`features`, `logits`, `pictures`); only the
tools' results are kept. torchvision, which two of the tools import but no function used here
needs, is replaced by an empty module.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import json
import sys
from pathlib import Path

import numpy as np

SIZES = ((28, 28), (32, 32), (64, 48), (299, 299), (350, 400))
STRIDE = 7


def features(seed: int, n: int, d: int, shift: float = 0.0) -> np.ndarray:
    """Skewed, correlated, non-negative rows (n, d) like pooled activations; float32."""
    random = np.random.RandomState(seed)
    mixed = random.standard_normal((n, d)) @ (random.standard_normal((d, d)) / np.sqrt(d))
    return np.maximum(mixed * np.linspace(1.5, 0.1, d) + 0.3 + shift, 0).astype(np.float32)


def logits(seed: int, n: int, k: int) -> np.ndarray:
    """Rows of logits, float32."""
    return (2.0 * np.random.RandomState(seed).standard_normal((n, k))).astype(np.float32)


def pictures(seed: int, height: int, width: int) -> np.ndarray:
    """Two pictures (2, H, W, 3), uint8: noise, and a smooth picture with hard edges."""
    random = np.random.RandomState(seed)
    y, x = np.mgrid[:height, :width]
    waves = [127 + 127 * np.sin(x / (3.0 + c)) * np.cos(y / (4.0 + c)) for c in range(3)]
    smooth = np.stack(waves, axis=-1)
    smooth[height // 3 : height // 2, width // 4 : width // 2] = (255, 0, 128)
    noise = random.randint(0, 256, (height, width, 3))
    return np.stack([noise, smooth]).astype(np.uint8)


def gaussians() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Pairs of feature sets for the Frechet distance."""
    return {
        "regular": (features(1, 600, 64), features(2, 500, 64, 0.1)),
        "singular": (features(3, 24, 64), features(4, 40, 64, 0.1)),
        "mixed": (features(5, 24, 64), features(6, 300, 64, 0.1)),
    }


class Stub(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Provides empty modules instead of torchvision's."""

    def find_spec(self, name, path=None, target=None):
        own = name.partition(".")[0] == "torchvision"
        return importlib.machinery.ModuleSpec(name, self, is_package=True) if own else None

    def create_module(self, spec):
        return None

    def exec_module(self, module):
        def anything(attribute: str):
            if attribute.startswith("__"):
                raise AttributeError(attribute)
            if attribute.islower():
                return importlib.import_module(f"{module.__name__}.{attribute}")
            return type(attribute, (), {})

        module.__getattr__ = anything
        module.__version__ = "0.28.0"


def exact_distance(a: np.ndarray, b: np.ndarray) -> float:
    """The Frechet distance with 60 digits, from the eigenvalues of G G^T, G = Y1 Y2^T."""
    import mpmath

    mpmath.mp.dps = 60

    def centred(rows: np.ndarray):
        exact = mpmath.matrix(rows.astype(np.float64).tolist())
        n, d = rows.shape
        mean = [mpmath.fsum(exact[i, j] for i in range(n)) / n for j in range(d)]
        for i in range(n):
            for j in range(d):
                exact[i, j] -= mean[j]
        return mean, exact / mpmath.sqrt(n - 1)

    (m1, y1), (m2, y2) = centred(a), centred(b)
    product = y1 * y2.T
    if product.rows > product.cols:
        product = product.T
    eigenvalues = mpmath.eigsy(product * product.T, eigvals_only=True)
    root = mpmath.fsum(mpmath.sqrt(e) for e in eigenvalues if e > mpmath.mpf(10) ** -45)
    gap = mpmath.fsum((p - q) ** 2 for p, q in zip(m1, m2, strict=True))
    traces = mpmath.fsum(v * v for v in y1) + mpmath.fsum(v * v for v in y2)
    return float(gap + traces - 2 * root)


def frechet() -> dict[str, dict[str, float]]:
    """Every pair by every tool, and the exact value if that is affordable."""
    from cleanfid.fid import frechet_distance as clean
    from pytorch_fid.fid_score import calculate_frechet_distance as official
    from torch_fidelity.metric_fid import fid_statistics_to_metric

    found: dict[str, dict[str, float]] = {}
    for name, (a, b) in gaussians().items():
        stats = [(x.mean(0, dtype=np.float64), np.cov(x.astype(np.float64), rowvar=False))
                 for x in (a, b)]  # fmt: skip
        (m1, s1), (m2, s2) = stats
        pair = ({"mu": m1, "sigma": s1}, {"mu": m2, "sigma": s2})
        fidelity = fid_statistics_to_metric(*pair, verbose=False)
        found[name] = {
            "pytorch-fid": float(official(m1, s1, m2, s2)),
            "torch-fidelity": float(fidelity["frechet_inception_distance"]),
            "clean-fid": float(clean(m1, s1, m2, s2)),
        }
        if name != "regular":
            found[name]["exact"] = exact_distance(a, b)
    return found


def other_scores() -> dict[str, dict[str, float]]:
    """IS, KID, precision and recall by torch-fidelity; KID by clean-fid; PRDC by prdc."""
    import torch
    from cleanfid.fid import kernel_distance
    from prdc import compute_prdc
    from torch_fidelity.metric_isc import isc_features_to_metric
    from torch_fidelity.metric_kid import kid_features_to_metric
    from torch_fidelity.metric_prc import prc_features_to_metric

    a, b = torch.from_numpy(features(7, 300, 64)), torch.from_numpy(features(8, 260, 64, 0.1))
    scores = torch.from_numpy(logits(9, 1003, 20))
    np.random.seed(5)
    clean_kid = kernel_distance(a.numpy(), b.numpy(), num_subsets=20, max_subset_size=100)
    kid = kid_features_to_metric(
        a, b, kid_subsets=20, kid_subset_size=100, rng_seed=2020, kid_kernel_poly_gamma=None,
        kid_kernel_poly_degree=3, kid_kernel_poly_coef0=1, verbose=False,
    )  # fmt: skip
    return {
        "is": isc_features_to_metric(scores, 10, True, 2020),
        "kid": {**kid, "clean-fid-seed-5": float(clean_kid)},
        "precision-recall": prc_features_to_metric(
            a, b, prc_neighborhood=3, prc_batch_size=1000, verbose=False
        ),
        "prdc": {k: float(v) for k, v in compute_prdc(a.numpy(), b.numpy(), nearest_k=3).items()},
    }


def resizes() -> dict[str, np.ndarray]:
    """Every size by every tool as (2, 3, 43, 43) float32: every seventh row and column."""
    import torch
    from cleanfid.resize import make_resizer
    from torch_fidelity.interpolate_compat_tensorflow import (
        interpolate_bilinear_2d_like_tensorflow1x,
    )

    clean = make_resizer("PIL", False, "bicubic", (299, 299))
    found = {}
    for height, width in SIZES:
        images = pictures(10, height, width)
        x = torch.from_numpy(images.transpose(0, 3, 1, 2).copy()).float()
        halves = torch.nn.functional.interpolate(
            x / 255, size=(299, 299), mode="bilinear", align_corners=False
        )
        corner = interpolate_bilinear_2d_like_tensorflow1x(x, size=(299, 299), align_corners=False)
        cubic = np.stack([clean(image) for image in images]).transpose(0, 3, 1, 2)
        whole = {"pytorch-fid": 255 * halves.numpy(), "torch-fidelity": corner.numpy(),
                 "clean-fid": cubic}  # fmt: skip
        for tool, values in whole.items():
            kept = np.ascontiguousarray(values[:, :, ::STRIDE, ::STRIDE], dtype=np.float32)
            found[f"{tool} {height}x{width}"] = kept
    return found


def main(folder: Path) -> None:
    """Write both files."""
    sys.meta_path.insert(0, Stub())
    found = {"frechet": frechet(), **other_scores()}
    (folder / "metrics.json").write_text(json.dumps(found, indent=1, default=float) + "\n")
    np.savez_compressed(folder / "metrics-resize.npz", **resizes())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
