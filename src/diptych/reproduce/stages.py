"""What a study consists of: one `diptych` command a stage, and the files that it leaves.

    train -> samples -> compare, difference          the two panels side by side
          -> scores, sweep                           quality, and seconds an image
          -> batches, profile                        where the time goes
    align                                            the ladder of checks

A stage is a process of its own, so PyTorch and Jittor never meet, and an interrupted stage is
started again by the same words: every one of those commands goes on where it was.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from diptych.config import Config, load_config
from diptych.errors import UserError, nearest

PANELS = ("torch", "jittor")
PRESETS = ("mnist", "fashion_mnist", "cifar10")
CLASSIFIERS = ("mnist", "fashion_mnist")
# Small enough for a few minutes on two cores: packaged images, a thin network, a short training.
QUICK = (
    "data.source=mnist-10k", "data.image_size=28", "data.channels=1", "data.random_flip=false",
    "model.ch=32", "model.ch_mult=[1, 1]", "model.num_res_blocks=1", "model.attn_resolutions=[]",
    "model.dropout=0.0", "train.batch_size=8", "train.warmup_steps=5", "train.loss=mean",
    "train.ema_rate=0.9", "train.checkpoint_every=20", "train.grid_every=0", "train.log_every=5",
)  # fmt: skip
DRAWN = ("grid.png", "progress.png", "trajectory.gif", "manifest.json")
QUICK_RUNGS = "config,data,weights,schedule"


@dataclass(frozen=True)
class Request:
    """What is asked of a study; all of it is written into study.json.

    Attributes:
        preset: mnist, fashion_mnist or cifar10.
        backends: the panels, in order.
        seeds: of the trainings; the first one's runs serve all other stages.
        images: of every score; repeats: independent sets of so many, for the intervals.
        steps, epochs: of the training; None: the preset's.
        use: (name such as torch-seed0, run folder) of trainings that are not repeated.
        inception: a file of Inception weights; None: no Inception scores.
        only: stages by the first word of their name; empty: all.
    """

    preset: str
    backends: tuple[str, ...] = PANELS
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
            if name not in PANELS:
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

    def config(self) -> Config:
        """The settings of the trainings, but for their seed."""
        return load_config(self.preset, self.settings())

    def settings(self) -> list[str]:
        """Everything for --set."""
        return [*(QUICK if self.quick else ()), *self.overrides]

    def length(self) -> tuple[str, int] | None:
        """How long the trainings are, in `steps` or `epochs`; None: as the settings say."""
        if self.epochs is not None:
            return "epochs", self.epochs
        if self.steps is not None:
            return "steps", self.steps
        return ("steps", 30) if self.quick else None

    def run(self, backend: str, seed: int) -> str:
        """A run folder: linked (absolute), or below the study."""
        name = f"{backend}-seed{seed}"
        return dict(self.use).get(name, f"runs/{name}")


@dataclass(frozen=True)
class Stage:
    """One step of a study.

    Attributes:
        words: after `diptych`; paths are relative to the study's folder.
        outputs: files that are there once it is done.
        needs: stages that must be done before.
        skip: why it is not done at all; empty where it is.
        fine: exit codes that are a result, not a failure.
        group: stages of one group may run at the same time.
    """

    name: str
    words: tuple[str, ...]
    outputs: tuple[str, ...]
    needs: tuple[str, ...] = ()
    skip: str = ""
    fine: tuple[int, ...] = (0,)
    group: str = ""
    module: str = field(default="diptych")


def stages(request: Request) -> list[Stage]:
    """All stages in order."""
    found = [*_training(request), *_pictures(request), *_scores(request), *_times(request)]
    rungs = ("--rungs", QUICK_RUNGS) if request.quick else ()
    words = _line("align", "ladder", request.preset, *rungs, *_set(request), *_device(request),
                  out="align")  # fmt: skip
    found.append(Stage("align", words, ("align/align.json",), skip=_alone(request), fine=(0, 3)))
    wanted = request.only
    known = sorted({stage.name.partition("-")[0] for stage in found})
    for word in wanted:
        if word not in known:
            raise UserError(f"--only {word}: no stage is called so{nearest(word, known)}")
    return [s for s in found if not wanted or s.name.partition("-")[0] in wanted]


def _training(request: Request) -> Iterator[Stage]:
    given = request.length()
    length = (f"--{given[0]}", given[1]) if given else ()
    for seed in request.seeds:
        for backend in request.backends:
            run = request.run(backend, seed)
            linked = f"linked: {run}" if Path(run).is_absolute() else ""
            words = _line("train", request.preset, "--backend", backend, "--seed", seed, *length,
                          *_set(request), *_device(request), out=run,
                          again="--resume")  # fmt: skip
            yield Stage(f"train-{backend}-seed{seed}", words, (f"{run}/metrics.jsonl",),
                        skip=linked, group=f"train-seed{seed}")  # fmt: skip


def _pictures(request: Request) -> Iterator[Stage]:
    seed = request.seeds[0]
    for backend in request.backends:
        words = _line("sample", request.run(backend, seed), "--backend", backend, *_solver(request),
                      "--num", 64, "--gif", "--frames", 50, *_device(request),
                      out=f"samples/{backend}", again="--resume")  # fmt: skip
        outputs = tuple(f"samples/{backend}/{name}" for name in DRAWN)
        yield Stage(f"samples-{backend}", words, outputs, (f"train-{backend}-seed{seed}",))
    both = tuple(f"samples-{backend}" for backend in PANELS)
    runs = [request.run(backend, seed) for backend in PANELS]
    drawn = [f"samples/{backend}" for backend in PANELS]
    yield Stage("compare", _line("compare", *runs, "--samples", *drawn, out="compare"),
                ("compare/compare.json", "compare/index.html"), both,
                skip=_alone(request))  # fmt: skip
    yield Stage("difference", tuple(drawn), ("difference.png", "difference.json"), both,
                skip=_alone(request), module="diptych.reproduce.difference")  # fmt: skip


def _scores(request: Request) -> Iterator[Stage]:
    source = request.config().data.source
    packaged = source == "mnist-10k"
    reference = "mnist-10k:train" if packaged else f"{source}:test"
    domain = "mnist" if packaged else request.preset if request.preset in CLASSIFIERS else None
    without = "" if request.inception else "no Inception weights given; give them by --inception"
    kinds = ([(domain, "")] if domain else []) + [("inception", without)]
    seed = request.seeds[0]
    for backend in request.backends:
        run, needs = request.run(backend, seed), (f"train-{backend}-seed{seed}",)
        for features, skip in kinds:
            name = f"{backend}-seed{seed}-{features}"
            words = _line("evaluate", run, "--backend", backend, *_solver(request),
                          "--num", request.images, "--repeats", request.repeats,
                          "--samples-out", f"images/{backend}",
                          *_measure(request, str(features), reference),
                          out=f"scores/{name}.json")  # fmt: skip
            yield Stage(f"scores-{name}", words, (f"scores/{name}.json",), needs, skip)
        measured = _measure(request, domain or "inception", reference)
        if without and not domain:
            measured = ("--metrics", "none", *_device(request))  # seconds an image need no weights
        words = _line("sweep", run, "--backend", backend,
                      "--steps", request.sweep_steps, "--eta", request.sweep_etas,
                      "--num", request.sweep_images, "--samples-out", f"images/{backend}",
                      *measured, out=f"sweep/{backend}", again="--resume")  # fmt: skip
        yield Stage(f"sweep-{backend}", words, (f"sweep/{backend}/sweep.json",), needs)


def _times(request: Request) -> Iterator[Stage]:
    seed = request.seeds[0]
    count, split = (6, 3) if request.quick else (12, 30)
    for backend in request.backends:
        run, needs = request.run(backend, seed), (f"train-{backend}-seed{seed}",)
        words = (run, "--backend", backend, "--steps", str(request.sample_steps), "--batches",
                 str(count), "--out", f"batches/{backend}.json", *_device(request))  # fmt: skip
        yield Stage(f"batches-{backend}", words, (f"batches/{backend}.json",), needs,
                    module="diptych.reproduce.batches")  # fmt: skip
        words = _line("profile", run, "--backend", backend, "--steps", split, *_device(request),
                      out=f"profile/{backend}.json")  # fmt: skip
        yield Stage(f"profile-{backend}", words, (f"profile/{backend}.json",), needs)


def _line(*words: object, out: str, again: str = "--overwrite") -> tuple[str, ...]:
    """A command; `again` lets it be started a second time."""
    return (*map(str, words), "--out", out, again)


def _set(request: Request) -> tuple[str, ...]:
    return tuple(word for setting in request.settings() for word in ("--set", setting))


def _device(request: Request) -> tuple[str, ...]:
    return ("--device", request.device)


def _solver(request: Request) -> tuple[str, ...]:
    return ("--solver", "ddim", "--steps", str(request.sample_steps))


def _measure(request: Request, features: str, reference: str) -> tuple[str, ...]:
    weights = ("--weights", request.inception) if features == "inception" else ()
    words = ("--reference", reference, "--features", features, "--metrics", "fid,kid,is")
    return (*words, *(str(w) for w in weights), *_device(request))


def _alone(request: Request) -> str:
    return "" if set(request.backends) == set(PANELS) else "needs both panels"
