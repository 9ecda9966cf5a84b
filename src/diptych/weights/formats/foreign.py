"""Read weights of any known format, with all metadata of the file or folder.

    file or diffusers folder -> layout (official, diffusers, ddpm-torch) -> weights by official name
                             -> config and sampler, if given

safetensors, ONNX and OpenVINO files that Diptych writes carry their config (`diptych.config`) and
an EMA flag (`diptych.ema`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

from diptych.config.load import Config, validate
from diptych.errors import UserError
from diptych.files import parse_json
from diptych.types import Weights
from diptych.weights.formats import diffusers_in
from diptych.weights.formats.files import is_safetensors, is_shards, load_weights
from diptych.weights.formats.graphs import is_graph, read_graph
from diptych.weights.formats.layouts import DDPM_TORCH, to_official
from diptych.weights.formats.unwrap import unwrap
from diptych.weights.pickle.files import guarded
from diptych.weights.pickle.ops import Fault

CONFIG_KEY, EMA_KEY = "diptych.config", "diptych.ema"
_NORMS = {"norm_eps": 1e-5, "norm_groups": 32}  # ddpm-torch's: PyTorch's default eps


@dataclass(frozen=True)
class Foreign:
    """Weights read from another library's format, with their metadata.

    Attributes:
        kind: the format and content, for people: "torch-zip/state-dict", "diffusers DDPMPipeline".
        layout: the library whose names the weights had.
        weights: arrays by official name, float32.
        ema: True for EMA weights, False for raw ones, None if unknown.
        config: the network's config, if given.
        sampler: the sampler that a scheduler recommends.
        note: settings ignored or assumed, for people.
    """

    kind: str
    layout: str
    weights: Weights
    ema: bool | None
    config: Config | None = None
    sampler: dict[str, Any] | None = None
    note: str | None = None

    def fitted(self, config: Config | None, path: Path) -> Config:
        """The config to use: the given one, else the file's own, with the layout's fixed settings.

        Raises:
            UserError: no config is given and the file has none.
        """
        if config is None:
            config = self.config
        if config is None:
            raise UserError(
                f"{path}: a file of weights needs the config of its network; give --config"
            )
        if self.layout == DDPM_TORCH:
            model = config.model.model_copy(update=_NORMS)
            config = config.model_copy(update={"model": model})
        return config


def read_foreign(path: Path, raw: bool = False) -> Foreign:
    """Read the weights in a file or a diffusers folder; nothing in it is executed.

    Args:
        path: the file or folder; only an index or one part of several is recognised by name.
        raw: choose the raw weights if there are raw and EMA weights.

    Raises:
        UserError: unknown, damaged, hostile, or of another kind of network.
        MachineError: it cannot be read.
    """
    if path.is_dir():
        folder = diffusers_in.read_folder(path, raw)
        found = read_foreign(folder.weights, raw)
        ema = found.ema if folder.ema is None else folder.ema
        return replace(
            found,
            kind=folder.kind,
            config=folder.config,
            sampler=folder.sampler,
            note=folder.note,
            ema=ema,
        )
    _refuse_part(path)
    metadata = _metadata(path)
    loaded = load_weights(path, raw=raw)
    inside, wrapped = unwrap(loaded.weights, raw, path)
    layout, weights = to_official(inside, path)
    said = loaded.ema if wrapped is None else wrapped
    ema = {"true": True, "false": False}.get(metadata.get(EMA_KEY, ""), said)
    return Foreign(loaded.kind, layout, weights, ema, _config(metadata, path))


def _refuse_part(path: Path) -> None:
    """Refuse a file that is one part of a network's weights."""
    part = re.fullmatch(r"(.+?)-\d{5}-of-(\d{5})(\.\w+)", path.name)
    if part and int(part[2]) > 1:
        index = path.with_name(f"{part[1]}{part[3]}.index.json")
        raise UserError(f"{path}: is one part of several; give {index}, which lists them all")


def _metadata(path: Path) -> dict[str, str]:
    """The metadata of a safetensors, ONNX or OpenVINO file; empty for other files."""
    if is_graph(path):
        return read_graph(path)[2]

    def read(file: IO[bytes], size: int) -> dict[str, str]:
        if is_shards(path) or not is_safetensors(file, size):
            return {}
        file.seek(0)
        length = int.from_bytes(file.read(8), "little")
        try:
            header = parse_json(file.read(min(length, size)))
        except ValueError as error:
            raise Fault(f"damaged or truncated safetensors ({error}); fetch it again") from error
        found = header.get("__metadata__") if isinstance(header, dict) else None
        items = found.items() if isinstance(found, dict) else ()
        return {key: value for key, value in items if isinstance(value, str)}

    return guarded(path, read)


def _config(metadata: dict[str, str], path: Path) -> Config | None:
    if CONFIG_KEY not in metadata:
        return None
    try:
        tree = parse_json(metadata[CONFIG_KEY])
        if not isinstance(tree, dict):
            raise ValueError("no object")
    except ValueError as error:
        raise UserError(
            f"{path}: its config is damaged ({error}); convert the weights again"
        ) from error
    return validate(tree, str(path))
