"""The process of recorded trainings: `python -m diptych.golden.worker SPEC.json`.

SPEC.json holds a `subject` (see `record`) with its `data_dir`, `steps` and `jobs`, each
{out, nudge, mutation}. Every job leaves a JSON file with a trace. A planted fault is undone before
the next job.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from diptych.align.ports.targets import raised
from diptych.align.process.lines import say
from diptych.config import load
from diptych.errors import MachineError, StopTraining, UserError, show_notices
from diptych.files import machine_faults, read_json, write_text
from diptych.golden.function import traced
from diptych.golden.place import place
from diptych.golden.record import LOSS, Trace, array_facts
from diptych.machine.parent import end_with_parent
from diptych.network.plan import make_plan
from diptych.runs import checkpoint
from diptych.training import loop
from diptych.training.callbacks.usual import Recording

NORM = "grad_norm"


def run(path: Path) -> None:
    """Run all jobs of a spec file."""
    asked = read_json(path)
    subject = asked["subject"]
    for job in asked["jobs"]:
        if subject["kind"] == "function":
            trace = of_function(subject["function"], asked["steps"])
        else:
            trace = of_training(subject, asked["steps"], job)
        # NaN is a loss too: it is compared, not refused.
        write_text(Path(job["out"]), json.dumps(asdict(trace)))
        say(done=job["out"])


def of_function(target: str, steps: int) -> Trace:
    """The trace of a user's `FILE.py:function` or `module:function`.

    Raises:
        UserError: no such function, or it raised; the message names its file and line.
    """
    try:
        return traced(find_function(target), steps, target)
    except (UserError, MachineError):
        raise
    except (Exception, SystemExit) as error:
        raise UserError(raised(error)) from error


def find_function(target: str) -> Callable[[], Any]:
    """The function that a target names.

    Raises:
        UserError: no such file, module or function.
    """
    where, _, name = target.rpartition(":")
    if where.endswith(".py"):
        path = Path(where)
        if not path.is_file():
            raise UserError(f"{where}: not found; expected FILE.py:function")
        sys.path.insert(0, str(path.resolve().parent))
        spec = importlib.util.spec_from_file_location(path.stem, path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[path.stem] = module
        spec.loader.exec_module(module)
    else:
        sys.path.insert(0, "")
        try:
            module = importlib.import_module(where)
        except ModuleNotFoundError as error:
            raise UserError(f"{target}: module '{error.name}' is not found") from error
    function = getattr(module, name, None)
    if not callable(function):
        raise UserError(f"{target}: {where} has no function '{name}'")
    return function  # type: ignore[no-any-return]


def of_training(subject: dict[str, Any], steps: int, job: dict[str, Any]) -> Trace:
    """The trace of Diptych's own training, resumed once, perhaps with a planted fault."""
    fault, rows = job.get("mutation"), []

    def until(last: int) -> Callable[[dict[str, Any]], None]:
        def seen(row: dict[str, Any]) -> None:
            rows.append(row)
            if row["step"] >= last:
                raise StopTraining

        return seen

    ends = sorted({subject["resume_at"] or steps, steps})
    data_dir = Path(subject["data_dir"]) if subject.get("data_dir") else None
    with tempfile.TemporaryDirectory() as folder, planted(fault, subject):
        out = Path(folder) / "run"
        try:
            config = load.validate(subject["config"], "the record's config")
            with moved_weights(job["nudge"]) if job["nudge"] else nullcontext():
                for end in ends:
                    loop.train(
                        config,
                        out,
                        subject["backend"],
                        device=subject["device"],
                        resume=True,
                        progress=False,
                        recording=Recording(resources=False, histograms=0),
                        callbacks=[until(end)],
                        data_dir=data_dir,
                    )
            state = checkpoint.latest(out)
            plan = make_plan(config)
            arrays = {
                f"{group}/{name}": array_facts(array)
                for group in checkpoint.GROUPS
                for name, array in checkpoint.load_weights(state, group, plan).items()
            }
            facts = read_json(out / "environment.json")
        except Exception as error:
            if not fault:
                raise
            return Trace({LOSS: []}, raised=f"{type(error).__name__}: {error}"[:300])
    numbers = {key: [float(row[key]) for row in rows] for key in (LOSS, NORM)}
    return Trace(numbers, arrays, place(facts["device"]), str(facts.get("dataset_sha256") or ""))


def planted(fault: str | None, subject: dict[str, Any]) -> AbstractContextManager[None]:
    """Plant a fault of the ladder's list while the block runs; None plants nothing."""
    if fault is None:
        return nullcontext()
    from diptych.align.faults import mutations
    from diptych.align.process.panels import Panel

    return mutations.planted(fault, Panel(subject["backend"], subject["device"]))


@contextmanager
def moved_weights(nudge: int) -> Iterator[None]:
    """Trainings inside start from weights that are each moved to a neighbouring float32."""
    start: Any = importlib.import_module("diptych.training.start")
    original = start.initial_weights

    def moved(plan: Any, seed: int) -> dict[str, Any]:
        draws = np.random.Generator(np.random.Philox(key=nudge))
        return {
            name: np.nextafter(
                array, np.where(draws.random(array.shape) < 0.5, -np.inf, np.inf).astype(np.float32)
            )
            for name, array in original(plan, seed).items()
        }

    start.initial_weights = moved
    try:
        yield
    finally:
        start.initial_weights = original


def main() -> int:
    """Run the process; return its exit code."""
    end_with_parent()
    show_notices()
    try:
        with machine_faults("the training's files"):
            run(Path(sys.argv[1]))
    except (UserError, MachineError) as error:
        say(error=str(error), kind=type(error).__name__)
        return error.exit_code
    except Exception as error:
        traceback.print_exc()
        say(error=f"{type(error).__name__}: {error}", kind="bug")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
