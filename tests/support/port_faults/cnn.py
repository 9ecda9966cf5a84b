"""Faults planted into docs/ports/cnn_jittor.py."""

from cnn_jittor import Block, optimizer
from cnn_jittor import build as sound
from jittor import nn
from own_jittor import BatchNorm

__all__ = ["optimizer"]


def stock_norm():
    model = sound()
    model.layer1.bn1 = nn.BatchNorm(16)
    return model


class Training(BatchNorm):
    def is_training(self):
        return True


def batch_statistics():
    model = sound()
    model.layer1.bn2 = Training(16)
    return model


class OneSided(nn.Conv2d):
    def execute(self, x):
        x = nn.pad(x, [0, 1, 0, 1])
        return nn.conv2d(x, self.weight, self.bias, self.stride, 0)


def padding():
    model = sound()
    model.layer1.conv1 = OneSided(8, 16, 3, 2, 1, bias=False)
    return model


def eps():
    model = sound()
    model.stem[1].eps = 1e-3
    return model


class NoRelu(Block):
    def execute(self, x):
        return self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x))))) + self.down(x)


def no_relu():
    model = sound()
    model.layer2 = NoRelu(16, 16, 1)
    return model
