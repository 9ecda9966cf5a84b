"""Layers in a backend's own process, as importable functions."""

from __future__ import annotations

import numpy as np

from diptych import backends

NUMBERS = {"beta1": 0.9, "beta2": 0.99, "eps": 1e-8, "max_norm": 1.0, "ema_rate": 0.9}


def framework(name):
    """A backend's (layers, host array -> device array, (output, inputs, g) -> gradients)."""
    backends.load(name, "cpu")
    if name == "torch":
        import torch

        from diptych.backends.torch import layers

        return layers, torch.tensor, torch.autograd.grad
    import jittor as jt

    from diptych.backends.jittor import layers

    return layers, jt.array, lambda y, inputs, g: jt.grad((y * g).sum(), inputs)


def evaluate(backend, name, init, weights, inputs, g, **attributes):
    """[output, gradients of the float inputs, gradients of the weights] of a layer or function.

    `attributes` are set on the layer.
    """
    layers, put, gradients = framework(backend)
    layer = getattr(layers, name)
    given = [put(x) if isinstance(x, np.ndarray) else x for x in inputs]
    wanted = [v for v, x in zip(given, inputs, strict=True) if getattr(x, "dtype", 0) == np.float32]
    if init is not None:
        layer = layer(*init)
        layer.weight, layer.bias = (parameter(backend, put(w)) for w in weights)
        wanted += [layer.weight, layer.bias]
        for attribute, value in attributes.items():
            assert hasattr(layer, attribute)
            setattr(layer, attribute, value)
    for v in wanted if backend == "torch" else []:
        v.requires_grad_(True)
    y = layer(*given)
    return [np.array(v.detach().numpy()) for v in (y, *gradients(y, wanted, put(g)))]


def norm_and_rest(init, weights, x):
    """PyTorch's GroupNorm of x, passed through the check of its squares."""
    layers, put, _ = framework("torch")
    norm = layers.GroupNorm(*init)
    norm.weight, norm.bias = (parameter("torch", put(w)) for w in weights)
    return layers.unless_overflown(norm(put(x)), [norm]).detach().numpy()


def norms_of_views(init, weights, x):
    """PyTorch's GroupNorm of half of x's channels: copied, as a view, channels last, transposed."""
    layers, put, _ = framework("torch")
    import torch

    norm = layers.GroupNorm(*init)
    norm.weight, norm.bias = (parameter("torch", put(w)) for w in weights)
    half = put(x)[:, ::2]
    last = half.contiguous(memory_format=torch.channels_last)
    turned = half.transpose(2, 3).contiguous().transpose(2, 3)
    return [norm(each).detach().numpy() for each in (half.contiguous(), half, last, turned)]


def parameter(backend, value):
    if backend == "jittor":
        return value
    import torch

    return torch.nn.Parameter(value)


def update(backend, state, gradients):
    """Five steps at a growing rate: [norms, params, m, v, ema], and True if a clone changed."""
    _, put, _ = framework(backend)
    module = __import__(f"diptych.backends.{backend}.optim", fromlist=["optim"])
    groups = [[put(x) for x in group] for group in state]
    if backend == "jittor":
        for x in (x for group in groups[1:] for x in group):
            x.stop_grad()
    clones = [x.clone() for x in groups[0]]
    norms = []
    for i, values in enumerate(gradients):
        given = [put(g) for g in values]
        norms.append(
            module.adam_step(*[groups[0], given, *groups[1:]], lr=rate(i), step=i + 1, **NUMBERS)
        )
    kept = all((c.numpy() == x).all() for c, x in zip(clones, state[0], strict=True))
    flat = [np.concatenate([x.numpy().ravel() for x in group]) for group in groups]
    return [np.array([float(n.item()) for n in norms]), *flat], kept


def rate(i):
    return 1e-3 * (i + 1) / 5


def refusal(name, *inputs):
    """The Jittor backend's message for inputs that do not fit."""
    _, put, _ = framework("jittor")
    from diptych.backends.jittor import kernels

    try:
        getattr(kernels, name)(*(put(x) if isinstance(x, np.ndarray) else x for x in inputs))
    except ValueError as error:
        return str(error)
    return "nothing"


def evaluate_plain(*arguments, **attributes):
    """`evaluate` as without oneDNN: by Jittor's own operators where a body needs it."""
    framework("jittor")
    from diptych.backends.jittor.kernels import code

    flags, code._FLAGS = code._FLAGS, None
    try:
        return evaluate("jittor", *arguments, **attributes)
    finally:
        code._FLAGS = flags


def drawn(shapes):
    """Keyed normal numbers of the given shapes, and their total norm in float64."""
    draws = np.random.default_rng(0)
    gradients = [draws.standard_normal(shape, dtype=np.float32) for shape in shapes]
    squares = sum(np.square(g, dtype=np.float64).sum() for g in gradients)
    return gradients, float(np.sqrt(squares))


def clipped(backend, shapes):
    """(norm, the factor by which one update scaled its gradients, the norm in float64)."""
    _, put, _ = framework(backend)
    module = __import__(f"diptych.backends.{backend}.optim", fromlist=["optim"])
    gradients, truth = drawn(shapes)
    given = [put(g) for g in gradients]
    p, m, v, e = ([put(np.zeros_like(g)) for g in gradients] for _ in range(4))
    numbers = NUMBERS | {"beta1": 0.0, "max_norm": 100.0}
    norm = module.adam_step(p, given, m, v, e, lr=1e-3, step=1, **numbers)
    largest = int(np.argmax([g.size for g in gradients]))
    taken, g = (x.astype(np.float64).ravel() for x in (m[largest].numpy(), gradients[largest]))
    return float(norm.item()), float((taken * g).sum() / (g * g).sum()), truth
