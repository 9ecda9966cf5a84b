"""The sampler's options: each setting once, with its option name, its help and its uses.

The command line's options, the identity in manifests, the names of folders, a sweep's variants and
the samples behind a score all derive from the fields of `SamplerOptions`. A new setting is one
field here, and its rule in `diptych.sampling.sampler`.

This module does not load NumPy, so that help is quick; a test compares the names below with the
solvers and spacings that exist.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import Field, dataclass, field, fields
from typing import Any

SOLVERS = ("ddim", "ddpm", "ddpm-large", "ddpm-noisy", "deis", "dpmpp", "dpmpp-sde", "euler",
           "heun", "ipndm", "plms", "pndm", "unipc")  # fmt: skip
SPACINGS = ("uniform", "quad", "trailing", "logsnr", "karras", "official-quad")


def one_of(names: Sequence[str]) -> str:
    """Join names as `a, b or c.`"""
    return f"{', '.join(names[:-1])} or {names[-1]}."


def _setting(
    help: str,
    kind: type,
    folder: Callable[[Any], str],
    *,
    flag: str | None = None,
    by_timesteps: bool = False,
    inverts: bool = False,
) -> Any:
    """Define a field of `SamplerOptions`.

    Args:
        help: the option's help text.
        kind: int, float, str, or bool for a flag that can be switched off.
        folder: gives this setting's part of a folder's name from a `Sampler`.
        flag: the option's name, if it differs from the field's.
        by_timesteps: only affects the images through the chosen timesteps, which manifests hold.
        inverts: also a setting of an inversion (`diptych encode`), which fixes the others.
    """
    facts = {"help": help, "kind": kind, "folder": folder, "flag": flag}
    return field(default=None, metadata={**facts, "by_timesteps": by_timesteps, "inverts": inverts})


def _spacing(s: Any) -> str:
    if not s.spacing[0].isdigit():
        return f"-{s.spacing}"
    import hashlib

    return f"-listed{hashlib.sha256(s.spacing.encode()).hexdigest()[:8]}"


def _guide(s: Any) -> str:
    if s.guide is None:
        return ""
    import hashlib

    return f"-guide{hashlib.sha256(s.guide.encode()).hexdigest()[:8]}"


def _limit(s: Any) -> str:
    return f"-threshold{s.threshold:g}" if s.threshold and not s.clip else ""


def _classes(s: Any) -> str:
    from diptych.diffusion.classes import short_name

    return "" if s.classes is None else f"-class{short_name(s.classes)}"


@dataclass(frozen=True)
class SamplerOptions:
    """The settings given by the user; None leaves one to the model or the solver.

    A folder's name lists the settings in the order of the fields.
    """

    solver: str | None = _setting(
        f"{one_of(SOLVERS)}  [default: the model's own, else dpmpp-sde; with --eta: ddim]",
        str,
        lambda s: s.solver,
    )
    order: int | None = _setting(
        "2 or 3, for deis, dpmpp and unipc; 2 to 4 for ipndm.  [default: 2; ipndm: 4]",
        int,
        lambda s: f"-order{s.order}" if s.order else "",
    )
    steps: int | None = _setting(
        "Solver steps.  [default: dpmpp-sde: 15; ddpm: all; others: 50]",
        int,
        lambda s: f"-{s.steps}",
        by_timesteps=True,
        inverts=True,
    )
    spacing: str | None = _setting(
        f"{', '.join(SPACINGS)}, timesteps such as 940,600,250,20, a file of search-steps, or "
        "zoo:NAME, the five found for that model.  "
        "[default: uniform; with zero terminal SNR: trailing]",
        str,
        _spacing,
        by_timesteps=True,
        inverts=True,
    )
    eta: float | None = _setting(
        "DDIM's noise, 0 or more.  [default: 0; ddpm: 1]", float, lambda s: f"-eta{s.eta:g}"
    )
    euler_at_final: bool | None = _setting(
        "Order 1 in the last step between noisy levels, for deis, dpmpp, dpmpp-sde and unipc.  "
        "[default: where that step is long]",
        bool,
        lambda s: {None: "", True: "-euler", False: "-noeuler"}[s.euler_at_final],
        flag="euler-at-final",
    )
    clip: bool | None = _setting(
        "Clip each predicted image to [-1, 1].  [default: no]",
        bool,
        lambda s: "-clip-image" if s.clip == "image" else "-clip" if s.clip else "",
    )
    threshold: float | None = _setting(
        "Dynamic thresholding: a quantile such as 0.995.", float, _limit
    )
    classes: Sequence[int] | str | None = _setting(
        "7, a list 0,1,2 (by turns) or all.  [default: all]", str, _classes, flag="class"
    )
    guidance: float | None = _setting(
        "Guidance scale, away from no class or from --guide: 0 ignores the class, 1 is plain "
        "conditioning, 2 is strong.  [default: 1; with --guide: 1.5]",
        float,
        lambda s: "" if s.guidance is None else f"-w{s.guidance:g}",
    )
    guide: str | None = _setting(
        "A less trained or smaller model of the same data, from which to guide away; none: not "
        "the recommended one.",
        str,
        _guide,
    )
    guidance_interval: str | Sequence[int] | None = _setting(
        "Guide at these timesteps alone, such as 100-650.  [default: all]",
        str,
        lambda s: "-at{}-{}".format(*s.guidance_interval) if s.guidance_interval else "",
        flag="guidance-interval",
    )
    noise: str | None = _setting(
        "keyed or host: drawn by the device with the same bits everywhere, or by NumPy.  "
        "[default: keyed]",
        str,
        lambda s: "" if s.noise == "host" else f"-{s.noise}",  # host was the default, once
    )

    def given(self) -> dict[str, Any]:
        """The settings that are not None, by name."""
        found = {name: getattr(self, name) for name in NAMES}
        return {name: value for name, value in found.items() if value is not None}


FIELDS: dict[str, Field[Any]] = {each.name: each for each in fields(SamplerOptions)}
NAMES = tuple(FIELDS)
# The settings by which manifests are compared: equal values generate equal images. The timesteps
# come first, since the first difference is told, and others may follow from them.
IDENTITY = ("timesteps", *(n for n, f in FIELDS.items() if not f.metadata["by_timesteps"]))
GUIDED = ("guide", "guidance", "guidance_interval")
INVERTED = tuple(n for n, f in FIELDS.items() if f.metadata["inverts"])


def option_name(name: str) -> str:
    """The name of a field's option, without its dashes."""
    return str(FIELDS[name].metadata["flag"] or name)


