"""The process of one implementation: `python -m diptych.align.process.subject SPEC.json`.

SPEC.json holds a `spec` (see `workbench.Spec`) and `jobs`, each {out, nudge, mutation, rungs}.
Every job leaves a trace folder; its progress goes to stdout, one JSON line per rung. A job without
a fault that raises ends the process with one JSON line and the error's exit code, or 3 for an
exception that is not ours; finished work stays.
"""

from __future__ import annotations

import sys
import time
import traceback
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from diptych.align.ladder.rungs import LADDER
from diptych.align.ladder.trace import Tracer
from diptych.align.ports import rung as port_rungs
from diptych.align.process.lines import say
from diptych.align.process.panels import Panel
from diptych.align.process.workbench import Spec, Workbench, spec_from
from diptych.errors import MachineError, UserError, show_notices
from diptych.files import read_json
from diptych.machine.parent import end_with_parent


def run(path: Path) -> None:
    """Run all jobs of a spec file."""
    asked = read_json(path)
    spec = spec_from(asked["spec"])
    panel = Panel(spec.panel, spec.device, spec.precision, spec.deterministic)
    for job in asked["jobs"]:
        run_job(panel, spec, job)


def run_job(panel: Panel, spec: Spec, job: dict[str, Any]) -> None:
    """Run one pass: trace rungs into a folder, with one planted fault or none."""
    fault = job.get("mutation")
    about = {"panel": panel.name, "nudge": job["nudge"], "mutation": fault}
    about |= {"environment": panel.backend.describe(), "data": ""}
    with ExitStack() as stack:
        if fault:
            from diptych.align.faults.mutations import planted

            stack.enter_context(planted(fault, panel))
        tracer = stack.enter_context(Tracer(Path(job["out"]), panel.name, **about))
        try:
            bench = bench_for(panel, spec, tracer, job["nudge"])
            tracer.about["data"] = bench.data_from
            for name in job["rungs"]:
                climb(bench, name, fault)
        except Exception as error:
            if not fault:
                raise
            # A planted fault that stops the backend is caught too: its rung's tensors are missing.
            tracer.about["raised"] = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    say(done=job["out"])


def bench_for(panel: Panel, spec: Spec, tracer: Tracer, nudge: int) -> Workbench:
    """The bench of an implementation, or of a user's port."""
    if spec.port.get("target"):
        return port_rungs.PortBench(panel, spec, tracer, nudge)
    return Workbench(panel, spec, tracer, nudge)


def climb(bench: Workbench, name: str, fault: str | None) -> None:
    """Trace one rung."""
    began = time.perf_counter()
    bench.rung = name
    bench.tracer.begin(name)
    if bench.spec.port:
        port_rungs.TRACES[name](bench)
    else:
        LADDER[name].trace(bench)
    bench.panel.backend.synchronize()
    seconds = time.perf_counter() - began
    bench.tracer.timed(seconds)
    say(rung=name, panel=bench.panel.name, nudge=bench.nudge, mutation=fault, seconds=seconds)


def main() -> int:
    """Run the process; return its exit code."""
    end_with_parent()
    show_notices()
    try:
        run(Path(sys.argv[1]))
    except (UserError, MachineError) as error:
        say(error=str(error), kind=type(error).__name__)
        return error.exit_code
    except Exception as error:
        traceback.print_exc()
        text = " ".join(str(error).split())[:300] or "no message"
        say(error=f"{type(error).__name__}: {text}", kind="raised")
        return 3
    return 0


if __name__ == "__main__":
    sys.exit(main())
