"""Array types of the public functions, each defined once."""

from __future__ import annotations

from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt
from typing_extensions import Self

Array = npt.NDArray[Any]
Bool = npt.NDArray[np.bool_]
Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Floating = npt.NDArray[np.floating[Any]]
Int64 = npt.NDArray[np.int64]
Pixels = npt.NDArray[np.uint8]  # images, 0 .. 255

Arrays = dict[str, Array]
Weights = dict[str, Float32]  # by official name


class Linear(Protocol):
    """An array of NumPy, PyTorch or Jittor that supports sums and multiples by a float."""

    def __add__(self, other: Any, /) -> Self: ...
    def __rmul__(self, other: float, /) -> Self: ...


A = TypeVar("A", bound=Linear)
