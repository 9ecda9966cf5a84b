"""InceptionV3 as used by FID: 94 convolutions by their published names, and the file layout.

    (3, 299, 299) in about [-1, 1] -> 17 blocks -> mean over 8 x 8 = 2048 features -> 1008 logits

This is the 2015 TensorFlow graph under torchvision's names. It differs from torchvision's own
network in three places: average pools do not count their padding (5b-5d, 6b-6e, 7b), the last
block 7c uses a max pool, and the last layer has 1008 classes. No convolution has a bias; each is
followed by a BatchNorm with eps 1e-3 and a relu. The norms are folded in on loading.

A published file holds `NAME.conv.weight` and four arrays `NAME.bn.*` for each convolution,
`fc.weight` (1008, 2048) and `fc.bias`: 472 arrays, or 566 with BatchNorm's counters, which are
not used here.

Sources: Szegedy et al. 2015, arXiv:1512.00567; Heusel et al. 2017, arXiv:1706.08500.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from diptych.errors import UserError
from diptych.network.features.conv import Conv, fold, misfit
from diptych.types import Float32, Weights

SIZE, CHANNELS, DIMS, CLASSES = 299, 3, 2048, 1008
EPS = 1e-3
_NORM = ("weight", "bias", "running_mean", "running_var")
_COUNTER = "num_batches_tracked"


def _stem() -> Iterator[Conv]:
    yield Conv("Conv2d_1a_3x3", 3, 32, (3, 3), 2)
    yield Conv("Conv2d_2a_3x3", 32, 32, (3, 3))
    yield Conv("Conv2d_2b_3x3", 32, 64, (3, 3), 1, (1, 1))
    yield Conv("Conv2d_3b_1x1", 64, 80)
    yield Conv("Conv2d_4a_3x3", 80, 192, (3, 3))


def _block_a(name: str, in_ch: int, pool_ch: int) -> Iterator[Conv]:
    """35 x 35: 1x1, 5x5, double 3x3, pool."""
    yield Conv(f"{name}.branch1x1", in_ch, 64)
    yield Conv(f"{name}.branch5x5_1", in_ch, 48)
    yield Conv(f"{name}.branch5x5_2", 48, 64, (5, 5), 1, (2, 2))
    yield Conv(f"{name}.branch3x3dbl_1", in_ch, 64)
    yield Conv(f"{name}.branch3x3dbl_2", 64, 96, (3, 3), 1, (1, 1))
    yield Conv(f"{name}.branch3x3dbl_3", 96, 96, (3, 3), 1, (1, 1))
    yield Conv(f"{name}.branch_pool", in_ch, pool_ch)


def _block_b(name: str, in_ch: int) -> Iterator[Conv]:
    """35 x 35 to 17 x 17."""
    yield Conv(f"{name}.branch3x3", in_ch, 384, (3, 3), 2)
    yield Conv(f"{name}.branch3x3dbl_1", in_ch, 64)
    yield Conv(f"{name}.branch3x3dbl_2", 64, 96, (3, 3), 1, (1, 1))
    yield Conv(f"{name}.branch3x3dbl_3", 96, 96, (3, 3), 2)


def _block_c(name: str, ch: int) -> Iterator[Conv]:
    """17 x 17: 1x1, a factorised 7x7, the same twice in a row, pool."""
    wide, tall = ((1, 7), 1, (0, 3)), ((7, 1), 1, (3, 0))
    yield Conv(f"{name}.branch1x1", 768, 192)
    yield Conv(f"{name}.branch7x7_1", 768, ch)
    yield Conv(f"{name}.branch7x7_2", ch, ch, *wide)
    yield Conv(f"{name}.branch7x7_3", ch, 192, *tall)
    yield Conv(f"{name}.branch7x7dbl_1", 768, ch)
    yield Conv(f"{name}.branch7x7dbl_2", ch, ch, *tall)
    yield Conv(f"{name}.branch7x7dbl_3", ch, ch, *wide)
    yield Conv(f"{name}.branch7x7dbl_4", ch, ch, *tall)
    yield Conv(f"{name}.branch7x7dbl_5", ch, 192, *wide)
    yield Conv(f"{name}.branch_pool", 768, 192)


def _block_d(name: str) -> Iterator[Conv]:
    """17 x 17 to 8 x 8."""
    yield Conv(f"{name}.branch3x3_1", 768, 192)
    yield Conv(f"{name}.branch3x3_2", 192, 320, (3, 3), 2)
    yield Conv(f"{name}.branch7x7x3_1", 768, 192)
    yield Conv(f"{name}.branch7x7x3_2", 192, 192, (1, 7), 1, (0, 3))
    yield Conv(f"{name}.branch7x7x3_3", 192, 192, (7, 1), 1, (3, 0))
    yield Conv(f"{name}.branch7x7x3_4", 192, 192, (3, 3), 2)


def _block_e(name: str, in_ch: int) -> Iterator[Conv]:
    """8 x 8: 1x1, a 3x3 split into two parallel parts, the same after a 3x3, pool."""
    wide, tall = ((1, 3), 1, (0, 1)), ((3, 1), 1, (1, 0))
    yield Conv(f"{name}.branch1x1", in_ch, 320)
    yield Conv(f"{name}.branch3x3_1", in_ch, 384)
    yield Conv(f"{name}.branch3x3_2a", 384, 384, *wide)
    yield Conv(f"{name}.branch3x3_2b", 384, 384, *tall)
    yield Conv(f"{name}.branch3x3dbl_1", in_ch, 448)
    yield Conv(f"{name}.branch3x3dbl_2", 448, 384, (3, 3), 1, (1, 1))
    yield Conv(f"{name}.branch3x3dbl_3a", 384, 384, *wide)
    yield Conv(f"{name}.branch3x3dbl_3b", 384, 384, *tall)
    yield Conv(f"{name}.branch_pool", in_ch, 192)


def _all() -> Iterator[Conv]:
    yield from _stem()
    for name, in_ch, pool_ch in (("5b", 192, 32), ("5c", 256, 64), ("5d", 288, 64)):
        yield from _block_a(f"Mixed_{name}", in_ch, pool_ch)
    yield from _block_b("Mixed_6a", 288)
    for name, ch in (("6b", 128), ("6c", 160), ("6d", 160), ("6e", 192)):
        yield from _block_c(f"Mixed_{name}", ch)
    yield from _block_d("Mixed_7a")
    for name, in_ch in (("7b", 1280), ("7c", 2048)):
        yield from _block_e(f"Mixed_{name}", in_ch)


CONVS: dict[str, Conv] = {conv.name: conv for conv in _all()}


def published_shapes() -> dict[str, tuple[int, ...]]:
    """Name -> shape of the 472 arrays of a published file."""
    found: dict[str, tuple[int, ...]] = {}
    for conv in CONVS.values():
        found[f"{conv.name}.conv.weight"] = conv.shape
        found |= {f"{conv.name}.bn.{part}": (conv.out_ch,) for part in _NORM}
    return found | {"fc.weight": (CLASSES, DIMS), "fc.bias": (CLASSES,)}


def folded(published: Mapping[str, Float32], origin: Path) -> Weights:
    """Fold every norm of a published file into its convolution.

    Args:
        published: name -> array, 472 of them, or 566 with BatchNorm's counters.
        origin: the file, for messages.

    Raises:
        UserError: an array is missing, unexpected, or has another shape.
    """
    counters = {f"{name}.bn.{_COUNTER}" for name in CONVS}
    rest = {k: v for k, v in published.items() if k not in counters}
    fault = misfit(rest, published_shapes())
    if fault is None and 0 < len(published) - len(rest) < len(CONVS):
        absent = min(counters - published.keys())
        fault = f"'{absent}' is missing, while other counters are there"
    if fault is not None:
        raise UserError(
            f"{origin}: is not an FID InceptionV3: {fault}. Expected the 472 or 566 arrays of "
            "pt_inception-2015-12-05 (torchvision's names, 1008 classes)"
        )
    arrays: Weights = {}
    for name in CONVS:
        norm = [rest[f"{name}.bn.{part}"] for part in _NORM]
        weight, bias = fold(rest[f"{name}.conv.weight"], norm, EPS)
        arrays |= {f"{name}.weight": weight, f"{name}.bias": bias}
    return arrays | {"fc.weight": rest["fc.weight"], "fc.bias": rest["fc.bias"]}
