"""`diptych search-steps`: timesteps for few network calls, judged by the score of the samples.

    candidate   a solver with its settings, and its timesteps
    score       the Frechet distance of its images to a reference, in a feature network's features
    reference   the model's own images with many steps (the teacher), or images or statistics given

    1. scan      every solver on every spacing, with a quarter of the images
    2. descent   from the best of these, on all images: one timestep at a time goes a half, a
                 quarter, an eighth of the way, in lambda = log(alpha / sigma), to its neighbour,
                 and stays there if the score falls
    3. check     the best candidates on fresh seeds; the lowest mean is the result
    4. score     the result on seeds that chose nothing; their mean and interval are told

Every candidate starts from the same noise, that of the teacher, so that few images tell two
candidates apart; what that overfits, the fresh seeds show. A trajectory's distance to the teacher's
is not looked at: on MNIST it favoured schedules whose images were nearly all of one digit.

OUT is written anew after every try and says all of them, so an interrupted search goes on where it
was; every choice depends on scores alone, so it ends as it would have without the interruption.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from diptych.config.schema import DataConfig
from diptych.diffusion.schedule import Schedule
from diptych.diffusion.timesteps import BY_LEVEL, choose_timesteps, listed_timesteps, listing
from diptych.errors import UserError
from diptych.evaluation.collect import Needs
from diptych.evaluation.feature_network import Extractor
from diptych.evaluation.features.extractor import classifier_of
from diptych.evaluation.features.weights_file import cache_folder
from diptych.evaluation.frechet import frechet_distance
from diptych.evaluation.measure import score_name
from diptych.evaluation.protocol import protocol_for
from diptych.evaluation.reference import moments_of, open_reference, reference_sha256
from diptych.evaluation.statistics import Moments
from diptych.files import check_path, hold_place, read_json, write_json
from diptych.model import Model, batches_of
from diptych.sampling.guidance import NO_GUIDE
from diptych.sampling.options import SamplerOptions
from diptych.sampling.sampler import Sampler, make_sampler
from diptych.sampling.solvers.wrappers import require_image
from diptych.stats import mean_interval
from diptych.study.sweep.variants import Variant, parse, steps_for
from diptych.types import Floating
from diptych.weights.found_steps import KIND
from diptych.weights.guides import guide_facts

SOLVERS = ("ipndm", "ipndm:order=2", "unipc", "unipc:order=3", "dpmpp", "dpmpp:order=3", "deis",
           "dpmpp-sde")  # fmt: skip
SPACINGS = ("uniform", "trailing", "quad", *BY_LEVEL)
QUARTER, SHARES = 4, (0.5, 0.25, 0.125)
STARTS, FINALISTS, CHECKS = 3, 3, 3
REFERENCE = "reference_sha256"
LATER = {"precision": "fp32"}  # what records of earlier versions do not say

Candidate = tuple[str, str]
"""A variant as in a sweep, such as `dpmpp:order=3`, and a spacing that lists its timesteps."""


@dataclass(frozen=True)
class Search:
    """Settings that a search's result depends on, but for the model.

    Attributes:
        calls: network calls an image.
        solvers: as in a sweep; those that cannot take `calls` or free timesteps are left out.
        num: images of a try in the descent.
        tries: tries of all descents together, at most.
        teacher, teacher_steps: draws the reference, if `reference` is None.
        reference: a data set's split, a folder, or statistics.
        features: inception, mnist or fashion_mnist.
    """

    calls: int
    solvers: tuple[str, ...] = SOLVERS
    num: int = 512
    tries: int = 60
    seed: int = 0
    batch: int = 64
    teacher: str = "dpmpp-sde"
    teacher_steps: int = 50
    reference: str | None = None
    features: str = "inception"

    def __post_init__(self) -> None:
        for name, least in (("calls", 1), ("num", 4 * QUARTER), ("tries", 0), ("batch", 1)):
            if getattr(self, name) < least:
                raise UserError(f"--{name} is {getattr(self, name)}; it must be {least} or more")
        for text in (*self.solvers, self.teacher):
            parse(text)


def default_features(data: DataConfig) -> str:
    """The features for a model's data: those of its own classifier, else Inception's."""
    return classifier_of(data.source, data.shape) or "inception"


class Judge:
    """Scores candidates, and keeps every score in the record at `out`."""

    def __init__(self, model: Model, search: Search, extractor: Extractor, progress: bool) -> None:
        self.engine, self.search, self.extractor = model.engine, search, extractor
        self.protocol = protocol_for(extractor.name, None)
        self.progress = progress
        self.scores: dict[str, float] = {}
        self.whole: dict[Candidate, float] = {}  # of all images, with the search's own seed
        self.reference: Callable[[], Moments] = self._moments_once
        self._moments: Moments | None = None
        self.save: Callable[[], None] = lambda: None
        self.tried: Callable[[], Any] = lambda: None

    @property
    def schedule(self) -> Schedule:
        """The model's schedule."""
        return self.engine.schedule

    def sampler(self, variant: Variant, steps: int, spacing: str | None = None) -> Sampler:
        """The sampler of a variant; None is the default spacing."""
        settings = dict(variant.settings)
        settings["spacing"] = spacing or settings.get("spacing")
        return make_sampler(
            **settings,
            steps=steps,
            timesteps=self.schedule.timesteps,
            num_classes=self.engine.plan.num_classes,
            ends_in_noise=self.engine.starts_in_noise,
        )

    def features(self, sampler: Sampler, num: int, seed: int) -> Floating:
        """The features of `num` images, (num, dims)."""
        rows = []
        for images in batches_of(num, min(num, self.search.batch)):
            pixels = self.engine.pixels(self.engine.draw(sampler, images, seed))
            rows.append(self.protocol.features(self.extractor, pixels.transpose(0, 2, 3, 1)).pool)
        return np.concatenate(rows)[:num]

    def _moments_once(self) -> Moments:
        if self._moments is None:
            s = self.search
            if s.reference is None:
                teacher = self.sampler(parse(s.teacher), s.teacher_steps)
                self._moments = moments_of(self.features(teacher, s.num, s.seed))
            else:
                found = open_reference(
                    s.reference,
                    self.extractor,
                    self.protocol,
                    Needs(("pool",), ()),
                    batch=s.batch,
                    progress=self.progress,
                    cache=cache_folder(),
                )
                self._moments = found.moments["pool"]
        return self._moments

    def score(self, candidate: Candidate, num: int, seed: int) -> float:
        """The distance of a candidate's images to the reference; known ones are not drawn again."""
        key = f"{candidate[0]} {candidate[1]} num {num} seed {seed}"
        if key not in self.scores:
            variant, listed = parse(candidate[0]), listed_timesteps(candidate[1]) or []
            sampler = self.sampler(variant, len(listed), candidate[1])
            sampler.check(self.schedule)
            rows = self.features(sampler, num, seed)
            self.scores[key] = frechet_distance(moments_of(rows), self.reference(), rows)
            self.save()
        if (num, seed) == (self.search.num, self.search.seed):
            self.whole[candidate] = self.scores[key]
        self.tried()
        return self.scores[key]


