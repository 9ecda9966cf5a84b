"""`diptych align`: workers climb the rungs, `judge` compares them, planted faults are caught.

    reference (float64)   each rung once; its layers' inputs feed the backends
    each backend          a clean pass and passes with nudged inputs; one also a pass for each
                          planted fault

An engine that only predicts is judged with one panel as its measure, on the rungs of `ENGINE_RUNGS`
alone and by what it has: weights, the network's output, samples.

A fault is caught if its rung fails and no rung that this one depends on fails. A fault that
survives makes its rung fail.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from diptych.align.faults import mutations
from diptych.align.ladder import judge
from diptych.align.ladder.floors import Passes
from diptych.align.ladder.judge import FAIL, PASS, Verdict
from diptych.align.ladder.rungs import LADDER
from diptych.align.ladder.tolerances import tolerances
from diptych.align.ladder.trace import Rung, Trace, read_trace
from diptych.align.process.panels import REFERENCE
from diptych.align.process.workbench import COARSE, Spec, find_images
from diptych.align.process.workers import Say, Subject, subjects
from diptych.backends import BACKENDS, ENGINES
from diptych.config.load import Config
from diptych.errors import UserError, nearest
from diptych.files.scratch import scratch
from diptych.network.parameters import parameter_table
from diptych.network.plan import make_plan

LOWER = ("torch",)  # backends with a precision below float32
ROUNDED = "rounded"  # the reference with its products rounded to the lower precision
SIGNS = 5  # nudged passes over the lockstep of a lower precision
ENGINE_RUNGS = ("config", "weights", "schedule", "layers", "solver")
LARGE = 5_000_000  # from this many parameters on, the batch is 2 and there is one nudged pass


@dataclass(frozen=True)
class LadderRequest:
    """A request to climb: config, backends, rungs and planted faults."""

    name: str
    config: Config
    backends: tuple[str, ...] = BACKENDS
    rungs: tuple[str, ...] = tuple(LADDER)
    steps: int = 10
    batch: int | None = None
    device: str = "cpu"
    mutate: tuple[str, ...] = ()
    into: str | None = None
    precision: str = "fp32"
    deterministic: bool = True

    def __post_init__(self) -> None:
        known = (*BACKENDS, *ENGINES)
        for name in self.backends:
            if name not in known:
                left = [each for each in known if each not in self.backends]
                raise UserError(f"backend '{name}' is not known{nearest(name, left)}")
        panels = [name for name in self.backends if name in BACKENDS]
        if len(set(self.backends)) != 2 or len(self.backends) != 2 or not panels:
            raise UserError(
                f"--backends {','.join(self.backends)}: each panel is measured by the other, and "
                f"an engine by a panel; give two, such as torch,jittor or torch,openvino"
            )
        beyond = [name for name in self.rungs if name not in self.climbed]
        if beyond and self.rungs != tuple(LADDER):
            raise UserError(
                f"--rungs {beyond[0]}: {self.engine} only predicts; it climbs "
                f"{', '.join(ENGINE_RUNGS)}"
            )
        if self.into is not None and self.into not in self.judged:
            raise UserError(f"--into {self.into}: plant into one of {', '.join(self.judged)}")
        if self.steps < 1 or (self.batch is not None and self.batch < 2):
            raise UserError("--steps must be 1 or more, --batch 2 or more")

    @property
    def engine(self) -> str:
        """The engine that is judged; empty: the two panels are."""
        return next((name for name in self.backends if name in ENGINES), "")

    @property
    def climbed(self) -> tuple[str, ...]:
        """The rungs that are climbed: those asked for, of an engine the ones it has."""
        return tuple(r for r in self.rungs if not self.engine or r in ENGINE_RUNGS)

    @property
    def judged(self) -> tuple[str, ...]:
        """The backends that are judged: all in float32, else those that have the precision.

        The others compute in float32 and only serve as a measure.
        """
        if self.engine:
            return (self.engine,)
        if self.precision == "fp32":
            return self.backends
        return tuple(name for name in self.backends if name in LOWER)


@dataclass
class Climb:
    """The result of a climb: verdicts, caught faults and facts about each implementation."""

    request: LadderRequest
    verdicts: list[Verdict]
    mutants: list[dict[str, Any]]
    about: dict[str, Any]
    seconds: float
    kept: dict[str, Any] = field(default_factory=dict)  # arrays for the page's figures

    @property
    def first_failure(self) -> Verdict | None:
        return next((v for v in self.verdicts if v.verdict == FAIL), None)

    @property
    def passed(self) -> bool:
        """True if no rung failed and no planted fault survived."""
        return self.first_failure is None and all(m["verdict"] != FAIL for m in self.mutants)


def batch_of(request: LadderRequest) -> tuple[int, int]:
    """(images in a batch, nudged passes): (4, 2) for small networks, else (2, 1).

    `request.batch` overrides the first.
    """
    table = parameter_table(make_plan(request.config))
    count = sum(math.prod(p.shape) for p in table.values())
    small = count < LARGE
    return request.batch or (4 if small else 2), 2 if small else 1


def climb(request: LadderRequest, say: Say, keep: Path | None = None) -> Climb:
    """Climb the ladder. Traces go to `keep`, or to a temporary folder if it is None."""
    began = time.perf_counter()
    rungs = list(request.climbed)
    chosen = mutations.choose(request.mutate, bool(request.engine))
    missing = sorted({m.rung for m in chosen} - set(rungs))
    if missing:
        raise UserError(
            f"--rungs leaves out '{missing[0]}', where a planted fault must fail; add it"
        )
    with scratch("align", keep) as folder:
        traces = _trace(request, rungs, chosen, folder, say)
        verdicts: list[Verdict] = []
        kept: dict[str, Any] = {}
        for name in rungs:
            verdict, arrays = _judge(name, traces, request.judged)
            verdicts.append(verdict)
            kept |= arrays
        into = request.into or request.judged[-1]
        mutants = [_caught(m, traces, into, rungs) for m in chosen]
        about = {p: traces[p, 0].about for p in (REFERENCE, *request.backends)}
    return Climb(request, verdicts, mutants, about, time.perf_counter() - began, kept)


Traces = dict[tuple[str, Any], Trace]


def _trace(
    request: LadderRequest,
    rungs: list[str],
    chosen: list[mutations.Mutation],
    folder: Path,
    say: Say,
) -> Traces:
    """Run all workers and return their traces by (backend, nudge or mutation)."""
    batch, nudges = batch_of(request)
    find_images(request.config)  # user errors are raised here, before any process starts
    tree = request.config.model_dump(mode="json")
    early = [name for name in rungs if name in ("config", "data", "weights", "schedule", "layers")]
    late = [name for name in rungs if name not in early]

    def job(panel: str, key: Any, names: list[str]) -> dict[str, Any]:
        nudge = key if isinstance(key, int) else 0
        fault = None if isinstance(key, int) else key
        return {
            "out": str(folder / f"{panel}-{key}"),
            "nudge": nudge,
            "mutation": fault,
            "rungs": names,
        }

    def spec(panel: str, feed: str | None, precision: str = "fp32") -> Spec:
        return Spec(
            panel,
            tree,
            tuple(rungs),
            request.steps,
            batch,
            request.device,
            feed,
            precision=precision,
            deterministic=request.deterministic,
        )

    first = job(REFERENCE, 0, early)
    found: dict[tuple[str, Any], str] = {(REFERENCE, 0): first["out"]}
    with subjects() as running:
        rest = job(REFERENCE, 1, late) | {"nudge": 0}
        found[REFERENCE, 1] = rest["out"]
        running.append(Subject(spec(REFERENCE, None), [first, rest], folder, say))
        running[0].wait(first["out"])
        if request.precision != "fp32":
            jobs = [job(ROUNDED, 0, rungs)]
            jobs += [job(ROUNDED, k, _nudged(rungs)) for k in range(1, nudges + 1)]
            # Whether Adam's first steps change a sign is luck: more passes see more of it.
            steps = [name for name in rungs if name == COARSE]
            jobs += [job(ROUNDED, k, steps) for k in range(nudges + 1, SIGNS + 1) if steps]
            found |= {(ROUNDED, _key(j)): j["out"] for j in jobs}
            worker = spec(REFERENCE, first["out"], request.precision)
            running.append(Subject(worker, jobs, folder, say))
        into = request.into or request.judged[-1]
        for panel in request.backends:
            own = request.precision if panel in request.judged else "fp32"
            jobs = [job(panel, 0, rungs)]
            if own == "fp32":  # the measure of another panel
                jobs += [job(panel, k, _nudged(rungs)) for k in range(1, nudges + 1)]
            if panel == into:
                jobs += [job(panel, m.name, _upto(rungs, m.rung)) for m in chosen]
            found |= {(panel, _key(j)): j["out"] for j in jobs}
            running.append(Subject(spec(panel, first["out"], own), jobs, folder, say))
        for each in running:
            each.wait()
        return {key: read_trace(Path(out)) for key, out in found.items()}


def _key(job: dict[str, Any]) -> Any:
    return job["mutation"] or job["nudge"]


def _nudged(rungs: list[str]) -> list[str]:
    return [name for name in rungs if LADDER[name].nudged]


def _upto(rungs: list[str], last: str) -> list[str]:
    """The rungs that `last` depends on, then `last` itself."""
    order, beside = list(LADDER), LADDER[last].beside
    return [n for n in rungs if order.index(n) <= order.index(last) and n not in beside]


def truth_of(traces: Traces, name: str) -> Rung:
    """A rung of the reference, from whichever of its two passes traced it; for an engine the part
    that it has."""
    whole = traces[REFERENCE, 0]
    found = (whole if name in whole.listed else traces[REFERENCE, 1]).rung(name)
    if not any(panel in ENGINES for panel, _ in traces):
        return found
    if name == "layers":  # an engine's layers are its own; the network's output is compared
        outputs = {t: a for t, a in found.arrays.items() if t.endswith("output")}
        return Rung(outputs, found.facts, found.seconds)
    return Rung(found.arrays, {}, found.seconds) if name == "weights" else found


def passes_of(traces: Traces, panel: str, name: str) -> Passes:
    """A backend's clean and nudged passes over a rung."""
    nudged = [k for p, k in traces if p == panel and isinstance(k, int) and k > 0]
    there = [k for k in sorted(nudged) if name in traces[panel, k].listed]
    rows = [traces[panel, k].rung(name) for k in there if LADDER[name].nudged]
    return Passes(traces[panel, 0].rung(name), rows, panel == ROUNDED)


