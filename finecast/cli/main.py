"""The `finecast` command: every subcommand is a file beside this one, imported when called."""

from __future__ import annotations

import io
import os
import signal
import sys
import traceback
import warnings
from importlib import import_module
from pathlib import Path
from typing import Any

import click

from finecast.problem.memory import refuse_little_memory
from finecast.problem.version import FINECAST_VERSION
from finecast.problem.wording import printable
from finecast.solvers.extras import MissingExtra
from finecast.solvers.signals import interrupt_between_imports

COMMANDS = {
    "generate": "Draw instances from a scenario.",
    "show": "Say and draw what is in a library, scenario, instance or solution.",
    "library": "Build a parameter-block library from model families or checkpoints.",
    "solve": "Solve an instance; print delay, certified bound and gap.",
    "plan": "Plan a network: what to store at each site and what it buys, on one page.",
    "evaluate": "Judge a solution.",
    "read-sol": "Read and judge what another solver found in our model.",
    "export": "Write an instance or a solution for MATLAB.",
    "bound": "Compute the certified lower bound alone.",
    "train": "Train a learner on draws of scenarios.",
    "doctor": "Say what finecast runs on, and test that it works here.",
    "methods": "List the methods, or the options of one.",
    "suites": "The reference library: list it, write its instances, check it, submit to it.",
    "compare": "Run methods on a suite of instances; goes on where it was stopped.",
    "sweep": "Run methods over values of a scenario: delay against storage, users, ...",
    "figure": "Draw a sweep or training runs for a paper: PDF, SVG, PNG, PGF or CSV.",
    "report": "Write what the runs of a comparison say: a page, or tables.",
}

LONGEST_LINE = 1000
"""Characters of a message; a value from a file can be longer than a screen."""


class _Commands(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = import_module(f"finecast.cli.{cmd_name.replace('-', '_')}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(FINECAST_VERSION, prog_name="finecast")
def cli() -> None:
    """Fine-grained AI-model caching, migration and coordinated broadcasting at the network edge.

    Start with: finecast solve vision-small

    Exit codes: 0 done, 1 the answer is no (infeasible, check failed), 2 bad input, 3 a fault of
    finecast itself.
    """


def main() -> None:
    """Run the command line.

    Bad input ends in one line on stderr and exit code 2. What finecast did not foresee ends in one
    line and exit code 3, never in 1, which means that the answer is no.
    """
    warnings.showwarning = _note
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, interrupt_between_imports)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # what an encoding lacks becomes a question mark
            stream.reconfigure(errors="replace")
    try:
        refuse_little_memory()
        code = cli.main(standalone_mode=False)
    except click.ClickException as error:
        _fail(error.format_message())
    except (ValueError, OSError, MemoryError, MissingExtra) as error:
        if isinstance(error, BrokenPipeError):
            os._exit(0)  # the reader of our output has left; nothing to flush
        if os.environ.get("FINECAST_DEBUG"):
            raise
        _fail(str(error) or "out of memory")
    except (KeyboardInterrupt, click.Abort):
        click.echo("finecast: interrupted", err=True)
        sys.exit(130)
    except Exception as error:
        if os.environ.get("FINECAST_DEBUG"):
            raise
        _report(error)
    sys.exit(code if isinstance(code, int) else 0)


def _note(message: Warning | str, *_where: Any, **_more: Any) -> None:
    """Show a warning in one line, without the source line that gave it."""
    click.echo(f"finecast: note: {printable(_one_line(str(message)))}", err=True)


def _fail(message: str) -> None:
    click.echo(f"finecast: error: {printable(_one_line(message))}", err=True)
    sys.exit(2)


def _report(error: Exception) -> None:
    """Say that finecast is at fault, where, and how to report it."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if f"{os.sep}finecast{os.sep}" in frame.filename] or frames
    where = f" at {Path(own[-1].filename).name}:{own[-1].lineno}" if own else ""
    what = printable(_one_line(f"{type(error).__name__}: {error}"))
    click.echo(
        f"finecast: fault: {what}{where}; this is a fault of finecast {FINECAST_VERSION}, not of "
        "the input: please report it to the developers with the command, its files and what it "
        "prints with FINECAST_DEBUG=1",
        err=True,
    )
    sys.exit(3)


def _one_line(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= LONGEST_LINE else f"{line[:LONGEST_LINE]} ..."
