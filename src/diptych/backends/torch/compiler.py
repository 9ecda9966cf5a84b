"""The network by PyTorch's compiler, where `train.compile` asks for it.

Each size of a batch is compiled at its first step, which takes a minute or more on a CPU. On two
CPU cores without AVX-512 a compiled step was no faster than ours as it is (docs/log.md).
"""

from __future__ import annotations

import torch

from diptych.backends.torch.layers import fold
from diptych.backends.torch.own import Own
from diptych.backends.torch.unet import UNet
from diptych.errors import UserError


def compile_network(network: UNet | Own) -> None:
    """Compile the network's calls, in place: weights and their names stay.

    Our network is compiled as one graph; a user's own may be cut where the compiler does not
    understand it.

    Raises:
        UserError: the compiler's own compiler is missing.
    """
    # Imported here: it takes a second.
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        get_cpp_compiler()
    except InvalidCxxCompiler:
        raise UserError(
            "train.compile: PyTorch's compiler needs a C++ compiler, and finds none; install g++, "
            "or set train.compile=false"
        ) from None
    if isinstance(network, Own):
        network.module.compile(dynamic=False)
        return
    # Before the first call, or its making is compiled; `cuda` and `cuda:0` are different keys.
    fold(torch.float32, next(network.parameters()).device)
    network.compile(fullgraph=True, dynamic=False)
