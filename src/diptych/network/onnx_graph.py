"""The network of a plan as an ONNX graph, built from the plan as both panels build theirs.

Weights are initializers with their official names, shapes and bits, and a layer's value has the
path of the module that it is in the panels (`down.0.block.0.norm1`), so that a graph can be
compared with a panel layer by layer. Opset 17, in which every runtime has all operators: a
GroupNorm is an InstanceNormalization of (B, groups, rest). The batch size is free.

    engine's graph   x (B, C, H, W), embedding (B or 1, ch), class rows (B or 1, K + 1)  -> y
    file's graph     x, t (B or 1) int64, classes (B or 1) int64, guidance ()            -> y

y is the plan's objective: eps, x0 or v. The file's graph holds the embedding of every timestep as a
table, so that its bits are those of `Plan.times`. With guidance 1 it computes each image once; with
any other, twice: without its class and with it.

PyTorch's and Jittor's panels give nan for an image whose squares overflow float32 in a norm; a
graph has no such check.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from diptych.config.size import size_of, size_option
from diptych.errors import UserError
from diptych.machine.packages import require
from diptych.network.parameters import check_weights, parameter_table
from diptych.network.plan import Block, Plan
from diptych.types import Array, Float32

OPSET = 17
IR_VERSION = 8  # of that opset's time: readable by older runtimes too
BATCH = "batch"
LARGEST = 2**31 - 2**24  # bytes of weights; protobuf ends at 2**31


def engine_model(plan: Plan, weights: Mapping[str, Float32]) -> Any:
    """The graph that the engines run, as an onnx.ModelProto.

    Raises:
        UserError: onnx is not installed, or the weights are not the plan's.
    """
    graph = _Graph(plan, weights)
    graph.input("x", "FLOAT", (BATCH, *plan.shape))
    graph.input("embedding", "FLOAT", ("times", plan.ch))
    if plan.num_classes:
        graph.input("classes", "FLOAT", ("rows", plan.num_classes + 1))
    graph.network("x", "embedding", "classes" if plan.num_classes else "", "y")
    return graph.model()


def file_model(plan: Plan, weights: Mapping[str, Float32], timesteps: int) -> Any:
    """The graph that `diptych convert` writes, as an onnx.ModelProto; see `engine_model`."""
    graph = _Graph(plan, weights)
    graph.input("x", "FLOAT", (BATCH, *plan.shape))
    graph.input("t", "INT64", ("times",))
    graph.constant("time_table", plan.times(np.arange(timesteps)))
    if not plan.num_classes:
        graph.add("Gather", ["time_table", "t"], "embedding", axis=0)
        graph.network("x", "embedding", "", "y")
        return graph.model()
    graph.input("classes", "INT64", ("rows",))
    graph.input("guidance", "FLOAT", ())
    _guided(graph)
    return graph.model()


def _guided(graph: _Graph) -> None:
    """y = (1 - w) network(x, t, no class) + w network(x, t, class), with the first only if w != 1.

    The first's images go before the others in one batch of N or 2 N; `front` is their number, 0 or
    N. With 0 the second's output takes the first's place, where its factor is 0.
    """
    one, zero = graph.constant("one", np.float32(1)), graph.integers("zero", [0])
    graph.add("Shape", ["x"], "x_shape")
    graph.add("Slice", ["x_shape", zero, graph.integers("first", [1])], "count")
    graph.add("Equal", ["guidance", one], "plain")
    graph.add("Not", ["plain"], "doubled")
    graph.add("Cast", ["doubled"], "doubled_number", to="INT64")
    graph.add("Mul", ["count", "doubled_number"], "front")
    # One timestep or class for all images becomes one for each.
    for name in ("t", "classes"):
        graph.add("Expand", [name, "count"], f"{name}_rows")
    for name in ("x", "t_rows"):
        graph.add("Slice", [name, zero, "front", zero], f"{name}_front")
        graph.add("Concat", [f"{name}_front", name], f"{name}_both", axis=0)
    graph.add("Mul", ["classes_rows", zero], "no_class_zero")
    graph.add(
        "Add",
        ["no_class_zero", graph.integers("no_class", [graph.plan.num_classes])],
        "no_class_rows",
    )
    graph.add("Slice", ["no_class_rows", zero, "front", zero], "no_class_front")
    graph.add("Concat", ["no_class_front", "classes_rows"], "classes_both", axis=0)
    graph.add("Gather", ["time_table", "t_rows_both"], "embedding", axis=0)
    rows = graph.constant("class_table", np.eye(graph.plan.num_classes + 1, dtype=np.float32))
    graph.add("Gather", [rows, "classes_both"], "class_rows", axis=0)
    graph.network("x_both", "embedding", "class_rows", "both")
    end = graph.integers("end", [2**62])
    graph.add("Slice", ["both", zero, "count", zero], "without")
    graph.add("Slice", ["both", "front", end, zero], "with")
    graph.add("Sub", [one, "guidance"], "rest")
    graph.add("Mul", ["without", "rest"], "without_part")
    graph.add("Mul", ["with", "guidance"], "with_part")
    graph.add("Add", ["without_part", "with_part"], "y")


def initializers(model: Any) -> dict[str, Array]:
    """Copies of the arrays that an onnx.ModelProto holds, by name."""
    read = require("onnx", "onnx").numpy_helper.to_array
    return {each.name: np.array(read(each)) for each in model.graph.initializer}


class _Graph:
    """Nodes and initializers in the making; a value is known by its name."""

    def __init__(self, plan: Plan, weights: Mapping[str, Float32]) -> None:
        check_weights(plan, weights, "weights")
        self.onnx = require("onnx", "onnx")
        size = sum(array.nbytes for array in weights.values())
        if size > LARGEST:
            raise UserError(
                f"weights of {size / 1e9:.1f} GB: an ONNX graph holds at most 2 GB in one file; "
                f"use the torch or jittor backend, and --to safetensors"
            )
        self.plan = plan
        self.inputs: list[Any] = []
        self.nodes: list[Any] = []
        self.initializers: list[Any] = []
        self.known: set[str] = set()
        for name in parameter_table(plan):  # the official order, whatever the source's
            self.constant(name, weights[name])

    def input(self, name: str, kind: str, shape: Sequence[str | int]) -> None:
        """Add an input of the graph; a word is a free dimension."""
        number = getattr(self.onnx.TensorProto, kind)
        self.inputs.append(self.onnx.helper.make_tensor_value_info(name, number, shape))

    def constant(self, name: str, values: Any) -> str:
        """Add an initializer once; return its name."""
        if name not in self.known:
            self.known.add(name)
            array: Array = np.asarray(values)
            if array.ndim:
                array = np.ascontiguousarray(array)
            self.initializers.append(self.onnx.numpy_helper.from_array(array, name))
        return name

    def integers(self, name: str, values: Sequence[int]) -> str:
        """Add an initializer of int64 once; return its name."""
        return self.constant(name, np.array(values, np.int64))

    def add(self, kind: str, inputs: Sequence[str], out: str, **attributes: Any) -> str:
        """Add a node with one output; return the output's name."""
        if "to" in attributes:
            attributes["to"] = getattr(self.onnx.TensorProto, attributes["to"])
        self.nodes.append(self.onnx.helper.make_node(kind, inputs, [out], out, **attributes))
        return out

    def model(self) -> Any:
        """The finished model, checked by onnx itself; its output is `y`."""
        helper = self.onnx.helper
        y = helper.make_tensor_value_info(
            "y", self.onnx.TensorProto.FLOAT, (BATCH, *self.plan.shape)
        )
        graph = helper.make_graph(self.nodes, "diptych", self.inputs, [y], self.initializers)
        opset = [helper.make_opsetid("", OPSET)]
        made = helper.make_model(
            graph, opset_imports=opset, producer_name="diptych", ir_version=IR_VERSION
        )
        self.onnx.checker.check_model(made)
        return made

    def network(self, x: str, embedding: str, classes: str, out: str) -> None:
        """Add the plan's network."""
        plan = self.plan
        temb = self.time_embedding(embedding, classes)
        h = self.conv("conv_in", x)
        skips = [h]
        for stage in plan.down:
            for block in stage.blocks:
                h = self.attention(block, self.block(block, h, temb))
                skips.append(h)
            if stage.resample:
                h = self.downsample(stage.resample, h)
                skips.append(h)
        for block in plan.mid:
            h = self.attention(block, self.block(block, h, temb))
        for stage in plan.up:
            for block in stage.blocks:
                joined = self.add("Concat", [h, skips.pop()], f"{block.name}.input", axis=1)
                h = self.attention(block, self.block(block, joined, temb))
            if stage.resample:
                h = self.upsample(stage.resample, h)
        h = self.norm("norm_out", h, (plan.out_ch, plan.height, plan.width), silu=True)
        self.conv("conv_out", h, out=out)

    def time_embedding(self, embedding: str, classes: str) -> str:
        """The dense layers of the time, + the class; silu of the sum."""
        h = self.silu(self.dense("temb.dense.0", embedding), "temb.silu")
        h = self.dense("temb.dense.1", h)
        if classes:
            vector = self.add("MatMul", [classes, "class_embed.weight"], "class_embed")
            h = self.add("Add", [h, vector], "temb.sum")
        return self.silu(h, "temb")

    def block(self, block: Block, x: str, temb: str) -> str:
        """norm, swish, conv, + time, norm, swish, conv, + input."""
        name = block.name
        shape = (block.in_ch, block.height, block.width)
        h = self.norm(f"{name}.norm1", x, shape, silu=True)
        h = self.conv(f"{name}.conv1", h)
        shift = self.dense(f"{name}.temb_proj", temb)
        shift = self.add(
            "Unsqueeze", [shift, self.integers("pixels", [2, 3])], f"{name}.temb_proj.pixels"
        )
        h = self.add("Add", [h, shift], f"{name}.shifted")
        h = self.norm(f"{name}.norm2", h, block.shape, silu=True)
        h = self.conv(f"{name}.conv2", h)
        if block.in_ch != block.out_ch:
            x = self.conv(f"{name}.nin_shortcut", x, pads=(0, 0, 0, 0))
        return self.add("Add", [x, h], name)

    def attention(self, block: Block, x: str) -> str:
        """Self-attention over all pixels after a block, if the plan has it there."""
        if not block.attention:
            return x
        name, ch = block.attention, block.out_ch
        h = self.norm(f"{name}.norm", x, block.shape)
        rows = self.integers(f"rows_{ch}", [0, ch, -1])
        q, k, v = (
            self.add(
                "Reshape",
                [self.conv(f"{name}.{part}", h, pads=(0, 0, 0, 0)), rows],
                f"{name}.{part}.rows",
            )
            for part in "qkv"
        )
        q = self.add("Transpose", [q], f"{name}.q.columns", perm=[0, 2, 1])
        scores = self.add("MatMul", [q, k], f"{name}.products")
        scale = self.constant(f"scale_{ch}", np.float32(ch**-0.5))
        scores = self.add("Mul", [scores, scale], f"{name}.scores")
        weights = self.add("Softmax", [scores], f"{name}.softmax", axis=2)
        weights = self.add("Transpose", [weights], f"{name}.keys", perm=[0, 2, 1])
        h = self.add("MatMul", [v, weights], f"{name}.mixed")
        h = self.add("Reshape", [h, self.image(block.shape)], f"{name}.image")
        h = self.conv(f"{name}.proj_out", h, pads=(0, 0, 0, 0))
        return self.add("Add", [x, h], name)

    def downsample(self, name: str, x: str) -> str:
        """Half the size: a strided convolution padded below and to the right, or 2x2 means."""
        if self.plan.resamp_with_conv:
            return self.conv(f"{name}.conv", x, stride=2, pads=(0, 0, 1, 1))
        return self.add("AveragePool", [x], name, kernel_shape=[2, 2], strides=[2, 2])

    def upsample(self, name: str, x: str) -> str:
        """Twice the size: nearest neighbours, then a convolution if the plan has one."""
        scales = self.constant("doubling", np.array([1, 1, 2, 2], np.float32))
        h = self.add(
            "Resize",
            [x, "", scales],
            f"{name}.doubled" if self.plan.resamp_with_conv else name,
            mode="nearest",
            coordinate_transformation_mode="asymmetric",
            nearest_mode="floor",
        )
        return self.conv(f"{name}.conv", h) if self.plan.resamp_with_conv else h

    def conv(
        self, name: str, x: str, stride: int = 1, pads: Sequence[int] = (1, 1, 1, 1), out: str = ""
    ) -> str:
        """A convolution with bias; pads are (top, left, bottom, right)."""
        given = [x, f"{name}.weight", f"{name}.bias"]
        return self.add("Conv", given, out or name, strides=[stride, stride], pads=list(pads))

    def dense(self, name: str, x: str) -> str:
        """x w^T + b."""
        return self.add("Gemm", [x, f"{name}.weight", f"{name}.bias"], name, transB=1)

    def image(self, shape: tuple[int, int, int]) -> str:
        """Add the shape of a batch of images, each (C, H, W); return its name."""
        ch, *sides = shape
        return self.integers(f"image_{ch}_{size_option(size_of(*sides))}", [0, *shape])

    def norm(self, name: str, x: str, image: tuple[int, int, int], silu: bool = False) -> str:
        """GroupNorm, then silu if asked; with silu the module's value is that after it."""
        groups = self.plan.norm_groups
        shape = self.integers(f"groups_{groups}", [0, groups, -1])
        h = self.add("Reshape", [x, shape], f"{name}.groups")
        ones = self.constant(f"ones_{groups}", np.ones(groups, np.float32))
        zeros = self.constant(f"zeros_{groups}", np.zeros(groups, np.float32))
        h = self.add(
            "InstanceNormalization", [h, ones, zeros], f"{name}.normed", epsilon=self.plan.norm_eps
        )
        h = self.add("Reshape", [h, self.image(image)], f"{name}.image")
        pixels = self.integers("behind", [1, 2])
        for kind, part in (("Mul", "weight"), ("Add", "bias")):
            values = self.add("Unsqueeze", [f"{name}.{part}", pixels], f"{name}.{part}.pixels")
            last = part == "bias" and not silu
            h = self.add(kind, [h, values], name if last else f"{name}.{part}ed")
        return self.silu(h, name) if silu else h

    def silu(self, x: str, name: str) -> str:
        """x * sigmoid(x)."""
        return self.add("Mul", [x, self.add("Sigmoid", [x], f"{name}.sigmoid")], name)
