"""The Jittor backend; its mirror is `diptych.backends.torch.backend`."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import psutil

from diptych.backends.jittor import cuda, setup
from diptych.config.load import TrainConfig
from diptych.errors import UserError
from diptych.machine.processor import has_nvidia_driver, openmp_threads
from diptych.network.own import AnyPlan, OwnPlan
from diptych.ranks import ALONE, Ranks
from diptych.types import Array, Weights

setup.load()  # before anything imports jittor: it prepares the environment

import jittor as jt  # noqa: E402

from diptych.backends.jittor.arrays import build, put, read, read_all, weights_of  # noqa: E402
from diptych.backends.jittor.classifier import Classifier  # noqa: E402
from diptych.backends.jittor.collective import gather, join  # noqa: E402
from diptych.backends.jittor.compiled import loaded_kernels  # noqa: E402
from diptych.backends.jittor.draws import keyed_noise  # noqa: E402
from diptych.backends.jittor.inception import Inception  # noqa: E402
from diptych.backends.jittor.kernels import clip  # noqa: E402
from diptych.backends.jittor.learner import Learner  # noqa: E402
from diptych.backends.jittor.precision import Arithmetic, choose  # noqa: E402

log = logging.getLogger(__name__)
_chosen: list[str] = []  # the device of this process


def make(
    device: str, precision: str = "fp32", deterministic: bool = False, ranks: Ranks = ALONE
) -> JittorBackend:
    """Make the backend on `cpu`, `cuda`, or `auto`: a GPU if there is one."""
    if _chosen and device == "auto":
        device = _chosen[0]
    if device == "auto":
        device = "cuda" if jt.has_cuda else "cpu"
        if device == "cpu" and has_nvidia_driver():
            log.warning("device auto: the CPU, although there is an NVIDIA driver: %s", no_cuda())
    if device.startswith("cuda"):
        if not jt.has_cuda:
            raise UserError(f"device '{device}' cannot be used: {no_cuda()}; use --device cpu")
        if device not in ("cuda", "cuda:0"):
            raise UserError(
                f"device '{device}': Jittor uses the first visible GPU; "
                f"set CUDA_VISIBLE_DEVICES={device.partition(':')[2]} and use --device cuda"
            )
    on = device.partition(":")[0]
    if _chosen and _chosen[0] != on:
        raise UserError(
            f"device '{device}': Jittor computes on one device in a process, here on "
            f"'{_chosen[0]}'; use a process of its own"
        )
    _chosen[:] = [on]
    jt.flags.use_cuda = int(on != "cpu")
    join(ranks, device)
    return JittorBackend(choose(precision, deterministic, device), ranks)


def no_cuda() -> str:
    """The reason why there is no GPU for this panel."""
    reason = cuda.find_toolkit(setup.home()).reason
    return f"Jittor has no CUDA ({reason or 'none that it can load'}); see diptych doctor"


class JittorBackend:
    """See `diptych.backends.protocol.Backend`."""

    name = "jittor"

    def __init__(self, arithmetic: Arithmetic, ranks: Ranks = ALONE) -> None:
        self.arithmetic = arithmetic
        self.ranks = ranks
        self.device = arithmetic.device
        self.precision = arithmetic.precision
        self.deterministic = arithmetic.deterministic
        self.on_gpu = self.device.startswith("cuda")

    def array(self, values: Array) -> jt.Var:
        return put(values, self.device)

    def keyed_noise(
        self, seed: int, purpose: str, images: Sequence[int], shape: Sequence[int], step: int = 0
    ) -> jt.Var:
        return keyed_noise(seed, purpose, images, shape, step, 0, self.device)

    def numpy(self, values: jt.Var) -> Array:
        return read(values)

    def scalar(self, value: jt.Var) -> float:
        return float(read(value).reshape(()))

    def network(self, plan: AnyPlan, weights: Weights | None) -> Any:
        network = build(plan, weights, self.device)
        # The backend's own has no mode, and Jittor's `eval` would stop its gradients permanently.
        return network.eval() if isinstance(plan, OwnPlan) else network

    def weights(self, network: Any) -> Weights:
        return read_all(weights_of(network))

    def feature_network(self, name: str, arrays: Weights) -> Inception | Classifier:
        return (Inception if name == "inception" else Classifier)(arrays, self.arithmetic)

    def predict(
        self, network: Any, x: jt.Var, embedding: jt.Var, classes: jt.Var | None = None
    ) -> jt.Var:
        with jt.no_grad():
            return self.arithmetic.call(network, x, embedding, None, classes)

    def twice(self, x: jt.Var) -> jt.Var:
        return jt.concat([x, x], dim=0)

    def inner_products(self, rows: jt.Var, others: jt.Var) -> jt.Var:
        self.arithmetic.apply()
        with jt.no_grad():
            return jt.matmul(rows, others.transpose(1, 0))

    def learner(
        self, plan: AnyPlan, weights: Weights | None, train: TrainConfig, seed: int
    ) -> Learner:
        return Learner(plan, weights, train, seed, self.arithmetic, self.ranks)

    def clip(self, x: jt.Var) -> jt.Var:
        return clip(x)

    def submit(self, x: jt.Var) -> None:
        # Without this, the graph of every past step would stay in memory.
        x.sync()

    def synchronize(self) -> None:
        jt.sync_all(device_sync=self.on_gpu)

    def gather(self, values: Array) -> Array:
        return gather(values, self.ranks)

    def memory_mb(self) -> float:
        if self.on_gpu:
            return float(jt.get_mem_info().total_cuda_used) / 2**20
        return psutil.Process().memory_info().rss / 2**20

    def free_memory(self) -> int | None:
        if not self.on_gpu:
            return None
        found = jt.get_mem_info()
        return int(found.total_cuda_ram - found.total_cuda_used) if found.total_cuda_ram else None

    def counters(self) -> dict[str, float]:
        live, used = jt.liveness_info(), jt.get_mem_info()
        held = used.total_cuda_used if self.on_gpu else used.total_cpu_used
        return {
            "reserved_mb": held / 2**20,
            "live_vars": live["lived_vars"],
            "live_ops": live["lived_ops"],
            "kernels": loaded_kernels(str(jt.flags.cache_path)),
        }

    def describe(self) -> dict[str, Any]:
        return {
            "backend": self.name,
            "device": self.device,
            "precision": self.precision,
            "deterministic": self.deterministic,
            "device_name": "cuda" if self.on_gpu else "cpu",
            "framework_version": jt.__version__,
            "threads": openmp_threads(),
            "world": self.ranks.world,
        }