def starts(judge: Judge) -> tuple[list[Candidate], list[str]]:
    """Every solver on every spacing, and a line for each solver that is left out."""
    found, left_out = [], []
    for text in judge.search.solvers:
        variant = parse(text)
        options = SamplerOptions(**dict(variant.settings))
        lacking = f"{text} cannot take exactly {judge.search.calls} network calls"
        for spacing in SPACINGS if options.spacing is None else (options.spacing,):
            asked = replace(options, spacing=spacing)
            steps = steps_for(asked, judge.search.calls, judge.schedule)
            if steps is None:
                left_out.append(lacking)
                continue
            try:
                chosen = choose_timesteps(spacing, steps, judge.schedule)[::-1]
                candidate = text, listing(chosen, judge.schedule)
                sampler = judge.sampler(variant, steps, candidate[1])
                sampler.check(judge.schedule)
                levels = sampler.levels(judge.schedule)
                if judge.engine.plan.objective == "eps":
                    require_image(levels[0])
            except UserError as error:
                left_out.append(f"{text}, {spacing}: {error}")
                continue
            found.append(candidate)
    if not found:
        said = "; ".join(dict.fromkeys(left_out))
        raise UserError(f"no solver is left to search with: {said}")
    return list(dict.fromkeys(found)), list(dict.fromkeys(left_out))


def moves(listed: Sequence[int], share: float, schedule: Schedule) -> Iterator[list[int]]:
    """The timesteps with one of them moved, by `share` of the way in lambda to its neighbour.

    Beyond the first and the last lie the table's ends. A move that reaches no other timestep, or a
    neighbour's, is left out.
    """
    usable = int(np.count_nonzero(schedule.alpha > 0))
    logs = np.log(schedule.alpha[:usable] / schedule.sigma[:usable])
    for i, t in enumerate(listed):
        high = listed[i - 1] if i else usable
        low = listed[i + 1] if i + 1 < len(listed) else -1
        for beyond in (high, low):
            towards = logs[min(max(beyond, 0), usable - 1)]
            here = logs[min(t, usable - 1)]
            moved = int(np.argmin(np.abs(logs - (here + share * (towards - here)))))
            if moved != t and low < moved < high and t < usable:
                yield [*listed[:i], moved, *listed[i + 1 :]]


