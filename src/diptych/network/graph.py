"""The U-Net's graph: every layer with its inputs and the shape of its output; no framework.

Follows the forward pass of the panels' `unet` modules. A layer with weights has the name by which
the official network knows them (`down.0.block.0.conv1`); the operators between are named beside it
(`down.0.block.0.sum`). As in the panels, a norm in a block includes its swish, and `norm2` adds the
time's projection first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from diptych.network.plan import Block, Plan, Stage

NORM_SWISH = "GroupNorm+Swish"


@dataclass(frozen=True)
class Layer:
    """One node: the names of its inputs, and its output's shape without the batch."""

    name: str
    kind: str
    inputs: tuple[str, ...]
    shape: tuple[int, ...]


def network_graph(plan: Plan) -> list[Layer]:
    """The layers of a plan in order of computation; the last one is the prediction."""
    return _Graph(plan).layers


class _Graph:
    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.layers: list[Layer] = []
        self._shapes: dict[str, tuple[int, ...]] = {}
        self.temb = self._time()
        height, width = plan.height, plan.width
        h = self._add("x_t", "Placeholder", (), plan.shape)
        h = self._add("conv_in", "Conv2D", (h,), (plan.ch, height, width))
        skips = [h]
        for stage in plan.down:
            for block in stage.blocks:
                h = self._block(block, h)
                skips.append(h)
            if stage.resample:
                height, width = height // 2, width // 2
                h = self._downsample(stage, h, (stage.out_ch, height, width))
                skips.append(h)
        for block in plan.mid:
            h = self._block(block, h)
        for stage in plan.up:
            for block in stage.blocks:
                joined = (h, skips.pop())
                shape = (block.in_ch, block.height, block.width)
                h = self._block(block, self._add(f"{block.name}.concat", "Concat", joined, shape))
            if stage.resample:
                height, width = 2 * height, 2 * width
                h = self._upsample(stage, h, (stage.out_ch, height, width))
        h = self._add("norm_out", NORM_SWISH, (h,), (plan.out_ch, height, width))
        self._add("conv_out", "Conv2D", (h,), plan.shape)

    def _add(
        self, name: str, kind: str, inputs: Sequence[str], shape: tuple[int, ...] | None = None
    ) -> str:
        """Append a layer; without a shape it has that of its first input."""
        own = self._shapes[inputs[0]] if shape is None else shape
        self._shapes[name] = own
        self.layers.append(Layer(name, kind, tuple(inputs), own))
        return name

    def _time(self) -> str:
        ch, wide = self.plan.ch, (4 * self.plan.ch,)
        h = self._add("t", "Placeholder", (), ())
        h = self._add("sinusoid", "TimeEmbedding", (h,), (ch,))
        h = self._add("temb.dense.0", "Dense", (h,), wide)
        h = self._add("temb.swish", "Swish", (h,))
        h = self._add("temb.dense.1", "Dense", (h,), wide)
        if self.plan.num_classes:
            row = self._add("class", "Placeholder", (), ())
            row = self._add("class_embed", "Embedding", (row,), wide)
            h = self._add("temb.sum", "Add", (h, row))
        return self._add("temb.swish_out", "Swish", (h,))

    def _block(self, block: Block, x: str) -> str:
        name, shape = block.name, block.shape
        h = self._add(f"{name}.norm1", NORM_SWISH, (x,))
        h = self._add(f"{name}.conv1", "Conv2D", (h,), shape)
        time = self._add(f"{name}.temb_proj", "Dense", (self.temb,), (block.out_ch,))
        h = self._add(f"{name}.norm2", NORM_SWISH, (h, time))
        if self.plan.dropout:
            h = self._add(f"{name}.dropout", "Dropout", (h,))
        h = self._add(f"{name}.conv2", "Conv2D", (h,))
        if block.in_ch != block.out_ch:
            x = self._add(f"{name}.nin_shortcut", "Conv2D", (x,), shape)
        h = self._add(f"{name}.sum", "Add", (x, h))
        return self._attention(block.attention, h) if block.attention else h

    def _attention(self, name: str, x: str) -> str:
        h = self._add(f"{name}.norm", "GroupNorm", (x,))
        parts = [self._add(f"{name}.{part}", "Conv2D", (h,)) for part in ("q", "k", "v")]
        h = self._add(f"{name}.attention", "Attention", parts)
        h = self._add(f"{name}.proj_out", "Conv2D", (h,))
        return self._add(f"{name}.sum", "Add", (x, h))

    def _downsample(self, stage: Stage, x: str, shape: tuple[int, ...]) -> str:
        if self.plan.resamp_with_conv:
            return self._add(f"{stage.resample}.conv", "Conv2D", (x,), shape)
        return self._add(stage.resample, "AvgPool", (x,), shape)

    def _upsample(self, stage: Stage, x: str, shape: tuple[int, ...]) -> str:
        if not self.plan.resamp_with_conv:
            return self._add(stage.resample, "Upsample", (x,), shape)
        h = self._add(f"{stage.resample}.nearest", "Upsample", (x,), shape)
        return self._add(f"{stage.resample}.conv", "Conv2D", (h,))
