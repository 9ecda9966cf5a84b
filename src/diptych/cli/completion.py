"""`diptych completion`, and the values that a shell completes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path

import click
from click.shell_completion import CompletionItem, get_completion_class

VARIABLE = "_DIPTYCH_COMPLETE"  # click's own name for a program called diptych
SHELLS = ("bash", "zsh", "fish")
_MARK = "# tab completion of diptych"
Completer = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


def completer(
    names: Callable[[], Iterable[str]], files: str = "", separator: str = ""
) -> Completer:
    """A click completion of names, and of files where no name fits.

    Args:
        names: gives all names.
        files: "file" or "dir": what else may stand there; "": nothing.
        separator: of a list of names, of which the last is completed.
    """

    def complete(
        context: click.Context, parameter: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        done, mark, last = incomplete.rpartition(separator) if separator else ("", "", incomplete)
        found = [CompletionItem(incomplete, type=files)] if files else []
        fitting = [f"{done}{mark}{name}" for name in names() if name.startswith(last)]
        return found + [CompletionItem(name) for name in fitting]

    return complete


def runs() -> list[str]:
    """The run folders one and two levels below the working folder."""
    found = [path.parent for depth in ("*", "*/*") for path in Path().glob(f"{depth}/config.yaml")]
    return sorted(str(path) for path in found)


def presets() -> list[str]:
    """The presets' names."""
    from diptych.config.load import preset_names

    return preset_names()


def models() -> list[str]:
    """The trained models in the package, and the run folders."""
    from diptych.weights.find import zoo_names

    return [*(f"zoo:{name}" for name in zoo_names()), *runs()]


def solvers() -> list[str]:
    """The solvers' names."""
    from diptych.sampling.solvers.kinds import KINDS

    return list(KINDS)


def metrics() -> list[str]:
    """The metrics' names."""
    from diptych.evaluation.collect import METRICS

    return list(METRICS)


PRESETS = completer(presets, "file")
MODELS = completer(models, "dir")
RUNS = completer(runs, "dir")
SOLVERS = completer(solvers)
METRICS = completer(metrics, separator=",")


@click.command(short_help="Print or install tab completion.")
@click.argument("shell", type=click.Choice(SHELLS))
@click.option("--install", is_flag=True, help="Install it for this user's new shells.")
def completion(shell: str, install: bool) -> None:
    """Print the script that completes diptych's verbs, options, presets, models and runs in SHELL.

    \b
    Examples:
      diptych completion bash --install
      diptych completion fish
    """
    from diptych.cli import cli

    made = get_completion_class(shell)
    assert made is not None  # click knows these three
    script = made(cli, {}, "diptych", VARIABLE).source()
    if shell == "bash":  # else zoo:NAME would be three words
        script += "\nCOMP_WORDBREAKS=${COMP_WORDBREAKS//:/}\n"
    if not install:
        click.echo(script)
        return
    click.echo("\n".join(install_to(shell, script, Path.home())))


def install_to(shell: str, script: str, home: Path) -> list[str]:
    """Write the script below a home folder and load it in new shells; return what was done.

    Bash and zsh get one line in .bashrc or .zshrc, once; fish finds the file by its place.
    """
    from diptych.files import machine_faults, write_text

    config = Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config")
    if shell == "fish":
        path = config / "fish" / "completions" / "diptych.fish"
    else:
        path = config / "diptych" / f"completion.{shell}"
    with machine_faults(f"writing {path}"):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, script)
    told = [f"wrote {path}"]
    if shell != "fish":
        start = home / f".{shell}rc"
        with machine_faults(f"writing {start}"):
            before = start.read_text("utf-8", "surrogateescape") if start.is_file() else ""
            if _MARK not in before:
                with start.open("a", encoding="utf-8") as file:
                    gap = "" if not before or before.endswith("\n") else "\n"
                    file.write(f'{gap}. "{path}"  {_MARK}\n')
                told.append(f"added a line to {start}")
    return [*told, f"open a new {shell} to use it"]
