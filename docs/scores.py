"""Regenerate docs/scores.md: the zoo's images scored, and what each solver makes of its calls.

    python docs/scores.py zoo FOLDER [--num 10000]       score both zoo models; hours on a CPU
    python docs/scores.py solvers FOLDER [--num 1667]    every solver at 5 to 50 network calls
    python docs/scores.py few FOLDER [--num 500]         the zoo's found timesteps beside DDIM's 50
    python docs/scores.py write                          the page from the records so far

All is done by the `diptych` commands that the page names; FOLDER holds the images, and docs/scores
the records, so that they outlive the images. After an interruption it goes on with what is missing.
A part of the page without records stays as it is. No number is typed by hand.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
from itertools import combinations
from pathlib import Path
from typing import Any

from diptych.config.load import load_config
from diptych.evaluation.comparison import compare_scores
from diptych.evaluation.score_table import interval, markdown, number
from diptych.files import atomic_path, read_json, write_json, write_text
from diptych.generate.for_scoring import Drawing
from diptych.sampling.sampler import DEFAULT_SOLVER
from diptych.study.sweep import output, variants
from diptych.study.sweep.cells import read_cells
from diptych.weights.find import zoo_folder, zoo_names
from diptych.weights.found_steps import IN_ZOO

DOCS = Path(__file__).resolve().parent
RECORDS = DOCS / "scores"
QUALITY = DOCS.parent / "src" / "diptych" / "studio" / "quality.json"  # what the studio shows
PANELS = ("torch", "jittor")
METRICS = "fid,kid,is,prdc"
MEASURE = ["--reference", "mnist:test", "--features", "mnist", "--metrics"]
SAMPLERS = {"ddim": ["--solver", "ddim", "--steps", "50", "--eta", "0"],
            "ddpm": ["--solver", "ddpm"]}  # fmt: skip
SOLVERS = ("ddim", "dpmpp-sde", "dpmpp", "unipc", "dpmpp:order=3", "ddpm", "heun",
           "plms", "unipc:order=3", "euler", "pndm")  # fmt: skip
CALLS = "5,8,10,15,20,50"
EARLIER = (
    "These scores of `dpmpp`, `dpmpp-sde` and `unipc` are older than the rule that a long last "
    "step has order 1 (CHANGELOG, Numerics): they are those of `--no-euler-at-final`.\n"
)
SETS = 3
FRESH = 100  # a seed that no search has used
FEW = {"found": [], "ddim": ["--solver", "ddim", "--steps", "50", "--eta", "0"]}


def main() -> None:
    """Do what is asked, then write the page."""
    parser = argparse.ArgumentParser(description="Scores of the zoo and of the solvers.")
    parser.add_argument("task", choices=("zoo", "solvers", "few", "write"))
    parser.add_argument("folder", type=Path, nargs="?", help="of the images")
    parser.add_argument("--num", type=int, help="images: in all (zoo), of each of 3 sets")
    parser.add_argument("--sampler", default="ddim", choices=tuple(SAMPLERS), help="of the zoo")
    parser.add_argument("--panel", choices=PANELS, help="of the zoo: this panel only")
    parser.add_argument("--solver", action="append", help="of the solvers: this one only")
    parser.add_argument("--calls", default=CALLS)
    asked = parser.parse_args()
    if asked.folder is None and asked.task != "write":
        parser.error(f"{asked.task}: name a folder for the images")
    if asked.task == "zoo":
        for panel in [asked.panel] if asked.panel else PANELS:
            score_model(asked.folder, panel, asked.sampler, asked.num or 10_000)
    if asked.task == "solvers":
        sweep(asked.folder, asked.solver or SOLVERS, asked.calls, asked.num or 1667)
    if asked.task == "few":
        for name in searched():
            few(asked.folder, name, asked.num or 500)
    if asked.task == "write":
        if not RECORDS.is_dir():
            parser.error(f"{RECORDS}: holds no records; measure something first, as --help says")
        text = page((DOCS / "scores.md").read_text("utf-8"))
        if "\n## Quality against" not in text:
            parser.error("no solvers were measured yet: python docs/scores.py solvers FOLDER")
        shown = quality(text)  # before anything is written
        write_text(DOCS / "scores.md", text)
        write_json(QUALITY, shown)


def diptych(*words: str) -> None:
    """One command, its results not shown."""
    command = [sys.executable, "-m", "diptych", *words]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def score_model(folder: Path, panel: str, sampler: str, num: int) -> None:
    """Draw the images of a zoo model in its own panel, and score them whole and in three sets.

    Nothing is done if there is a record of so many images.
    """
    held = [held_images(zoo_record(panel, sampler, name), weights_of(f"mnist-{panel}"))
            for name in ("whole", "sets")]  # fmt: skip
    if held[0] >= num and held[1]:
        return
    samples = folder / f"{panel}-{sampler}"
    common = ["--backend", panel]
    diptych("sample", f"zoo:mnist-{panel}", *SAMPLERS[sampler], "--num", str(num), "--resume",
            "--out", str(samples), *common)  # fmt: skip
    for name, more in (("whole", []), ("sets", ["--repeats", str(SETS)])):
        out = zoo_record(panel, sampler, name)
        out.parent.mkdir(exist_ok=True)
        diptych("evaluate", str(samples), *MEASURE, METRICS, *more, *common, "--overwrite",
                "--out", str(out))  # fmt: skip


def zoo_record(panel: str, sampler: str, name: str) -> Path:
    """The file of scores of a zoo model's images: `whole`, or in three `sets`."""
    return RECORDS / f"{panel}-{sampler}-{name}.json"


