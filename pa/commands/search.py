"""`pa search`: find the nearest regions of a region."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pa.commands import console, options
from pa.errors import UsageError

if TYPE_CHECKING:
    from pa.data.schema import Box
    from pa.data.store.find import StoreSelector
    from pa.index.search import SearchResult
    from pa.workspace import Workspace


@click.command()
@click.option("--query-id", type=int, help="Row id of the query region.")
@click.option("--image", type=options.PATH, help="Image file to search for instead of a row.")
@click.option("--box", callback=options.box, help="Box of --image: x0,y0,x1,y1 in its pixels.")
@click.option("-k", type=int, default=24, show_default=True, help="Number of neighbours.")
@options.encoders
@click.option(
    "--representation",
    "representations",
    callback=options.listed,
    help="Stored vector: cls, pooled, projected, or several separated by commas. Default: pooled.",
)
@options.stores_of_encoders
@click.option("--include-self", is_flag=True, help="Allow the query among its neighbours.")
@click.option("--exclude-same-image", is_flag=True, help="Exclude regions of the query's image.")
@click.option("--index", "factory", help="FAISS factory string. Default: SQfp16, which is exact.")
@click.option("--figure", type=options.PATH, help="Draw the result to a .png, .pdf or .svg file.")
@click.option("--root", type=options.PATH, help="Current root folder of the images, for --figure.")
@click.option("--device", help="Device that encodes --image and searches, such as cuda.")
@options.checkpoints
@options.as_json
@options.workspace
def search(
    workspace: Workspace,
    query_id: int | None,
    image: Path | None,
    box: Box | None,
    k: int,
    encoders: tuple[str, ...],
    representations: tuple[str, ...],
    selector: StoreSelector,
    include_self: bool,
    exclude_same_image: bool,
    factory: str | None,
    figure: Path | None,
    root: Path | None,
    device: str | None,
    checkpoints: tuple[Path, ...],
    as_json: bool,
) -> None:
    """Find the nearest regions of a region, by cosine similarity.

    The query is a row of a store, or a box in an image file. A missing index is built first.

    \b
    pa search --query-id 123 -k 24
    pa search --query-id 123 --encoder mocov3,dino --representation pooled,projected --figure f.pdf
    pa search --image cat.jpg --box 40,60,96,116
    """
    from pa.extract.image_query import ImageQuery

    query: int | ImageQuery
    if image is not None and query_id is None:
        query = ImageQuery.read(image, box)
    elif query_id is None or image is not None:
        raise UsageError("what is the query? Give --query-id N, or --image FILE (with --box).")
    elif box is not None:
        raise UsageError("--box is a box in --image FILE. It cannot be given with --query-id.")
    elif checkpoints:
        raise UsageError("--checkpoint is the file that encodes --image. Give both or neither.")
    else:
        query = query_id
    answers = workspace.search(
        workspace.stores(selector, encoders),
        query,
        k=k,
        representations=representations,
        include_self=include_self,
        exclude_same_image=exclude_same_image,
        factory=factory,
        device=device,
        checkpoints=checkpoints,
    )
    if figure is not None:
        from pa.figures.neighbours import draw, panels_of
        from pa.figures.style import Target

        draw(panels_of(answers, root), Target([figure]))
    if as_json:
        results = [result.to_json() for _, result in answers]
        options.emit({"results": results, "figure": str(figure) if figure else None})
        return
    console.out("\n\n".join(result_text(result) for _, result in answers))
    if figure is not None:
        console.out(f"\nfigure: {figure}")


def result_text(result: SearchResult) -> str:
    """Return the query and its neighbours as a table."""
    query = result.query
    name = f"row {query.row}" if query.row is not None else "image"
    label = f" {_label(query.label)}" if query.label else ""
    rules = f", protocol {result.protocol}" if result.protocol else ""
    rows = [
        [str(n.rank), str(n.row), f"{n.cosine:.4f}", n.path, _box(n.box), _label(n.label)]
        for n in result.neighbours
    ]
    return (
        f"{result.encoder} · {result.representation} · cosine, {result.quality} · {result.store}"
        f"{rules}\nquery: {name}, {query.path} {_box(query.box)}{label}\n"
        + console.table(["rank", "id", "cosine", "image", "box", "label"], rows, "rrr")
    )


def _label(label: str | None) -> str:
    """Return a label, with the class name of a WordNet id: "tench (n01440764)"."""
    from pa.data.datasets.imagenet import readable_label

    name = readable_label(label or "")
    return name if name == (label or "") else f"{name} ({label})"


def _box(box: Sequence[float] | None) -> str:
    return ",".join(f"{value:g}" for value in box) if box else ""
