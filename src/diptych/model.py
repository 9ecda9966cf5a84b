"""A trained network ready to predict and to sample: `diptych.load` and the `Model` it returns.

Long, because each public method has its whole description here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from safetensors.numpy import save as to_bytes

from diptych import backends
from diptych.config.load import Config, to_yaml, validate
from diptych.data.preprocess import preprocess_of
from diptych.diffusion.schedule import CLEAN, Level, Schedule, make_schedule
from diptych.errors import PythonTerms, UserError, check, path_text, refused
from diptych.files import check_free, new_folder, sha256_of, write_json
from diptych.network.own import AnyPlan, OwnPlan, maker
from diptych.network.plan import make_plan
from diptych.runs import checkpoint
from diptych.sampling.denoiser import Predictor, check_integers
from diptych.sampling.engine import Engine
from diptych.sampling.inversion import encode, make_inversion
from diptych.sampling.memory import batch_of
from diptych.sampling.sampler import Sampler, make_sampler
from diptych.sampling.solvers.ddim import Ddim
from diptych.types import Array, Float32
from diptych.weights.find import Source, find_weights, trained_by
from diptych.weights.formats import read_config
from diptych.weights.found_steps import read_spacing, read_steps
from diptych.weights.guides import find_guide

SAVED = ("config.yaml", "manifest.json", "raw.safetensors", "ema.safetensors")
SPACING = 'a name, timesteps such as "940,600,250,20", or a file of search_steps'
FAR_OUTSIDE = 10.0  # floats beyond this are values in 0 .. 255, not in [-1, 1]


@PythonTerms()
def load(
    source: str | Path,
    backend: str | None = None,
    *,
    config: Config | str | Path | None = None,
    device: str = "auto",
    raw: bool = False,
    network: Any = None,
    precision: str = "fp32",
    deterministic: bool = False,
) -> Model:
    """Load a trained model on one backend.

    Args:
        source: a run folder (its newest checkpoint), a checkpoint folder, a folder written by
            `Model.save`, `zoo:NAME`, `pretrained:NAME`, a folder of diffusers, or a file of weights
            (.safetensors, .ckpt, .pth, .pkl; nothing in it is executed), which needs `config` if
            it contains none.
        backend: `torch` or `jittor`; or `onnx` or `openvino`, engines on the CPU that only predict;
            None: the one that trained it, if that is recorded, else torch. If that one is not
            installed, or the other is loaded in this process, the other.
        config: a preset's name, a YAML file of ours or of the official DDIM code, or a `Config`.
        device: `auto`, `cpu`, `cuda` or `cuda:INDEX`.
        raw: use the weights as trained instead of their moving average.
        network: makes the network, if it is the user's own; as in `diptych.train`.
        precision, deterministic: the network's arithmetic, as in `diptych.backends.load`.

    Raises:
        UserError: anything missing, damaged or incompatible, in one line.
    """
    check(str, none=True, backend=backend)
    check(str, device=device, precision=precision)
    source = path_text("source", source)
    if config is not None and not isinstance(config, Config):
        config = read_config(path_text("config", config), for_training=False)
    found = find_weights(source, config, raw, own_network=network is not None)
    plan = None
    if network is not None:
        plan = own_plan(maker(network, found.config), found.config)
    name = backends.choose(backend, trained_by(source))
    return Model(found, backends.load(name, device, precision, deterministic), plan)


def own_plan(make: Callable[[], Any], config: Config) -> OwnPlan:
    """The plan of a user's network for the images and classes of a config."""
    sizes = *config.data.shape, config.model.num_classes
    return OwnPlan(make, *sizes, config.diffusion.objective)


