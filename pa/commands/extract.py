"""`pa extract`: encode every region of a split once."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from pa.commands import console, options
from pa.errors import EXIT_PARTLY_DONE

if TYPE_CHECKING:
    from pa.extract.run import RunResult
    from pa.extract.stores import ExtractOptions, Report
    from pa.workspace import EncoderOptions, RegionSelector, Workspace

BAD_SHOWN = 10  # bad images in the terminal; manifest.json lists all


# Shared with `pa plan extract` and `pa submit`: the fields of `pa.extract.stores.ExtractOptions`.
extract_options = options.Group(
    "extract_options",
    "pa.extract.stores:ExtractOptions",
    click.Option(
        ["--features", "representations"],
        callback=options.listed,
        help="Representations to store, such as cls,pooled,patch. Default: depends on the view.",
    ),
    click.Option(["--limit"], type=click.IntRange(1), help="Encode the first N images only."),
    click.Option(
        ["--storage"],
        type=click.Choice(options.STORAGES),
        help="Precision of the stored features. Default: fp16.",
    ),
    click.Option(["--batch-size"], type=click.IntRange(1), help="Regions per forward pass."),
    click.Option(["--workers"], type=click.IntRange(1), help="Number of decoding threads."),
    click.Option(
        ["--shard-rows"], type=click.IntRange(1), help="Rows per shard. Default: 1024, or 256 MB."
    ),
    click.Option(
        ["--replace"],
        is_flag=True,
        help="Replace a conflicting store, and encode changed images again.",
    ),
    click.Option(
        ["--alongside"],
        is_flag=True,
        help="Keep a conflicting store and create the new one next to it.",
    ),
)
extract_regions = options.Group(
    "regions",
    "pa.commands.extract:select_regions",
    *options.regions.options,
    click.Option(
        ["--views", "n_views"],
        type=click.IntRange(0),
        help="Number of training crops per image of view windows. Default: 0, sliding windows.",
    ),
)


def select_regions(n_views: int | None, **fields: Any) -> RegionSelector:
    """Return the regions of the options; the number of crops is a field of view windows."""
    from pa.workspace import RegionSelector

    if n_views is not None:
        fields["view_options"] = (*fields["view_options"], ("views", n_views))
    return RegionSelector(**fields)


@click.command()
@options.encoders
@extract_regions
@options.encoder_options
@extract_options
@click.option(
    "--task-id",
    type=click.IntRange(0),
    help="Number of this task, from 0. Default: that of the Slurm array.",
)
@click.option(
    "--task-count",
    type=click.IntRange(1),
    help="Number of tasks that share the work. Default: that of the Slurm array.",
)
@options.as_json
@options.workspace
def extract(
    workspace: Workspace,
    encoders: tuple[str, ...],
    regions: RegionSelector,
    encoder_options: EncoderOptions,
    extract_options: ExtractOptions,
    task_id: int | None,
    task_count: int | None,
    as_json: bool,
) -> None:
    """Encode every region of a split once and store the features.

    Run the same command again to resume; run it several times at once to share the work. Exit
    code 6 means that some images could not be read: they are listed, and all others are done.

    \b
    pa extract --encoder deit --checkpoint deit.pth --dataset imagenet --root /data --split val
    pa extract --encoder timm/vit_base_patch16_224.dino --dataset folder --root photos/
    """
    from pa.extract.share import choose_share

    share = choose_share(task_id, task_count)
    images, views = workspace.regions(regions)
    loaded = workspace.encoders(encoders, encoder_options)
    results = workspace.extract(loaded, images, views, extract_options, share=share)
    if as_json:
        options.emit({"runs": [result.to_json() for result in results]})
    else:
        for result in results:
            console.out(result_text(result))
    if any(result.bad for result in results):
        sys.exit(EXIT_PARTLY_DONE)


def result_text(result: RunResult) -> str:
    """Return what an extraction wrote, where the time went, and which images were bad."""
    lines = []
    for report in result.reports:
        store = report.store
        shapes = store.spec.representations.items()
        stored = ", ".join(f"{name} {'×'.join(map(str, shape))}" for name, shape in shapes)
        n_left = len(store.missing())
        lines.append(store.title)
        lines.append(f"  {store.n_rows} rows of {store.spec.rows['n_images']} images: {stored}")
        lines.append(f"  {_done(report, n_left)}; {store.path}")
        if n_left:
            lines.append(f"  {n_left} of {len(store.plan)} shards are locked by other tasks")
    if rows := max(report.rows_encoded for report in result.reports):
        stages = result.stages
        work = [f"{name} {console.duration(value)}" for name, value in stages.seconds.items()]
        lines.append(
            f"  {console.duration(stages.wall)}, {rows / max(stages.wall, 1e-9):.1f} rows/s; "
            f"work: {', '.join(work)}; limited by {stages.limit}"
        )
    if result.bad:
        lines.append(f"  {len(result.bad)} images could not be read; their rows are not used:")
        lines += [f"    {bad.path}: {bad.reason}" for bad in result.bad[:BAD_SHOWN]]
        if len(result.bad) > BAD_SHOWN:
            lines.append(f"    … and {len(result.bad) - BAD_SHOWN} more, in manifest.json")
    return "\n".join(lines)


def _done(report: Report, n_left: int) -> str:
    linked, copied = report.shards_adopted, report.rows_copied
    if not (report.rows_encoded or linked or copied or n_left):
        return "nothing to do: the store is complete"
    words = [f"{report.rows_encoded} rows encoded now"]
    if linked:
        words.append(f"{linked} shards taken from another store")
    if copied:
        sources = " and ".join(report.copied_from)
        words.append(f"{copied} rows ({console.size(report.bytes_copied)}) copied from {sources}")
    if report.seconds_saved is not None:
        words.append(f"{console.duration(report.seconds_saved)} of encoding saved")
    return ", ".join(words)
