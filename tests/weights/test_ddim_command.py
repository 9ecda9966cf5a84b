"""`python -m diptych.ddim` does the same as the official main.py, through `diptych` commands."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import exchange_jobs
import photos
from conftest import Panel
from diptych.cli.ddim import translate
from diptych.cli.ddim.translate import Options, find_config
from diptych.config.load import load_config
from diptych.errors import UserError
from diptych.figures.grids import read_png
from diptych.network.plan import make_plan
from diptych.runs import checkpoint
from diptych.weights import pretrained
from diptych.weights.formats import read_config

YML = """
data: {dataset: CIFAR10, image_size: 8, channels: 3, logit_transform: false,
  uniform_dequantization: false, gaussian_dequantization: false, random_flip: true, rescaled: true,
  num_workers: 0}
model: {type: simple, in_channels: 3, out_ch: 3, ch: 32, ch_mult: [1, 2], num_res_blocks: 1,
  attn_resolutions: [4, ], dropout: 0.1, var_type: fixedlarge, ema_rate: 0.9, ema: True,
  resamp_with_conv: True}
diffusion: {beta_schedule: linear, beta_start: 0.0001, beta_end: 0.02,
  num_diffusion_timesteps: 1000}
training: {batch_size: 16, n_epochs: EPOCHS, n_iters: 5000000, snapshot_freq: 5000,
  validation_freq: 2000}
sampling: {batch_size: 4, last_only: True}
optim: {weight_decay: 0.000, optimizer: "Adam", lr: 0.002, beta1: 0.9, amsgrad: false,
  eps: 0.00000001, grad_clip: 1.0}
