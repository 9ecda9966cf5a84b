"""Settings that suit a user's own pictures, chosen by their size, channels and number.

    grey, up to 32x32     the preset `mnist`'s network          colour, or larger     `small_colour`

Resolutions are halved until a side is 8 pixels or less, and attention is there. Few pictures get
dropout and fewer steps. Every choice is a setting that the user may give instead.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from diptych.config.load import apply_override, is_there, load_config, preset_names
from diptych.config.size import Size, checked_size, sides_of, size_of, size_option, size_text
from diptych.data.picture import SUFFIXES
from diptych.data.sources.named import absolute
from diptych.data.sources.spec import ARRAYS, OWN
from diptych.data.survey import Survey, survey
from diptych.errors import UserError
from diptych.files import expanded, look
from diptych.training.batches import held_out_number

SIDES = (64, 32, 16, 8)  # chosen from where the user gives no size; larger ones take a large GPU
LOWEST = 8  # pixels of the lowest resolution
ALIKE = 0.02  # of an aspect ratio: pictures that differ by less have one shape
MANY, FEW, ENOUGH = 5_000, 1_000, 200  # pictures: no dropout; memorized at once; some to hold out
OFTEN = 100  # steps between two grids, at least: each costs many steps
MOST_HELD_OUT = 1_000  # of at most a tenth
STEPS = {"mnist": 10_000, "small_colour": 20_000}  # a run's length; a quarter of it for few
# Published networks for pictures of at most this size, for a user with many pictures and a GPU.
LARGE = ((32, "cifar10"), (64, "celeba"), (256, "bedroom"))


def is_pictures(text: str) -> bool:
    """True if a text names the user's own pictures, and not a preset or a YAML file.

    A preset's name is the preset even if a folder is called so; write `./NAME` for the folder.
    """
    if text in preset_names():
        return False
    if text.partition(":")[0] in OWN:
        return True
    path = expanded(text)
    if is_there(path):
        return path.suffix.lower() in (*ARRAYS, *SUFFIXES)
    try:
        return look(path) == "folder"
    except UserError:  # no path that the system takes
        return False


def given_settings(overrides: Sequence[str]) -> dict[str, Any]:
    """The keys and values of `section.key=value` texts. Raises UserError for another text."""
    tree: dict[str, Any] = {}
    for override in overrides:
        apply_override(tree, override)
    found: dict[str, Any] = {}
    for section, values in tree.items():
        if isinstance(values, dict):
            found |= {f"{section}.{key}": value for key, value in values.items()}
        else:
            found[section] = values
    return found


@dataclass(frozen=True)
class Chosen:
    """A preset, or the config of a run that is resumed, and the settings that differ from it.

    Attributes:
        preset: the preset's name, or the path of the run's config.
        settings: key -> value, the data's source first.
        notes: lines for people: reasons and warnings.
    """

    preset: str
    settings: dict[str, Any]
    notes: tuple[str, ...]

    @property
    def overrides(self) -> list[str]:
        """The settings as `section.key=value`, values as JSON, which is YAML too."""
        return [f"{key}={json.dumps(value)}" for key, value in self.settings.items()]

    def line(self, given: Mapping[str, Any]) -> str:
        """The command line, without --out, that trains with these settings and the user's own."""
        rest = {**self.settings, **given}
        words = ["diptych", "train", self.preset, "--data-source", rest.pop("data.source")]
        for key, value in rest.items():
            words += ["--set", f"{key}={json.dumps(value)}"]
        return shlex.join(words)


def choose_for(
    source: str,
    changes: Sequence[str],
    data_dir: Path | None,
    say: Callable[[str], object],
    resumed: Path | None = None,
) -> Chosen:
    """Look at a source of pictures and choose its settings; both are said, line by line.

    Args:
        changes: the user's own settings as `section.key=value`.
        data_dir: the folder, if the source is a kind without a path.
        resumed: a run folder. If a run was begun there, it keeps its settings, and its pictures
            are at `source` now; nothing is said.

    Raises:
        UserError: as `survey` and `choose`, or the source is the folder of a run.
    """
    if resumed is not None and (resumed / "config.yaml").is_file():
        return Chosen(str(resumed / "config.yaml"), {"data.source": absolute(source)}, ())
    if (Path(source) / "config.yaml").is_file():
        raise UserError(
            f"{source}: is a run, not a folder of pictures; go on with it by diptych train --out "
            f"{shlex.quote(source)} --resume"
        )
    given = given_settings(changes)
    found = survey(source, str(given.get("data.split", "train")), data_dir)
    say(found.text())
    chosen = choose(found, given)
    for each in chosen.notes:
        say(each)
    say(f"settings to keep: {chosen.line(given)}")
    return chosen


