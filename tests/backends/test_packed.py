"""Networks for inference have packed convolution weights; the numbers do not change."""

from __future__ import annotations

import numpy as np
import pytest

import panel_jobs


def outputs(ch, size):
    """The largest difference of the packed network's output, relative; what was replaced."""
    import torch

    from diptych import backends
    from diptych.backends.torch.arrays import build
    from diptych.network.embedding import time_embedding
    from diptych.network.parameters import initial_weights
    from diptych.network.plan import make_plan

    panel = backends.load("torch", "cpu")
    plan = make_plan(panel_jobs.small(f"model.ch={ch}", f"data.image_size={size}"))
    weights = initial_weights(plan, 3)
    plain, packed = build(plan, weights, "cpu").eval(), panel.network(plan, weights)
    x = torch.tensor(np.random.default_rng(0).standard_normal((3, *plan.shape)))
    embedding = torch.from_numpy(time_embedding([500], plan.ch))
    with torch.inference_mode():
        pairs = [(plain(y, embedding), packed(y, embedding)) for y in (x.float(), x.float()[:1])]
    apart = max(float((a - b).abs().max() / a.abs().max()) for a, b in pairs)
    kinds = {type(m.forward).__name__ for m in packed.modules() if "forward" in vars(m)}
    return apart, kinds


@pytest.mark.parametrize(
    "ch, size, kinds",
    [(32, 14, {"_Doubling"}), (128, 14, {"_Doubling", "_Packed"}),
     (128, "14x6", {"_Doubling", "_Packed"})],
)  # fmt: skip
def test_packed_weights_give_the_same_numbers(panels, ch, size, kinds):
    apart, replaced = panels["torch"].call(outputs, ch, size)
    assert replaced == kinds
    assert apart == 0 if ch == 32 else 0 < apart < 1e-5
