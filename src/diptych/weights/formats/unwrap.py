"""Find one network's weights among the names of a file; detect wrappers and unsupported libraries.

    _orig_mod.NAME, module._orig_mod.NAME    torch.compile, DataParallel
    model.NAME, unet.NAME, net.NAME          a module that holds the network
    ema_model.NAME beside online_model.NAME  two copies, one of them the moving average

The network is found by a name that each layout has (`layouts.MARKS`); its prefix is the wrapper.
All other arrays in the file must be schedule tables or counters, or the file is refused.
"""

from __future__ import annotations

import re
from pathlib import Path

from diptych.errors import UserError
from diptych.types import Weights
from diptych.weights.formats.layouts import MARKS
from diptych.weights.pickle.ops import show

# Buffers of other libraries' diffusion objects: schedule tables and counters.
_BUFFERS = re.compile(
    r"(.*\.)?((log_|sqrt_|sqrt_one_minus_|sqrt_recip_|sqrt_recipm1_|one_minus_)?"
    r"(alphas?|betas?)(_cumprod|_bar|s)?(_prev|_t)?|log_one_minus_alphas_cumprod|logvar|"
    r"posterior_(variance|log_variance_clipped|mean_coef[12])|p2_loss_weight|loss_weight|"
    r"initted|step|decay|num_updates|num_batches_tracked|snr|timesteps)"
)
_EMA = re.compile(r"(^|[._])(ema|averaged?|shadow|swa)([._]|$)")


def unwrap(weights: Weights, raw: bool, path: Path) -> tuple[Weights, bool | None]:
    """Remove the wrapper's prefix from the network's weights; return them and an EMA flag.

    Args:
        weights: arrays by the names of a file.
        raw: choose the weights as trained if there are two copies.
        path: the file, for messages.

    Returns:
        (weights, ema): True for EMA, False for raw, None if the names do not say; the unchanged
        weights and None if no network of a known layout is found.

    Raises:
        UserError: several networks and no way to choose, or arrays that belong to none.
    """
    prefixes = sorted(
        {name.removesuffix(mark) for name in weights for _, mark in MARKS if _ends(name, mark)}
    )
    if not prefixes:
        return weights, None
    averaged = [prefix for prefix in prefixes if _EMA.search(prefix)]
    trained = [prefix for prefix in prefixes if prefix not in averaged]
    if len(averaged) > 1 or len(trained) > 1:
        names = ", ".join(show(prefix) for prefix in prefixes[:8])
        raise UserError(
            f"{path}: holds {len(prefixes)} networks (names begin with {names}) and does not say "
            "which is meant; save the one you want by itself"
        )
    chosen = trained if trained and (raw or not averaged) else averaged
    ema = None if len(prefixes) == 1 and not averaged else chosen == averaged
    inside = {n.removeprefix(p): a for p in chosen for n, a in weights.items() if n.startswith(p)}
    others = [prefix for prefix in prefixes if prefix not in chosen]
    for name in weights:
        taken = any(name.startswith(prefix) for prefix in (*chosen, *others))
        if not taken and not _BUFFERS.fullmatch(name):
            raise UserError(
                f"{path}: holds {show(name)} beside the network {show(chosen[0])}; save the "
                "network's weights by themselves"
            )
    return {n: a for n, a in inside.items() if not _BUFFERS.fullmatch(n)}, ema


def _ends(name: str, mark: str) -> bool:
    return name == mark or name.endswith(f".{mark}")
