"""The program `hierlmm`: its commands, and how each way of ending becomes an exit status and at most one sentence."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence

import click

from hierlmm import __version__
from hierlmm.cli.commands import compare, fit, models
from hierlmm.cli.output import printable
from hierlmm.errors import HierlmmError

# Exit statuses: what was asked for cannot be done; stopped by Ctrl-C (128 + SIGINT); the reader of a pipe went away.
REFUSED = 2
INTERRUPTED = 130
PIPE_CLOSED = 1


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 80})
@click.version_option(__version__, message="hierlmm %(version)s")
def program() -> None:
    """Hierarchical linear models: one specification, fitted by REML and by
    Bayes, and an account of why the two answers differ.

    Try:  hierlmm compare milk
    """


program.add_command(compare)
program.add_command(fit)
program.add_command(models)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the program on `arguments` (default: those of the process) and leave with its exit status."""
    _settle_streams()
    # matplotlib reports a cache directory that it cannot write to as a warning; the report does not need one
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    sys.exit(_status(arguments))


def _status(arguments: Sequence[str] | None) -> int:
    """The exit status: 0, or 2 with a sentence on standard error, 130 after Ctrl-C, 1 for a closed pipe."""
    try:
        given = None if arguments is None else list(arguments)
        status = program.main(args=given, prog_name="hierlmm", standalone_mode=False)
        sys.stdout.flush()
    except click.ClickException as error:
        error.show()
        return REFUSED
    except (click.Abort, KeyboardInterrupt):
        click.echo("Stopped.", err=True)
        return INTERRUPTED
    except HierlmmError as error:
        click.echo(f"Error: {printable(str(error))}", err=True)
        return REFUSED
    except BrokenPipeError:
        # nobody reads on, so that flushing at exit must not complain either
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return PIPE_CLOSED
    except OSError as error:
        click.echo(f"Error: The output could not be written: {error.strerror or error}.", err=True)
        return REFUSED
    return status if isinstance(status, int) else 0


def _settle_streams() -> None:
    """Characters that the terminal cannot show are replaced rather than an error."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
