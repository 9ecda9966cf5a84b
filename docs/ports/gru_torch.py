"""A sequence classifier in PyTorch: a GRU over steps, then an LSTM."""

import torch
from torch import nn

INPUTS = {"x": {"shape": [3, 7, 6]}}


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.proj = nn.Linear(6, 12)
        self.gru = nn.GRU(12, 16, batch_first=True)
        self.norm = nn.LayerNorm(16)
        self.lstm = nn.LSTM(16, 16, batch_first=True)
        self.head = nn.Linear(16, 5)

    def forward(self, x):
        h, _ = self.gru(torch.tanh(self.proj(x)))
        h, _ = self.lstm(self.norm(h))
        return self.head(h[:, -1])


def build():
    return Recurrent()


def optimizer(model):
    return torch.optim.SGD(model.parameters(), lr=0.05)
