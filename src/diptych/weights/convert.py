"""Convert checkpoints between all known formats.

    official            a plain state dict, torch.load reads it with weights_only=True
    official-training   [model, optimizer, epoch, step, ema] of a run: the official code resumes it
    jittor              name -> array, jt.load reads it
    diffusers           a pipeline folder, with a model card
    safetensors         with the config in its header: nothing else is needed to sample from it
    run                 a run folder from an official training list, to resume
    onnx                the network as a graph for other programs, with weights, config and schedule
    openvino            the same as OpenVINO's pair of files, in float32

No conversion changes a number: a round trip gives the same bits.
"""

from __future__ import annotations

import hashlib
import json
import pickle
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save as to_bytes

from diptych.config.load import Config, load_config, to_yaml
from diptych.errors import UserError, nearest
from diptych.files import atomic_path, check_folder, check_replaceable, claim_folder, write_text
from diptych.network.parameters import parameter_table
from diptych.network.plan import NORM_EPS, NORM_GROUPS, make_plan
from diptych.runs import checkpoint
from diptych.runs.cards import NAME as CARD
from diptych.runs.cards import model_card, training_records
from diptych.training.callbacks.journal import read_rows
from diptych.weights.find import Source, find_weights, zoo_folder
from diptych.weights.formats import graphs, is_diffusers
from diptych.weights.formats.diffusers_out import network_config, scheduler_config, write_folder
from diptych.weights.formats.foreign import CONFIG_KEY, EMA_KEY
from diptych.weights.formats.torch_write import write_torch
from diptych.weights.formats.training_list import read_training_list, training_list
from diptych.weights.pickle.files import JITTOR_END

PACKAGE_LICENCE = "mit"  # of the zoo's weights
SUFFIXES = {".safetensors": "safetensors", ".pkl": "jittor", ".ckpt": "official",
            ".pth": "official", ".pt": "official", "": "diffusers",
            ".onnx": "onnx", ".xml": "openvino"}  # fmt: skip


