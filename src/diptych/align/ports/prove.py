"""`diptych align port`: any reference and any port of it, and the first layer that is wrong.

    from diptych.align import port
    result = port("reference.py", "subject.py", {"x": {"shape": [2, 3, 32, 32]}})
    print(result.passed, result.conclusion)

Each side runs in a process of its own; files lie between them. This one loads no framework.
"""

from __future__ import annotations

import dataclasses
import logging
import time
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from diptych.align.ladder import results
from diptych.align.ports.describe import save_arrays
from diptych.align.ports.evidence import PORT
from diptych.align.ports.maps import names_text, read_given
from diptych.align.ports.matching import Given, Match
from diptych.align.ports.plan import RUNGS
from diptych.align.ports.sentences import conclusion_of
from diptych.align.ports.targets import GRAPHS, Target, target_of
from diptych.align.ports.verdict import Compared, compare
from diptych.align.process.workers import PortJob, Say, Subject, subjects
from diptych.errors import PythonTerms, UserError, check, path_text, refused, several
from diptych.files import output_folder
from diptych.files.scratch import scratch
from diptych.types import Array

log = logging.getLogger(__name__)
WORKER = "diptych.align.ports.worker"
Inputs = Mapping[str, Any] | str | Path | None


@dataclass(frozen=True)
class PortResult:
    """A port's verdict.

    Attributes:
        passed: every rung passes.
        conclusion: one sentence; a failure names its rung, layer and tensor.
        fault: the first failure (rung, layer, tensor, error, floor, allowed, hints), or None.
        content: everything, as in port.json.
        names: the text of names.yaml.
    """

    passed: bool
    conclusion: str
    fault: dict[str, Any] | None
    content: dict[str, Any]
    names: str

    def write(self, folder: str | Path) -> None:
        """Write port.json, names.yaml and the page into a folder."""
        from diptych.align.ports.page import write

        write(Path(folder), self)


@PythonTerms()
def port(
    reference: str | Path,
    subject: str | Path,
    inputs: Inputs = None,
    *,
    names: str | Path | None = None,
    out: str | Path | None = None,
    seed: int = 0,
    steps: int = 5,
    rungs: Sequence[str] = RUNGS,
    overwrite: bool = False,
    say: Say = lambda _: None,
) -> PortResult:
    """Prove a port, or name the first layer that is wrong.

    Args:
        reference, subject: `file.py[:function]`, `package.module:function`, `model.onnx`,
            `model.xml`, each with `FRAMEWORK:` before it if need be.
        inputs: arrays by name, in the order in which the models take them; an .npz file; or
            declarations by name ({"shape": ..., "low": ..., "high": ..., "dtype": ...}). None: the
            reference's own `INPUTS`.
        names: a corrected names.yaml.
        out: a new folder for port.json, names.yaml and index.html.
        seed: of the weights, and of inputs that are declared.
        steps: steps in lockstep.
        rungs: which to climb; `weights` and `layers` always.
        overwrite: replace what `out` holds.

    Raises:
        UserError: what was given cannot be used.
    """
    with output_folder(Path(out), overwrite=overwrite) if out is not None else nullcontext():
        (made,) = ports(
            reference,
            [subject],
            inputs,
            names=names,
            seeds=[seed],
            steps=steps,
            rungs=rungs,
            say=say,
        )
        if out is not None:
            made.write(out)
    return made


def ports(
    reference: str | Path,
    subjects_: Sequence[str | Path],
    inputs: Inputs = None,
    *,
    names: str | Path | None = None,
    seeds: Sequence[int] = (0,),
    steps: int = 5,
    rungs: Sequence[str] = RUNGS,
    say: Say = lambda _: None,
) -> list[PortResult]:
    """Several ports of one reference (of one framework), for several seeds, in two processes.

    Returns:
        One result for each seed and subject, the subjects of the first seed first.
    """
    began = time.perf_counter()
    check(int, steps=steps)
    for seed in seeds:
        check(int, least=0, seed=seed)
    rungs = [str(name) for name in several("rungs", rungs, "names of rungs")]
    ours = target_of(path_text("reference", reference))
    theirs = [target_of(path_text("subject", s)) for s in subjects_]
    if len({t.framework for t in theirs}) != 1:
        raise UserError("the subjects of one call must be of one framework")
    unknown = [r for r in rungs if r not in RUNGS]
    if unknown:
        raise UserError(f"rung '{unknown[0]}' is not known; a port has {', '.join(RUNGS)}")
    if steps < 4:
        raise UserError("steps must be 4 or more: resuming is judged by the floor of step 4")
    given = read_given(Path(names) if names else None)
    with scratch("port") as folder:
        content = _job(ours, inputs, folder, seeds, steps, rungs)
        content["perturb"] = all(Path(t.place).suffix not in GRAPHS for t in [ours, *theirs])
        outs = [
            str(folder / f"seed-{s}" / f"subject-{k}") for s in seeds for k in range(len(theirs))
        ]
        both = {
            **content,
            "role": "subject",
            "targets": [dataclasses.asdict(t) for t in theirs],
            "given": dataclasses.asdict(given),
        }
        with subjects() as running:
            mine = [{"out": str(folder / f"seed-{s}" / "reference")} for s in seeds]
            running.append(Subject(PortJob("reference", content), mine, folder, say, WORKER))
            jobs = [{"out": o} for o in outs]
            running.append(Subject(PortJob("subject", both), jobs, folder, say, WORKER))
            for each in running:
                each.wait()
        found = []
        for s in seeds:
            for k, target in enumerate(theirs):
                seen = compare(folder / f"seed-{s}", k, given.outputs)
                seconds = (time.perf_counter() - began) / len(outs)
                found.append(_result(seen, ours, target, given, s, steps, seconds))
        return found


