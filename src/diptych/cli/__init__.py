"""The command `diptych`: its verbs, their options, and how errors become one line and a code.

Verbs import what they need when they run, so that `diptych --help` is quick and loads no framework.
stdout is the result, stderr is progress. Exit codes: 0 well, 1 the machine's fault, 2 the user's,
3 an alignment that fails, 130 and 143 after Ctrl-C and SIGTERM.
"""

from __future__ import annotations

import errno
import os
import sys
from typing import Any

import click

from diptych import logs
from diptych._version import __version__
from diptych.cli.align import align
from diptych.cli.common import fail
from diptych.cli.compare import compare
from diptych.cli.convert import convert, inspect
from diptych.cli.data import data
from diptych.cli.encode import encode
from diptych.cli.evaluate import evaluate, stats
from diptych.cli.machine import demo, doctor
from diptych.cli.profile import profile
from diptych.cli.report import report
from diptych.cli.reproduce import reproduce
from diptych.cli.sample import sample
from diptych.cli.sweep import sweep
from diptych.cli.train import train
from diptych.errors import STAGE, MachineError, UserError


def main(command: click.Command | None = None, name: str = "diptych") -> None:
    """Run a command line, by default this one, and leave with its exit code."""
    logs.show()
    try:
        (command or cli)(prog_name=name, standalone_mode=False)
    except click.ClickException as error:
        fail(error.format_message(), 2)
    except click.exceptions.Exit as error:
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        if os.environ.get(STAGE):
            sys.exit(130)  # the study says so itself
        fail("interrupted", 130)
    except (UserError, MachineError) as error:
        fail(str(error), error.exit_code)
    except BrokenPipeError:
        sys.exit(0)
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        fail("out of memory; lower --batch (or --sample-batch, train.batch_size), or free some", 1)
    except OSError as error:
        if error.errno not in (errno.ENAMETOOLONG, errno.ELOOP):
            raise
        fail(f"{str(error.filename)[:200]}: {error.strerror}; correct the path", 2)


def out_of_memory(error: Exception) -> bool:
    """Whether this is a framework's or NumPy's way of saying that memory ran out."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return any(words in str(error) for words in ("can't allocate memory", "CUDA out of memory"))


class Verbs(click.Group):
    """Names the nearest verb where one is misspelt."""

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        if args and args[0] not in self.commands and not args[0].startswith("-"):
            from diptych.errors import nearest

            raise UserError(f"verb '{args[0]}' is not known{nearest(args[0], list(self.commands))}")
        return super().resolve_command(ctx, args)


@click.group(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="diptych")
def cli() -> None:
    """DDPM and DDIM in two mirrored frameworks, PyTorch and Jittor.

    \b
    Begin with:
      diptych doctor                                    what works on this machine
      diptych demo                                      both panels, side by side
      diptych sample zoo:mnist-torch --out digits       a trained model
      diptych train mnist --backend jittor --out run    your own
    """


VERBS = (doctor, demo, train, sample, encode, compare, align, evaluate, stats, sweep, data)
for verb in (*VERBS, inspect, convert, profile, report, reproduce):
    cli.add_command(verb)
