"""The growth of a training step on paper, from bytes, stated bandwidths and measured step times.

    bytes(w)  = 2 (w - 1) / w * 4 * parameters           a ring all-reduce, sent by each rank
    sums(w)   = bytes(w) / bandwidth + 2 (w - 1) * hop   a ring has 2 (w - 1) messages in a row
    agree(w)  = 2 (w - 1) * host_hop                     one number, between hosts, each step
    step(w)   = step(1) + sums(w) + agree(w)             nothing overlaps; each rank has its batch
    efficiency = step(1) / step(w)

One ring only, so a library that uses several links at once is faster; bandwidths are those of the
data sheet, so no library reaches them. It is a model: nothing here was run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

# Seconds of one message in a ring. Assumed, not measured: the usual order of magnitude.
GPU_HOP, NETWORK_HOP, HOST_HOP = 5e-6, 10e-6, 50e-6
PARAMETERS = 35_746_307  # the official CIFAR-10 network, whose steps gpu-h200.json has
BATCH = 128  # images of one GPU there
STEPS = {"fp32": "train, as it is, keyed, fp32", "tf32": "train, as it is, keyed, tf32",
         "bf16": "train, as it is, keyed, bf16"}  # fmt: skip


@dataclass(frozen=True)
class Place:
    """GPUs and the slowest link that a ring crosses.

    bandwidth: bytes a second in one direction. hop: seconds of one message.
    """

    name: str
    gpus: int
    bandwidth: float
    hop: float
    source: str


PLACES = (
    Place("1 machine of 8 H100", 8, 450e9, GPU_HOP,
          "NVLink, 900 GB/s in both directions together: NVIDIA's data sheet of the H100 SXM"),
    Place("64 machines of 8 H100", 512, 50e9, NETWORK_HOP,
          "400 Gb/s for each GPU: NVIDIA's data sheet of the DGX H100"),
    Place("64 machines of 1 H100, Ethernet", 64, 12.5e9, NETWORK_HOP,
          "100 Gb/s Ethernet, IEEE 802.3"),
)  # fmt: skip


def ring_bytes(world: int, parameters: int) -> float:
    """Bytes that each rank sends in a step: 2 (w - 1) / w * 4 * parameters."""
    return 2 * (world - 1) / world * 4 * parameters


def ring_seconds(world: int, count: int, bandwidth: float, hop: float) -> float:
    """Seconds of a ring all-reduce of `count` float32 numbers."""
    return ring_bytes(world, count) / bandwidth + 2 * (world - 1) * hop


def step_times(record: dict[str, Any]) -> dict[str, float]:
    """Seconds of a step on one GPU, by arithmetic, of gpu-h200.json."""
    return {name: record["results"][key]["p50_s"] for name, key in STEPS.items()}


def host_hop(growth: dict[str, Any] | None) -> tuple[float, bool]:
    """Seconds of one message between processes, and whether they were measured."""
    if growth is None:
        return HOST_HOP, False
    small = growth["wire"]["2"]["sizes"][0]
    return small["seconds"] / 2, True


def model(steps: Mapping[str, float], host: float) -> list[dict[str, Any]]:
    """A row for each place: bytes, seconds, and the efficiency by arithmetic."""
    rows = []
    for place in PLACES:
        sums = ring_seconds(place.gpus, PARAMETERS, place.bandwidth, place.hop)
        agreement = 2 * (place.gpus - 1) * host
        rows.append({
            "place": place.name, "gpus": place.gpus, "bytes": ring_bytes(place.gpus, PARAMETERS),
            "sums": sums, "agreement": agreement,
            "efficiency": {name: one / (one + sums + agreement) for name, one in steps.items()},
            "sums_alone": {name: one / (one + sums) for name, one in steps.items()},
        })  # fmt: skip
    return rows


def checked(wire: dict[str, Any]) -> list[dict[str, Any]]:
    """The formula against what was measured: bytes of all ranks, and seconds.

    Bandwidth and hop are fitted to two ranks' smallest and largest messages; the other rows are
    predicted by them.
    """
    two = wire["2"]["sizes"]
    hop = two[0]["seconds"] / 2
    bandwidth = ring_bytes(2, two[-1]["elements"]) / max(1e-9, two[-1]["seconds"] - 2 * hop)
    rows = []
    for world, found in sorted(wire.items(), key=lambda item: int(item[0])):
        for each in found["sizes"]:
            w, count = int(world), each["elements"]
            said = w * ring_bytes(w, count)
            rows.append({
                "ranks": w, "elements": count, "bytes": each["bytes"], "formula": said,
                "seconds": each["seconds"],
                "predicted": ring_seconds(w, count, bandwidth, hop),
                "fitted": w == 2 and each in (two[0], two[-1]),
            })  # fmt: skip
    return rows