def sweep(folder: Path, solvers: Any, calls: str, num: int) -> None:
    """All cells of these solvers that are missing; each number of images has records of its own."""
    cells, kept = folder / "solvers" / "cells", RECORDS / "solvers" / solver_name(num) / "cells"
    chosen = [word for solver in solvers for word in ("--solver", solver)]
    counts = ["--calls", calls, "--num", str(num), "--repeats", str(SETS)]
    out = ["--out", str(folder / "solvers"), "--resume"]
    copy_missing(kept, cells)
    try:
        diptych("sweep", "zoo:mnist-torch", *chosen, *counts, *MEASURE, "fid,kid", *out)
    finally:
        copy_missing(cells, kept)


def copy_missing(source: Path, target: Path) -> None:
    """Copy records that are not there yet."""
    for path in source.glob("*.json"):
        if not (target / path.name).exists():
            target.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)


def solver_name(num: int | str) -> str:
    """The name of the records of sets of `num` images by the solvers, with the zoo's weights."""
    return f"{weights_of('mnist-torch')[:8]}-{num}"


def solver_records() -> Path | None:
    """Those of the most images, or None."""
    found = (RECORDS / "solvers").glob(solver_name("*"))
    return max(found, key=lambda path: int(path.name.rpartition("-")[2]), default=None)


def weights_of(name: str) -> str:
    """The hash of a zoo model's weights."""
    return str(read_json(zoo_folder() / name / "manifest.json")["weights_sha256"])


def held_images(record: Path, weights: str) -> int:
    """The number of images in all of a record of these weights; 0: there is none."""
    if not record.is_file():
        return 0
    score = read_json(record)["scores"][0]
    if score["subject"]["weights_sha256"] != weights:
        return 0
    return int(score["protocol"]["num"]) * max(1, len(score["repeats"]))


def searched() -> list[str]:
    """The zoo's models that have found timesteps."""
    return [name for name in zoo_names() if (zoo_folder() / name / IN_ZOO).is_file()]


def few(folder: Path, name: str, num: int) -> None:
    """Score a model's found timesteps, and DDIM with 50 steps, on seeds that chose nothing."""
    source = load_config(str(zoo_folder() / name / "config.yaml")).data.source
    for kind, sampler in FEW.items():
        out = few_record(name, kind)
        if held_images(out, weights_of(name)) < num * SETS:
            images = folder / "few" / out.stem
            diptych("evaluate", f"zoo:{name}", *(sampler or ["--spacing", f"zoo:{name}"]),
                    "--num", str(num), "--repeats", str(SETS), "--seed", str(FRESH),
                    "--reference", f"{source}:test", "--features", source, "--metrics", "fid,is",
                    "--samples-out", str(images), "--overwrite", "--out", str(out))  # fmt: skip


def few_record(name: str, kind: str) -> Path:
    """The file of scores of a model's images, by its weights and its found timesteps."""
    about = [weights_of(name)[:8]]
    about += [read_json(zoo_folder() / name / IN_ZOO)["spacing"].rpartition("@")[2]]
    return RECORDS / "few" / f"{name}-{'-'.join(about)}-{kind}.json"


