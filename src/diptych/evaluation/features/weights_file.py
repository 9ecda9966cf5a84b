"""Sources of a feature network's weights: a given file, the package, the cache, a download.

    file -> sha256 of its bytes (the extractor's identity) -> arrays, checked by name and shape

The published Inception file is looked up in Diptych's cache and in the folder of pytorch-fid and
torch-fidelity, and downloaded once if it is in neither; such a file must have the published hash.
A file given by the user may hold any weights in the published layout: its hash, which every score
carries, identifies it. No code in a file is executed.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from diptych.data.sources.download import Unusable, located
from diptych.data.sources.registry import File
from diptych.errors import UserError
from diptych.files import expanded, machine_faults, sha256_of, user_cache
from diptych.network.features import classifier as classifier_plan
from diptych.network.features import inception as inception_plan
from diptych.network.features.conv import misfit, shapes
from diptych.types import Weights
from diptych.weights.formats import load_weights

PUBLISHED = File(
    "pt_inception-2015-12-05-6726825d.pth",
    "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
)
MIRRORS = (
    "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/" + PUBLISHED.name,
    "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/"
    "weights-inception-2015-12-05-6726825d.pth",
)


@dataclass(frozen=True)
class WeightsFile:
    """A network's arrays, norms folded, and the sha256 of their file."""

    arrays: Weights
    sha256: str


def inception_weights(given: Path | None) -> WeightsFile:
    """The arrays of `inception_plan`, from a file in the published layout.

    Raises:
        UserError: no such file, another layout, or not here and the download failed.
        MachineError: it cannot be read or stored.
    """
    path = published_file() if given is None else _existing(given)
    with machine_faults(f"reading {path}"):
        digest = sha256_of(path)
    return WeightsFile(inception_plan.folded(load_weights(path).weights, path), digest)


def classifier_weights(name: str, given: Path | None) -> WeightsFile:
    """The arrays of `classifier_plan`; those in the package must have their pinned hash.

    Raises:
        UserError: no such file, arrays of another network, or a damaged installation.
    """
    path = shipped_file(name) if given is None else _existing(given)
    with machine_faults(f"reading {path}"):
        digest = sha256_of(path)
    pinned = classifier_plan.SHIPPED[name].sha256
    if given is None and digest != pinned:
        raise UserError(
            f"{path}: its sha256 is {digest[:12]}..., expected {pinned[:12]}...: the package is "
            "damaged; install it again"
        )
    plan = shapes(classifier_plan.CONVS, classifier_plan.CLASSES, classifier_plan.DIMS)
    arrays = load_weights(path).weights
    fault = misfit(arrays, plan)
    if fault is not None:
        raise UserError(
            f"{path}: is not a classifier of 28x28 images: {fault}. Give a file that "
            "`python -m tools.train_classifier` wrote"
        )
    return WeightsFile(arrays, digest)


def file_sha256(name: str, given: Path | None) -> str:
    """The sha256 of a network's weights file; that of the published or shipped one is pinned.

    Raises:
        UserError: no such file.
        MachineError: it cannot be read.
    """
    if given is None:
        return PUBLISHED.sha256 if name == "inception" else classifier_plan.SHIPPED[name].sha256
    path = _existing(given)
    with machine_faults(f"reading {path}"):
        return sha256_of(path)


def shipped_file(name: str) -> Path:
    """The weights of `mnist` or `fashion_mnist` in the package."""
    return Path(
        str(resources.files("diptych.evaluation.features") / "weights" / f"{name}.safetensors")
    )


def published_file() -> Path:
    """The published Inception file on this machine, downloaded if it is not there.

    Raises:
        UserError: a copy with another hash, or a failed download; names the file and its folder.
        MachineError: the cache cannot be written.
    """
    folder, remedy = cache_folder(), "name it with --weights if other weights are meant"
    digest = f"sha256:{PUBLISHED.sha256}"
    try:
        return located(_other_places(), MIRRORS, PUBLISHED.name, digest, folder, remedy)
    except Unusable as error:
        raise UserError(
            f"the Inception weights are not on this machine and could not be downloaded ({error})."
            f" Put {PUBLISHED.name} (95 MB, from {MIRRORS[0]}) into {folder}, or name the file "
            "with --weights. The features mnist and fashion_mnist are in the package"
        ) from None


def cache_folder() -> Path:
    """The folder of downloaded networks, and of what they computed of data sets."""
    return user_cache("features")


def _other_places() -> list[Path]:
    """Paths at which pytorch-fid and torch-fidelity keep the same file."""
    home = os.environ.get("TORCH_HOME") or Path.home() / ".cache" / "torch"
    folder = Path(home) / "hub" / "checkpoints"
    return [folder / url.rpartition("/")[2] for url in MIRRORS]


def _existing(path: Path) -> Path:
    path = expanded(path)
    if not os.path.isfile(path):
        raise UserError(f"{path}: there is no such weights file")
    return path
