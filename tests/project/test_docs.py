"""Documentation: links resolve, commands parse, and help text is not cut off."""

from __future__ import annotations

import contextlib
import re
import shlex
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from diptych.cli import cli
from diptych.sampling.options import SamplerOptions
from diptych.sampling.sampler import choose_sampler
from diptych.weights.find import find_weights

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted(ROOT.glob("docs/**/*.md")), *ROOT.glob("benchmarks/*.md")]
CODE = re.compile(r"^ *(?:```.*?^ *```|(?:    .*\n)+)", re.MULTILINE | re.DOTALL)
LINE = re.compile(r"^ *(?:\$ )?diptych ([a-z].*)$", re.MULTILINE)


def verbs(group: Any, path: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], click.Command]]:
    """Every command with its words after `diptych`."""
    found: list[tuple[tuple[str, ...], click.Command]] = []
    for name, command in group.commands.items():
        found += verbs(command, (*path, name)) if hasattr(command, "commands") else []
        found.append(((*path, name), command))
    return found


def parse(text: str) -> None:
    """A command line without its `diptych`; click raises where a verb or an option is unknown."""
    group: Any = cli
    words = shlex.split(text, comments=True)
    while hasattr(group, "commands"):
        if not words or words[0] not in group.commands:
            words = ["ladder", *words]  # what `align` stands for
        group, words = group.commands[words[0]], words[1:]
    group.make_context("diptych", words)


def commands(text: str) -> list[str]:
    """The command lines of code blocks; a help's words beside one stand after two spaces."""
    whole = "\n".join(CODE.findall(text.replace("\\\n", " ")))
    return [re.split(r" {3,}(?=[a-z])", line)[0] for line in LINE.findall(whole)]


SHOWN = [
    (str(page.relative_to(ROOT)), line) for page in PAGES for line in commands(page.read_text())
]
SHOWN += [
    (" ".join(path), re.split(r" {3,}(?=[a-z])", line)[0])
    for path, command in [((), cli), *verbs(cli)]
    for line in LINE.findall((command.help or "").replace("\\\n", " "))
]


def test_many_commands_are_shown() -> None:
    """The search below finds what it is to check."""
    assert len(SHOWN) > 120


@pytest.mark.parametrize(("where", "line"), SHOWN)
def test_every_command_shown_is_one(where: str, line: str) -> None:
    with contextlib.suppress(click.exceptions.Exit):  # --help
        parse(line)


def test_a_command_that_is_none_is_noticed() -> None:
    for wrong in ("train tiny --out x --epoch 3", "align tiny --steps many", "sample"):
        with pytest.raises(click.ClickException):
            parse(wrong)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files_and_headings(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text("utf-8")):
        if "://" in target:
            continue
        name, _, heading = target.partition("#")
        path = page.parent / name if name else page
        assert path.exists(), target
        if heading:
            titles = re.findall(r"^#+ (.*)$", path.read_text("utf-8"), re.MULTILINE)
            slugs = [re.sub(r"[^\w -]", "", each.lower()).replace(" ", "-") for each in titles]
            assert heading in slugs, target


def test_the_list_of_verbs_is_not_cut() -> None:
    """At 80 columns click ends a long line with dots."""
    text = CliRunner().invoke(cli, ["--help"], terminal_width=80).output
    assert "..." not in text.split("Commands:")[1]


def test_what_a_model_recommends_is_said_in_its_own_words() -> None:
    """And not with the settings of its network; nor does asking change the record."""
    found = find_weights("zoo:mnist-torch", None, False)
    own = dict(found.sampler or {})
    for _ in range(2):
        _, said = choose_sampler(SamplerOptions(), found.config, found.sampler)
        words = ", ".join(f"{name} {value}" for name, value in own.items())
        assert said == f"sampling as this model recommends: {words}"
    assert words.startswith("solver dpmpp-sde, steps 15, guide zoo:mnist-torch/guide")
