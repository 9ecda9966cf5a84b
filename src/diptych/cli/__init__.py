"""The command `diptych`: its verbs and their options; errors become one line and an exit code.

Verbs import their modules when they run, so `diptych --help` is quick and loads no framework.
stdout is the result, stderr is progress. Exit codes: 0 success, 1 machine error, 2 user error,
3 failed alignment, 130 and 143 after Ctrl-C and SIGTERM.
"""

from __future__ import annotations

import os
import sys

import click

from diptych import __version__
from diptych.cli.align import align
from diptych.cli.common import Verbs, fail, hold_streams, leave
from diptych.cli.compare import compare
from diptych.cli.completion import completion
from diptych.cli.convert import convert, inspect
from diptych.cli.data import data
from diptych.cli.denoise import denoise
from diptych.cli.encode import encode
from diptych.cli.evaluate import evaluate, stats
from diptych.cli.export import export
from diptych.cli.golden import golden
from diptych.cli.machine import demo, doctor
from diptych.cli.profile import profile
from diptych.cli.protocol import protocol
from diptych.cli.report import report
from diptych.cli.reproduce import reproduce
from diptych.cli.sample import sample
from diptych.cli.search_steps import search_steps
from diptych.cli.studio import studio
from diptych.cli.sweep import sweep
from diptych.cli.train import train
from diptych.cli.watch import list_runs, watch
from diptych.errors import STAGE, Followed, MachineError, UserError, show_notices
from diptych.files import machine_faults
from diptych.machine.stopping import ending, stop_in_order
from diptych.ranks import of_environment

# Only in click 8.2 and later; earlier versions print the help themselves.
NO_ARGUMENTS: tuple[type[Exception], ...] = tuple(
    filter(None, [getattr(click.exceptions, "NoArgsIsHelpError", None)])
)


def main(command: click.Command | None = None, name: str = "diptych") -> None:
    """Run a command, by default `diptych`, and exit with its code."""
    hold_streams()
    show_notices()
    stop_in_order()
    try:
        (command or cli)(prog_name=name, standalone_mode=False)
        sys.stdout.flush()
    except click.ClickException as error:
        if isinstance(error, NO_ARGUMENTS):  # its message is the whole help
            click.echo(error.format_message())
            leave(0)
        fail(error.format_message(), 2)
    except click.exceptions.Exit as error:
        leave(error.exit_code)
    except (KeyboardInterrupt, click.Abort) as stop:
        word, code = ending(stop)
        if os.environ.get(STAGE):
            sys.exit(code)  # the study reports it
        fail(word, code)
    except (UserError, MachineError) as error:
        fail(str(error), error.exit_code)
    except Followed as error:  # rank 0 says why
        leave(error.exit_code)
    except BrokenPipeError:
        leave(0)
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        where = "the GPU is out of memory" if on_gpu(error) else "out of memory"
        way = "lower --batch (or --sample-batch, train.batch_size), or free some"
        fail(f"{where}; {way}; train also has train.checkpoint_activations=true", 1)
    except OSError as error:  # a system error that no part of ours expected
        try:
            with machine_faults(str(error.filename or "writing the output")):
                raise
        except (UserError, MachineError) as told:
            fail(str(told), told.exit_code)


def out_of_memory(error: Exception) -> bool:
    """True if this is how a framework or NumPy reports that memory ran out."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return on_gpu(error) or "can't allocate memory" in str(error)


def on_gpu(error: Exception) -> bool:
    """True if it was a GPU's memory that ran out."""
    said = str(error)
    return type(error).__name__ == "OutOfMemoryError" or any(words in said for words in GPU_FULL)


# PyTorch, the CUDA libraries and Jittor in turn.
GPU_FULL = (
    "CUDA out of memory",
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "cudaErrorMemoryAllocation",
    "Unable to alloc cuda device memory",
    "memory is overflow, please reduce",
)


# Verbs that the processes of a launcher may share.
RANKED = ("train", "sample", "encode", "stats", "sweep", "reproduce")


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
    verb = click.get_current_context().invoked_subcommand
    if verb not in RANKED and (text := _launched()):
        raise UserError(f"diptych {verb} works in one process, and {text}; start it on its own")


def _launched() -> str:
    """Launcher and number of processes, if it started several; "" for one."""
    try:
        ranks = of_environment()
    except UserError:  # such as within a job of SLURM, outside srun
        return ""
    return "" if ranks.alone else f"{ranks.launcher} started {ranks.world}"


VERBS = (doctor, demo, train, watch, sample, encode, compare, align, evaluate, stats, sweep, data)
MORE = (
    list_runs,
    denoise,
    search_steps,
    inspect,
    convert,
    profile,
    protocol,
    report,
    studio,
    reproduce,
)
REST = (export, golden, completion)
for verb in (*VERBS, *MORE, *REST):
    cli.add_command(verb)
