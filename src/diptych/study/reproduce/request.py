"""The request of a study, and the settings that follow from it."""

from __future__ import annotations

from dataclasses import dataclass

from diptych.backends import BACKENDS
from diptych.config.load import Config, load_config
from diptych.errors import UserError, nearest

PRESETS = ("mnist", "fashion_mnist", "cifar10")
# Takes a few minutes on two cores: packaged images, a thin network, a short training.
QUICK = (
    "data.source=mnist-10k", "data.image_size=28", "data.channels=1", "data.random_flip=false",
    "model.ch=32", "model.ch_mult=[1, 1]", "model.num_res_blocks=1", "model.attn_resolutions=[]",
    "model.dropout=0.0", "train.batch_size=8", "train.warmup_steps=5", "train.loss=mean",
    "train.ema_rate=0.9", "train.checkpoint_every=20", "train.grid_every=0", "train.log_every=5",
)  # fmt: skip


@dataclass(frozen=True)
class StudyRequest:
    """The request of a study; all of it is written into study.json.

    Attributes:
        preset: mnist, fashion_mnist or cifar10.
        backends: the backends, in order.
        seeds: training seeds; all other stages use the runs of the first seed.
        images: images per score; repeats: independent sets of that many, for the intervals.
        steps, epochs: length of the training; None: the preset's.
        use: (name such as torch-seed0, run folder) of existing trainings to reuse.
        inception: file of Inception weights; None: no Inception scores.
        only: stages by the first word of their name; empty: all.
    """

    preset: str
    backends: tuple[str, ...] = BACKENDS
    seeds: tuple[int, ...] = (0,)
    images: int = 10_000
    repeats: int = 3
    sample_steps: int = 50
    sweep_steps: str = "10,20,50,100"
    sweep_etas: str = "0,0.5,1"
    sweep_images: int = 2000
    steps: int | None = None
    epochs: int | None = None
    overrides: tuple[str, ...] = ()
    use: tuple[tuple[str, str], ...] = ()
    inception: str | None = None
    data: str | None = None
    device: str = "auto"
    quick: bool = False
    only: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.preset not in PRESETS:
            raise UserError(
                f"no study is called '{self.preset}'{nearest(self.preset, list(PRESETS))}"
            )
        for name in self.backends:
            if name not in BACKENDS:
                raise UserError(f"backend '{name}' is not known; use torch, jittor or both")
        if not self.seeds or len(set(self.seeds)) < len(self.seeds) or min(self.seeds) < 0:
            raise UserError("--seeds: give one or more different numbers, as in 0,1,2")
        for key in ("images", "repeats", "sample_steps", "sweep_images"):
            if getattr(self, key) < 1:
                raise UserError(f"--{key.replace('_', '-')} must be 1 or more")
        names = [f"{b}-seed{s}" for b in self.backends for s in self.seeds]
        for name, _ in self.use:
            if name not in names:
                raise UserError(f"--use {name}: no training of this study{nearest(name, names)}")
        if len(dict(self.use)) < len(self.use):
            raise UserError("--use: names a training twice; give each one run")

    def config(self) -> Config:
        """The config of the trainings; its seed is the largest of `seeds`."""
        changes = [f"seed={max(self.seeds)}"]
        if given := self.length():
            changes += ["train.steps=null", "train.{}={}".format(*given)]
        return load_config(self.preset, [*self.settings(), *changes])

    def settings(self) -> list[str]:
        """All values for --set."""
        return [*(QUICK if self.quick else ()), *self.overrides]

    def length(self) -> tuple[str, int] | None:
        """Length of the trainings: ("steps" or "epochs", number); None: as in the settings."""
        if self.epochs is not None:
            return "epochs", self.epochs
        if self.steps is not None:
            return "steps", self.steps
        return ("steps", 30) if self.quick else None

    def run(self, backend: str, seed: int) -> str:
        """The folder of a run: linked (absolute), or below the study's folder."""
        name = f"{backend}-seed{seed}"
        return dict(self.use).get(name, f"runs/{name}")

    def wants(self, stage: str) -> bool:
        """True if the stage of this name is requested now."""
        return not self.only or stage.partition("-")[0] in self.only