def folder_name(sampler: Any) -> str:
    """A folder name for a `Sampler`; different samplers of one network never share it."""
    return "".join(each.metadata["folder"](sampler) for each in FIELDS.values())


def merged(
    options: SamplerOptions, recommended: Mapping[str, Any] | None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Merge the given settings with the model's recommendations for the others.

    A recommendation is used as a whole: not if another rule is given, by `solver`, or by `eta`
    unless ddim is recommended. A given limit replaces the recommended limit, and a given number of
    steps the recommended list of timesteps. Without the recommended guide, by "none" or where the
    class is ignored, how it guides is not recommended either.

    Returns:
        (all settings by name, the recommended ones among them).
    """
    given = options.given()
    own = dict(recommended or {})
    if "solver" in given or ("eta" in given and own.get("solver") != "ddim"):
        own = {}
    if "threshold" in given or "clip" in given:
        own = {name: value for name, value in own.items() if name not in ("clip", "threshold")}
    if "guide" in own and (given.get("guide") == "none" or given.get("guidance") == 0):
        own = {name: own[name] for name in own if name not in GUIDED}
    own = without_overruled(own, given)
    return {**own, **given}, own


def without_overruled(own: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """A model's or a start's settings that are not given, and do not contradict what is given.

    Listed timesteps are as many as they are: a given list overrules `steps`, and given steps a list
    of another length.
    """
    left = {name: value for name, value in own.items() if name not in given}
    if _listed(given):
        left.pop("steps", None)
    elif "steps" in given and _listed(left) not in (0, given["steps"]):
        del left["spacing"]
    return left


def _listed(settings: Mapping[str, Any]) -> int:
    """The number of listed timesteps; 0 if the spacing is a name, or missing."""
    spacing = settings.get("spacing") or ""
    return spacing.count(",") + 1 if spacing[:1].isdigit() else 0
