"""Parts for a port to Jittor 1.3.11, because Jittor's own differ from PyTorch's."""

import math

import jittor as jt
from jittor import nn


class Adam(jt.optim.Optimizer):
    """Adam as PyTorch computes it: eps after the bias correction, steps counted by `step`."""

    def __init__(self, params, lr, betas=(0.9, 0.999), eps=1e-8):
        super().__init__(params, lr)
        self.betas, self.eps, self.steps = betas, eps, 0
        for group in self.param_groups:
            group["m"] = [jt.zeros(p.shape, p.dtype).stop_grad() for p in group["params"]]
            group["v"] = [jt.zeros(p.shape, p.dtype).stop_grad() for p in group["params"]]

    def step(self, loss=None, retain_graph=False):
        self.pre_step(loss, retain_graph)
        self.steps += 1
        b1, b2 = self.betas
        for group in self.param_groups:
            for p, g, m, v in zip(
                group["params"], group["grads"], group["m"], group["v"], strict=True
            ):
                if p.is_stop_grad():
                    continue
                m.update(b1 * m + (1 - b1) * g)
                v.update(b2 * v + (1 - b2) * g * g)
                root = jt.sqrt(v) / math.sqrt(1 - b2**self.steps) + self.eps
                p.update(p - self.lr / (1 - b1**self.steps) * m / root)
        self.post_step()


class BatchNorm(nn.Module):
    """Batch norm whose running variance is taken over n - 1, as PyTorch's."""

    def __init__(self, channels, eps=1e-5, momentum=0.1):
        super().__init__()
        self.eps, self.momentum = eps, momentum
        self.weight, self.bias = jt.ones(channels), jt.zeros(channels)
        self.running_mean = jt.zeros(channels).stop_grad()
        self.running_var = jt.ones(channels).stop_grad()

    def execute(self, x):
        axes = [0, *range(2, x.ndim)]
        mean, var = self.running_mean, self.running_var
        if self.is_training():
            mean = x.mean(axes)
            apart = x - mean.broadcast(x, axes)
            var = (apart * apart).mean(axes)
            n = x.numel() // x.shape[1]
            m = self.momentum  # detach(), for stop_grad() would cut the norm's own gradient too
            self.running_mean.update((1 - m) * self.running_mean + m * mean.detach())
            fresh = (var * (n / (n - 1))).detach()
            self.running_var.update((1 - m) * self.running_var + m * fresh)
        scale = self.weight / jt.sqrt(var + self.eps)
        return (x - mean.broadcast(x, axes)) * scale.broadcast(x, axes) + self.bias.broadcast(
            x, axes
        )
