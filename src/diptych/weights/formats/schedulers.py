"""The schedulers of diffusers: for each class, the keys that are read and those that are ignored.

    noise       betas, their number, prediction type    -> our diffusion section
    sampling    of DDPM and DDIM                        -> the recommended sampler
                of the other classes: ignored, with a note

A key of a known class in another class's file is ignored, as in diffusers. A value that cannot be
honoured, and a key that no class has, are refused by name. A missing key has diffusers' default,
which differs between classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diptych.errors import UserError, nearest
from diptych.weights.pickle.ops import show

Tree = dict[str, Any]
SCHEDULES = {"linear": "linear", "scaled_linear": "quad", "squaredcos_cap_v2": "cosine",
             "sigmoid": "sigmoid"}  # fmt: skip
OBJECTIVES = {"epsilon": "eps", "sample": "x0", "v_prediction": "v"}
# "linspace" equals our timesteps only if every timestep is visited, as DDPM's sampler does.
_SPACINGS = {"DDPM": {"leading": "uniform", "trailing": "trailing", "linspace": "uniform"},
             "DDIM": {"leading": "uniform", "trailing": "trailing"}}  # fmt: skip
# "fixed_large_log" is missing: diffusers takes the root of a negative logarithm, which is NaN.
_VARIANCES = {"fixed_small": "ddpm", "fixed_small_log": "ddpm", "fixed_large": "ddpm-large"}
ANY = None  # any value that our own config accepts


@dataclass(frozen=True)
class Key:
    """A key that is read: diffusers' default, and the values that can be honoured."""

    default: object
    known: tuple[object, ...] | None = ANY


@dataclass(frozen=True)
class Scheduler:
    """A diffusers class: the keys that are read, and those that only control its own sampling."""

    read: Mapping[str, Key]
    left: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Found:
    """The content of a scheduler file.

    Attributes:
        noise: our diffusion section.
        names: our key in it -> theirs, for messages.
        sampler: the recommended sampler; None if the class's sampling is not supported.
        note: the ignored settings, for people.
    """

    noise: Tree
    names: Mapping[str, str]
    sampler: Tree | None
    note: str | None


def _noise(
    start: float = 1e-4, end: float = 0.02, rescale: bool = True, sigmoid: bool = False
) -> dict[str, Key]:
    schedules = tuple(name for name in SCHEDULES if sigmoid or name != "sigmoid")
    keys = {
        "num_train_timesteps": Key(1000),
        "beta_start": Key(start),
        "beta_end": Key(end),
        "beta_schedule": Key("linear", schedules),
        "trained_betas": Key(None, (None,)),
        "prediction_type": Key("epsilon", tuple(OBJECTIVES)),
        "predict_epsilon": Key(True, (True, False)),  # up to diffusers 0.9, for prediction_type
    }
    return keys | ({"rescale_betas_zero_snr": Key(False, (False, True))} if rescale else {})


def _left(*words: str) -> frozenset[str]:
    return frozenset(" ".join(words).split())


_CLIP = {"clip_sample": Key(True, (True, False)), "thresholding": Key(False, (True, False)),
         "clip_sample_range": Key(1.0, (1.0,)), "sample_max_value": Key(1.0, (1.0,)),
         "dynamic_thresholding_ratio": Key(0.995), "steps_offset": Key(0, (0,))}  # fmt: skip