def measures_of(traces: Traces, panel: str, name: str) -> dict[str, Passes]:
    """The passes that a backend's floors come from: the others', none of its own."""
    others = dict.fromkeys(p for p, _ in traces if p not in (REFERENCE, panel))
    return {other: passes_of(traces, other, name) for other in others}


def gate_for(traces: Traces, name: str) -> str | None:
    """The name of a rung's own gate in a lower precision; None: the rung's usual one."""
    lower = any(panel == ROUNDED for panel, _ in traces)
    return f"lower {name}" if lower and f"lower {name}" in tolerances().rungs else None


def _judge(name: str, traces: Traces, panels: Sequence[str]) -> tuple[Verdict, dict[str, Any]]:
    """A rung's verdict, and the arrays that its figures need."""
    truth = truth_of(traces, name)
    passes = {panel: passes_of(traces, panel, name) for panel in panels}
    others = {other: p for panel in panels for other, p in measures_of(traces, panel, name).items()}
    verdict = judge.judge(name, truth, {**others, **passes}, panels, gate_for(traces, name))
    kept: dict[str, Any] = {}
    worst = verdict.worst
    if worst is not None and worst.name in truth.arrays:
        got = passes[worst.panel].clean.arrays.get(worst.name)
        if got is not None and got.shape == truth.arrays[worst.name].shape:
            kept[f"worst/{name}"] = (worst, got, truth.arrays[worst.name])
    if name == "lockstep":
        kept["curves"] = {"truth": _losses(truth)} | {
            panel: [_losses(p.clean), *map(_losses, p.nudged)] for panel, p in passes.items()
        }
    return verdict, kept


