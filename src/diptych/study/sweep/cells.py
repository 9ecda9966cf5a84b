"""`diptych sweep`: one model, many samplers; seconds per image and scores, cell by cell.

    OUT/cells/torch-ddim-50-eta0.json   one cell: backend, solver, steps, eta; written when complete
    OUT/sweep.json .csv .md             the table of all existing cells
    OUT/METRIC.png                      score against network calls

Existing cells are not recomputed, so an interrupted sweep can resume. Cells of another request
(other weights, number, metrics, ...) are refused with an error that names the difference.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from diptych.backends import BACKENDS, ENGINES
from diptych.config.load import Config
from diptych.errors import UserError
from diptych.evaluation.feature_network import Extractor
from diptych.evaluation.images import Images
from diptych.evaluation.run import evaluate
from diptych.evaluation.sets import Settings
from diptych.files import Held, write_json
from diptych.generate.for_scoring import Drawing, draw
from diptych.ranks import Part
from diptych.runs.records import MANIFEST_LATER, CellFile, Manifest
from diptych.sampling.guidance import NO_GUIDE
from diptych.sampling.options import NAMES
from diptych.sampling.sampler import Sampler
from diptych.study.sweep.variants import SWEPT, Variant, parse
from diptych.study.sweep.variants import cells as variant_cells

OF_MEMORISATION = ("train", "held_out", "mirrored")
LATER = ("features_sha256", *OF_MEMORISATION)  # missing in older records, and then not compared
OF_SCORES = ("metrics", "features", "protocol", "reference", *LATER)
POLL = 1.0  # seconds
_BACKENDS = [*BACKENDS, *ENGINES]  # in the order of tables
OpenNetwork = Callable[[], Extractor]
DrawSets = Callable[..., list[Path]]


@dataclass(frozen=True)
class Sweep:
    """The swept settings and the fixed ones.

    Attributes:
        source: a run, a checkpoint or zoo:NAME.
        steps, etas: every pair is a cell, with each backend.
        drawing: sampling settings common to all cells.
        settings: metrics; `num` images and `repeats` sample sets per cell.
        variants: the solvers; each with all steps, and with all etas if it takes eta.
        calls: network calls, instead of `steps`.
        scored: True computes metrics; False only measures seconds.
        features_sha256: that of the feature network's file; None: unknown, so not compared.
    """

    source: str
    steps: tuple[int, ...]
    etas: tuple[float, ...]
    drawing: Drawing
    settings: Settings
    reference: str | None
    variants: tuple[Variant, ...] = (parse("ddim"),)
    calls: tuple[int, ...] = ()
    scored: bool = True
    features_sha256: str | None = None

    def __post_init__(self) -> None:
        if self.settings.num is None:
            raise UserError("how many images a cell? Give --num")
        counts = ("calls", self.calls) if self.calls else ("steps", self.steps)
        names = ("solver", tuple(variant.name for variant in self.variants))
        for name, values in (counts, ("eta", self.etas), names):
            if not values or len(set(values)) < len(values):
                raise UserError(f"--{name}: give one or more different values, as in 10,20,50")

    def request(self, weights_sha256: str) -> dict[str, Any]:
        """Everything a cell depends on in addition to its backend, solver, steps and eta."""
        s, d = self.settings, self.drawing
        return {
            "weights_sha256": weights_sha256,
            "weights": "raw" if d.raw else "ema",
            "num": s.num,
            "repeats": s.repeats,
            "seed": d.seed,
            "sample_batch": d.batch,
            **{name: getattr(d.options, name) for name in NAMES if name not in SWEPT},
            "noise": d.options.noise or Sampler.noise,
            "metrics": list(s.metrics) if self.scored else [],
            "features": s.features if self.scored else None,
            "protocol": s.protocol,
            "reference": self.reference,
            **self._later(),
        }

    def _later(self) -> dict[str, Any]:
        """The entries of LATER, as far as they matter to this sweep."""
        s = self.settings
        found: dict[str, Any] = {}
        if self.scored and self.features_sha256 is not None:
            found["features_sha256"] = self.features_sha256
        if self.scored and "memorization" in s.metrics:
            found |= {"train": _named(s.train), "held_out": _named(s.held_out)}
            found["mirrored"] = s.mirrored
        return found


def _named(images: str | Path | Images | None) -> str | None:
    """A set of images in a request: its source, or the hash of images that are open already."""
    if isinstance(images, Images):
        return f"{images.name} {images.identify()[:12]}"
    return None if images is None else str(images)


def cell_path(out: Path, backend: str, variant: Variant, drawing: Drawing) -> Path:
    """The file of one cell."""
    solver = variant.name.replace(":", "-").replace("=", "")
    if "/" in solver:  # a guide's place
        solver = f"{solver.replace('/', '-')}-{hashlib.sha256(solver.encode()).hexdigest()[:8]}"
    asked = drawing.options
    eta = "" if asked.eta is None else f"-eta{asked.eta:g}"
    return out / "cells" / f"{backend}-{solver}-{asked.steps}{eta}.json"


@dataclass(frozen=True)
class Cells:
    """All cells of a sweep with one backend, checked before anything is drawn.

    Attributes:
        request: everything that a cell depends on besides its backend, solver, steps and eta.
        pairs: each cell's variant and sampling settings, in order.
        left_out: a line for each cell that a solver cannot have.
    """

    request: dict[str, Any]
    pairs: list[tuple[Variant, Drawing]]
    left_out: list[str]


def cells_of(sweep: Sweep) -> Cells:
    """The cells of a sweep; loads no framework.

    Raises:
        UserError: weights that cannot be found, or an impossible sampler.
    """
    from diptych.weights.find import find_weights
    from diptych.weights.guides import guide_facts

    found = find_weights(sweep.source, None, sweep.drawing.raw)
    request = sweep.request(found.facts()["weights_sha256"])
    pairs, left_out = variants_of(sweep, found.config)
    names = {drawing.options.guide for _, drawing in pairs} - {None, NO_GUIDE}
    guides = {name: guide_facts(name, found.config)["guide_sha256"] for name in names}
    return Cells(request | ({"guides": guides} if guides else {}), pairs, left_out)


def run_panel(
    sweep: Sweep,
    out: Path,
    backend: str,
    device: str,
    open_network: OpenNetwork,
    *,
    part: Part | None = None,
    samples_out: Path | None = None,
    note: Callable[[str], None] = lambda text: None,
    draw_sets: DrawSets = draw,
) -> None:
    """Compute the missing cells of one backend, in this process.

    Args:
        open_network: opens the feature network; only called if a cell to be scored is missing.
        part: compute only the cells of this part, beside other processes; None: all.
        samples_out: folder of the samples; None: below the run.
        note: called with a line for each cell as it begins, and for what is left out.

    Raises:
        UserError: as sampling and evaluation, or cells of another request.
    """
    cells = cells_of(sweep)
    for line in cells.left_out:
        note(f"{line}: left out")
    own = [pair for j, pair in enumerate(cells.pairs) if part is None or part.has(j)]
    missing = [pair for pair in own if not is_there(cell_path(out, backend, *pair), cells.request)]
    extractor = open_network() if missing and sweep.scored else None
    for i, pair in enumerate(missing):
        note(f"{cell_name(backend, *pair)}: cell {i + 1} of {len(missing)}")
        compute_cell(
            sweep,
            out,
            backend,
            device,
            pair,
            cells.request,
            extractor,
            samples_out=samples_out,
            shared=part is not None,
            note=note,
            draw_sets=draw_sets,
        )


def cell_name(backend: str, variant: Variant, drawing: Drawing) -> str:
    """A cell in words."""
    asked = drawing.options
    eta = "" if asked.eta is None else f", eta {asked.eta:g}"
    return f"{backend}, {variant.name}, {asked.steps} steps{eta}"


def compute_cell(
    sweep: Sweep,
    out: Path,
    backend: str,
    device: str,
    pair: tuple[Variant, Drawing],
    request: dict[str, Any],
    extractor: Extractor | None,
    *,
    samples_out: Path | None = None,
    shared: bool = False,
    note: Callable[[str], None] = lambda text: None,
    draw_sets: DrawSets = draw,
) -> None:
    """Draw and score one cell, and write its file.

    Args:
        extractor: the feature network; None: no scores.
        shared: other processes compute cells of this sweep now. Two cells may need the same
            images (`dpmpp` and `dpmpp:order=2`); one then waits for the other to draw them.
    """
    variant, drawing = pair
    folders = _drawn(sweep, backend, device, drawing, samples_out, shared, note, draw_sets)
    result: dict[str, Any] = {"scores": []}
    if extractor is not None:
        settings = replace(sweep.settings, repeats=1)
        result = evaluate(folders, sweep.reference, settings, extractor)
    cell: dict[str, Any] = {"backend": backend, "solver": variant.name, "request": request}
    cell |= {"steps": drawing.options.steps, "eta": drawing.options.eta}
    cell |= _cost(folders) | result
    write_json(cell_path(out, backend, variant, drawing), CellFile.checked(cell))


def _drawn(
    sweep: Sweep,
    backend: str,
    device: str,
    drawing: Drawing,
    samples_out: Path | None,
    shared: bool,
    note: Callable[[str], None],
    draw_sets: DrawSets,
) -> list[Path]:
    """The sample folders of a cell; `shared` waits while another process draws one of them."""
    waited = False
    while True:
        try:
            return draw_sets(
                sweep.source,
                drawing,
                sweep.settings.num or 0,
                sweep.settings.repeats,
                backend,
                device,
                folder=samples_out,
                progress=sweep.settings.progress,
            )
        except Held as held:
            if not shared:
                raise
            if not waited:
                note(f"waiting for images that another process draws: {held}")
            waited = True
            time.sleep(POLL)


def variants_of(sweep: Sweep, config: Config) -> tuple[list[tuple[Variant, Drawing]], list[str]]:
    """The sweep's cells, all checked, and a line for each cell that a solver cannot have."""
    steps = () if sweep.calls else sweep.steps
    return variant_cells(sweep.variants, sweep.drawing, steps, sweep.calls, sweep.etas, config)