_DDPM = Scheduler({
    **_noise(sigmoid=True), **_CLIP, "variance_type": Key("fixed_small", tuple(_VARIANCES)),
    "timestep_spacing": Key("leading", tuple(_SPACINGS["DDPM"])),
})  # fmt: skip
_DDIM = Scheduler({
    **_noise(), **_CLIP, "set_alpha_to_one": Key(True, (True,)),
    "timestep_spacing": Key("leading", tuple(_SPACINGS["DDIM"])),
})  # fmt: skip
_FLOW = {"use_flow_sigmas": Key(False, (False,))}  # flow matching is another process
_STEPS = "timestep_spacing steps_offset"
_SPREAD = "use_karras_sigmas use_exponential_sigmas use_beta_sigmas"
_SIGMAS = f"{_SPREAD} {_STEPS}"
_LIMIT = "thresholding dynamic_thresholding_ratio sample_max_value"
_MULTISTEP = (
    f"{_SPREAD} {_LIMIT} solver_order solver_type lower_order_final flow_shift "
    "use_dynamic_shifting time_shift_type"
)
_DPM = f"{_MULTISTEP} algorithm_type final_sigmas_type lambda_min_clipped variance_type"
SCHEDULERS: dict[str, Scheduler] = {
    "DDPMScheduler": _DDPM,
    "DDPMParallelScheduler": _DDPM,
    "DDIMScheduler": _DDIM,
    "DDIMParallelScheduler": _DDIM,
    "PNDMScheduler": Scheduler(
        _noise(rescale=False),
        _left("skip_prk_steps set_alpha_to_one", _STEPS),
    ),
    "DPMSolverMultistepScheduler": Scheduler(
        {**_noise(), **_FLOW}, _left(_DPM, _STEPS, "euler_at_final use_lu_lambdas")
    ),
    "DPMSolverSinglestepScheduler": Scheduler({**_noise(rescale=False), **_FLOW}, _left(_DPM)),
    "DEISMultistepScheduler": Scheduler(
        {**_noise(rescale=False), **_FLOW}, _left(_MULTISTEP, _STEPS, "algorithm_type")
    ),
    "UniPCMultistepScheduler": Scheduler(
        {**_noise(), **_FLOW},
        _left(_MULTISTEP, _STEPS, "predict_x0 disable_corrector solver_p final_sigmas_type",
              "sigma_min sigma_max shift_terminal"),
    ),
    "EulerDiscreteScheduler": Scheduler(
        _noise(),
        _left(_SIGMAS, "interpolation_type sigma_min sigma_max timestep_type final_sigmas_type"),
    ),
    "EulerAncestralDiscreteScheduler": Scheduler(_noise(), _left(_STEPS)),
    "HeunDiscreteScheduler": Scheduler(
        _noise(0.00085, 0.012, rescale=False), _left(_SIGMAS, "clip_sample clip_sample_range")
    ),
    "KDPM2DiscreteScheduler": Scheduler(_noise(0.00085, 0.012, rescale=False), _left(_SIGMAS)),
    "KDPM2AncestralDiscreteScheduler": Scheduler(
        _noise(0.00085, 0.012, rescale=False), _left(_SIGMAS)
    ),
    "LMSDiscreteScheduler": Scheduler(_noise(rescale=False), _left(_SIGMAS)),
}  # fmt: skip
# Keys that some class has or had; diffusers ignores them in files of other classes.
_ALL = sorted(
    {key for one in SCHEDULERS.values() for key in (*one.read, *one.left)}
    | {"tensor_format", "timestep_values", "clip_denoised"}
)


def read_scheduler(tree: Tree, file: Path) -> Found:
    """Read the noise and the recommended sampler from a scheduler's JSON.

    Raises:
        UserError: an unknown class or key, or a value that cannot be honoured.
    """
    name = tree.get("_class_name")
    if not isinstance(name, str) or name not in SCHEDULERS:
        known = nearest(str(name), list(SCHEDULERS))
        raise UserError(f"{file}: is a {show(name)}, a scheduler that is not known here{known}")
    for key in tree:
        if not key.startswith("_") and key not in _ALL:
            raise UserError(f"{file}: key {show(key)} is not one of a scheduler{_close(key)}")
    kind = SCHEDULERS[name]
    given = {key: tree.get(key, one.default) for key, one in kind.read.items()}
    meaningless = _meaningless(given)
    for key, one in kind.read.items():
        if key not in meaningless:
            refuse_unknown(key, given[key], one.known, key in tree, file, _why(name, key))
    predicts = given["prediction_type"]
    if given["predict_epsilon"] is False:
        if predicts == "v_prediction" or (predicts == "epsilon" and "prediction_type" in tree):
            raise UserError(
                f"{file}: predict_epsilon is false, but prediction_type is {predicts}; "
                "leave out the one that is wrong"
            )
        predicts = "sample"
    noise = {
        "schedule": SCHEDULES[given["beta_schedule"]],
        "beta_start": given["beta_start"],
        "beta_end": given["beta_end"],
        "timesteps": given["num_train_timesteps"],
        "objective": OBJECTIVES[predicts],
        "zero_terminal_snr": given.get("rescale_betas_zero_snr", False),
    }
    if noise["zero_terminal_snr"] and predicts == "epsilon":
        raise UserError(
            f"{file}: rescale_betas_zero_snr is true and prediction_type epsilon: at the last "
            "timestep nothing of the image is left, where a predicted noise says nothing of it"
        )
    names = {"schedule": "beta_schedule", "timesteps": "num_train_timesteps"}
    if kind.left:
        note = f"the noise is {name}'s; how it samples is not taken over, so choose with --solver"
        return Found(noise, names, None, note)
    linear = LINSPACE if given["timestep_spacing"] == "linspace" else None
    return Found(noise, names, _sampler("DDIM" if kind is _DDIM else "DDPM", given, file), linear)


