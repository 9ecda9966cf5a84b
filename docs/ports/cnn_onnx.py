"""The classifier of cnn_torch.py as an ONNX file: python docs/ports/cnn_onnx.py cnn.onnx [SEED]

Its weights are those that `build` draws after `torch.manual_seed(SEED)`, which is what
`diptych align port --seed SEED` does too. Batch norms stay apart from convolutions, so that each
layer has a value of its own.
"""

import sys

import torch
from cnn_torch import build


def export(path, seed=0):
    torch.manual_seed(seed)
    model = build().eval()
    torch.onnx.export(
        model, (torch.zeros(4, 3, 16, 16),), path, input_names=["image"], dynamo=False,
        do_constant_folding=False, training=torch.onnx.TrainingMode.PRESERVE,
    )  # fmt: skip


if __name__ == "__main__":
    export(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 0)