def _losses(rung: Rung) -> list[float]:
    return [float(a) for n, a in rung.arrays.items() if n.startswith("loss/")]


def _caught(
    mutation: mutations.Mutation, traces: Traces, into: str, rungs: list[str]
) -> dict[str, Any]:
    """A planted fault's entry: it passes if its own rung is the first to fail."""
    facts: dict[str, Any] = {"name": mutation.name, "what": mutation.what, "rung": mutation.rung}
    facts |= {"panel": into}
    trace = traces[into, mutation.name]
    for name in _upto(rungs, mutation.rung):
        got = trace.rung(name) if name in trace.listed else Rung()
        passes = {into: Passes(got), **measures_of(traces, into, name)}
        truth, gate = truth_of(traces, name), gate_for(traces, name)
        found = judge.judge(name, truth, passes, (into,), gate).first_failure
        if found is not None:
            right = name == mutation.rung
            return facts | {
                "verdict": PASS if right else FAIL,
                "caught_by": name,
                "tensor": found.name,
                **_numbers(found),
            }
    return facts | {"verdict": FAIL, "caught_by": None, "tensor": None}


def _numbers(finding: judge.Finding) -> dict[str, Any]:
    return {k: v for k, v in judge.as_json(finding).items() if k in ("error", "floor", "gate")}
