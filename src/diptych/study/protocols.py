"""Published evaluation protocols, run whole from a local checkpoint and local Inception weights.

    ddim-table1   Song et al. 2021, arXiv:2010.02502, table 1, CIFAR-10: FID of 50,000 images at
                  S = 10, 20, 50, 100, 1000 steps, eta = 0, 0.2, 0.5, 1 and sigma-hat
    cifar10-fid   FID of 5,000 and of 10,000 images, DDIM with 50 steps and eta 0, against the
                  60,000 images of cifar10:train+test, by clean-fid's recipe

    OUT/protocol.json     settings, deviations, and a row for every number
    OUT/cells/, OUT/samples/, OUT/scores-NUM.json

Deviations come in two kinds: those that this package always has (`Published.deviations`), and
every setting that the user has changed. Both are written into the result.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from diptych.errors import UserError, nearest
from diptych.evaluation.run import evaluate
from diptych.evaluation.score_table import aligned, interval, number
from diptych.evaluation.sets import Settings
from diptych.files import write_json
from diptych.generate.for_scoring import Drawing, draw
from diptych.sampling.options import SamplerOptions
from diptych.study.sweep.cells import OpenNetwork, Sweep, read_cells, run_panel
from diptych.study.sweep.variants import parse

KIND = "diptych protocol"
SIGMA_HAT = "sigma-hat"
QUAD = "official-quad"


@dataclass(frozen=True)
class Published:
    """A protocol's settings, its numbers as published, and the deviations that always hold.

    Attributes:
        num: images per score; several are scored from one set of samples, the first ones of it.
        steps: numbers of solver steps.
        etas: DDIM's eta values.
        sigma_hat: whether DDPM's larger noise is a further row.
        metrics, tool, reference: see `diptych.evaluation.run.evaluate`.
        fid: the published FID by (row, steps).
    """

    about: str
    num: tuple[int, ...]
    steps: tuple[int, ...]
    etas: tuple[float, ...]
    metrics: tuple[str, ...]
    tool: str
    reference: str
    deviations: tuple[str, ...]
    sigma_hat: bool = False
    fid: Mapping[tuple[str, int], float] = field(default_factory=dict)


_STEPS = (10, 20, 50, 100, 1000)
_TABLE1 = {
    "0": (13.36, 6.84, 4.67, 4.16, 4.04),
    "0.2": (14.04, 7.11, 4.77, 4.25, 4.09),
    "0.5": (16.66, 8.35, 5.25, 4.46, 4.29),
    "1": (41.07, 18.36, 8.01, 5.78, 4.73),
    SIGMA_HAT: (367.43, 133.37, 32.72, 9.99, 3.17),
}
PROTOCOLS = {
    "ddim-table1": Published(
        about="DDIM, table 1, CIFAR-10: FID over steps S and eta",
        num=(50_000,),
        steps=_STEPS,
        etas=(0.0, 0.2, 0.5, 1.0),
        metrics=("fid",),
        tool="torch-fidelity",
        reference="cifar10:train",
        deviations=(
            "The paper does not name the FID tool; here: torch-fidelity's recipe, with TensorFlow "
            "1's resize, against the 50,000 training images.",
            "Timesteps are those of the authors' code with `skip_type quad` (official-quad; for "
            "S = 10, `linspace(0, sqrt(800), 10)**2`); the paper only says quadratic. With S equal "
            "to the number of timesteps, all of them are visited (uniform).",
            "Images are rounded to 8 bits as PNG files before they are scored.",
            "The noise differs from the authors': it is keyed by (seed, index).",
        ),
        sigma_hat=True,
        fid={(row, s): v for row, own in _TABLE1.items() for s, v in zip(_STEPS, own, strict=True)},
    ),
    "cifar10-fid": Published(
        about="FID against all 60,000 CIFAR-10 images, of 5,000 and of 10,000 samples",
        num=(5_000, 10_000),
        steps=(50,),
        etas=(0.0,),
        metrics=("fid", "fid-infinity", "is"),
        tool="clean-fid",
        reference="cifar10:train+test",
        deviations=(
            "The 5,000 images are the first of the 10,000, so the two scores are not independent.",
            "FID depends on the number of images: compare with numbers of the same count only.",
        ),
    ),
}


@dataclass(frozen=True)
class ProtocolRequest:
    """A protocol to run; None keeps the protocol's own setting.

    Attributes:
        source: a run, a checkpoint, zoo:NAME, pretrained:NAME or a folder of diffusers.
        features: "inception", or a classifier for a rehearsal.
    """

    name: str
    source: str
    num: tuple[int, ...] | None = None
    steps: tuple[int, ...] | None = None
    etas: tuple[float, ...] | None = None
    reference: str | None = None
    features: str = "inception"
    seed: int = 0
    sample_batch: int = 64
    batch: int = 64
    data: Path | None = None
    cache: Path | None = None
    progress: bool = True

    def published(self) -> Published:
        """The protocol.

        Raises:
            UserError: an unknown name.
        """
        if self.name not in PROTOCOLS:
            raise UserError(
                f"protocol '{self.name}' is not known{nearest(self.name, list(PROTOCOLS))}"
            )
        return PROTOCOLS[self.name]

    def chosen(self) -> Published:
        """The protocol with this request's settings, and a deviation for each changed one.

        Raises:
            UserError: an unknown name, or several numbers of images for ddim-table1.
        """
        own = self.published()
        asked = {"num": self.num, "steps": self.steps, "etas": self.etas}
        asked["reference"] = self.reference  # type: ignore[assignment]
        changed: dict[str, Any] = {
            key: value
            for key, value in asked.items()
            if value is not None and value != getattr(own, key)
        }
        for key in ("num", "steps", "etas"):
            values = changed.get(key, (1,))
            if not values or len(set(values)) < len(values):
                raise UserError(f"--{key}: give one or more different values, as in 10,20")
        if min(changed.get("num", (1,))) < 1:
            raise UserError("--num must be 1 or more")
        if own.sigma_hat and len(changed.get("num", (1,))) > 1:
            raise UserError(f"{self.name}: takes one --num")
        told = [
            f"{key} is {_plain(v)} in place of {_plain(getattr(own, key))}."
            for key, v in changed.items()
        ]
        if self.features != "inception":
            told.append(
                f"The features are those of the classifier {self.features}, not Inception's: its "
                f"distances are no FID."
            )
            changed["tool"] = None
        return replace(own, **changed, deviations=(*told, *own.deviations))


def _plain(value: Any) -> str:
    return ", ".join(f"{v:g}" for v in value) if isinstance(value, tuple) else str(value)


def run(
    request: ProtocolRequest,
    out: Path,
    backend: str,
    device: str,
    open_network: OpenNetwork,
    note: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """Run a protocol into a folder that the caller holds, or go on with it; return the result.

    Raises:
        UserError: as sampling and evaluation; cells of another request.
    """
    chosen = request.chosen()
    settings = Settings(
        chosen.metrics,
        request.features,
        chosen.tool,
        num=max(chosen.num),
        batch=request.batch,
        cache=request.cache,
        data_dir=request.data,
        progress=request.progress,
    )
    work = _Work(request, chosen, settings, out, backend, device, open_network, note)
    rows = work.table() if chosen.sigma_hat else work.sizes()
    result = {
        "schema": 1,
        "kind": KIND,
        "protocol": request.name,
        "about": chosen.about,
        "source": request.source,
        "backend": backend,
        "num": list(chosen.num),
        "reference": chosen.reference,
        "features": request.features,
        "tool": chosen.tool,
        "deviations": list(chosen.deviations),
        "rows": rows,
    }
    write_json(out / "protocol.json", result)
    return result


@dataclass(frozen=True)
class _Work:
    """A protocol that is run: what is asked, by which panel, and into which folder."""

    request: ProtocolRequest
    chosen: Published
    settings: Settings
    out: Path
    backend: str
    device: str
    open_network: OpenNetwork
    note: Callable[[str], None]

    def table(self) -> list[dict[str, Any]]:
        """Rows of a sweep over steps and eta; all timesteps at once need no quadratic spacing."""
        from diptych.weights.find import find_weights

        request, chosen = self.request, self.chosen
        timesteps = find_weights(request.source).config.diffusion.timesteps
        drawing = Drawing(seed=request.seed, batch=request.sample_batch)
        names, extractor = [], self.open_network()  # first: finished cells must be of this network
        for spacing, steps in (
            (QUAD, tuple(s for s in chosen.steps if s != timesteps)),
            ("uniform", tuple(s for s in chosen.steps if s == timesteps)),
        ):
            names += [f"{solver}:spacing={spacing}" for solver in ("ddim", "ddpm-noisy")]
            if steps:
                sweep = Sweep(
                    request.source,
                    steps,
                    chosen.etas,
                    drawing,
                    self.settings,
                    chosen.reference,
                    tuple(parse(name) for name in names[-2:]),
                    features_sha256=extractor.sha256,
                )
                run_panel(
                    sweep,
                    self.out,
                    self.backend,
                    self.device,
                    lambda: extractor,
                    samples_out=self.out / "samples",
                    note=self.note,
                )
        rows = []
        for cell in read_cells(self.out):
            label = SIGMA_HAT if cell["eta"] is None else f"{cell['eta']:g}"
            asked = cell["steps"] in chosen.steps and (cell["eta"] in (None, *chosen.etas))
            if cell["backend"] == self.backend and asked and cell["solver"] in names:
                about = {"row": label, "steps": cell["steps"], "solver": cell["solver"]}
                rows += [about | row for row in _rows(cell["scores"])]
        for row in rows:
            known = chosen.fid if row["metric"] == "fid" else {}  # not of a rehearsal's classifier
            row["published"] = known.get((row["row"], row["steps"]))
        return rows

    def sizes(self) -> list[dict[str, Any]]:
        """Rows of one set of samples, scored at several sizes."""
        request, chosen = self.request, self.chosen
        rows, extractor = [], self.open_network()  # first, so that missing weights are told before
        for steps in chosen.steps:
            for eta in chosen.etas:
                options = SamplerOptions(solver="ddim", steps=steps, eta=eta, spacing="uniform")
                folders = draw(
                    request.source,
                    Drawing(options, request.seed, request.sample_batch),
                    max(chosen.num),
                    1,
                    self.backend,
                    self.device,
                    folder=self.out / "samples",
                    progress=request.progress,
                    note=lambda line: self.note(line) if line else None,
                )
                for num in chosen.num:
                    scored = replace(self.settings, num=num)
                    found = evaluate(folders, chosen.reference, scored, extractor)
                    write_json(self.out / f"scores-{steps}-eta{eta:g}-{num}.json", found)
                    about = {"row": f"{eta:g}", "steps": steps, "solver": "ddim:spacing=uniform"}
                    rows += [about | row | {"published": None} for row in _rows(found["scores"])]
        return rows


def _rows(scores: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    keys = ("metric", "value", "interval", "protocol_id")
    return [
        {key: score[key] for key in keys} | {"num": score["protocol"]["num"]} for score in scores
    ]


def render(result: Mapping[str, Any]) -> str:
    """A protocol's result as text: the rows beside the published numbers, then the deviations."""
    rows = [
        [
            r["metric"],
            r["row"],
            str(r["steps"]),
            str(r["num"]),
            number(r["value"]),
            interval(r["interval"]),
            number(r["published"]),
        ]
        for r in result["rows"]
    ]
    head = ["metric", "eta", "steps", "images", "value", "95 % interval", "published"]
    lines = [result["about"], "", aligned(head, rows), "", "deviations"]
    return "\n".join([*lines, *(f"  - {line}" for line in result["deviations"])])