def is_there(path: Path, request: dict[str, Any]) -> bool:
    """True if the cell exists and needs no scores. Raises UserError if its request differs."""
    if not path.is_file():
        return False
    before = _request(CellFile.content(path))
    unscored = before.get("metrics") == [] and request["metrics"] != []
    for key in unlike(before, request):
        if not (unscored and key in OF_SCORES):
            raise UserError(
                f"{path}: was computed with {key}={before.get(key)}, not {request.get(key)}; go on "
                f"with the sweep's own settings, choose another --out, or replace it with "
                f"--overwrite"
            )
    return not unscored


def unlike(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """The settings in which two requests differ; LATER ones are compared if both have them."""
    known = {key for key in LATER if key not in before or key not in now}
    return [key for key in now if key not in known and before.get(key) != now[key]]


def _request(cell: Mapping[str, Any]) -> dict[str, Any]:
    """A cell's request; one that names no noise had the host's."""
    found = dict(cell.get("request", {}))
    return found | {"noise": found.get("noise") or MANIFEST_LATER["noise"]}


def _cost(folders: Sequence[Path]) -> dict[str, Any]:
    """Seconds per image over all sets, network calls per image, and device; from the manifests."""
    cards = [Manifest.read(folder / "manifest.json") for folder in folders]
    images = sum(card.images_timed for card in cards)
    seconds = sum(card.seconds for card in cards)
    return {
        "seconds_per_image": seconds / images if images else None,
        "network_calls": cards[0].network_calls,
        "device": cards[0].device,
    }


def read_cells(out: Path) -> list[dict[str, Any]]:
    """Read all existing cells, by backend (PyTorch first), solver, eta and network calls.

    If some cells have scores, those without are left out.

    Raises:
        UserError: no cells, or cells of different requests.
    """
    cells = [CellFile.content(path) for path in sorted((out / "cells").glob("*.json"))]
    if not cells:
        raise UserError(f"{out}: holds no cells; run diptych sweep first")
    cells = [cell for cell in cells if cell["request"]["metrics"]] or cells
    first = _request(cells[0])
    for cell in cells:
        if cell["backend"] not in _BACKENDS:
            raise UserError(f"{out}: a cell has an unknown backend: '{cell['backend']}'")
        own = _request(cell)
        for key in unlike(first, own):
            raise UserError(f"{out}: holds cells with {key}={first.get(key)} and {own[key]}")
    _check_alike(cells, out)
    return sorted(cells, key=_order)


# Entries of protocols that must be those of one source in all cells.
ONE_SOURCE = ("reference.", "train.", "held_out.", "extractor_sha256")


def _check_alike(cells: Sequence[dict[str, Any]], out: Path) -> None:
    """Refuse scores against other images, or by another network: machines may hold other files."""
    first: dict[tuple[str, str], Any] = {}
    for cell in cells:
        for score in cell["scores"]:
            for key, value in (score.get("protocol") or {}).items():
                if key.startswith(ONE_SOURCE):
                    there = first.setdefault((score["metric"], key), value)
                    if there != value:
                        raise UserError(
                            f"{out}: holds cells with {key}={there} and {value}: they were scored "
                            f"on machines with other data or weights; make these alike, remove the "
                            f"cells of one kind, and compute them again"
                        )


def _order(cell: dict[str, Any]) -> tuple[int, str, float, int]:
    eta = cell["eta"]
    return _BACKENDS.index(cell["backend"]), cell["solver"], eta or 0.0, cell["network_calls"]
