"""The root command: global options, registered commands, errors as exit codes.

Results go to stdout, progress and notes to stderr. Nothing heavy is imported before a command runs.
"""

from __future__ import annotations

import io
import os
import signal
import sys
from pathlib import Path
from types import FrameType

import click

from pa.commands import console
from pa.commands.config import config
from pa.commands.datasets import datasets
from pa.commands.demo import demo
from pa.commands.encoders import encoders
from pa.commands.evaluate import evaluate
from pa.commands.explore import explore
from pa.commands.extract import extract
from pa.commands.figure import figure
from pa.commands.gc import gc
from pa.commands.index import index
from pa.commands.options import PATH
from pa.commands.plan import plan
from pa.commands.probe import probe
from pa.commands.report import report
from pa.commands.run import run
from pa.commands.search import search
from pa.commands.status import status
from pa.commands.submit import submit
from pa.commands.verify import verify
from pa.errors import EXIT_INTERRUPTED, PaError

COMMANDS = (
    config,
    datasets,
    demo,
    encoders,
    evaluate,
    explore,
    extract,
    figure,
    gc,
    index,
    plan,
    probe,
    report,
    run,
    search,
    status,
    submit,
    verify,
)
RETRY_SECONDS = 1.0  # after which a signal that stopped nothing is delivered again
received: list[int] = []  # signals that asked this command to stop


def main() -> None:
    """Run the command line and turn errors into one paragraph and an exit code."""
    # Otherwise waiting threads of torch spin on cores that decoders and other programs could use.
    # torch reads the variable when it is loaded, which is later.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    try:
        received.clear()
        for number in (signal.SIGINT, signal.SIGTERM):
            # A shell starts a background job with SIGINT ignored, which stays so.
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, _interrupt)
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="replace")  # a terminal that is not UTF-8 shows ?
        code = cli.main(standalone_mode=False)
    except click.exceptions.Abort:
        code = _interrupted()
    except KeyboardInterrupt:
        code = _interrupted()
    except Exception as error:  # noqa: BLE001 - raised again unless it was expected
        # A C library may have turned an interrupt into another error.
        code = _interrupted() if received else _failed(error)
    finally:
        if received:
            signal.setitimer(signal.ITIMER_REAL, 0)
    sys.exit(code if isinstance(code, int) else 0)


def _failed(error: Exception) -> int:
    """Print an expected error and return its exit code; raise any other."""
    if isinstance(error, click.ClickException):
        error.show()
        return error.exit_code
    if not isinstance(error, (PaError, OSError)):
        raise error
    console.note("\n".join([f"error: {error}", *getattr(error, "__notes__", ())]))
    return error.exit_code if isinstance(error, PaError) else 1


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Raise KeyboardInterrupt, and again after a while in case the first one was swallowed.

    Python drops an exception that is raised in a destructor, in a callback of a weak reference (as
    the import system has) or in a callback of a C library. A command that is already cleaning up is
    not interrupted, except by another Ctrl-C.
    """
    received.append(number)
    signal.signal(signal.SIGALRM, _interrupt)
    signal.setitimer(signal.ITIMER_REAL, RETRY_SECONDS)
    if number == signal.SIGINT or not _is_unwinding():
        raise KeyboardInterrupt


def _is_unwinding() -> bool:
    """Return whether the main thread is handling a KeyboardInterrupt or an error during it."""
    error = sys.exception()
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__context__
    return error is not None


def _interrupted() -> int:
    # Python records an interrupt of code that exec() runs, such as an import, and `python -m pa`
    # would then end by SIGINT whatever the exit code. The next exec() clears the record.
    exec("")
    console.note("interrupted. Finished work is kept; run the same command again to continue.")
    return EXIT_INTERRUPTED


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="part-aware", prog_name="pa")
@click.option(
    "--workspace",
    "-w",
    type=PATH,
    help="Folder of pa.toml, features, indexes and results. Default: PA_WORKSPACE, else the "
    "nearest parent folder with a pa.toml, else the current folder.",
)
@click.pass_context
def cli(context: click.Context, workspace: Path | None) -> None:
    """Encode image regions once with a frozen encoder, then search, probe and score them.

    \b
    pa demo                                          try everything on sample photographs
    pa extract --encoder mocov3 --split val          encode a split and store its features
    pa search --query-id 123 -k 24 --figure top.png  find the nearest regions of region 123
    pa probe linear                                  train a linear classifier on the features
    """
    context.obj = workspace


for command in COMMANDS:
    cli.add_command(command)
