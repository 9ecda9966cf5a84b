"""The two implementations, PyTorch and Jittor, behind one protocol, and two engines that only
predict, ONNX Runtime and OpenVINO; `load` gives one of them.

    from diptych import backends
    backend = backends.load("torch", "cpu")        # see `diptych.backends.protocol.Backend`

PyTorch and Jittor are never loaded into one process (they bring two OpenMP run-times and two
allocators, and crash): `load` refuses the second.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
import os
import sys

from diptych.backends.protocol import Backend, Batch, Learner, State
from diptych.config.schema import PRECISIONS
from diptych.errors import UserError, nearest
from diptych.machine.packages import install
from diptych.ranks import ALONE, Ranks

__all__ = ["BACKENDS", "ENGINES", "Backend", "Batch", "Learner", "State", "TITLES",
           "check_device", "check_panel", "choose", "installed_panel", "load"]  # fmt: skip

log = logging.getLogger(__name__)

TITLES = {"torch": "PyTorch", "jittor": "Jittor"}
BACKENDS = tuple(TITLES)
ENGINES = ("onnx", "openvino")  # only predict
DEVICES = ("auto", "cpu", "cuda")


def check_device(device: str) -> None:
    """Refuse a word that names no device; whether it is there, a panel knows."""
    kind, _, index = device.partition(":")
    if kind not in DEVICES or (index and (kind != "cuda" or not index.isdigit())):
        raise UserError(f"device '{device}' is not known; use auto, cpu, cuda or cuda:INDEX")


def choose(asked: str | None, trained_by: str | None) -> str:
    """The backend to use for a model: as asked, else the one that trained it, else torch.

    A choice that is not torch is logged. Where the one that trained it is not installed, or the
    other is loaded in this process already, the other is taken, with a warning.

    Args:
        asked: the user's choice; None: none.
        trained_by: the backend in the model's record; None: not recorded.
    """
    if asked is not None or trained_by not in BACKENDS:
        return asked or BACKENDS[0]
    other = BACKENDS[1 - BACKENDS.index(trained_by)]
    if other in sys.modules and trained_by not in sys.modules:
        log.warning("%s is loaded in this process and is used; %s trained this", other, trained_by)
        return other
    if importlib.util.find_spec(trained_by) is None:
        log.warning("%s, which trained this, is not installed; using %s", trained_by, other)
        return other
    if trained_by != BACKENDS[0]:
        log.info("using %s, which trained this; --backend %s uses the other", trained_by, other)
    return trained_by


def check_panel(name: str, work: str) -> None:
    """Refuse all but a panel for work that only a panel does, such as "training"."""
    if name in ENGINES:
        raise UserError(f"backend '{name}' only predicts; for {work}, use torch or jittor")
    if name not in BACKENDS:
        raise UserError(f"backend '{name}' is not known{nearest(name, list(BACKENDS))}")


def installed_panel() -> str:
    """The panel that works beside an engine: PyTorch if it is installed, else Jittor."""
    return next((name for name in BACKENDS if importlib.util.find_spec(name)), BACKENDS[0])


def load(
    name: str,
    device: str = "auto",
    precision: str = "fp32",
    deterministic: bool = False,
    ranks: Ranks = ALONE,
) -> Backend:
    """The panel `torch` or `jittor` on a device: `cpu`, `cuda`, `cuda:1`, or `auto`; or the engine
    `onnx` or `openvino` on the CPU.

    Args:
        precision: "fp32", "tf32" or "bf16": the network's arithmetic, whatever the framework's
            own default; everything else is float32.
        deterministic: the same bits in every run on this device, at the price of speed.
        ranks: with others than this process, it is connected with them, and waits until all are
            there.

    Raises:
        UserError: an unknown name, device or precision, one GPU for several ranks, a precision that
            the panel or the device cannot compute in, a framework that is not installed, a device
            that is not there, or the other framework already loaded in this process.
    """
    known = [*BACKENDS, *ENGINES]
    if name not in known:
        raise UserError(f"backend '{name}' is not known{nearest(name, known)}")
    check_device(device)
    if ":" in device and not ranks.alone:
        raise UserError(f"{ranks}: --device {device} would be every rank's; give cuda or auto")
    if precision not in PRECISIONS:
        raise UserError(f"precision '{precision}' is not known{nearest(precision, PRECISIONS)}")
    if name in ENGINES:
        engine = importlib.import_module(f"diptych.backends.engines.{name}")
        made: Backend = engine.make(device, precision, deterministic, ranks)
        return made
    other = BACKENDS[1 - BACKENDS.index(name)]
    if other in sys.modules:
        raise UserError(
            f"{other} is already loaded in this process and cannot share it with {name}; "
            f"use one process for each, with files between them"
        )
    if importlib.util.find_spec(name) is None:
        raise UserError(f"backend '{name}' is not installed; {install(name)}")
    # Read once, when the OpenMP run-time loads. Waiting threads that spin make a step ten times
    # slower on a busy machine and not faster on a quiet one (measured: 0.115 s and 1.15 s).
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    panel = importlib.import_module(f"diptych.backends.{name}.backend")
    backend: Backend = panel.make(device, precision, deterministic, ranks)
    return backend
