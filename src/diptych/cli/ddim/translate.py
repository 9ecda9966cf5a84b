"""Translation of the official options to `diptych` commands; nothing is trained or drawn here.

    EXP/logs/DOC                     the run; ckpt.pth in it is the official training list
    EXP/tensorboard/DOC              its events (a link)
    EXP/image_samples/IMAGE_FOLDER   images
    EXP/datasets                     folder that is searched for data

Where the official code departs from its own options, we do not follow: `--timesteps S` is exactly S
steps, `--fid` exactly N images.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diptych.config.load import Config, is_there, read_tree
from diptych.errors import UserError, nearest
from diptych.weights import pretrained
from diptych.weights.formats import read_config

FID_IMAGES, GRID_IMAGES = 50_000, 64
_QUIET = ("warning", "error", "critical")
_SOLVERS = {"generalized": "ddim", "ddpm_noisy": "ddpm-noisy"}
# The official quad sequence visits some timesteps twice; so does `official-quad`.
_SPACINGS = {"uniform": "uniform", "quad": "official-quad"}


@dataclass(frozen=True)
class Options:
    """The official options under their own names, and three of ours: backend, device, num."""

    config: str
    exp: Path
    doc: str
    seed: int = 1234
    verbose: str = "info"
    comment: str = ""
    test: bool = False
    sample: bool = False
    fid: bool = False
    interpolation: bool = False
    sequence: bool = False
    gif: bool = False
    resume_training: bool = False
    image_folder: str = "images"
    ni: bool = False
    use_pretrained: bool = False
    sample_type: str = "generalized"
    skip_type: str = "uniform"
    timesteps: int = 1000
    eta: float = 0.0
    backend: str = "torch"
    device: str = "auto"
    num: int | None = None

    @property
    def logs(self) -> Path:
        """The run folder."""
        return self.exp / "logs" / self.doc

    @property
    def images(self) -> Path:
        """The folder of the images."""
        return self.exp / "image_samples" / self.image_folder


@dataclass(frozen=True)
class Official:
    """The config file that the options name."""

    path: Path
    tree: dict[str, Any]

    def value(self, section: str, key: str, default: Any = None) -> Any:
        """The value of a key as written in the file."""
        values = self.tree.get(section)
        return values.get(key, default) if isinstance(values, dict) else default

    def read(self, training: bool) -> Config:
        """The whole config, validated."""
        return read_config(str(self.path), for_training=training)


def find_config(name: str) -> Official:
    """`configs/NAME`, else NAME as a path, else the packaged official config of that name.

    Raises:
        UserError: there is no such file.
    """
    tried = [Path("configs") / name, Path(name)]
    tried += [path.with_name(f"{path.name}.yml") for path in tried if not path.suffix]
    own = [pretrained.official_config(n) for n in (name, f"{name}.yml")]
    for path in (*tried, *own):
        if path is not None and is_there(path):
            return Official(path, read_tree(path))
    known = ["cifar10.yml", "celeba.yml", "bedroom.yml", "church.yml"]
    raise UserError(
        f"--config {name}: neither configs/{name} nor {name} is a file{nearest(name, known)}"
    )


def check(options: Options) -> None:
    """Refuse unknown options, and options that exclude each other."""
    for name, value, known in (
        ("verbose", options.verbose, ["info", "debug", *_QUIET]),
        ("sample_type", options.sample_type, list(_SOLVERS)),
        ("skip_type", options.skip_type, list(_SPACINGS)),
    ):
        if value not in known:
            raise UserError(f"--{name} '{value}' is not known{nearest(value, known)}")
    kinds = [k for k in ("fid", "interpolation", "sequence", "gif") if getattr(options, k)]
    if options.sample and not kinds:
        raise UserError("--sample: give its output: --fid, --interpolation, --sequence or --gif")
    if len(kinds) > 1 and kinds != ["fid", "gif"]:
        raise UserError(f"--{kinds[0]} and --{kinds[1]} exclude each other; choose one")
    if not options.sample and kinds:
        raise UserError(f"--{kinds[0]} is a way to sample; add --sample")
    needed = not options.test and not (options.sample and options.use_pretrained)
    if needed and not options.doc:
        raise UserError("--doc is missing: the name of the log folder, EXP/logs/DOC")


def training(options: Options, config: Official, overwrite: bool) -> list[list[str]]:
    """Commands that train or resume training, and also write the official checkpoint."""
    logs = str(options.logs)
    train = ["train", str(config.path), "--out", logs, "--seed", str(options.seed)]
    train += _common(options, _data(options, config))
    first: list[list[str]] = []
    if options.resume_training:
        train.append("--resume")
        if not (options.logs / "config.yaml").is_file():
            source = str(_official_checkpoint(options.logs, None))
            settings = ["--config", str(config.path), "--seed", str(options.seed)]
            first = [["convert", source, logs, "--to", "run", *settings]]
    elif overwrite:
        train.append("--overwrite")
    last = ["convert", logs, f"{logs}/ckpt.pth", "--to", "official-training", "--overwrite"]
    return [*first, train, last]


def source(options: Options, config: Official) -> str:
    """The weights to sample from, as `diptych sample` names them.

    Raises:
        UserError: no trained weights there, or no pretrained model for this data set.
    """
    if options.use_pretrained:
        data, category = config.value("data", "dataset"), config.value("data", "category")
        name = f"lsun_{category}".replace("church_outdoor", "church")
        name = f"ema_{'cifar10' if data == 'CIFAR10' else name}"
        if data not in ("CIFAR10", "LSUN") or name not in pretrained.PRETRAINED:
            raise UserError(
                f"--use_pretrained: nothing is published for {data} {category or ''}".rstrip()
                + "; known are CIFAR10, and LSUN bedroom, cat and church"
            )
        return f"pretrained:{name}"
    wanted = config.value("sampling", "ckpt_id")
    if (options.logs / "config.yaml").is_file():
        if wanted is not None and not str(wanted).isdigit():
            raise UserError(f"{config.path}: sampling.ckpt_id is {wanted!r}; expected a step")
        step = None if wanted is None else f"checkpoints/step-{int(str(wanted)):08d}"
        return str(options.logs if step is None else options.logs / step)
    return str(_official_checkpoint(options.logs, wanted))


def _official_checkpoint(logs: Path, wanted: object) -> Path:
    stem = "ckpt" if wanted is None else f"ckpt_{wanted}"
    for suffix in (".pth", ".pkl", ".ckpt"):
        if (logs / f"{stem}{suffix}").is_file():
            return logs / f"{stem}{suffix}"
    raise UserError(
        f"{logs}: holds neither a run nor {stem}.pth; train it first, or sample with "
        "--use_pretrained"
    )


def sampler(options: Options) -> list[str]:
    """The sampler options for `diptych sample`."""
    found = ["--solver", _SOLVERS[options.sample_type], "--steps", str(options.timesteps)]
    if options.sample_type == "generalized":
        found += ["--eta", f"{options.eta:g}"]
    return [*found, "--spacing", _SPACINGS[options.skip_type], "--seed", str(options.seed)]


def sampling(options: Options, config: Official, overwrite: bool) -> list[str]:
    """The command that draws the images of --fid or --gif."""
    num = options.num or (FID_IMAGES if options.fid else GRID_IMAGES)
    batch = config.value("sampling", "batch_size", 64) if options.fid else GRID_IMAGES
    command = ["sample", source(options, config), "--config", str(config.path)]
    command += [*sampler(options), "--num", str(num), "--batch", str(batch)]
    command += ["--out", str(options.images), *_common(options, None)]
    command += ["--gif"] if options.gif else []
    command += ["--raw"] if raw(config) and not options.use_pretrained else []
    return [*command, "--overwrite" if overwrite else "--resume"]


def raw(config: Official) -> bool:
    """True if the official code samples without the moving average."""
    return config.value("model", "ema", True) is False


def testing(options: Options, config: Official) -> list[str]:
    """The command that scores the images, as the Jittor reproduction's --test does."""
    reference = f"{config.read(training=False).data.source}:train"
    command = ["evaluate", str(options.images), "--reference", reference]
    command += ["--protocol", "clean-fid", *_common(options, _data(options, config))]
    return command


def notes(options: Options, config: Official) -> list[str]:
    """Our deliberate differences from the official code, one line each."""
    total = config.value("diffusion", "num_diffusion_timesteps", 1000)
    steps = options.timesteps
    if options.sample and options.skip_type == "uniform" and isinstance(total, int):
        theirs = len(range(0, total, total // steps)) if 0 < steps <= total else steps
        if theirs != steps:
            return [f"the official code takes {theirs} steps for --timesteps {steps}, we {steps}"]
    return []


def _data(options: Options, config: Official) -> Path | None:
    """EXP/datasets, if it seems to hold the config's data set; None: the usual places."""
    folder, name = options.exp / "datasets", str(config.value("data", "dataset")).lower()
    if not folder.is_dir():
        return None
    there = (re.sub(r"[^a-z0-9]", "", entry.name.lower()) for entry in folder.iterdir())
    return folder if any(each.startswith(name) for each in there) else None


def _common(options: Options, data: Path | None) -> list[str]:
    found = ["--backend", options.backend]
    found += [] if options.device == "auto" else ["--device", options.device]
    found += [] if data is None else ["--data", str(data)]
    return found + (["--quiet"] if options.verbose in _QUIET else [])
