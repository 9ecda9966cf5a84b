"""Memorisation of real digits in a backend's own process: planted copies, and whole scores."""

from __future__ import annotations

import numpy as np

from diptych.data import load_dataset
from diptych.evaluation.features import open_extractor
from diptych.evaluation.images import Images
from diptych.evaluation.memorisation import Distances, copies
from diptych.evaluation.run import evaluate
from diptych.evaluation.sets import Settings
from diptych.evaluation.training_distances import pixel_space, shifted


def source(pixels, name):
    return Images(name, len(pixels), lambda: iter(pixels), lambda: f"{name}-{len(pixels)}")


def mnist():
    """The 10,000 digits of the package, (N, 28, 28, 1)."""
    return np.ascontiguousarray(load_dataset("mnist-10k").images.transpose(0, 2, 3, 1))


def settings(training, held_out, features="mnist"):
    return Settings(("memorization",), features, train=source(training, "trained"),
                    held_out=source(held_out, "fresh"), progress=False)  # fmt: skip


def copied(images, kind, random):
    """Copies of images: exact, with noise of 8 of 255, or shifted by a pixel."""
    if kind == "noisy":
        noise = random.normal(0, 8, images.shape)
        return np.clip(np.rint(images + noise), 0, 255).astype(np.uint8)
    if kind == "shifted":
        moved = [i for i in range(9) if i != 4]  # the fourth is the image itself
        chosen, shifts = random.choice(moved, len(images)), shifted(images)
        rows = [shifts[k][i] for i, k in enumerate(chosen)]
        return np.stack(rows).reshape(images.shape)
    return images


def planted(backend, shares):
    """(kind, share, copies) in pixels for every kind of copy and share; without copies once."""
    images, random = mnist(), np.random.RandomState(0)
    training, held_out, fresh = images[:1000], images[1000:3000], images[3000:5000]
    space = pixel_space(training, open_extractor("mnist", backend, "cpu"))

    def ratios(pixels):
        index, nearest = space.nearest(pixels)
        return Distances(index[:, 0], nearest, nearest[:, 0])  # `copies` needs no local distance

    real, fresh_real = ratios(held_out), ratios(fresh)
    found = []
    for kind in ("exact", "noisy", "shifted"):
        most = round(max(shares) * len(fresh))
        own = training[random.choice(len(training), most, replace=False)]
        fakes = ratios(copied(own, kind, random))
        for share in shares if kind == "exact" else [s for s in shares if s]:
            count = round(share * len(fresh))
            parts = [np.concatenate([getattr(fresh_real, key)[count:], getattr(fakes, key)[:count]])
                     for key in ("index", "nearest", "local")]  # fmt: skip
            found.append((kind, share, copies(Distances(*parts), real)[1]))
    return found


def figures(backend, features="mnist"):
    """All scores of 200 digits of which every fifth is a copy."""
    images, random = mnist(), np.random.RandomState(1)
    samples = images[700:900].copy()
    samples[::5] = copied(images[:40], "noisy", random)
    extractor = open_extractor(features, backend, "cpu")
    asked = settings(images[:400], images[400:700], features)
    found = evaluate([source(samples, "own")], None, asked, extractor)
    return {each["metric"]: each | {"subject": {}} for each in found["scores"]}