def convert(
    source: str,
    out: Path,
    to: str | None = None,
    *,
    config: Config | None = None,
    raw: bool = False,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Write the weights of `source` in another format; return a summary of what was written.

    Args:
        source: as in `diptych.weights.find.find_weights`; for `official-training` a run, for `run`
            an official training list.
        out: the output file or folder.
        to: a format named in the module docstring; None: by the suffix of `out`.
        config: the network's config, if `source` has none.
        raw: write the weights as trained instead of their moving average.
        overwrite: replace a file, a diffusers folder, or for `run` a folder that Diptych wrote.

    Raises:
        UserError: an unknown format, an existing output, or a source that the format cannot
            express.
        MachineError: the disk is full, or the like.
    """
    to = _target(out, to)
    check_replaceable(out)
    if raw and to in ("run", "official-training"):
        raise UserError(f"--to {to} writes raw and averaged weights together; leave out --raw")
    if config is not None and to == "official-training":
        raise UserError(f"{source}: a run has its own config; leave out --config")
    if to == "run":
        return import_training(Path(source), out, config, overwrite)
    _check_free(out, to, overwrite)
    if to == "official-training":
        step = export_training(Path(source), out)
        return {"out": str(out), "to": to, "step": step}
    found = find_weights(source, config, raw)
    if raw and found.kind == "ema":
        raise UserError(f"{source}: holds moving averages alone; leave out --raw")
    names = parameter_table(make_plan(found.config))  # the official order, whatever the source
    ordered_weights = {name: found.weights[name] for name in names}
    form = _WRITERS[to](out, replace(found, weights=ordered_weights))
    facts = found.facts() | ({} if form is None else {"form": form})
    return {"out": str(out), "to": to, **facts}


def _target(out: Path, to: str | None) -> str:
    known = [*_WRITERS, "official-training", "run"]
    if to is None:
        to = SUFFIXES.get(out.suffix.lower())
        if to is None:
            raise UserError(f"{out}: into which form? Give --to: {', '.join(known)}")
    if to not in known:
        raise UserError(f"form '{to}' is not known{nearest(to, known)}")
    wanted = {"onnx": graphs.ONNX, "openvino": graphs.OPENVINO}.get(to)
    if wanted is not None and out.suffix != wanted:
        raise UserError(f"{out}: --to {to} writes a {wanted} file; name it {out.stem}{wanted}")
    return to


def _check_free(out: Path, to: str, overwrite: bool) -> None:
    if to == "openvino":
        binary = out.with_suffix(".bin")
        check_replaceable(binary)
        if binary.is_dir() or (binary.exists() and not overwrite):
            raise UserError(f"{binary}: exists; choose another place, or give --overwrite")
    if not out.exists():
        return
    if out.is_dir() and to != "diffusers":
        raise UserError(f"{out}: is a folder, and --to {to} writes a file; choose another place")
    if out.is_dir() and not is_diffusers(out):
        raise UserError(f"{out}: is a folder, and not one of diffusers; choose another place")
    if out.is_file() and to == "diffusers":
        raise UserError(f"{out}: is a file; diffusers needs a folder")
    if not overwrite:
        raise UserError(f"{out}: exists; choose another place, or replace it with --overwrite")


def _write_official(out: Path, found: Source) -> None:
    write_torch(out, dict(found.weights))


def _write_jittor(out: Path, found: Source) -> None:
    arrays = {name: np.ascontiguousarray(array) for name, array in found.weights.items()}
    content = pickle.dumps(arrays, 4)
    with atomic_path(out) as temporary:
        temporary.write_bytes(content + hashlib.sha1(content).digest() + JITTOR_END)


def _write_safetensors(out: Path, found: Source) -> None:
    metadata = {**_metadata(found), "format": "pt"}
    arrays = {name: np.ascontiguousarray(array) for name, array in found.weights.items()}
    with atomic_path(out) as temporary:
        temporary.write_bytes(ordered(to_bytes(arrays, metadata=metadata)))


def _metadata(found: Source) -> dict[str, str]:
    """Metadata of a file of weights: the network's config, and a flag for the EMA."""
    metadata = {CONFIG_KEY: found.config.model_dump_json()}
    if found.kind in ("ema", "raw"):
        metadata[EMA_KEY] = "true" if found.kind == "ema" else "false"
    return metadata


def _write_onnx(out: Path, found: Source) -> str:
    return graphs.write_onnx(out, found.config, found.weights, _metadata(found))


def _write_openvino(out: Path, found: Source) -> str:
    return graphs.write_openvino(out, found.config, found.weights, _metadata(found))


def ordered(content: bytes) -> bytes:
    """A safetensors file with the keys of its metadata in order.

    The library writes them in another order in every process, so that no two files were the same.
    """
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:end])
    head = {"__metadata__": dict(sorted(header.pop("__metadata__").items())), **header}
    text = json.dumps(head, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + content[end:]


def _write_diffusers(out: Path, found: Source) -> None:
    network_config(found.config), scheduler_config(found.config)  # refuse before replacing
    with atomic_path(out) as temporary:
        temporary.mkdir()
        write_folder(temporary, found.config, found.weights)
        (temporary / CARD).write_text(_card(found), "utf-8")


def _card(found: Source) -> str:
    """The README.md of a diffusers folder; only the zoo's licence is known."""
    facts = found.facts()
    manifest, scores = training_records(found.path, facts["weights_sha256"])
    return model_card(
        found.config,
        facts,
        sum(array.size for array in found.weights.values()),
        title=f"Diffusion model for images of {found.config.data.size_text}",
        commands=[
            "python -c \"from diffusers import DDIMPipeline; DDIMPipeline.from_pretrained('FOLDER')"
            "(batch_size=1, num_inference_steps=50).images[0].save('image.png')\"",
            "diptych sample FOLDER --out images    # in PyTorch or Jittor",
        ],
        manifest=manifest,
        sampler=found.sampler,
        scores=scores,
        licence=PACKAGE_LICENCE if found.path.parent == zoo_folder() else None,
        hub=True,
    )


_WRITERS: dict[str, Callable[[Path, Source], str | None]] = {
    "official": _write_official,
    "jittor": _write_jittor,
    "diffusers": _write_diffusers,
    "safetensors": _write_safetensors,
    "onnx": _write_onnx,
    "openvino": _write_openvino,
}


def export_training(run: Path, out: Path) -> int:
    """Write the newest checkpoint of a run as the official training list; return its step.

    Raises:
        UserError: not a run, no checkpoint, or a network that the official code cannot express.
    """
    if not (run / "config.yaml").is_file():
        raise UserError(f"{run}: is not a run, and only one has what training goes on from")
    config = load_config(str(run / "config.yaml"))
    _check_official(config, run)
    state = checkpoint.load_state(checkpoint.latest(run), make_plan(config), config)
    rows = [row for row in read_rows(run / "metrics.jsonl") if row["step"] == state.step]
    epoch = rows[-1].get("epoch", 0) if rows else 0
    write_torch(out, training_list(state, config, epoch))
    return state.step


def _check_official(config: Config, run: Path) -> None:
    """Refuse settings with which the official code would compute something else."""
    model = config.model
    for key, given, value in (
        ("model.norm_groups", model.norm_groups, NORM_GROUPS),
        ("model.norm_eps", model.norm_eps, NORM_EPS),
        ("model.num_classes", model.num_classes, 0),
        ("diffusion.objective", config.diffusion.objective, "eps"),
    ):
        if given != value:
            raise UserError(
                f"{run}: has {key}={given}; the official code has {value} and no key for it, "
                f"so that it would compute something else; use --to safetensors or diffusers"
            )


def import_training(
    source: Path, run: Path, config: Config | None, overwrite: bool = False
) -> dict[str, Any]:
    """Create a run folder that resumes from an official training list.

    Raises:
        UserError: no config, another kind of file or network, or the folder is in use.
    """
    if config is None:
        raise UserError(f"{source}: a run needs its config; give the training's yml with --config")
    if not overwrite and any((run / name).exists() for name in ("config.yaml", "checkpoints")):
        raise UserError(f"{run}: holds a run already; choose another folder, or give --overwrite")
    if overwrite:
        check_folder(run, overwrite=True)
    state = read_training_list(source, make_plan(config))
    facts = {"config_identity": config.identity(), "imported_from": source.name}

    def write(folder: Path) -> Path:
        saved = checkpoint.save(folder, state, facts, config.train.keep_checkpoints)
        write_text(folder / "config.yaml", to_yaml(config))
        return run / saved.relative_to(folder)

    if overwrite or not run.exists():
        with atomic_path(run) as temporary:
            saved = write(temporary)
    else:  # existing other files stay
        claim_folder(run, resume=True)
        try:
            saved = write(run)
        except BaseException:
            shutil.rmtree(run / "checkpoints", ignore_errors=True)
            raise
    return {"out": str(run), "to": "run", "step": state.step, "checkpoint": str(saved)}
