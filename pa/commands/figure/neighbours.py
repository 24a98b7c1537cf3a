"""`pa figure neighbours`: neighbours of the same query by several encoders."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import click

from pa.commands import options
from pa.commands.figure.selection import PatchSearch, output, patch_search, show
from pa.errors import AmbiguousError, MissingError, UsageError

if TYPE_CHECKING:
    from pa.data.store.find import StoreSelector
    from pa.data.store.reader import Store
    from pa.figures.record import FigureOutput, WrittenFigure
    from pa.workspace import Workspace


@click.command()
@patch_search
@output
@options.as_json
@options.workspace
def neighbours(
    workspace: Workspace, patches: PatchSearch, output: FigureOutput, as_json: bool
) -> None:
    """Draw the nearest regions of the same query by several encoders (Figures 2, 7 and 8).

    A missing index is built first.

    \b
    pa figure neighbours --encoder deit,mocov3,cae --query val_00013660:19
    pa figure neighbours --dataset cub --view parts --query 123,456 --out figure2
    """
    from pa.figures.names import listed, representation_title

    names = patches.representations or (workspace.settings.representation,)
    vectors = listed(representation_title(name) for name in names)
    figure = draw_searches(
        workspace,
        "neighbours",
        select_stores(workspace, patches),
        replace(patches, representations=names),
        output,
        lambda encoders: (
            f"Top-{patches.k} neighbours of the same patch by {encoders}",
            f"Top-{patches.k} patch retrieval with {encoders} ({vectors}).",
        ),
    )
    show(figure, as_json)


def draw_searches(
    workspace: Workspace,
    kind: str,
    stores: Sequence[Store],
    patches: PatchSearch,
    output: FigureOutput,
    describe: Callable[[str], tuple[str, str]],
    more: Sequence[str] = (),
) -> WrittenFigure:
    """Search for every query in every store, and draw the answers.

    `describe` returns the title of the figure and the first sentence of its caption from the names
    of the encoders. `more` are representations in addition to those of `patches`.
    """
    from pa.figures import queries
    from pa.figures.names import listed, title_of_store
    from pa.figures.neighbours import describe_answers, draw, panels_of
    from pa.figures.style import TALLEST

    kind_of_images = workspace.dataset_kind(stores[0].spec.dataset)
    has_default = (kind_of_images, stores[0].view) == ("imagenet", "grid")
    if not patches.queries:
        if not has_default:
            raise UsageError(
                "which query? Give --query ID, a row id, or --query NAME:REGION, a region of the "
                "image whose path contains NAME; several with commas."
            )
        chosen, notes = queries.default_queries(stores[0], patches.examples)
        patches = replace(patches, queries=tuple(chosen))
        for note in notes:
            workspace.progress.note(note)
    rows = [queries.query_row(stores[0], query) for query in patches.queries]
    names = (*patches.representations, *more)
    answers = [
        workspace.search(
            stores,
            row,
            k=patches.k,
            representations=names,
            exclude_same_image=patches.exclude_same_image,
        )
        for row in rows
    ]
    title, sentence = describe(listed(title_of_store(s.spec.to_json()) for s in stores))
    record = describe_answers(
        kind,
        answers,
        title=title,
        sentence=sentence,
        note=queries.note(stores[0], rows) if has_default else "",
        options=patches.words(stores),
        exclude_same_image=patches.exclude_same_image,
    )
    # If there is one representation, the caption names it.
    named = len(set(names)) > 1
    panels = [panel for of in answers for panel in panels_of(of, patches.root, named=named)]
    target = record.target(output, workspace.config.figures)
    height = draw(panels, target, patches.across or 1 + len(more))
    if height > TALLEST:
        workspace.progress.note(
            f"the figure is {height:.1f} inches tall, more than a page: select fewer queries or "
            f"encoders, or put panels next to each other with --across."
        )
    return record.write(target.paths)


def select_stores(
    workspace: Workspace, patches: PatchSearch, needs: str | None = None
) -> list[Store]:
    """Return one store of each encoder, in the paper's order, of the same regions.

    With `needs`, encoders that were not named are used only if they have that representation.
    """
    from pa.data.store.find import StoreSelector
    from pa.data.store.spec import reason_absent

    if patches.examples and patches.queries:
        raise UsageError("--example chooses among the default queries: give it without --query.")
    selector = StoreSelector(patches.dataset, patches.split, patches.view, patches.protocol)
    if patches.fingerprints:
        stores = [workspace.store(StoreSelector(fingerprint=f)) for f in patches.fingerprints]
    elif patches.encoders:
        stores = workspace.stores(selector, patches.encoders)
    else:
        stores = _stores_of_all_encoders(workspace, selector, needs)
    if needs is not None and (lacking := [s for s in stores if needs not in _vectors(s)]):
        store = lacking[0]
        advice = (
            f"Extract them, if the encoder has a projector: --features cls,pooled,{needs} "
            f"--alongside."
        )
        raise UsageError(
            f"{store.title} keeps no {needs} vectors, only {', '.join(_vectors(store))}. "
            f"{reason_absent(store.encoder, needs) or advice}"
        )
    return stores


def _vectors(store: Store) -> list[str]:
    return [name for name, shape in store.spec.representations.items() if len(shape) == 1]


def _stores_of_all_encoders(
    workspace: Workspace, selector: StoreSelector, needs: str | None
) -> list[Store]:
    """Return the complete stores of every encoder; view grid is preferred."""
    from pa.data.store import find
    from pa.data.store.same_rows import without_subsets
    from pa.figures.names import in_order

    # Any encoder: the settings may name several, which `complete` refuses for one store.
    selector = replace(workspace.complete(replace(selector, encoder="*")), encoder=None)
    features = workspace.config.features
    find.check_readable(features, selector)
    stores = [
        store
        for store in find.find(features, selector)
        if store.is_complete and store.view != "windows"
    ]
    if selector.view is None and any(store.view == "grid" for store in stores):
        # The view of the paper's figures.
        stores = [store for store in stores if store.view == "grid"]
    stores = without_subsets([s for s in stores if needs is None or needs in _vectors(s)])
    if not stores:
        raise _missing(workspace, selector, needs)
    # One dataset, split, view and protocol: a query refers to one region of each store.
    origins = {_origin(store) for store in stores}
    if len(origins) > 1:
        lines = "\n".join(f"  {origin}" for origin in sorted(map(str, origins)))
        raise AmbiguousError(f"stores of {len(origins)} kinds fit. Choose one:\n{lines}")
    encoders = in_order(store.encoder for store in stores)
    return [workspace.store(replace(_origin(stores[0]), encoder=name)) for name in encoders]


def _origin(store: Store) -> StoreSelector:
    """Return what the stores of a figure must share."""
    from pa.data.store.find import StoreSelector, protocol

    return StoreSelector(store.spec.dataset, store.spec.split, store.view, protocol(store))


def _missing(workspace: Workspace, selector: StoreSelector, needs: str | None) -> MissingError:
    """Return the error with the command that produces a store."""
    from pa.data.store.spec import reason_absent

    what, more, reason = "", [], ""
    suggested = selector
    if needs is not None:
        what, more = f" with {needs} vectors", ["--features", f"pooled,{needs}"]
        # Suggest a configured encoder that may have the representation, with the reason why the
        # usual one has not.
        settings = workspace.settings
        usual = (settings.encoder or "").split(",")  # the settings may name several
        names = [name.strip() for name in (*usual, *settings.encoders) if name.strip()]
        reasons = [reason_absent(name, needs) for name in names]
        encoder = names[reasons.index(None)] if None in reasons else "ENCODER"
        suggested = replace(selector, encoder=encoder)
        reason = f"{reasons[0]} " if reasons and reasons[0] else ""
    wanted = f" for {selector}" if str(selector) else ""
    return MissingError(
        f"there is no complete store{what}{wanted} in {workspace.config.features}. {reason}Extract "
        f"one for each encoder:\n  {workspace.extract_command(suggested, *more)}"
    )
