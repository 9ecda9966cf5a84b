"""The stages of a study: one `diptych` command per stage, and its output files.

    train -> samples -> compare, difference          the two backends side by side
          -> scores, sweep                           quality, and seconds per image
          -> batches, profile                        breakdown of the time
    align                                            the ladder of checks

Each stage is a separate process, so PyTorch and Jittor never share one. An interrupted stage is
started again by the same command, and every command resumes where it stopped.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from diptych.backends import BACKENDS
from diptych.errors import UserError, nearest
from diptych.evaluation.features.extractor import classifier_of
from diptych.study.reproduce.request import StudyRequest

DRAWN = ("grid.png", "progress.png", "trajectory.gif", "manifest.json")
QUICK_RUNGS = "config,data,weights,schedule"
Skip = Literal["", "linked", "inception", "panels"]


@dataclass(frozen=True)
class Stage:
    """One step of a study.

    Attributes:
        words: arguments of `diptych`; paths are relative to the study's folder.
        outputs: files that exist once the stage is done.
        needs: stages that must be done first.
        reads: inputs: run folders, whose newest weights are used, and files.
        skip: why the stage is skipped; empty if it is not.
        linked: the run folder that is used in place of a training.
        fine: exit codes that are results, not failures.
        group: stages of one group may run at the same time.
    """

    name: str
    words: tuple[str, ...]
    outputs: tuple[str, ...]
    needs: tuple[str, ...] = ()
    reads: tuple[str, ...] = ()
    skip: Skip = ""
    linked: str = ""
    fine: tuple[int, ...] = (0,)
    group: str = ""
    module: str = field(default="diptych")

    @property
    def reason(self) -> str:
        """`skip` in words."""
        return {
            "": "",
            "linked": f"linked: {self.linked}",
            "inception": "no Inception weights given; give them by --inception",
            "panels": "needs both panels",
        }[self.skip]


def stages(request: StudyRequest) -> list[Stage]:
    """All stages in order, including those that `request` does not ask for now."""
    found = [*_training(request), *_pictures(request), *_scores(request), *_times(request)]
    rungs = ("--rungs", QUICK_RUNGS) if request.quick else ()
    words = _line(
        "align", "ladder", request.preset, *rungs, *_set(request), *_device(request), out="align"
    )
    found.append(Stage("align", words, ("align/align.json",), skip=_alone(request), fine=(0, 3)))
    known = sorted({stage.name.partition("-")[0] for stage in found})
    for word in request.only:
        if word not in known:
            raise UserError(f"--only {word}: no stage has this name{nearest(word, known)}")
    return found


def _training(request: StudyRequest) -> Iterator[Stage]:
    given = request.length()
    length = (f"--{given[0]}", given[1]) if given else ()
    for seed in request.seeds:
        for backend in request.backends:
            run = request.run(backend, seed)
            linked = run if Path(run).is_absolute() else ""
            words = _line(
                "train",
                request.preset,
                "--backend",
                backend,
                "--seed",
                seed,
                *length,
                *_set(request),
                *_device(request),
                out=run,
                again="--resume",
            )
            yield Stage(
                f"train-{backend}-seed{seed}",
                words,
                (f"{run}/metrics.jsonl",),
                skip="linked" if linked else "",
                linked=linked,
                group=f"train-seed{seed}",
            )


def _pictures(request: StudyRequest) -> Iterator[Stage]:
    seed = request.seeds[0]
    for backend in request.backends:
        run = request.run(backend, seed)
        words = _line(
            "sample",
            run,
            "--backend",
            backend,
            *_solver(request),
            "--num",
            64,
            "--gif",
            "--frames",
            50,
            *_device(request),
            out=f"samples/{backend}",
            again="--resume",
        )
        outputs = tuple(f"samples/{backend}/{name}" for name in DRAWN)
        yield Stage(f"samples-{backend}", words, outputs, (f"train-{backend}-seed{seed}",), (run,))
    both = tuple(f"samples-{backend}" for backend in BACKENDS)
    runs = [request.run(backend, seed) for backend in BACKENDS]
    drawn = [f"samples/{backend}" for backend in BACKENDS]
    yield Stage(
        "compare",
        _line("compare", *runs, "--samples", *drawn, out="compare"),
        ("compare/compare.json", "compare/index.html"),
        both,
        (*runs, *(f"{run}/metrics.jsonl" for run in runs)),
        skip=_alone(request),
    )
    yield Stage(
        "difference",
        tuple(drawn),
        ("difference.png", "difference.json"),
        both,
        tuple(runs),
        _alone(request),
        module="diptych.study.reproduce.difference",
    )


def _scores(request: StudyRequest) -> Iterator[Stage]:
    data = request.config().data
    packaged = data.source == "mnist-10k"
    reference = "mnist-10k:train" if packaged else f"{data.source}:test"
    domain = classifier_of(data.source, data.shape)
    without: Skip = "" if request.inception else "inception"
    kinds: list[tuple[str, Skip]] = [(domain, "")] if domain else []
    kinds.append(("inception", without))
    seed = request.seeds[0]
    for backend in request.backends:
        run, needs = request.run(backend, seed), (f"train-{backend}-seed{seed}",)
        for features, skip in kinds:
            name = f"{backend}-seed{seed}-{features}"
            words = _line(
                "evaluate",
                run,
                "--backend",
                backend,
                *_solver(request),
                "--num",
                request.images,
                "--repeats",
                request.repeats,
                "--samples-out",
                f"images/{backend}",
                *_measure(request, features, reference),
                out=f"scores/{name}.json",
            )
            yield Stage(
                f"scores-{name}",
                words,
                (f"scores/{name}.json",),
                needs,
                (run, *_weights(request, words)),
                skip,
            )
        measured = _measure(request, domain or "inception", reference)
        if without and not domain:
            measured = ("--metrics", "none", *_device(request))  # seconds per image need no weights
        words = _line(
            "sweep",
            run,
            "--backend",
            backend,
            "--steps",
            request.sweep_steps,
            "--eta",
            request.sweep_etas,
            "--num",
            request.sweep_images,
            "--samples-out",
            f"images/{backend}",
            *measured,
            out=f"sweep/{backend}",
            again="--resume",
        )
        yield Stage(
            f"sweep-{backend}",
            words,
            (f"sweep/{backend}/sweep.json",),
            needs,
            (run, *_weights(request, words)),
        )


def _times(request: StudyRequest) -> Iterator[Stage]:
    seed = request.seeds[0]
    count, split = (6, 3) if request.quick else (12, 30)
    for backend in request.backends:
        run, needs = request.run(backend, seed), (f"train-{backend}-seed{seed}",)
        words = (run, "--backend", backend, "--steps", str(request.sample_steps), "--batches",
                 str(count), "--out", f"batches/{backend}.json", *_device(request))  # fmt: skip
        yield Stage(
            f"batches-{backend}",
            words,
            (f"batches/{backend}.json",),
            needs,
            (run,),
            module="diptych.study.reproduce.batches",
        )
        words = _line(
            "profile",
            run,
            "--backend",
            backend,
            "--steps",
            split,
            *_device(request),
            out=f"profile/{backend}.json",
        )
        yield Stage(f"profile-{backend}", words, (f"profile/{backend}.json",), needs, (run,))


def _line(*words: object, out: str, again: str = "--overwrite") -> tuple[str, ...]:
    """The arguments of a command; `again` is the option that allows a second start."""
    return (*map(str, words), "--out", out, again)


def _set(request: StudyRequest) -> tuple[str, ...]:
    return tuple(word for setting in request.settings() for word in ("--set", setting))


def _device(request: StudyRequest) -> tuple[str, ...]:
    return ("--device", request.device)


def _solver(request: StudyRequest) -> tuple[str, ...]:
    return ("--solver", "ddim", "--steps", str(request.sample_steps))


def _measure(request: StudyRequest, features: str, reference: str) -> tuple[str, ...]:
    weights = ("--weights", request.inception) if features == "inception" else ()
    words = ("--reference", reference, "--features", features, "--metrics", "fid,kid,is")
    return (*words, *(str(w) for w in weights), *_device(request))


def _weights(request: StudyRequest, words: tuple[str, ...]) -> tuple[str, ...]:
    """The file of Inception weights, if the words of a stage name it."""
    return (request.inception,) if request.inception and "--weights" in words else ()


def _alone(request: StudyRequest) -> Skip:
    return "" if set(request.backends) == set(BACKENDS) else "panels"
