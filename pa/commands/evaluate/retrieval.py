"""`pa evaluate retrieval`: average precision of part retrieval."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pa.commands import console, options
from pa.commands.evaluate import scores
from pa.errors import UsageError

if TYPE_CHECKING:
    from pa.data.store.find import StoreSelector
    from pa.data.store.reader import Store
    from pa.evaluate.retrieval_table import RetrievalProtocol, Scored
    from pa.evaluate.rows import Paired
    from pa.workspace import Workspace

PARTS_SHOWN = 6  # columns of single parts that fit into a terminal

target_option = click.option(
    "--target",
    default="label",
    show_default=True,
    help="Column of the rows; rows with equal values are relevant to each other.",
)
layers_option = click.option("--layers", help="Score single blocks too: all, or 2,5,8,11.")


PROTOCOL = click.Option(
    ["--protocol"],
    help="Protocol of scoring, paper or released; a store whose parts it cut is selected. "
    "Default: the protocol that cut the parts.",
)
store_options = options.Group(
    "selector",
    options.stores_of_encoders.make,
    *(PROTOCOL if o.name == "protocol" else o for o in options.stores_of_encoders.options),
)


@click.command()
@options.encoders
@scores.representations
@store_options
@target_option
@click.option(
    "--include-self/--exclude-self",
    default=None,
    help="Whether a query is its own candidate. Default: paper excludes, released includes.",
)
@layers_option
@click.option("--device", help="Device: auto, cpu, cuda or cuda:N.")
@click.option(
    "--figure", type=options.PATH, help="Draw the scores; with --layers, the curve by depth."
)
@options.as_json
@options.workspace
def retrieval(
    workspace: Workspace,
    encoders: tuple[str, ...],
    representations: tuple[str, ...],
    selector: StoreSelector,
    target: str,
    include_self: bool | None,
    layers: str | None,
    device: str | None,
    figure: Path | None,
    as_json: bool,
) -> None:
    """Score part retrieval: the average precision of every patch as a query against all others.

    The encoded part (cls, pooled) and the projected part of the paper's Table 3. Each score has
    its chance level (the expected AP of a random ranking), an interval over images as queries and
    gallery, and the narrower one that holds the gallery fixed.

    \b
    pa evaluate retrieval --encoder mocov3,dino --dataset cub
    pa evaluate retrieval --encoder dino --dataset coco --protocol released
    pa evaluate retrieval --encoder dino --layers all --figure depth.pdf
    """
    from pa.evaluate.retrieval_table import better_encoded, score_stores
    from pa.figures.scores import draw_depth, draw_scores
    from pa.figures.style import Target, check_suffix

    if figure is not None:
        check_suffix(figure)  # before the scoring, which takes longer
    chosen = resolve_stores(workspace, selector, encoders, layers)
    scored, paired = score_stores(
        chosen,
        resolve_representations(chosen[0], representations, layers),
        results=workspace.config.results,
        protocol=resolve_protocol(chosen[0], selector.protocol, include_self),
        target=target,
        device=workspace.device(device),
        progress=workspace.progress,
    )
    if figure is not None:
        draw = draw_scores if layers is None else draw_depth
        draw([entry.result for entry in scored], Target([figure]))
    better = better_encoded(scored)
    if not as_json:
        console.out(_text(scored, paired, better, figure))
        return
    options.emit(
        {
            "results": [entry.to_json() for entry in scored],
            "differences": [
                {**entry.result.to_json(), "name": entry.name, "file": str(entry.path)}
                for entry in paired
            ],
            "better_encoded": [
                {
                    "encoder": entry.encoder,
                    "representation": entry.representation,
                    "chosen_on": "the score that is reported",
                }
                for entry in better
            ],
            "figure": str(figure) if figure else None,
        }
    )


# -- names to objects ------------------------------------------------------------------------------


def resolve_stores(
    workspace: Workspace, selector: StoreSelector, encoders: Sequence[str], layers: str | None
) -> list[Store]:
    """Return one store per encoder; for `layers`, preferably one that keeps single blocks."""
    from pa.evaluate.rows import check_same_rows, keeps_blocks

    preferred = None if layers is None else keeps_blocks
    stores = scores.part_stores(workspace, selector, encoders, preferred)
    check_same_rows(stores)
    return stores


def resolve_representations(store: Store, names: Sequence[str], layers: str | None) -> list[str]:
    """Return the named representations and those of single blocks; empty selects the default."""
    from pa.evaluate.rows import block_representations, default_representations

    unique = list(dict.fromkeys(names))  # in the order of the options
    if layers is None:
        return unique
    try:
        blocks = None if layers.strip() == "all" else [int(part) for part in layers.split(",")]
    except ValueError:
        raise UsageError(
            f"--layers takes all, or block numbers: 2,5,8,11; found {layers!r}."
        ) from None
    return [*(unique or default_representations(store)), *block_representations(store, blocks)]


def resolve_protocol(
    store: Store, name: str | None, include_self: bool | None
) -> RetrievalProtocol:
    """Return the named protocol, else the one that cut the parts of the store, else `paper`."""
    from pa.data.store.find import protocol as parts_protocol
    from pa.evaluate.retrieval_table import RETRIEVAL_PROTOCOLS

    cut_by = parts_protocol(store)  # None for other views
    name = name or (cut_by if cut_by in RETRIEVAL_PROTOCOLS else None) or "paper"
    # A protocol of parts alone, such as `boxes`, has no rules of retrieval: `paper` applies.
    protocol = RETRIEVAL_PROTOCOLS[name if name in RETRIEVAL_PROTOCOLS or not cut_by else "paper"]
    return protocol if include_self is None else replace(protocol, include_self=include_self)


# -- text ------------------------------------------------------------------------------------------


def _text(
    scored: Sequence[Scored],
    paired: Sequence[Paired[Scored]],
    better: Sequence[Scored],
    figure: Path | None,
) -> str:
    """Return average precision with chance and intervals, paired differences, and the files."""
    from pa.evaluate.intervals import SMALL_SAMPLE, T_IMAGES

    first = scored[0]  # all scores are of the same rows
    lines = [_heading(scored), "", _table(scored, better)]
    if (more := len(first.parts) - PARTS_SHOWN) > 0:
        lines.append(f"{more} more classes: --json")
    lines += [
        "AP in percent, mean over queries; over parts: mean over their means",
        "chance: expected AP of a random ranking; prior: share of relevant patches",
    ]
    wide, narrow = first.overall.interval, first.overall.fixed_gallery  # one image has neither
    if wide is not None and narrow is not None:
        few = f", since there are fewer than {SMALL_SAMPLE} images"
        lines += [
            f"95 % interval: for new images, by {wide.method}",
            f"gallery fixed: for new queries of this gallery, by {narrow.method}"
            + (few if narrow.method == T_IMAGES else ""),
        ]
    if better:
        lines.append(
            "* the better of cls and pooled, as the paper reports; selected on this score, which "
            "biases it upwards"
        )
    if paired:
        lines += ["", scores.differences([(entry.name, entry.scores["ap"]) for entry in paired])]
    paths = [entry.path for entry in scored]
    return "\n".join([*lines, "", *scores.files(paths, [figure])])


def _heading(scored: Sequence[Scored]) -> str:
    """Return the data and the protocol, and the queries with what was left out."""
    entry = scored[0]
    stores = dict.fromkeys(f"{e.encoder} {e.store.spec.short[:8]}" for e in scored)  # once each
    counts, protocol, spec = entry.result.counts, entry.result.protocol, entry.store.spec
    changed = "".join(f", {name} {value}" for name, value in protocol.changed.items())
    query = "among its candidates" if protocol.parameters["include_self"] else "left out"
    skipped = {
        "without another of their class": counts.left_out_without_relevant,
        "without a label": counts.left_out_unlabelled,
        "of unreadable images": counts.left_out_bad,
    }
    reasons = ", ".join(f"{n} {reason}" for reason, n in skipped.items() if n)
    return (
        f"part retrieval · {spec.dataset}/{spec.split}/{entry.store.view} · protocol "
        f"{protocol.name}{changed} (the query itself is {query})\n"
        f"{counts.queries} queries of {counts.images} images, {counts.classes} classes"
        + (f"; skipped: {reasons}" if reasons else "")
        + f"; {', '.join(stores)}"
    )


def _table(scored: Sequence[Scored], better: Sequence[Scored]) -> str:
    parts = list(scored[0].parts)[:PARTS_SHOWN]  # --json has the others
    rows = []
    for entry in scored:
        overall = entry.overall
        means = [entry.over_parts, *(entry.parts[part] for part in parts)]
        rows.append(
            [
                entry.encoder,
                entry.representation + (" *" if entry in better else ""),
                f"{100 * overall.value:.2f}",
                scores.interval_text(overall),
                overall.fixed_gallery.text() if overall.fixed_gallery else "",
                f"{100 * (overall.value - overall.chance):+.2f}",
                *(f"{100 * mean.value:.2f}" for mean in means),
            ]
        )
    # Both levels are equal for all encoders, which have the same rows.
    for level in ("chance", "prior"):
        of_overall, *of_means = (f"{100 * getattr(mean, level):.2f}" for mean in (overall, *means))
        rows.append([level, "", of_overall, "", "", "", *of_means])
    headers = ["encoder", "representation", "AP", "95 % interval", "gallery fixed"]
    headers += ["above chance", "over parts", *parts]
    return console.table(headers, rows, "  r  rr" + "r" * len(parts))