def page(old: str) -> str:
    """The whole page, from the records; a part without records stays as it was in `old`."""
    parts = ["# Scores of the zoo's models, and of solvers at equal network calls\n", INTRO]
    for sampler in SAMPLERS:
        found = zoo_part(sampler) or section(old, f"[0-9,]+ images of each zoo model, {sampler},")
        parts += found or [f"## Images of each zoo model, {sampler}: not scored yet\n"]
    records = solver_records()
    parts += section(old, "Quality against") if records is None else solver_part(records)
    found, missing = few_part()
    parts += (missing and section(old, "Timesteps found")) or found
    return "\n".join(parts)


def section(text: str, heading: str) -> list[str]:
    """A page's section, by a pattern of its heading; [] if there is none."""
    found = re.search(rf"^## {heading}.*?(?=\n## |\Z)", text, re.DOTALL | re.MULTILINE)
    if found:
        print(f"no records, so it stays: {found.group().splitlines()[0]}", file=sys.stderr)
    return [found.group()] if found else []


INTRO = """The features behind these scores come from the package's MNIST classifier, so
`mnist-frechet` is not FID and cannot be compared with scores of another network. Lower is better
for `mnist-frechet` and `mnist-kid`, higher for the others. `docs/scores.py` writes this page from
records (in docs/scores) of the commands below.
"""


def few_part() -> tuple[list[str], list[str]]:
    """The found timesteps of each model beside DDIM with 50 steps; the models without a record."""
    rows, missing, num = [], [], 0
    for name in searched():
        paths = [few_record(name, kind) for kind in FEW]
        if not all(path.is_file() for path in paths):
            missing.append(f"zoo:{name}")
            continue
        five, ddim = (read_json(path)["scores"] for path in paths)
        differ = {key for key in five[0]["protocol"] | ddim[0]["protocol"]
                  if key.startswith("sampler.")}  # fmt: skip
        num = five[0]["protocol"]["num"]
        found = read_json(zoo_folder() / name / IN_ZOO)
        listed = ",".join(map(str, found["timesteps"]))
        for a, b, gap in zip(
            five, ddim, compare_scores(*paths[::-1], sorted(differ))["differences"], strict=True
        ):
            low, high = gap["interval"]
            ends = f"{gap['difference']:+.3g} ({low:+.3g} to {high:+.3g})"
            rows.append([f"zoo:{name}", f"`{found['variant']}` at {listed}", a["metric"],
                         number(a["value"]), number(b["value"]), ends])  # fmt: skip
    lines = ["## Timesteps found by `search-steps`\n"]
    if rows:
        lines += [
            f"`--spacing zoo:NAME`, beside `ddim` with 50 steps: {SETS} sets of {num:,} images "
            "each, of seeds that no search has used.\n",
            markdown(["model", "found", "score", "found timesteps", "ddim, 50",
                      "difference (95 % interval)"], rows),
        ]  # fmt: skip
    return lines + ([f"Not measured yet: {', '.join(missing)}.\n"] if missing else []), missing


def zoo_part(sampler: str) -> list[str]:
    """Scores of both zoo models by one sampler; [] without a record of their weights."""
    results, weights = {}, {}
    for panel in PANELS:
        paths = [zoo_record(panel, sampler, name) for name in ("whole", "sets")]
        held = weights_of(f"mnist-{panel}")
        found = [read_json(path) for path in paths if path.is_file()]
        if [each["scores"][0]["subject"]["weights_sha256"] for each in found] == [held, held]:
            results[panel], weights[panel] = found, held
    if not results:
        return []
    first = next(iter(results.values()))[0]["scores"]
    p = first[0]["protocol"]
    eta = f", eta {p['sampler.eta']:g}" if sampler == "ddim" else ""
    lines = [
        f"## {p['num']:,} images of each zoo model, {sampler}, {p['sampler.steps']} steps{eta}\n"
    ]
    named = ", ".join(f"{panel} {sha[:12]}" for panel, sha in weights.items())
    lines.append(f"Weights (sha256): {named}.\n")
    head = ["score, against MNIST's test set"]
    for panel in results:
        head += [f"{panel}, all images", f"{panel}, {SETS} thirds: mean, 95 % interval"]
    rows = []
    for i, score in enumerate(first):
        row = [score["metric"]]
        for whole, sets in results.values():
            thirds = sets["scores"][i]
            ends = f"{number(thirds['value'])} ({interval(thirds['interval'])})"
            row += [number(whole["scores"][i]["value"]), ends]
        rows.append(row)
    lines += [
        markdown(head, rows),
        "Distances and coverage depend on the number of images, so scores of a third and of all "
        "images cannot be compared.\n",
    ]
    if len(results) == len(PANELS):
        a, b = (zoo_record(panel, sampler, "sets") for panel in PANELS)
        found = compare_scores(a, b, (), None)
        lines += ["Difference of the two models, from the thirds:\n", differences(found), *unlike()]
    command = " ".join(
        ["diptych sample zoo:mnist-torch", *SAMPLERS[sampler], "--num", str(p["num"])]
    )
    scoring = f"diptych evaluate samples {' '.join(MEASURE)} {METRICS} --repeats {SETS}"
    return [*lines, f"```console\n$ {command} --out samples\n$ {scoring}\n```\n"]


