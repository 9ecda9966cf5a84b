"""The Python API: the command line's tasks in a few lines. `import diptych` exposes all of it.

    run = diptych.train("tiny", "run", data=(images, labels))
    x = run.load().sample(64)
    print(diptych.evaluate(x, reference=images, features="mnist"))

Wrong arguments raise a `UserError` that names them.
"""

from diptych.api.pages import compare, grid, make_report
from diptych.api.scores import denoise, evaluate, search_steps
from diptych.api.training import Run, train

__all__ = ["Run", "compare", "denoise", "evaluate", "grid", "make_report", "search_steps", "train"]
