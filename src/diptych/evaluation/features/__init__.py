"""Feature networks, native on either backend: InceptionV3 (FID variant), and small classifiers.

    open_extractor("inception", "jittor")(images).pool        (N, 2048)

No framework is loaded until a network is opened.
"""

from __future__ import annotations

from diptych.evaluation.features.extractor import NAMES, Network, open_extractor

__all__ = ["NAMES", "Network", "open_extractor"]