def _job(
    ours: Target,
    inputs: Inputs,
    folder: Path,
    seeds: Sequence[int],
    steps: int,
    rungs: Sequence[str],
) -> dict[str, Any]:
    """The reference's task."""
    wanted = {*rungs, "weights", "layers"}
    if "resume" in wanted and "lockstep" not in wanted:
        log.warning("rung 'resume' is judged by the floor of 'lockstep', which is climbed too")
        wanted.add("lockstep")
    chosen = [r for r in RUNGS if r in wanted]
    job: dict[str, Any] = {
        "role": "reference",
        "targets": [dataclasses.asdict(ours)],
        "folder": str(folder),
        "seeds": list(seeds),
        "steps": steps,
        "rungs": chosen,
        "inputs": "",
        "order": [],
        "declared": {},
    }
    arrays = _arrays(inputs)
    if arrays is not None:
        path = folder / "given.safetensors"
        save_arrays(arrays, path)
        job |= {"inputs": str(path), "order": list(arrays)}
    elif isinstance(inputs, Mapping):
        job["declared"] = {str(n): dict(d) for n, d in inputs.items()}
    return job


def _arrays(inputs: Inputs) -> dict[str, Array] | None:
    """Inputs that are given; None if they are to be made."""
    if isinstance(inputs, str | Path):
        try:
            with np.load(inputs, allow_pickle=False) as found:
                arrays = {name: found[name] for name in found.files}
        except (OSError, ValueError, TypeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            why = "np.savez writes one" if Path(inputs).is_file() else "there is no such file"
            raise UserError(f"{inputs}: not a readable .npz of arrays; {why}") from error
        if not arrays:
            raise UserError(f"{inputs}: holds no arrays; np.savez(path, x=...) writes one")
    elif isinstance(inputs, Mapping) and any(hasattr(a, "dtype") for a in inputs.values()):
        arrays = {str(n): np.asarray(a) for n, a in inputs.items()}
    elif inputs is None or isinstance(inputs, Mapping):
        return None
    else:
        raise refused("inputs", inputs, "arrays or declarations by name, or the path of an .npz")
    for name, array in arrays.items():
        if array.dtype.kind not in "fiub":
            raise UserError(f"inputs: '{name}' holds no numbers ({array.dtype})")
        if array.dtype.kind == "f":
            if not np.isfinite(array).all():
                raise UserError(f"inputs: '{name}' holds values that are not finite")
            arrays[name] = array.astype(np.float32)
    return arrays


def _result(
    seen: Compared,
    ours: Target,
    theirs: Target,
    given: Given,
    seed: int,
    steps: int,
    seconds: float,
) -> PortResult:
    rungs = [results.rung_content(v, [PORT], False) for v in seen.rungs]
    match = Match(**seen.match) if seen.match else Match()
    whole = len(match.weights) + len(match.left_reference)
    by_itself = sum(how != "given" for how in match.how.values())
    content: dict[str, Any] = {
        "schema": results.SCHEMA,
        "kind": "port",
        "reference": ours.text,
        "subject": theirs.text,
        "frameworks": [ours.framework, theirs.framework],
        "versions": [seen.about["version"], seen.subject.get("version", "")],
        "seed": seed,
        "steps": steps,
        "passed": seen.passed,
        "rungs": rungs,
        "fault": seen.fault,
        "layers": seen.layers,
        "notes": seen.notes,
        "matched": {
            "weights": len(match.weights),
            "of": whole,
            "by_itself": by_itself,
            "how": {
                h: list(match.how.values()).count(h) for h in dict.fromkeys(match.how.values())
            },
        },
        "unmatched": seen.left_out,
        "seconds": seconds,
        "operators": _kinds(seen),
    }
    content["conclusion"] = conclusion_of(content, "en")
    text = names_text(match, seen.subject.get("layers", {}), given)
    return PortResult(seen.passed, content["conclusion"], seen.fault, content, text)


def _kinds(seen: Compared) -> dict[str, int]:
    """Number of layers of each kind."""
    found: dict[str, int] = {}
    for path, call in seen.about["calls"].items():
        if "#" not in path and call["leaf"]:
            found[call["kind"]] = found.get(call["kind"], 0) + 1
    return found


def table(content: dict[str, Any]) -> str:
    """The rungs' table for the terminal."""
    return results.rung_table(content["rungs"])


__all__ = ["RUNGS", "PortResult", "port", "ports", "table"]
