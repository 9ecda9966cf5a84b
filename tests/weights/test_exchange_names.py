"""Files as people have them: wrapped names, parts, variants, trainings, other libraries.

Each is read to the same bits, or the line says what it is and what to give instead.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file
from test_exchange import CONFIG, GOOGLE, GOOGLE_NOISE, WEIGHTS, equal, in_ddpm_torch
from test_exchange_refusals import line

from diptych.errors import UserError
from diptych.weights.find import find_weights
from diptych.weights.formats.files import is_safetensors
from diptych.weights.formats.layouts import to_diffusers
from diptych.weights.formats.torch_write import write_torch
from diptych.weights.inspect import inspect
from diptych.weights.pickle.files import guarded

HALF = {name: array * np.float32(0.5) for name, array in WEIGHTS.items()}
STEM = "diffusion_pytorch_model"


def wrapped(prefix: str, weights: Any = WEIGHTS) -> dict[str, Any]:
    return {f"{prefix}{name}": array for name, array in weights.items()}


@pytest.mark.parametrize(
    "prefix",
    ["_orig_mod.", "module.", "module._orig_mod.", "_orig_mod.module.", "model.", "unet.", "net.",
     "model.unet.", "denoise_fn.", "anything.at.all."],
)  # fmt: skip
@pytest.mark.parametrize("layout", ["official", "diffusers", "ddpm-torch"])
def test_a_wrapper_around_all_names_is_taken_off(tmp_path: Path, prefix: str, layout: str) -> None:
    theirs = {"official": lambda: WEIGHTS, "diffusers": lambda: to_diffusers(WEIGHTS),
              "ddpm-torch": lambda: in_ddpm_torch(WEIGHTS, CONFIG)}[layout]()  # fmt: skip
    write_torch(tmp_path / "w.pt", wrapped(prefix, theirs))
    found = find_weights(str(tmp_path / "w.pt"), CONFIG)
    equal(found.weights)
    assert found.kind == "file"
    assert inspect(str(tmp_path / "w.pt"))["layout"] == layout


@pytest.mark.parametrize("prefix, kind", [("ema_model.", "ema"), ("model_ema.", "ema")])
def test_a_wrapper_that_says_ema_is_believed(tmp_path: Path, prefix: str, kind: str) -> None:
    write_torch(tmp_path / "w.pt", wrapped(prefix))
    assert find_weights(str(tmp_path / "w.pt"), CONFIG).kind == kind


@pytest.mark.parametrize("raw", [True, False])
def test_two_copies_are_the_trained_one_and_its_average(tmp_path: Path, raw: bool) -> None:
    table = np.linspace(0, 1, 1000, dtype=np.float32)
    tree = {**wrapped("online_model.model."), **wrapped("ema_model.model.", HALF),
            "initted": np.ones(1), "step": np.array([7]), "online_model.betas": table,
            "ema_model.sqrt_one_minus_alphas_cumprod": table}  # fmt: skip
    write_torch(tmp_path / "w.pt", tree)
    found = find_weights(str(tmp_path / "w.pt"), CONFIG, raw)
    equal(found.weights, WEIGHTS if raw else HALF)
    assert found.kind == ("raw" if raw else "ema")


def test_two_networks_and_strangers_are_refused(tmp_path: Path) -> None:
    write_torch(tmp_path / "w.pt", {**wrapped("coarse."), **wrapped("fine.")})
    with pytest.raises(UserError, match=r"2 networks .*'coarse.', 'fine.'") as error:
        find_weights(str(tmp_path / "w.pt"), CONFIG)
    line(error)
    write_torch(tmp_path / "w.pt", {**wrapped("unet."), "vae.conv.weight": np.ones(3, "f4")})
    with pytest.raises(UserError, match=r"'vae\.conv\.weight' beside the network") as error:
        find_weights(str(tmp_path / "w.pt"), CONFIG)
    line(error)


# Parts and variants


def parts(folder: Path, count: int = 3, suffix: str = "safetensors") -> Path:
    theirs = to_diffusers(WEIGHTS)
    names, where = sorted(theirs), {}
    for k in range(count):
        file = f"{STEM}-{k + 1:05d}-of-{count:05d}.{suffix}"
        part = {name: np.ascontiguousarray(theirs[name]) for name in names[k::count]}
        where |= dict.fromkeys(part, file)
        if suffix == "bin":
            write_torch(folder / file, part)
        else:
            save_file(part, folder / file)
    index = folder / f"{STEM}.{suffix}.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": where}))
    return index


def network(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    config = {"_class_name": "UNet2DModel", **GOOGLE}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize("suffix", ["safetensors", "bin"])
def test_parts_are_put_together(tmp_path: Path, suffix: str) -> None:
    index = parts(network(tmp_path), suffix=suffix)
    equal(find_weights(str(tmp_path)).weights)
    equal(find_weights(str(index), CONFIG).weights)
    assert inspect(str(index))["layout"] == "diffusers"


def test_parts_that_are_not_whole_are_refused(tmp_path: Path) -> None:
    index = parts(network(tmp_path))
    tree = json.loads(index.read_text())
    for change, words in (
        ({"x": "../w.safetensors"}, "expected a weights file beside it"),
        ({"x": "/etc/passwd"}, "expected a weights file beside it"),
        ({"x": f"{STEM}-00001-of-00003.safetensors"}, "'x' is in the index or in"),
        ({"x": "missing.safetensors"}, "missing.safetensors: not found"),
        ({"x": index.name}, "expected a weights file beside it"),
    ):
        index.write_text(json.dumps({"weight_map": {**tree["weight_map"], **change}}))
        with pytest.raises(UserError, match=words) as error:
            find_weights(str(index), CONFIG)
        line(error)
    index.write_text("{}")
    with pytest.raises(UserError, match="holds no 'weight_map'"):
        find_weights(str(index), CONFIG)


def test_one_part_alone_names_the_index(tmp_path: Path) -> None:
    index = parts(tmp_path)
    with pytest.raises(UserError, match=f"one part of several; give .*{index.name}") as error:
        find_weights(str(tmp_path / f"{STEM}-00001-of-00003.safetensors"), CONFIG)
    line(error)


def test_a_variant_is_read_where_nothing_else_is_there(tmp_path: Path) -> None:
    half = {n: np.ascontiguousarray(a).astype(np.float16) for n, a in to_diffusers(WEIGHTS).items()}
    save_file(half, network(tmp_path) / f"{STEM}.fp16.safetensors")
    found = find_weights(str(tmp_path))
    equal(found.weights, {n: a.astype(np.float16).astype(np.float32) for n, a in WEIGHTS.items()})
    save_file(half, tmp_path / f"{STEM}.non_ema.safetensors")
    with pytest.raises(UserError, match="holds fp16, non_ema weights and no plain ones"):
        find_weights(str(tmp_path))
    plain = {n: np.ascontiguousarray(a) for n, a in to_diffusers(WEIGHTS).items()}
    save_file(plain, tmp_path / f"{STEM}.safetensors")
    equal(find_weights(str(tmp_path)).weights)


# Checkpoints of a training with diffusers


def test_a_checkpoint_of_a_training_with_diffusers(tmp_path: Path) -> None:
    step = tmp_path / "checkpoint-1500"
    for name, weights in (("unet", WEIGHTS), ("unet_ema", HALF)):
        made = network(step / name)
        plain = {n: np.ascontiguousarray(a) for n, a in to_diffusers(weights).items()}
        save_file(plain, made / f"{STEM}.safetensors")
    ema = {"_class_name": "UNet2DModel", **GOOGLE, "decay": 0.9999, "min_decay": 0.0, "power": 0.75,
           "optimization_step": 1500, "inv_gamma": 1.0, "update_after_step": 0,
           "use_ema_warmup": True}  # fmt: skip
    (step / "unet_ema" / "config.json").write_text(json.dumps(ema))
    for raw, weights in ((True, WEIGHTS), (False, HALF)):
        found = find_weights(str(step), None, raw)
        equal(found.weights, weights)
        assert found.kind == ("raw" if raw else "ema") and "no scheduler" in str(found.note)
    (tmp_path / "scheduler").mkdir()
    noise = {**GOOGLE_NOISE, "beta_end": 0.01}
    (tmp_path / "scheduler" / "scheduler_config.json").write_text(json.dumps(noise))
    found = find_weights(str(step))
    assert found.config.diffusion.beta_end == 0.01 and found.note is None
    (tmp_path / "checkpoint-500").mkdir()
    with pytest.raises(UserError, match=r"give .*checkpoint-1500") as error:
        find_weights(str(tmp_path))
    line(error)


# Other libraries, and files that are no weights


@pytest.mark.parametrize(
    "name, library",
    [
        ("model.downs.0.0.block1.proj.weight", "lucidrains/denoising-diffusion-pytorch"),
        ("downs.0.2.fn.norm.g", "lucidrains"),
        ("input_blocks.0.0.weight", "guided-diffusion"),
        ("model.diffusion_model.input_blocks.0.0.weight", "latent-diffusion"),
        ("module.all_modules.3.weight", "score_sde"),
        ("model.enc.32x32_conv.weight", "NVlabs/edm"),
    ],
)
def test_another_library_is_named(tmp_path: Path, name: str, library: str) -> None:
    write_torch(tmp_path / "w.pt", {"model": {name: np.ones((3, 3), "f4")}, "step": 5})
    with pytest.raises(UserError, match=f"weights of .*{library}.*another network") as error:
        find_weights(str(tmp_path / "w.pt"), CONFIG)
    line(error)
    assert library in inspect(str(tmp_path / "w.pt"))["layout"]


@pytest.mark.parametrize(
    "name, content, words",
    [
        ("w.ckpt", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        ("w.ckpt", b"<!DOCTYPE html><html></html>", "web page"),
        ("w.h5", b"\x89HDF\r\n\x1a\n" + bytes(64), "HDF5"),
        ("w.gguf", b"GGUF" + bytes(64), "GGUF"),
        ("w.ckpt.gz", b"\x1f\x8b" + bytes(64), "unpack it first"),
        ("model.ckpt-790000.index", bytes(64), "TensorFlow"),
        ("model.ckpt-790000.data-00000-of-00001", bytes(64), "pretrained:ema_cifar10"),
    ],
)
def test_files_of_other_kinds_are_named(
    tmp_path: Path, name: str, content: bytes, words: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=words) as error:
        find_weights(str(tmp_path / name), CONFIG)
    line(error)


def test_a_header_whose_length_reads_as_a_tag_is_safetensors(tmp_path: Path) -> None:
    """The length comes first; one of 60 bytes, modulo 256, is `<`. Not every writer pads it."""
    array = np.arange(3, dtype=np.float32)
    tensor = {"dtype": "F32", "shape": [3], "data_offsets": [0, 12]}
    note = "x" * (316 - len(json.dumps({"__metadata__": {"note": ""}, "w": tensor})))
    head = json.dumps({"__metadata__": {"note": note}, "w": tensor}).encode()
    path = tmp_path / "w.safetensors"
    path.write_bytes(len(head).to_bytes(8, "little") + head + array.tobytes())
    assert path.read_bytes()[:1] == b"<" and guarded(path, is_safetensors)