def _sampler(kind: str, given: Tree, file: Path) -> Tree:
    # Thresholding with a maximum of 1 is clipping to [-1, 1]; DDIM then keeps the predicted noise.
    clips = given["thresholding"] or given["clip_sample"]
    sampler = {
        "solver": "ddim" if kind == "DDIM" else _VARIANCES[given["variance_type"]],
        "spacing": _SPACINGS[kind][given["timestep_spacing"]],
        "clip": ("image" if kind == "DDIM" else True) if clips else False,
    }
    steps, timesteps = 50, given["num_train_timesteps"]
    if kind == "DDIM" and isinstance(timesteps, int) and timesteps > steps and timesteps % steps:
        raise UserError(
            f"{file}: num_train_timesteps is {timesteps}, which {steps} steps do not divide; "
            f"diffusers' steps have another length there. {OWN}"
        )
    return sampler


LINSPACE = (
    "timestep_spacing linspace is honoured where every timestep is visited; with --steps they are "
    "those of spacing uniform, not diffusers'"
)
OWN = "Give the network's own folder with --config, and choose a sampler of Diptych"


def _meaningless(given: Tree) -> set[str]:
    """The keys that other keys disable."""
    found = set()
    if given.get("thresholding") is False:
        found |= {"sample_max_value"}
    if given.get("thresholding") is True or given.get("clip_sample") is False:
        found |= {"clip_sample_range"}
    if given.get("timestep_spacing") in ("trailing", "linspace"):
        found |= {"steps_offset"}
    return found


def _why(name: str, key: str) -> str:
    if key in ("trained_betas", "beta_schedule", "use_flow_sigmas"):
        return "the noise here has one of these schedules"
    if key == "variance_type":
        return f"the others need a network that predicts variances, or draw NaN in diffusers. {OWN}"
    if key in ("prediction_type", "predict_epsilon", "rescale_betas_zero_snr"):
        return "the network here predicts one of these"
    return f"no sampler of Diptych does so. {OWN}"


def _close(key: str) -> str:
    hint = nearest(key, _ALL)
    return hint if hint.startswith("; did") else f"; remove it if {key!r} is a comment"


def refuse_unknown(
    key: str, value: object, known: tuple[object, ...] | None, said: bool, file: Path, why: str
) -> None:
    """Raise UserError if a key has a value that cannot be honoured.

    Args:
        key, value: as in the file, or diffusers' default.
        known: the supported values; None: any.
        said: the key is in the file.
        file, why: for the message.
    """
    if known is None or any(
        value == k and isinstance(value, bool) == isinstance(k, bool) for k in known
    ):
        return
    given = show(value) if value is not None else "null"
    default = "" if said else " (diffusers' default)"
    wanted = " or ".join("null" if k is None else str(k) for k in known)
    raise UserError(
        f"{file}: {key} is {given}{default}, which cannot be honoured, only {wanted}: {why}"
    )