def descend(judge: Judge, start: Candidate, tries: int) -> None:
    """Move one timestep at a time as long as the score falls; at most `tries` scores."""
    solver, spacing = start
    search = judge.search
    best = judge.score(start, search.num, search.seed)
    listed = listed_timesteps(spacing) or []
    seen = {spacing}
    for share in SHARES:
        falls = True
        while falls:
            falls = False
            for moved in moves(listed, share, judge.schedule):
                text = listing(moved, judge.schedule)
                if text in seen:
                    continue
                if len(seen) > tries:
                    return
                seen.add(text)
                score = judge.score((solver, text), search.num, search.seed)
                if score < best:
                    best, listed, falls = score, moved, True
                    break


def run_search(
    model: Model,
    search: Search,
    extractor: Extractor,
    out: Path,
    *,
    resume: bool = False,
    overwrite: bool = False,
    progress: bool = True,
    note: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """Search, and write the result to `out`; return its content.

    Raises:
        UserError: `out` is in the way, or of another search; no solver can be searched with; the
            reference cannot be used.
    """
    judge = Judge(model, search, extractor, progress)
    request = {
        **asdict(search), "solvers": list(search.solvers),
        "weights_sha256": model.facts["weights_sha256"], "weights": model.facts["weights"],
        "backend": model.engine.backend.name, "precision": model.engine.backend.precision,
        "extractor_sha256": extractor.sha256,
    }  # fmt: skip
    asked = (dict(parse(solver).settings).get("guide") for solver in search.solvers)
    if guides := {name for name in asked if name not in (None, NO_GUIDE)}:
        request["guides"] = {name: guide_facts(name, model.config) for name in sorted(guides)}
    if search.reference is not None:
        request[REFERENCE] = reference_sha256(search.reference)
    check_path(out)
    with hold_place(out):
        if out.exists() and not overwrite:
            judge.scores = scores_of(out, request, resume)
        found, left_out = starts(judge)
        for line in left_out:
            note(f"{line}: left out")
        head = {"schema": 1, "kind": KIND, "complete": False, "request": request}
        judge.save = lambda: write_json(out, {**head, "scores": judge.scores})
        total = len(found) + STARTS + search.tries + FINALISTS * CHECKS + CHECKS
        with tqdm(total=total, unit="try", desc="search-steps", disable=not progress) as bar:
            judge.tried = bar.update
            best = _best(judge, found)
            checked = {
                each: [judge.score(each, search.num, search.seed + 1 + k) for k in range(CHECKS)]
                for each in best
            }
            solver, spacing = min(checked, key=lambda each: float(np.mean(checked[each])))
            fresh = search.seed + 1 + CHECKS  # the lowest of several means is too low
            values = [judge.score((solver, spacing), search.num, fresh + k) for k in range(CHECKS)]
        listed = listed_timesteps(spacing) or []
        sampler = judge.sampler(parse(solver), len(listed), spacing)
        result = {
            **head, "complete": True, "spacing": spacing, "solver": sampler.solver,
            "order": sampler.order, "variant": solver, "settings": _own_settings(parse(solver)),
            "timesteps": listed,
            "metric": score_name(extractor.name, "fid"), "score": float(np.mean(values)),
            "interval": list(mean_interval(values)), "left_out": left_out, "scores": judge.scores,
        }  # fmt: skip
        write_json(out, result)
    return result


def _own_settings(variant: Variant) -> dict[str, Any]:
    """A variant's settings other than solver, order and timesteps."""
    apart = ("solver", "order", "spacing")
    return {name: value for name, value in variant.settings if name not in apart}


def _best(judge: Judge, found: list[Candidate]) -> list[Candidate]:
    """The finalists: the scan, then the descents."""
    search = judge.search
    quick = {each: judge.score(each, search.num // QUARTER, search.seed) for each in found}
    chosen = sorted(quick, key=lambda each: quick[each])[:STARTS]
    for start in chosen:
        descend(judge, start, search.tries // len(chosen))
    ranked = sorted(judge.whole, key=lambda each: (judge.whole[each], each))
    return ranked[:FINALISTS]


def scores_of(out: Path, request: dict[str, Any], resume: bool) -> dict[str, float]:
    """The scores in the record of the same search.

    Raises:
        UserError: `resume` is off, or the file is something else or of another search.
    """
    if not resume:
        raise UserError(f"{out}: exists; go on with --resume, or replace it with --overwrite")
    before = read_json(out)
    if before.get("kind") != KIND or not isinstance(before.get("request"), dict):
        raise UserError(f"{out}: is not a file of diptych search-steps; choose another --out")
    for key, value in request.items():
        if key == REFERENCE and key not in before["request"]:
            continue  # a record of an earlier version
        found = before["request"].get(key, LATER.get(key))
        if found != value:
            raise UserError(
                f"{out}: was searched with {key}={found}, not {value}; go on "
                f"with its own settings, choose another --out, or replace it with --overwrite"
            )
    scores = before.get("scores")
    if not isinstance(scores, dict) or not all(isinstance(x, float) for x in scores.values()):
        raise UserError(f"{out}: its scores are damaged; replace it with --overwrite")
    return dict(scores)
