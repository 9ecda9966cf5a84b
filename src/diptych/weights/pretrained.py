"""The published DDPM weights that the official DDIM code samples from, by name.

    pretrained:ema_cifar10, pretrained:cifar10, pretrained:ema_lsun_bedroom, ...

Ho et al. trained them; E. Patrick converted them to PyTorch (pesser/pytorch_diffusion) and hosts
the files. They were published without a licence: their use is a matter between the user and the
authors, and Diptych neither contains nor redistributes them.

    local copy or download -> published md5 -> read by the restricted reader; nothing is executed
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from diptych.data.sources.download import Unusable, located
from diptych.errors import UserError, nearest
from diptych.files import user_cache

HOST = "https://heibox.uni-heidelberg.de/f"
LICENCE = (
    "weights by Ho et al. 2020, converted by pesser/pytorch_diffusion; published without a licence"
)


@dataclass(frozen=True)
class Pretrained:
    """One published file."""

    name: str
    key: str  # its key in the URL
    md5: str
    place: str  # the official code's path for it, below its cache
    config: str  # the matching official config

    @property
    def url(self) -> str:
        """The address that serves it."""
        return f"{HOST}/{self.key}/?dl=1"

    @property
    def ema(self) -> bool:
        """True if these are EMA weights."""
        return self.name.startswith("ema_")


def _both(
    data: str, step: int, config: str, raw: tuple[str, str], ema: tuple[str, str]
) -> list[Pretrained]:
    return [
        Pretrained(
            f"{prefix}{data}", key, md5, f"{prefix}diffusion_{data}_model/model-{step}.ckpt", config
        )
        for prefix, (key, md5) in (("", raw), ("ema_", ema))
    ]


PRETRAINED = {
    known.name: known
    for known in (
        *_both("cifar10", 790000, "cifar10.yml",
               ("869980b53bf5416c8a28", "82ed3067fd1002f5cf4c339fb80c4669"),
               ("2e4f01e2d9ee49bab1d5", "1fa350b952534ae442b1d5235cce5cd3")),
        *_both("lsun_bedroom", 2388000, "bedroom.yml",
               ("f179d4f21ebc4d43bbfe", "f70280ac0e08b8e696f42cb8e948ff1c"),
               ("b95206528f384185889b", "1921fa46b66a3665e450e42f36c2720f")),
        *_both("lsun_cat", 1761000, "bedroom.yml",
               ("fac870bd988348eab88e", "bbee0e7c3d7abfb6e2539eaf2fb9987b"),
               ("0701aac3aa69457bbe34", "646f23f4821f2459b8bafc57fd824558")),
        *_both("lsun_church", 4432000, "church.yml",
               ("2711a6f712e34b06b9d8", "eb619b8a5ab95ef80f94ce8a5488dae3"),
               ("44ccb50ef3c6436db52e", "fdc68a23938c2397caba4a260bc2445f")),
    )
}  # fmt: skip


def known(name: str) -> Pretrained:
    """The entry of a name. Raises UserError for an unknown one."""
    if name not in PRETRAINED:
        raise UserError(f"pretrained model '{name}' is not known{nearest(name, list(PRETRAINED))}")
    return PRETRAINED[name]


def fetch(name: str) -> Path:
    """Find the file of a pretrained model on this machine, or download it.

    Raises:
        UserError: an unknown name, a copy with another md5, or a failed download; that message
            says which file to put where.
        MachineError: the cache cannot be written.
    """
    model, folder = known(name), user_cache("pretrained")
    # Where the official code keeps the same file.
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    official = root / "diffusion_models_converted" / model.place
    remedy = "name other weights by their path"
    try:
        return located(
            [official], [model.url], f"{name}.ckpt", f"md5:{model.md5}", folder, remedy, LICENCE
        )
    except Unusable as error:
        raise UserError(
            f"pretrained:{name} is not on this machine and could not be downloaded ({error}). "
            f"Put the file from {model.url} into {folder} as {name}.ckpt (md5 {model.md5})"
        ) from None


def official_config(name: str) -> Path | None:
    """The path of the packaged official config with that file name, or None."""
    path = Path(str(resources.files("diptych.weights") / "configs" / Path(name).name))
    return path if Path(name).name == name and path.is_file() else None