class Model:
    """A network with weights on one backend.

    Attributes:
        config: settings of the network and its training.
        weights: name -> array, float32.
        facts: facts about the weights: EMA or raw, sha256, origin.
        sampler: settings that are recommended with the weights; None: none are.
        engine: draws images with any sampler, batch by batch.
    """

    def __init__(
        self, source: Source, backend: backends.Backend, plan: AnyPlan | None = None
    ) -> None:
        """Build the network from the source's weights; `plan` is given for a user's own network."""
        plan = plan or make_plan(source.config)
        self.config = source.config
        self.weights = source.weights
        self.facts = source.facts()
        self.sampler = source.sampler
        self.engine = Engine(
            backend,
            backend.network(plan, source.weights),
            plan,
            make_schedule(source.config.diffusion),
            preprocess_of(source.config.data),
            self._guide,
        )
        self._guides: dict[str, tuple[Predictor, str]] = {}  # by their names in a sampler

    def _guide(self, name: str) -> Predictor:
        """The network of a sampler's guide on this model's backend; loaded once.

        Raises:
            UserError: as `diptych.load`, or it cannot guide this model.
        """
        if name not in self._guides:
            found = find_guide(name, self.config)
            backend, plan = self.engine.backend, make_plan(found.config)
            predictor = Predictor(backend, backend.network(plan, found.weights), plan)
            self._guides[name] = predictor, found.facts()["weights_sha256"]
        return self._guides[name][0]

    def guide_facts(self, sampler: Sampler) -> dict[str, Any]:
        """The manifest's entry on the weights that guide; None for none. Raises as `sample`."""
        if sampler.guide is None:
            return {"guide_sha256": None}
        self._guide(sampler.guide)
        return {"guide_sha256": self._guides[sampler.guide][1]}

    @staticmethod
    @PythonTerms()
    def of(
        network: Any,
        shape: Sequence[int],
        schedule: str = "linear",
        backend: str | None = None,
        *,
        objective: str = "eps",
        timesteps: int = 1000,
        beta_start: float = 1e-4,
        beta_end: float = 0.02,
        num_classes: int = 0,
        device: str = "auto",
    ) -> Model:
        """Make a model from a user's own network with its present weights.

        Args:
            network: a torch.nn.Module or a Jittor Module, called as module(x, t), or with
                `num_classes` as module(x, t, classes): x noisy images, float32 (B, C, H, W), clean
                ones in [-1, 1]; t integers (B,) in 0 .. T - 1; classes integers (B,) in 0 .. K, K
                for 'no class'. It returns (B, C, H, W), and is set to evaluation mode.
            shape: (C, H, W) of an image.
            schedule: linear, quad, const, jsd, sigmoid or cosine.
            backend: None: the network's framework.
            objective: the predicted quantity: eps, x0 or v.
            timesteps: T.
            beta_start, beta_end: only used by schedules that have them.
            num_classes: K; 0: the network takes no classes.
            device: `auto`, `cpu`, `cuda` or `cuda:INDEX`.

        Raises:
            UserError: not a module, a module of the other framework, or a value out of range.
        """
        if not hasattr(network, "named_parameters") or isinstance(network, type):
            raise UserError(
                f"Model.of: network: expected a torch.nn.Module or a Jittor Module, not {network!r}"
            )
        check(str, device=device)
        if not isinstance(shape, list | tuple) or len(shape) != 3:
            raise refused("Model.of: shape", shape, "(C, H, W)")
        names = {cls.__module__.partition(".")[0] for cls in type(network).__mro__}
        framework = next((name for name in backends.BACKENDS if name in names), "torch")
        if backend not in (None, framework):
            raise UserError(f"Model.of: the network is a module of {framework}, not of {backend}")
        config = validate(
            {
                "data": {"source": "none", "image_size": list(shape[1:]), "channels": shape[0]},
                "model": {"ch_mult": [1], "num_classes": num_classes},
                "diffusion": {
                    "schedule": schedule,
                    "beta_start": beta_start,
                    "beta_end": beta_end,
                    "timesteps": timesteps,
                    "objective": objective,
                },
            },
            "Model.of",
        )
        plan = own_plan(lambda: network, config)
        panel = backends.load(framework, device)
        weights = panel.weights(panel.network(plan, None))
        return Model(Source(Path("own"), config, weights, "raw", None), panel, plan)

    @PythonTerms()
    def save(self, out: str | Path, overwrite: bool = False) -> Path:
        """Write config, weights and manifest into a folder for `diptych.load`.

        Args:
            out: the folder; written completely or not at all.
            overwrite: replace a folder that `save` wrote.

        Raises:
            UserError: the folder holds something. MachineError: the disk is full, or a similar
                fault.
        """
        path = Path(path_text("out", out))
        check_free(path, overwrite, SAVED.__contains__)
        group = "raw" if self.facts["weights"] == "raw" else "ema"
        arrays = {name: np.ascontiguousarray(array) for name, array in self.weights.items()}
        with new_folder(path) as folder:
            (folder / "config.yaml").write_text(to_yaml(self.config), "utf-8")
            file = folder / f"{group}.safetensors"
            file.write_bytes(to_bytes(arrays))
            manifest = {
                "schema": 1,
                "backend": self.engine.backend.name,
                "config_identity": self.config.identity(),
                **self.facts,
                **({} if self.sampler is None else {"sampler": self.sampler}),
                "files": {file.name: sha256_of(file)},
            }
            if isinstance(self.engine.plan, OwnPlan):
                manifest["network"] = checkpoint.OWN_NETWORK
            write_json(folder / "manifest.json", manifest)
        return path

    def __repr__(self) -> str:
        plan, facts = self.engine.plan, self.facts
        shape = "x".join(map(str, plan.shape))
        numbers = sum(array.size for array in self.weights.values())
        kind = "own network" if isinstance(plan, OwnPlan) else "U-Net"
        classes = f", {plan.num_classes} classes" if plan.num_classes else ""
        return (
            f"<Model {facts['weights_from']!r}: {kind} of {numbers:,} weights ({facts['weights']}) "
            f"for images of {shape}{classes}, {self.config.diffusion.objective}, "
            f"{self.engine.backend.name} on {self.engine.backend.device}>"
        )

    @PythonTerms()
    def predict(
        self, x: Float32, t: npt.ArrayLike, classes: npt.ArrayLike | None = None
    ) -> Float32:
        """Predict the noise in images, (B, C, H, W) float32, for any objective of the network.

        Args:
            x: noisy images, (B, C, H, W), float32.
            t: timesteps, (B,) integers in 0 .. T-1.
            classes: (B,) integers in 0 .. K; K, the default, is 'no class'.

        Raises:
            UserError: a wrong shape, or timesteps or classes out of range.
        """
        x = numbers("x", x).astype(np.float32, copy=False)
        self._check_images(x, None)
        t = numbers("t", t)
        classes = None if classes is None else numbers("classes", classes)
        check_integers("t", t, len(x), self.engine.schedule.timesteps)
        return self.engine.predictor.predict(x, t, classes, self.engine.schedule)

    @PythonTerms()
    def sample(
        self,
        num: int,
        solver: Any = None,
        steps: int | None = None,
        eta: float | None = None,
        spacing: str | None = None,
        seed: int = 0,
        x_T: Float32 | None = None,
        as_float: bool = False,
        *,
        clip: bool | Literal["image"] | None = None,
        batch: int | None = None,
        order: int | None = None,
        threshold: float | None = None,
        classes: Sequence[int] | str | None = None,
        guidance: float | None = None,
        guide: str | Path | None = None,
        guidance_interval: str | Sequence[int] | None = None,
        euler_at_final: bool | None = None,
        noise: str | None = None,
        callback: Callable[[int, Float32], object] | None = None,
    ) -> Array:
        """Draw images; image i only depends on (weights, sampler, seed, i).

        Args:
            num: number of images, 1 or more.
            solver: a name from `diptych.sampling.solvers.kinds`, such as `ddim`, `ddpm` or
                `dpmpp`, a solver from `diptych.solvers`, or the user's own solver; default:
                `dpmpp-sde`, or `ddim` if eta or x_T is given.
            steps: solver steps; default: 15 for `dpmpp-sde`, all timesteps for the ddpm family,
                50 for the others.
            eta: DDIM's noise, 0 or more; default: 0 for ddim.
            spacing: a name from `diptych.diffusion.timesteps`, such as `logsnr`, timesteps such as
                "940,600,250,20", or a file of `diptych.search_steps`, whose solver is the default
                then; default: `uniform`, or `trailing` if the schedule ends in pure noise.
            seed: keys all noise.
            x_T: initial noise, (num, C, H, W), instead of the keyed noise.
            as_float: return float32 (num, C, H, W) as the solver left them, unclipped.
            clip: clip each predicted image to [-1, 1]; "image", only for `ddim`: also keep the
                predicted noise, as diffusers does.
            batch: images computed at once; default: 64 on a CPU, on a GPU as `Model.batch` says.
            order: 2 or 3, for `deis`, `dpmpp` and `unipc`; 2, 3 or 4 for `ipndm`.
            threshold: dynamic thresholding at this quantile, instead of `clip`.
            classes: image i gets `classes[i mod n]`; default: every class in turn.
            guidance: away from no class, or from a guide: 0 ignores the class, 1 (default) is
                plain conditioning, more is stronger. With a guide the default is 1.5.
            guide: a less trained or smaller model of the same data, as `load` takes it.
            guidance_interval: guide at these timesteps alone: (100, 650) or "100-650".
            euler_at_final: order 1 in the last step between noisy levels, for `deis`, `dpmpp`,
                `dpmpp-sde` and `unipc`; default: where that step is long.
            noise: "keyed" (default): the device draws it, with the same bits on every device and
                in both frameworks; "host": NumPy's normals.
            callback: called after each step of each batch with the step's number, from 0, and the
                current images, float32 (B, C, H, W).

        Returns:
            uint8 (num, H, W, C), or float32 (num, C, H, W) with `as_float`.

        Raises:
            UserError: settings out of range, or `x_T` of the wrong shape.
        """
        check(int, 1, num=num)
        check(int, 0, seed=seed)
        check(int, 1, none=True, steps=steps, batch=batch, order=order)
        check(float, none=True, eta=eta, threshold=threshold, guidance=guidance)
        check(str, none=True, noise=noise)
        guide = None if guide is None else path_text("guide", guide)
        if spacing is not None:
            spacing = path_text("spacing", spacing, SPACING)
        if seed >= 2**63:
            raise refused("seed", seed, "2**63 - 1 or less")
        if callback is not None and not callable(callback):
            raise refused("callback", callback, "a function of a step's number and its images")
        if solver is None and x_T is not None:
            solver = "ddim"  # given noise calls for the image it deterministically leads to
        asked, _ = read_steps(
            {
                "solver": solver,
                "order": order,
                "eta": eta,
                "spacing": spacing,
                "clip": clip,
                "threshold": threshold,
                "classes": classes,
                "guidance": guidance,
                "guide": guide,
                "guidance_interval": guidance_interval,
                "euler_at_final": euler_at_final,
                "noise": noise,
            }
        )
        rule = None if isinstance(asked["solver"], str | None) else asked["solver"]
        if rule is not None:
            if eta is not None or asked["order"] is not None:
                raise UserError("sample: a solver that is an object has its own eta and order")
            if asked["clip"] == "image" and not isinstance(rule, Ddim):
                raise UserError('sample: clip="image" is for Ddim alone; others take clip=True')
            asked["solver"] = "ddim"
        sampler = make_sampler(
            **asked,
            steps=steps,
            timesteps=self.engine.schedule.timesteps,
            num_classes=self.engine.plan.num_classes,
            ends_in_noise=self.engine.starts_in_noise,
        )
        if rule is not None:
            sampler = GivenSampler.of(sampler, rule)
        if x_T is not None:
            x_T = numbers("x_T", x_T).astype(np.float32, copy=False)
            self._check_images(x_T, num)

        def observe(k: int, level: Level, x: Any) -> None:
            if callback is not None:
                callback(k, self.engine.backend.numpy(x))

        parts = []
        at_once = self.batch(sampler.doubled) if batch is None else batch
        for images in batches_of(num, min(at_once, num)):
            given = None if x_T is None else x_T[np.minimum(images, num - 1)]
            parts.append(self.engine.draw(sampler, images, seed, given, observe))
        drawn = np.concatenate(parts)[:num]
        return drawn if as_float else self.engine.pixels(drawn).transpose(0, 2, 3, 1)

    @PythonTerms()
    def batch(self, guided: bool = False) -> int:
        """Images in a call where no number is asked for: 64 on a CPU, on a GPU as many as a call
        with 4 GB of activations computes, up to 1,024, half of them with guidance."""
        backend = self.engine.backend
        most = batch_of(self.engine.plan, backend.device, backend.free_memory)
        return max(1, most // 2) if guided and backend.device != "cpu" else most

    @PythonTerms()
    def encode(
        self,
        images: Array,
        steps: int | None = None,
        spacing: str | None = None,
        *,
        refine: int = 1,
        batch: int = 64,
    ) -> Float32:
        """Find the noise that deterministic DDIM would turn into these images (DDIM inversion).

        `model.sample(len(x_T), steps=steps, x_T=x_T)` inverts this, more exactly with more steps.
        A network with classes encodes without one, so pass `guidance=0` when decoding.

        Args:
            images: uint8 (N, H, W, C), or float32 (N, C, H, W) in [-1, 1].
            steps, spacing: those of the sampler that will decode; default: 50, or as many as the
                spacing lists.
            refine: more network calls per step, each of which makes the round trip more exact.
            batch: images computed at once.

        Returns:
            x_T, float32 (N, C, H, W).

        Raises:
            UserError: images of the wrong shape, or settings out of range.
        """
        check(int, 1, none=True, steps=steps)
        check(int, 0, refine=refine)
        check(int, 1, batch=batch)
        x = numbers("images", images)
        x = self.engine.floats(np.moveaxis(x, -1, 1)) if x.dtype == np.uint8 and x.ndim == 4 else x
        self._check_images(x, None)
        if self.engine.preprocess.rescaled and np.abs(x).max(initial=0.0) > FAR_OUTSIDE:
            raise UserError(
                f"encode: images reach {np.abs(x).max():g}; give uint8, or floats in [-1, 1]"
            )
        timesteps = self.engine.schedule.timesteps
        if spacing is not None:
            spacing, _ = read_spacing(path_text("spacing", spacing, SPACING))
        inversion = make_inversion(
            steps, spacing, refine, timesteps, ends_in_noise=self.engine.starts_in_noise
        )
        if not len(x):
            raise UserError("encode: images: holds no image")
        x = np.ascontiguousarray(x, dtype=np.float32)
        parts = [
            encode(self.engine, inversion, x[np.minimum(rows, len(x) - 1)])
            for rows in batches_of(len(x), min(batch, len(x)))
        ]
        return np.concatenate(parts)[: len(x)]

    def _check_images(self, x: Array, num: int | None) -> None:
        if x.ndim != 4 or x.shape[1:] != self.engine.shape or num not in (None, len(x)):
            shape = ", ".join(map(str, ("N" if num is None else num, *self.engine.shape)))
            raise UserError(f"images are {x.shape}, this network needs ({shape})")


def numbers(name: str, given: object) -> Array:
    """The user's numbers as an array. Raises UserError if they are none."""
    try:
        array = np.asarray(given)
    except (TypeError, ValueError, RuntimeError):  # rows of several lengths; a GPU's tensor
        array = np.array(None)
    if array.dtype.kind not in "iuf":
        raise refused(name, given, "an array of numbers")
    return array


@dataclass(frozen=True)
class GivenSampler(Sampler):
    """A sampler whose update rule is an object, not a name; the loop checks the rule's needs."""

    rule: Any = None

    @staticmethod
    def of(sampler: Sampler, rule: Any) -> GivenSampler:
        """The settings of `sampler` with another rule."""
        same = {field.name: getattr(sampler, field.name) for field in fields(sampler)}
        return GivenSampler(**same | {"solver": type(rule).__name__}, rule=rule)

    def check(self, schedule: Schedule) -> None:
        """Check nothing: `solve` refuses levels that the rule cannot take."""

    def levels(self, schedule: Schedule) -> list[Level]:
        return [*map(schedule.level, self.timesteps(schedule)), CLEAN]

    def make(self, schedule: Schedule) -> Any:
        return self.rule


def batches_of(num: int, batch: int) -> list[list[int]]:
    """Indices 0 .. num-1 in full batches; the last batch runs past the end.

    Every batch has the same size, so that the kernels round every image alike; images past the end
    are dropped.
    """
    return [list(range(first, first + batch)) for first in range(0, num, batch)]
