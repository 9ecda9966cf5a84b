"""The vision transformer of vit_torch.py in Jittor, with names of another library."""

import jittor as jt
from jittor import nn
from own_jittor import Adam


class SelfAttention(nn.Module):
    def __init__(self, dim, heads):
        super().__init__()
        self.heads = heads
        self.in_proj = nn.Linear(dim, 3 * dim)
        self.out_proj = nn.Linear(dim, dim)

    def execute(self, x):
        b, n, c = x.shape
        qkv = self.in_proj(x).reshape(b, n, 3, self.heads, c // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        weights = nn.softmax(jt.matmul(q, k.transpose(2, 3)) * (c // self.heads) ** -0.5, -1)
        return self.out_proj(jt.matmul(weights, v).transpose(1, 2).reshape(b, n, c))


class Layer(nn.Module):
    def __init__(self, dim, heads):
        super().__init__()
        self.ln_before = nn.LayerNorm(dim, eps=1e-6)
        self.attention = SelfAttention(dim, heads)
        self.ln_after = nn.LayerNorm(dim, eps=1e-6)
        self.fc_in = nn.Linear(dim, 2 * dim)
        self.act = nn.GELU()
        self.fc_out = nn.Linear(2 * dim, dim)

    def execute(self, x):
        x = x + self.attention(self.ln_before(x))
        return x + self.fc_out(self.act(self.fc_in(self.ln_after(x))))


class ViT(nn.Module):
    def __init__(self, dim=24, heads=3):
        super().__init__()
        self.embed = nn.Conv2d(3, dim, 4, 4)
        self.class_token = jt.zeros((1, 1, dim))
        self.positions = jt.zeros((1, 17, dim))
        self.encoder = nn.ModuleList([Layer(dim, heads) for _ in range(2)])
        self.final_ln = nn.LayerNorm(dim, eps=1e-6)
        self.classifier = nn.Linear(dim, 10)

    def execute(self, image):
        x = self.embed(image).flatten(2).transpose(1, 2)
        token = self.class_token.expand(x.shape[0], 1, x.shape[2])
        x = jt.concat([token, x], 1) + self.positions
        for layer in self.encoder:
            x = layer(x)
        return self.classifier(self.final_ln(x)[:, 0])


def build():
    return ViT()


def optimizer(model):
    return Adam(model.parameters(), lr=1e-3)
