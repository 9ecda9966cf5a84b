"""The PyTorch backend; its mirror is `diptych.backends.jittor.backend`."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import psutil
import torch

from diptych.backends.torch.arrays import build, put, read, read_all, weights_of
from diptych.backends.torch.classifier import Classifier
from diptych.backends.torch.collective import gather, join
from diptych.backends.torch.draws import keyed_noise
from diptych.backends.torch.heap import keep_freed_memory
from diptych.backends.torch.inception import Inception
from diptych.backends.torch.learner import Learner
from diptych.backends.torch.packed import pack
from diptych.backends.torch.precision import Arithmetic, choose
from diptych.config.load import TrainConfig
from diptych.errors import UserError
from diptych.machine.processor import has_nvidia_driver
from diptych.network.own import AnyPlan, OwnPlan
from diptych.ranks import ALONE, Ranks
from diptych.types import Array, Weights

log = logging.getLogger(__name__)


def make(
    device: str, precision: str = "fp32", deterministic: bool = False, ranks: Ranks = ALONE
) -> TorchBackend:
    """Make the backend on `cpu`, `cuda`, `cuda:1`, or `auto`: a GPU if there is one."""
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
        if device == "cpu" and has_nvidia_driver():
            log.warning("device auto: the CPU, although there is an NVIDIA driver: %s", no_cuda())
    if device == "cuda" and not ranks.alone and torch.cuda.is_available():
        device = f"cuda:{ranks.local % torch.cuda.device_count()}"
    if device.startswith("cuda"):
        if not torch.cuda.is_available():
            raise UserError(f"device '{device}' cannot be used: {no_cuda()}; use --device cpu")
        index = int(device.partition(":")[2] or 0)
        if index >= torch.cuda.device_count():
            raise UserError(
                f"device '{device}' is not there; {torch.cuda.device_count()} GPUs, from cuda:0"
            )
        torch.cuda.set_device(index)
    else:
        keep_freed_memory()
    join(ranks, device)
    return TorchBackend(choose(precision, deterministic, device), ranks)


def no_cuda() -> str:
    """The reason why there is no GPU for this panel."""
    if torch.version.cuda is None:
        return "PyTorch here is a build without CUDA"
    return "PyTorch finds no GPU; see nvidia-smi and CUDA_VISIBLE_DEVICES"


class TorchBackend:
    """See `diptych.backends.protocol.Backend`."""

    name = "torch"

    def __init__(self, arithmetic: Arithmetic, ranks: Ranks = ALONE) -> None:
        self.arithmetic = arithmetic
        self.ranks = ranks
        self.device = arithmetic.device
        self.precision = arithmetic.precision
        self.deterministic = arithmetic.deterministic
        self.on_gpu = self.device.startswith("cuda")

    def array(self, values: Array) -> torch.Tensor:
        return put(values, self.device)

    def keyed_noise(
        self, seed: int, purpose: str, images: Sequence[int], shape: Sequence[int], step: int = 0
    ) -> torch.Tensor:
        return keyed_noise(seed, purpose, images, shape, step, 0, self.device)

    def numpy(self, values: torch.Tensor) -> Array:
        return read(values)

    def scalar(self, value: torch.Tensor) -> float:
        return float(read(value))

    def network(self, plan: AnyPlan, weights: Weights | None) -> Any:
        network = build(plan, weights, self.device).eval()
        if isinstance(plan, OwnPlan) or self.on_gpu or self.precision != "fp32":
            return network
        return pack(network, plan.ch)

    def weights(self, network: Any) -> Weights:
        return read_all(weights_of(network))

    def feature_network(self, name: str, arrays: Weights) -> Inception | Classifier:
        return (Inception if name == "inception" else Classifier)(arrays, self.arithmetic)

    def predict(
        self,
        network: Any,
        x: torch.Tensor,
        embedding: torch.Tensor,
        classes: torch.Tensor | None = None,
    ) -> torch.Tensor:
        with torch.inference_mode():
            return self.arithmetic.call(network, x, embedding, None, classes)

    def twice(self, x: torch.Tensor) -> torch.Tensor:
        return torch.concat([x, x], dim=0)

    def inner_products(self, rows: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
        self.arithmetic.apply()
        with torch.inference_mode():
            return torch.matmul(rows, others.transpose(1, 0))

    def learner(
        self, plan: AnyPlan, weights: Weights | None, train: TrainConfig, seed: int
    ) -> Learner:
        return Learner(plan, weights, train, seed, self.arithmetic, self.ranks)

    def clip(self, x: torch.Tensor) -> torch.Tensor:
        return x.clamp(-1, 1)

    def submit(self, x: torch.Tensor) -> None:
        """Do nothing: PyTorch computes eagerly."""

    def synchronize(self) -> None:
        if self.on_gpu:
            torch.cuda.synchronize()

    def gather(self, values: Array) -> Array:
        return gather(values, self.ranks)

    def memory_mb(self) -> float:
        if self.on_gpu:
            return torch.cuda.max_memory_allocated() / 2**20
        return psutil.Process().memory_info().rss / 2**20

    def free_memory(self) -> int | None:
        if not self.on_gpu:
            return None
        here = torch.cuda.current_device()
        parts = [each for each in torch.cuda.memory_snapshot() if each["device"] == here]
        usable = [each for each in parts if each["segment_pool_id"] == (0, 0)]  # not of a graph
        unused = sum(each["total_size"] - each["allocated_size"] for each in usable)
        return torch.cuda.mem_get_info()[0] + unused

    def counters(self) -> dict[str, float]:
        if not self.on_gpu:
            return {}  # PyTorch's CPU allocator counts nothing
        allocated, reserved = torch.cuda.memory_allocated(), torch.cuda.memory_reserved()
        return {"allocated_mb": allocated / 2**20, "reserved_mb": reserved / 2**20}

    def describe(self) -> dict[str, Any]:
        return {
            "backend": self.name,
            "device": self.device,
            "precision": self.precision,
            "deterministic": self.deterministic,
            "device_name": torch.cuda.get_device_name() if self.on_gpu else "cpu",
            "framework_version": torch.__version__,
            "threads": torch.get_num_threads(),
            "world": self.ranks.world,
        }