def unlike() -> list[str]:
    """A line on the settings by which the two models were trained differently."""
    a, b = (load_config(str(zoo_folder() / f"mnist-{p}" / "config.yaml")).model_dump()
            for p in PANELS)  # fmt: skip
    keys = [f"{part}.{key}" for part, given in a.items() if isinstance(given, dict)
            for key in given if given[key] != b[part][key]]  # fmt: skip
    told = "The two models were trained differently, so this is no difference of the panels: "
    return [f"{told}{', '.join(keys)} differ.\n"] if keys else []


def differences(found: Any) -> str:
    """Jittor panel - PyTorch panel, a row per score; a direction only if the interval shows one."""
    rows = []
    for each in found["differences"]:
        low, high = each["interval"]
        verdict = "higher" if low > 0 else "lower" if high < 0 else "no difference shown"
        gap = f"{round(each['difference'], 12):+.3g}"  # without the rounding of a sum
        rows.append([each["metric"], gap, f"{low:+.3g} to {high:+.3g}", verdict])
    return markdown(["score", "jittor - torch", "95 % interval", "verdict"], rows)


def solver_part(folder: Path) -> list[str]:
    """The table of solvers by calls, its figure and what follows for the default."""
    cells = read_cells(folder)
    metric = output.metrics_of(cells)[0]
    with tempfile.TemporaryDirectory() as drawn:
        output.write_all(cells, Path(drawn))
        with atomic_path(DOCS / "figures" / "solvers.png") as temporary:
            shutil.copyfile(Path(drawn) / f"{metric}.png", temporary)
    request = cells[0]["request"]
    total = request["num"] * request["repeats"]
    lines = [
        "## Quality against cost: solvers at equal network calls\n",
        f"Each cell is the mean of {request['repeats']} sets of {request['num']:,} images "
        f"({total:,} in all), with its 95 % interval below. Model: zoo:mnist-torch (weights "
        f"{request['weights_sha256'][:12]}), PyTorch panel. The lines below the tables "
        f"explain the dashes.\n",
        *([] if "euler_at_final" in request else [EARLIER]),
        "![Score against network calls, a line a solver](figures/solvers.png)\n",
    ]
    for name in output.metrics_of(cells):
        lines += [f"### {name}\n", by_calls(cells, name)]
    return [*lines, gaps(cells), verdict(cells, metric)]


def quality(text: str) -> dict[str, Any]:
    """The page's tables of solvers: for each metric, solver -> calls -> [mean, low, high]."""
    part = text.partition("\n## Quality against cost")[2]
    images, weights = re.search(r"\(([\d,]+) in all\).*\(weights (\w+)\)", part).groups()  # type: ignore[union-attr]
    tables = []
    for metric, head, body in re.findall(r"### (\S+)\n\n\| solver \|(.*)\n.*\n((?:\|.*\n)+)", part):
        calls = re.findall(r"(\d+) calls", head)
        rows = {}
        for line in body.splitlines():
            name, *cells = [cell.strip() for cell in line.strip("|").split("|")]
            found = [[float(x) for x in re.findall(r"-?\d[\d.e-]*", cell)] for cell in cells]
            rows[name] = {n: three for n, three in zip(calls, found, strict=True) if three}
        tables.append({"metric": metric, "rows": rows})
    return {"weights_sha256": weights, "images": int(images.replace(",", "")),
            "earlier": EARLIER in part, "tables": tables}  # fmt: skip


