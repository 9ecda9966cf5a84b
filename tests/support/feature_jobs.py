"""Feature networks in a backend's own process, as importable functions."""

from __future__ import annotations

import importlib

import numpy as np

from diptych.evaluation import features
from diptych.evaluation.features import weights_file
from diptych.network.features import inception as inception_plan
from diptych.network.features.conv import fold

OPEN = {}  # each network is built once per process


def extractor(backend, name, path=None):
    key = (backend, name, path)
    if key not in OPEN:
        OPEN[key] = features.open_extractor(name, backend, "cpu", path)
    return OPEN[key]


def outputs(found):
    return {"pool": found.pool, "logits": found.logits, "spatial": found.spatial}


def extract(backend, name, path, images):
    return outputs(extractor(backend, name, path)(images))


def extract_resized(backend, path, *arguments, **named):
    return outputs(extractor(backend, "inception", path).resized(*arguments, **named))


def accuracy(backend, name, images, labels):
    logits = extractor(backend, name)(images / np.float32(255)).logits
    return float((logits.argmax(1) == labels).mean())


def refusal(backend, name, path, images):
    try:
        extractor(backend, name, path)(images)
    except ValueError as error:
        return str(error)
    return "nothing"


def extract_with_fault(backend, fault, path, images):
    """The features of a network with one planted fault."""
    module = importlib.import_module(f"diptych.backends.{backend}.inception")
    network = extractor(backend, "inception", path)
    if fault == "eps":
        return _with_another_eps(network, "Mixed_6b.branch7x7_2", path, images)
    calls, kept = iter(range(1000)), getattr(module, fault)

    def faulty(x, *given):
        first = next(calls) == (4 if fault == "max_pool" else 0)
        return _counting(backend, x) if first else kept(x, *given)

    setattr(module, fault, faulty)
    try:
        return outputs(network(images))
    finally:
        setattr(module, fault, kept)


def _with_another_eps(network, name, path, images):
    published = weights_file.load_weights(path).weights
    norm = [published[f"{name}.bn.{part}"] for part in inception_plan._NORM]
    weight, bias = fold(published[f"{name}.conv.weight"], norm, 1e-5)
    arrays, put = network._network.arrays, network._panel.array
    kept = {f"{name}.{part}": arrays[f"{name}.{part}"] for part in ("weight", "bias")}
    arrays.update({f"{name}.weight": put(weight), f"{name}.bias": put(bias)})
    try:
        return outputs(network(images))
    finally:
        arrays.update(kept)


def _counting(backend, x):
    """The mean over 3x3 windows with the padding counted as zeros."""
    if backend == "torch":
        from torch.nn import functional

        return functional.avg_pool2d(x, 3, 1, 1)
    import jittor as jt

    pool = jt.nn.Pool(3, 1, 1, count_include_pad=True, op="mean")
    return pool(x.transpose(0, 3, 1, 2)).transpose(0, 2, 3, 1)


def operators_apart(seed=0):
    """Largest relative difference of our operators from Jittor's own, by operator."""
    from diptych import backends

    backends.load("jittor", "cpu")
    import jittor as jt

    from diptych.backends.jittor.kernels import code, inference

    draw = np.random.default_rng(seed)

    def normal(*shape):
        return jt.array(draw.standard_normal(shape).astype(np.float32))

    x, w, b = normal(2, 9, 8, 5), normal(7, 5, 1, 7), normal(7)
    pixels = jt.array(draw.integers(0, 256, (2, 6, 5, 1)).astype(np.uint8))
    runs = {
        "conv_relu": lambda: inference.conv_relu(x, w, b, 1, (0, 3)),
        "conv_relu, strided": lambda: inference.conv_relu(
            x, normal(4, 5, 3, 3) * 0 + 1, b[:4], 2, (0, 0)
        ),
        "max_pool": lambda: inference.max_pool(x, 2, 0),
        "max_pool, padded": lambda: inference.max_pool(x, 1, 1),
        "avg_pool_inside": lambda: inference.avg_pool_inside(x),
        "join": lambda: inference.join([x, x * 2, x]),
        "pixel_mean": lambda: inference.pixel_mean(x),
        "resize": lambda: inference.resize(pixels, rows, columns, 0.5, -1.0, (20.0, 200.0)),
    }
    rows, columns = normal(4, 6), normal(3, 5)
    flags, found = code._FLAGS, {}
    for name, run in runs.items():
        ours = run().numpy()
        code._FLAGS = None
        try:
            own = run().numpy()
        finally:
            code._FLAGS = flags
        assert ours.shape == own.shape, name
        found[name] = float(np.abs(ours - own).max() / np.abs(own).max())
    return found


def save_pth(path, arrays):
    """Save the arrays with torch.save."""
    import torch

    torch.save({name: torch.tensor(array) for name, array in arrays.items()}, path)


def trained(count):
    """A classifier's folded arrays after one epoch on a few images."""
    from dataclasses import replace

    from diptych.data import load_dataset
    from tools import train_classifier as training

    data = load_dataset("mnist-10k")
    data = replace(data, images=data.images[:count], labels=data.labels[:count])
    recipe = replace(training.RECIPES["fashion_mnist"], epochs=1)
    return training.train(data, data, recipe).folded()


def scored_in_parts(backend, samples, reference, place, count, batch):
    """The scores of samples, and those of their features in `count` parts."""
    from diptych.evaluation.feature_parts import write_part
    from diptych.evaluation.protocol import NATIVE
    from diptych.evaluation.run import evaluate
    from diptych.evaluation.sets import Settings
    from diptych.ranks import Part

    network, out = extractor(backend, "mnist"), place / "parts"
    for number in range(count):
        write_part(
            str(samples), out, network, NATIVE, Part(number, count), batch=batch, progress=False
        )
    settings = Settings(("fid", "kid", "is", "prdc"), "mnist", batch=batch, progress=False)
    made = [evaluate([each], str(reference), settings, network) for each in (samples, out)]
    return [{key: each[key] for key in ("scores", "classes")} for each in made]
