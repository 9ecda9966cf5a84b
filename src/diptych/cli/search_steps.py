"""`diptych search-steps`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from diptych.cli.common import (
    DEVICE,
    FOLDER,
    JSON,
    OVERWRITE,
    OWN_BACKEND,
    QUIET,
    RAW,
    RESUME,
    SEED,
    backend_of,
    say,
    show,
)
from diptych.cli.completion import MODELS
from diptych.errors import UserError


@click.command("search-steps", short_help="Search timesteps for few network calls, by their score.")
@click.argument("source", shell_complete=MODELS)
@click.option("--calls", type=int, required=True, help="Network calls an image, such as 5.")
@click.option(
    "--solver", multiple=True,
    help="Such as ipndm or dpmpp:order=3; can be repeated.  [default: several]",
)  # fmt: skip
@click.option("--num", type=int, default=512, show_default=True, help="Images of a try.")
@click.option("--tries", type=int, default=60, show_default=True, help="Tries after the scan.")
@SEED
@click.option("--batch", type=int, default=64, show_default=True, help="Images at once.")
@click.option("--reference", help="Images or statistics.  [default: the model's own images]")
@click.option(
    "--teacher", default="dpmpp-sde", show_default=True, help="Draws the model's own images."
)
@click.option(
    "--teacher-steps", type=click.IntRange(1), default=50, show_default=True, help="Its steps."
)
@click.option(
    "--features", help="inception, mnist or fashion_mnist.  [default: those of the model's data]"
)
@click.option("--weights", type=FOLDER, help="A file of the feature network's weights.")
@click.option("--out", type=FOLDER, required=True, help="The file, for --spacing.")
@RAW
@OWN_BACKEND
@DEVICE
@RESUME
@OVERWRITE
@QUIET
@JSON
def search_steps(source: str, out: Path, **given: Any) -> None:
    """Search the timesteps (and the solver) with which SOURCE's images score best in few calls.

    SOURCE is a run, a checkpoint or zoo:NAME. Judged by the Frechet distance to the model's own
    images with many steps, which needs no data, or to --reference. Every try is kept in the file,
    so --resume goes on. Use it as `--spacing FILE`; without --solver its solver is taken.

    \b
    Examples:
      diptych search-steps zoo:mnist-torch --calls 5 --out five.json
      diptych search-steps runs/mine --calls 8 --solver ipndm --solver unipc --out eight.json
      diptych search-steps zoo:mnist-torch --calls 5 --reference mnist:test --out five.json
      diptych sample zoo:mnist-torch --spacing five.json --out digits
    """
    from diptych.cli.evaluate import open_network
    from diptych.model import load
    from diptych.study.search_steps import SOLVERS, Search, default_features, run_search, scores_of
    from diptych.weights.find import find_weights

    if given["resume"] and given["overwrite"]:
        raise UserError("--resume and --overwrite exclude each other; choose one")
    found = find_weights(source, None, given["raw"])
    names = ("calls", "num", "tries", "seed", "batch", "teacher", "teacher_steps", "reference")
    search = Search(
        **{name: given[name] for name in names},
        solvers=given["solver"] or SOLVERS,
        features=given["features"] or default_features(found.config.data),
    )
    if out.exists() and not given["overwrite"]:
        scores_of(out, {}, given["resume"])  # before the framework's slow start
    backend = backend_of(given["backend"], source)
    model = load(source, backend, device=given["device"], raw=given["raw"])
    extractor = open_network(search.features, backend, given["device"], given["weights"])
    result = run_search(
        model,
        search,
        extractor,
        out,
        resume=given["resume"],
        overwrite=given["overwrite"],
        progress=not given["quiet"],
        note=say,
    )
    low, high = result["interval"]
    text = (
        f"{result['variant']} at {','.join(map(str, result['timesteps']))}: "
        f"{result['metric']} {result['score']:.4g} ({low:.4g} to {high:.4g}) on fresh noise; "
        f"use it with --spacing {out}"
    )
    show({"out": str(out), **result}, given["as_json"], text)