def gaps(cells: Any) -> str:
    """Reasons of the dashes, and solvers that are one and the same."""
    calls = [int(word) for word in CALLS.split(",")]
    found = {(c["solver"], c["network_calls"]): [s["value"] for s in c["scores"]] for c in cells}
    config, lines = load_config("mnist"), []
    for name in SOLVERS:
        missing = [n for n in calls if (name, n) not in found]
        chosen, _ = variants.cells([variants.parse(name)], Drawing(), (), missing, (0,), config)
        if len(chosen) < len(missing):
            lines.append(f"- `{name}` cannot use every number of calls.")
        if chosen:
            lines.append(f"- `{name}`: {len(chosen)} cell(s) not measured yet.")
    for pair in combinations(SOLVERS, 2):
        both = [n for n in calls if all((name, n) in found for name in pair)]
        if len(both) > 1 and all(found[pair[0], n] == found[pair[1], n] for n in both):
            at = ", ".join(map(str, both))
            lines.append(f"- `{pair[0]}` and `{pair[1]}` have equal scores to the last digit at "
                         f"{at} calls: they are the same rule.")  # fmt: skip
    return "\n".join([*lines, ""])


def by_calls(cells: Any, metric: str) -> str:
    """A row a solver, a column a number of calls; a dash where there is no cell."""
    calls = sorted({cell["network_calls"] for cell in cells})
    solvers = list(dict.fromkeys(cell["solver"] for cell in cells))
    rows = []
    for solver in solvers:
        row = [solver]
        for count in calls:
            own = [c for c in cells if (c["solver"], c["network_calls"]) == (solver, count)]
            score = next((s for c in own for s in c["scores"] if s["metric"] == metric), None)
            row.append("-" if score is None else _cell(score))
        rows.append(row)
    return markdown(["solver", *(f"{count} calls" for count in calls)], rows)


def _cell(score: Any) -> str:
    return f"{number(score['value'], 3)}<br>({interval(score['interval'])})"


def verdict(cells: Any, metric: str) -> str:
    """Compare solvers with 8 to 15 calls against DDIM with 50, by their intervals."""
    scores = {
        (c["solver"], c["network_calls"]): next(s for s in c["scores"] if s["metric"] == metric)
        for c in cells
    }
    bar = scores.get(("ddim", 50))
    if bar is None:
        return "DDIM at 50 calls has not been measured yet.\n"
    lines = [
        "### Compared with DDIM at 50 calls\n",
        f"DDIM at 50 calls has {metric} {number(bar['value'])} ({interval(bar['interval'])}).\n",
    ]
    few = {key: score for key, score in scores.items() if 8 <= key[1] <= 15}
    low, high = bar["interval"]
    groups = {
        "better, intervals apart": [k for k, s in few.items() if s["interval"][1] < low],
        "no difference shown, intervals overlap": [
            k for k, s in few.items() if s["interval"][0] <= high and s["interval"][1] >= low
        ],
        "worse, intervals apart": [k for k, s in few.items() if s["interval"][0] > high],
    }
    rows = []
    for words, keys in groups.items():
        at: dict[str, list[str]] = {}
        for solver, calls in sorted(keys):
            at.setdefault(solver, []).append(str(calls))
        names = [f"`{solver}` at {', '.join(each)}" for solver, each in at.items()]
        rows.append([words, "; ".join(names) or "none"])
    lines.append(markdown(["against DDIM at 50", "solvers at 8 to 15 calls"], rows))
    own = {calls: score for (solver, calls), score in scores.items() if solver == DEFAULT_SOLVER}
    return "\n".join([*lines, cost(own, low, high), ""])


def cost(own: Any, low: float, high: float) -> str:
    """Speed-up of the default at a score that the intervals do not show to be worse.

    Args:
        own: calls -> score of the default solver.
        low, high: the interval of DDIM's score at 50 calls.
    """
    better = min((n for n, score in own.items() if score["interval"][1] < low), default=None)
    least = min((n for n, score in own.items() if score["interval"][0] <= high), default=None)
    if least is None:
        return f"`{DEFAULT_SOLVER}`, the default, does not reach DDIM's score at 50 calls."
    said = [] if least == better else [f"shows no difference from it with {least} calls"]
    said += [] if better is None else [f"is better with {better}"]
    words = f"`{DEFAULT_SOLVER}`, the default, {' and '.join(said)}."
    path = DOCS.parent / "benchmarks" / "results" / "pipeline-mnist.json"
    timed: Any = json.loads(path.read_text("utf-8")) if path.is_file() else {"steps": None}
    if timed["steps"] not in (least, better):
        return f"{words} How long that takes has not been measured."
    ratio = timed["ratio"]
    return (
        f"{words} Timed in turns in one run, diffusers' DDIM pipeline with 50 steps took "
        f"{ratio['median']:.1f} times as long as Diptych with {timed['steps']} (95 % interval "
        f"{ratio['low']:.1f} to {ratio['high']:.1f}; "
        f"[record](../benchmarks/results/pipeline-mnist.md))."
    )


if __name__ == "__main__":
    main()
