"""The perceptron of mlp_torch.py in Jittor."""

from jittor import nn
from own_jittor import Adam


class Mlp(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1 = nn.Linear(16, 32)
        self.norm1 = nn.LayerNorm(32)
        self.act1 = nn.GELU()
        self.fc2 = nn.Linear(32, 32)
        self.norm2 = nn.LayerNorm(32)
        self.act2 = nn.GELU()
        self.head = nn.Linear(32, 10)

    def execute(self, x, label=None):
        x = self.act1(self.norm1(self.fc1(x)))
        x = x + self.act2(self.norm2(self.fc2(x)))
        return self.head(x)


def build():
    return Mlp()


def loss(model, x, label):
    return nn.cross_entropy_loss(model(x), label)


def optimizer(model):
    return Adam(model.parameters(), lr=1e-3)
