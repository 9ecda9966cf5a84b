"""The classifier of cnn_torch.py in Jittor."""

import jittor as jt
from jittor import nn
from own_jittor import BatchNorm


class Block(nn.Module):
    def __init__(self, inward, outward, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(inward, outward, 3, stride, 1, bias=False)
        self.bn1 = BatchNorm(outward)
        self.relu = nn.ReLU()
        self.conv2 = nn.Conv2d(outward, outward, 3, 1, 1, bias=False)
        self.bn2 = BatchNorm(outward)
        self.down = nn.Conv2d(inward, outward, 1, stride)

    def execute(self, x):
        y = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        return nn.relu(y + self.down(x))


class Cnn(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), BatchNorm(8), nn.ReLU())
        self.layer1 = Block(8, 16, 2)
        self.layer2 = Block(16, 16, 1)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(16, 10)

    def execute(self, image):
        x = self.layer2(self.layer1(self.stem(image)))
        return self.fc(jt.flatten(self.pool(x), 1))


def build():
    return Cnn()


def optimizer(model):
    return nn.SGD(model.parameters(), lr=0.05, momentum=0.9)