def choose(found: Survey, given: Mapping[str, Any]) -> Chosen:
    """Choose a preset and settings for surveyed pictures.

    Args:
        found: the pictures.
        given: settings that the user gave, by key, as in `given_settings`; the caller applies them
            afterwards. Size, channels and length are read here, for others depend on them.

    Raises:
        UserError: a size that the pictures cannot have, or pictures smaller than 8 pixels.
    """
    notes: list[str] = []
    channels = _channels(found, given.get("data.channels"))
    size = _size(found, given.get("data.image_size"), notes)
    longer = max(sides_of(size))
    preset = "mnist" if channels == 1 and longer <= 32 else "small_colour"
    mult, lowest = _levels(size)
    usable = found.images - len(found.bad) * bool(given.get("data.skip_bad"))
    settings: dict[str, Any] = {
        "data.source": found.source,
        "data.image_size": size,
        "data.channels": channels,
        "model.ch_mult": mult,
        "model.attn_resolutions": [lowest],
        **(_last_levels(len(mult)) if preset == "mnist" else {}),
        "train.batch_size": min(64, usable),
    }
    held_out = min(MOST_HELD_OUT, usable // 10) if usable >= ENOUGH else 0
    if isinstance(given.get("data.held_out"), int | float):
        held_out = held_out_number(given["data.held_out"], usable)
    elif held_out:
        settings["data.held_out"] = held_out
        notes.append(
            f"{held_out:,} pictures are held out for the validation loss; --set data.held_out=0 "
            f"trains on all"
        )
    else:
        notes.append(f"{usable} pictures are too few to hold some out for a validation loss")
    trained = usable - held_out
    steps = _steps(given, trained, STEPS[preset] if usable >= FEW else STEPS[preset] // 4)
    every = min(steps, max(OFTEN, steps // 20))
    # Epochs that the user asked for are the run's length, which steps would overrule.
    by_epochs = "train.epochs" in given and given.get("train.steps") is None
    settings |= {"train.steps": None if by_epochs else steps, "train.grid_every": every}
    if held_out:
        settings["train.validate_every"] = every
    warmup = load_config(preset).train.warmup_steps
    if warmup > steps // 10:
        settings["train.warmup_steps"] = steps // 10
    if usable < MANY:
        settings["model.dropout"] = 0.1
    if usable < FEW:
        notes.append(
            f"warning: {usable} pictures are few; the network may learn to repeat them. Compare "
            f"its samples with diptych sample --nearest"
        )
    if preset == "small_colour" and "data.random_flip" not in given:
        notes.append(
            "mirrored pictures are trained on too; where left and right matter, as in text: "
            "--set data.random_flip=false"
        )
    if found.classes > 1 and "model.num_classes" not in given:
        notes.append(
            f"the {found.classes} classes are not used; to draw a class of choice: "
            f"--set model.num_classes={found.classes}"
        )
    large = next((name for most, name in LARGE if longer <= most), None)
    if usable >= 20_000 and channels == 3 and large is not None and isinstance(size, int):
        notes.append(
            f"with so many pictures and a large GPU, the published network of {large} is better: "
            f"{large} in place of {preset} in the line of settings, without its model settings"
        )
    return Chosen(preset, settings, tuple(notes))


def _steps(given: Mapping[str, Any], trained: int, usual: int) -> int:
    """A run's length: as given in steps or epochs of `trained` pictures, else the usual one."""
    steps, epochs = given.get("train.steps"), given.get("train.epochs")
    batch = given.get("train.batch_size", 64)
    if isinstance(steps, int) and steps > 0:
        return steps
    if isinstance(epochs, int) and epochs > 0 and isinstance(batch, int) and batch > 0:
        return epochs * -(-trained // min(batch, trained))
    return usual


def _channels(found: Survey, given: Any) -> int:
    """3 for pictures in colour, else 1; as given, if it is."""
    if found.shape is not None:
        held = found.shape[0]
        if given not in (None, held):
            raise UserError(
                f"{found.source}: the images have {held} channel{'s' * (held > 1)}, not {given}; "
                f"leave --channels out"
            )
        return held
    if given is None:
        return 3 if found.colour else 1
    if given not in (1, 3):
        raise UserError(f"--set data.channels={given}: expected 1 or 3")
    return int(given)  # grey pictures made of colour ones are said by `load_configured`


def _size(found: Survey, given: Any, notes: list[str]) -> Size:
    """The size that pictures become: as given, else a square, the largest of SIDES that fits.

    Images stored as arrays are only shrunk, so they keep their shape.
    """
    middle = int(found.sides[len(found.sides) // 2])
    asked: Size | None = None
    if given is not None:
        try:
            asked = checked_size(given)
        except ValueError as error:
            raise UserError(f"--size {given}: {error}") from None
    if found.shape is not None:
        if asked is None:
            asked = _shrunk(found)
            shape = "x".join(map(str, found.shape[1:]))
            notes.append(
                f"size {size_option(asked)}, as the images are {shape}; --size chooses one"
            )
        return asked
    size: Size
    if asked is not None:
        size = asked
    elif int(found.sides[0]) == middle and middle % 4 == 0 and SIDES[-1] <= middle <= SIDES[0]:
        size = middle  # all at least as large: none is enlarged
        notes.append(f"size {size}, the pictures' shorter side; --size chooses another")
    else:
        fitting = [side for side in SIDES if side <= middle]
        if not fitting:
            raise UserError(
                f"{found.source}: half of the pictures are below {SIDES[-1]} pixels (the middle "
                f"one has {middle}); choose a size with --size"
            )
        size = fitting[0]
        notes.append(
            f"size {size}: the middle one of the shorter sides is {middle}; --size chooses another"
        )
    height, width = sides_of(size)
    smaller = sum(n for (wide, high), n in found.counts if wide < width or high < height)
    if smaller:
        notes.append(
            f"warning: {smaller:,} of {len(found.sides):,} pictures are smaller than "
            f"{size_option(size)} pixels and are enlarged"
        )
    if not isinstance(size, int):
        if found.counts != [((width, height), len(found.sides))]:
            notes.append(
                f"each picture is resized until it just covers {height} rows of {width} pixels, "
                f"and its middle is used (data.crop center); see it with diptych data preview"
            )
        return size
    if int(found.sides[-1]) > size or len(found.sizes) > 1:
        notes.append(
            f"each picture's shorter side becomes {size} pixels and its middle square is used "
            f"(data.crop center); see it with diptych data preview"
        )
    oblong = _oblong(found, size)
    if oblong is not None:
        wider = "wider than high" if oblong[1] > oblong[0] else "higher than wide"
        notes.append(
            f"most pictures are {wider} and alike; --size {size_text(oblong)} (height x width) "
            f"keeps their shape"
        )
    return size


def _shrunk(found: Survey) -> Size:
    """The largest size to which the stored images can be shrunk and that can be halved twice, with
    a shorter side of at most SIDES[0]. Raises UserError if there is none."""
    assert found.shape is not None
    _, height, width = found.shape
    for k in range(1, min(height, width) // 4 + 1):
        if height % (4 * k) == 0 == width % (4 * k) and min(height, width) <= SIDES[0] * k:
            return size_of(height // k, width // k)
    sides = f"{height}" if height == width else f"{height} and {width}"
    raise UserError(
        f"{found.source}: no size of at most {SIDES[0]} pixels divides {sides} and can be halved; "
        f"choose one with --size"
    )


def _oblong(found: Survey, side: int) -> tuple[int, int] | None:
    """Height and width that keep the shape of most pictures, up to ALIKE, where a square has `side`
    pixels; None: most pictures are square, or they are unlike."""
    ratios = sorted((wide / high, n) for (wide, high), n in found.counts)
    total, passed, middle = sum(n for _, n in ratios), 0, 1.0
    for ratio, n in ratios:
        if passed < total / 2:
            middle = ratio
        passed += n
    alike = sum(n for ratio, n in ratios if abs(ratio / middle - 1) <= ALIKE)
    if 2 * alike <= total or abs(middle - 1) <= ALIKE or side < 2 * LOWEST:
        return None
    mult, _ = _levels(side)
    step = 2 ** (len(mult) - 1)
    stretch = max(middle, 1 / middle)
    pairs = [(n, step * max(1, round(n * stretch / step))) for n in range(side, side // 2, -step)]
    error = [abs(longer / shorter / stretch - 1) for shorter, longer in pairs]
    near = next((i for i, each in enumerate(error) if each <= ALIKE), int(np.argmin(error)))
    shorter, longer = pairs[near]
    return (shorter, longer) if middle > 1 else (longer, shorter)


def _last_levels(count: int) -> dict[str, Any]:
    """The widths of `mnist`'s last levels, which have the resolutions of small pictures."""
    network = load_config("mnist").model
    widths = [network.ch * each for each in network.ch_mult[-count:]]
    return {"model.ch": widths[0], "model.ch_mult": [width // widths[0] for width in widths]}


def _levels(size: Size) -> tuple[list[int], int]:
    """Channel multipliers, one a resolution, and the shorter side of the lowest resolution.

    Raises:
        UserError: a side cannot be halved once.
    """
    height, width = sides_of(size)
    if height % 2 or width % 2:
        side = "" if height == width else f": the {'height' if height % 2 else 'width'}"
        raise UserError(
            f"--size {size_option(size)}{side} cannot be halved; use a multiple of 4, such as 32 "
            f"or 64"
        )
    lowest, halvings = min(height, width), 0
    while (lowest > LOWEST or not halvings) and (height | width) % 2 ** (halvings + 1) == 0:
        lowest, halvings = lowest // 2, halvings + 1
    mult = [1, *[2] * halvings]
    if height * width > 64 * 64:  # the largest resolutions take most of the time
        mult[1] = 1
    return mult, lowest