"""
SMALL = ["--config", "small.yml", "--exp", "E", "--doc", "d"]


def place(folder: Path, epochs: int = 1) -> Path:
    """A working folder: configs/small.yml, and forty pictures as CIFAR-10 in E/datasets."""
    (folder / "configs").mkdir(parents=True, exist_ok=True)
    (folder / "configs" / "small.yml").write_text(YML.replace("EPOCHS", str(epochs)))
    if not (folder / "E" / "datasets").exists():
        photos.put_cifar10(folder / "E" / "datasets", each=8)
    return folder


def call(panel: Panel, folder: Path, *arguments: str, code: int = 0) -> str:
    """The command in a folder; gives its stderr."""
    backend = ["--backend", panel.name, "--device", "cpu", "--verbose", "warning"]
    got, out, err = panel.call(exchange_jobs.ddim, [*SMALL, *arguments, *backend], folder)
    assert got == code, err + out
    return err


def weights(folder: Path, step: int) -> Any:
    path = folder / "E" / "logs" / "d"
    plan = make_plan(load_config(str(path / "config.yaml")))
    assert checkpoint.latest(path).name == f"step-{step:08d}"
    return checkpoint.load_state(checkpoint.latest(path), plan)


def same_state(a: Any, b: Any) -> None:
    assert a.step == b.step
    for group in checkpoint.GROUPS:
        for name, array in getattr(a, group).items():
            np.testing.assert_array_equal(array, getattr(b, group)[name], err_msg=name)


def pictures(folder: Path, name: str = "images") -> dict[str, Any]:
    found = sorted((folder / "E" / "image_samples" / name).glob("*.png"))
    return {path.name: read_png(path) for path in found}


def test_a_training_goes_on_from_the_official_checkpoint_bit_for_bit(
    panel: Panel, tmp_path: Path
) -> None:
    here, there = place(tmp_path / "here"), place(tmp_path / "there", 2)
    said = call(panel, here, "--ni")
    logs = here / "E" / "logs" / "d"
    assert (
        f"diptych train configs/small.yml --out E/logs/d --seed 1234 --backend {panel.name}" in said
    )
    assert load_config(str(logs / "config.yaml")).seed == 1234
    assert (here / "E" / "tensorboard" / "d").resolve() == (logs / "tensorboard").resolve()
    assert list((here / "E" / "tensorboard" / "d").iterdir())
    # Only the list that the official code writes goes to the other folder.
    (there / "E" / "logs" / "d").mkdir(parents=True)
    shutil.copy(logs / "ckpt.pth", there / "E" / "logs" / "d")
    place(here, 2)
    said = call(panel, here, "--resume_training")
    assert "--resume" in said and "convert E/logs/d/ckpt.pth" not in said
    said = call(panel, there, "--resume_training")
    assert "diptych convert E/logs/d/ckpt.pth E/logs/d --to run --config configs/small.yml" in said
    same_state(weights(here, 6), weights(there, 6))
    # From a run, and from nothing but the list, the same images are drawn.
    shutil.rmtree(there / "E" / "logs" / "d" / "checkpoints")
    (there / "E" / "logs" / "d" / "config.yaml").unlink()
    fid = ["--sample", "--fid", "--num", "5", "--timesteps", "4", "--skip_type", "quad"]
    said = call(panel, here, *fid, "--eta", "0.5", "--ni")
    assert "--solver ddim --steps 4 --eta 0.5 --spacing official-quad --seed 1234" in said
    call(panel, there, *fid, "--eta", "0.5", "--ni")
    ours, theirs = pictures(here), pictures(there)
    assert list(ours) == list(theirs) == [f"{i:05d}.png" for i in range(5)]
    assert all(np.array_equal(ours[name], theirs[name]) for name in ours)
    assert sorted(pictures(here, "images-preview")) == ["grid.png", "progress.png"]
    call(panel, here, *fid, "--eta", "0.5")  # again: it is complete, and asks nothing


@pytest.mark.torch
def test_the_other_ways_to_sample(panels: Any, tmp_path: Path) -> None:
    panel, here = panels["torch"], place(tmp_path)
    call(panel, here, "--ni")
    short = ["--sample", "--timesteps", "3", "--ni", "-i"]
    call(panel, here, *short, "between", "--interpolation")
    between = pictures(here, "between")
    assert sorted(between) == sorted(f"{i}.png" for i in range(11))
    call(panel, here, *short, "way", "--sequence")
    way = pictures(here, "way")
    assert sorted(way) == sorted(f"{j}_{i}.png" for j in range(8) for i in range(3))
    call(panel, here, *short, "film", "--gif", "--sample_type", "ddpm_noisy", "--num", "4")
    assert (here / "E" / "image_samples" / "film" / "trajectory.gif").is_file()
    call(panel, here, *short, "fid", "--fid", "--num", "2")
    fid = pictures(here, "fid")
    # Neither takes a folder of samples, or deletes what is not its own.
    assert "holds samples" in call(panel, here, *short, "fid", "--interpolation", code=2)
    assert len(pictures(here, "fid")) == 2
    (here / "E" / "image_samples" / "way" / "2024.png").touch()
    assert "holds '2024.png'" in call(panel, here, *short, "way", "--sequence", code=2)
    # The ends of the interpolation are images 0 and 1; the last prediction is the image itself.
    for k, (name, last) in enumerate((("0.png", "0_2.png"), ("10.png", "1_2.png"))):
        off = np.abs(fid[f"{k:05d}.png"].astype(int) - between[name])
        assert off.max() <= 1
        assert np.abs(fid[f"{k:05d}.png"].astype(int) - way[last]).max() <= 1
    unanswered = [word for word in short if word != "--ni"]
    assert "replace it with --ni" in call(panel, here, *unanswered, "film", "--gif", code=2)
    assert "eta=0.0, not 1.0" in call(
        panel, here, "--sample", "--fid", "--num", "2", "-i", "fid", "--timesteps", "3",
        "--eta", "1", code=2,
    )  # fmt: skip


@pytest.mark.parametrize("name", ["cifar10", "celeba", "bedroom", "church"])
def test_bundled_official_configs_fit_the_presets(
    name: str, monkeypatch: Any, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    for word in (name, f"{name}.yml"):
        official, preset = find_config(word).read(training=True), load_config(name)
        assert official.model == preset.model and official.diffusion == preset.diffusion
        assert official.data.source == preset.data.source
        assert (official.train.batch_size, official.train.lr) == (
            preset.train.batch_size, preset.train.lr,
        )  # fmt: skip
        assert (preset.train.warmup_steps, preset.train.ema_rate) == (5000, 0.9999)
        assert official.train.warmup_steps == 0


def options(**given: Any) -> Options:
    return Options(**{"config": "cifar10.yml", "exp": Path("E"), "doc": "d", **given})


@pytest.mark.parametrize(
    "given, words",
    [
        ({"sample": True}, "give its output: --fid"),
        ({"sample": True, "fid": True, "sequence": True}, "--fid and --sequence exclude"),
        ({"fid": True}, "add --sample"),
        ({"doc": ""}, "--doc is missing"),
        ({"verbose": "loud"}, "--verbose 'loud'"),
        ({"sample_type": "ddpm"}, "did you mean 'ddpm_noisy'"),
        ({"skip_type": "quadratic"}, "did you mean 'quad'"),
    ],
)
def test_options_that_do_not_fit_are_refused(given: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        translate.check(options(**given))


def test_what_is_translated(monkeypatch: Any, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    config = find_config("cifar10.yml")
    given = options(sample=True, fid=True, use_pretrained=True, timesteps=300, doc="")
    translate.check(given)
    command = translate.sampling(given, config, False)
    assert command[:2] == ["sample", "pretrained:ema_cifar10"]
    assert command[command.index("--num") + 1] == "50000"
    assert command[command.index("--batch") + 1] == "64" and "--raw" not in command
    assert translate.notes(given, config) == [
        "the official code takes 334 steps for --timesteps 300, we 300"
    ]
    assert translate.notes(options(sample=True, timesteps=100), config) == []
    for name, model in (("church", "ema_lsun_church"), ("bedroom", "ema_lsun_bedroom")):
        assert translate.source(given, find_config(name)) == f"pretrained:{model}"
    with pytest.raises(UserError, match="nothing is published for CELEBA"):
        translate.source(given, find_config("celeba"))
    with pytest.raises(UserError, match=r"neither a run nor ckpt\.pth"):
        translate.source(options(), config)
    with pytest.raises(UserError, match=r"did you mean 'celeba\.yml'"):
        find_config("celebb.yml")
    test = translate.testing(options(test=True), config)
    assert test[:4] == ["evaluate", "E/image_samples/images", "--reference", "cifar10:train"]


def test_a_checkpoint_is_chosen_by_ckpt_id_and_without_ema_it_is_raw(
    monkeypatch: Any, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    logs = tmp_path / "E" / "logs" / "d"
    logs.mkdir(parents=True)
    text = pretrained.official_config("cifar10.yml").read_text("utf-8")  # type: ignore[union-attr]
    text = text.replace("last_only: true", "ckpt_id: 5000").replace("ema: true", "ema: false")
    Path("mine.yml").write_text(text)
    (logs / "ckpt_5000.pth").touch()
    config = find_config("mine.yml")
    command = translate.sampling(options(sample=True, fid=True), config, False)
    assert command[1] == "E/logs/d/ckpt_5000.pth" and "--raw" in command
    (logs / "config.yaml").touch()
    assert translate.source(options(), config) == "E/logs/d/checkpoints/step-00005000"
    Path("best.yml").write_text(text.replace("ckpt_id: 5000", "ckpt_id: best"))
    with pytest.raises(UserError, match="ckpt_id is 'best'; expected a step"):
        translate.source(options(), find_config("best.yml"))


def test_the_folder_of_data_sets_is_named_only_if_it_holds_the_one_asked_for(
    monkeypatch: Any, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    config = find_config("cifar10.yml")
    (tmp_path / "E" / "datasets" / "celeba").mkdir(parents=True)
    assert "--data" not in translate.testing(options(test=True), config)
    (tmp_path / "E" / "datasets" / "cifar-10-batches-py").mkdir()
    command = translate.testing(options(test=True), config)
    assert command[command.index("--data") + 1] == "E/datasets"


def test_an_official_config_takes_our_overrides() -> None:
    path = str(pretrained.official_config("cifar10.yml"))
    changed = read_config(path, ["train.steps=5", "seed=3"])
    assert (changed.train.steps, changed.seed) == (5, 3)
    with pytest.raises(UserError, match=r"'train\.stepz' is not known"):
        read_config(path, ["train.stepz=5"])
