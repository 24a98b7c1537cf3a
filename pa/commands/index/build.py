"""`pa index build`: build the indexes of stores."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from pa.commands import options
from pa.commands.index.info import show

if TYPE_CHECKING:
    from pa.data.store.reader import Store
    from pa.workspace import Workspace


@dataclass(frozen=True)
class IndexSelector:
    """The stores and representations to index: every combination of the values is one store.

    Empty selects the value of the settings, or the only one that exists.
    """

    encoders: tuple[str, ...] = ()
    representations: tuple[str, ...] = ()
    datasets: tuple[str, ...] = ()
    splits: tuple[str, ...] = ()
    views: tuple[str, ...] = ()
    protocols: tuple[str, ...] = ()
    fingerprint: str | None = None

    def resolve(self, workspace: Workspace) -> list[tuple[Store, str]]:
        """Return stores and representations without repetitions; check all before any is built."""
        from pa.data.store.find import StoreSelector
        from pa.index.build import check_representation

        fields = (self.datasets, self.splits, self.views, self.protocols)
        combinations = itertools.product(*(values or (None,) for values in fields))
        stores = [
            store
            for dataset, split, view, protocol in combinations
            for store in workspace.stores(
                StoreSelector(dataset, split, view, protocol, fingerprint=self.fingerprint),
                self.encoders,
            )
        ]
        representations = self.representations or (workspace.settings.representation,)
        unique = {store.path: store for store in stores}.values()  # a store can match twice
        pairs = list(itertools.product(unique, dict.fromkeys(representations)))
        for store, representation in pairs:
            check_representation(store, representation)  # before the first build, not after it
        return pairs


selection = options.Group(
    "selector",
    IndexSelector,
    options.names("--encoder", "encoders", "Encoder, or several separated by commas."),
    options.names(
        "--representation",
        "representations",
        "Stored vector: cls, pooled, projected, or several separated by commas. Default: pooled.",
    ),
    options.names("--dataset", "datasets", "Dataset, or several with commas."),
    options.names("--split", "splits", "Split, or several with commas."),
    options.names("--view", "views", "View, or several with commas."),
    options.names(
        "--protocol",
        "protocols",
        "Protocol that cut the parts of view parts, or several with commas.",
    ),
    click.Option(["--store", "fingerprint"], help="Fingerprint of a store, or its beginning."),
)
index_factory = click.option(
    "--index", "factory", help="FAISS factory string. Default: SQfp16, which is exact."
)
index_pieces = click.option(
    "--pieces",
    type=click.IntRange(1),
    default=1,
    help="Number of pieces in which an IVF index is filled; memory holds one of them.",
)


@click.command()
@selection
@index_factory
@index_pieces
@click.option(
    "--device",
    default="cpu",
    show_default=True,
    help="Device that finds the lists of an IVF index, such as cuda (with faiss-gpu).",
)
@options.as_json
@options.workspace
def build(
    workspace: Workspace,
    selector: IndexSelector,
    factory: str | None,
    pieces: int,
    device: str,
    as_json: bool,
) -> None:
    """Build the index of one store or of several, replacing existing ones.

    Each store is read in blocks; memory holds one index, or one piece of it. The recall of an
    approximate index is measured and recorded in its index.json.

    \b
    pa index build
    pa index build --representation cls --index IVF256,Flat@nprobe=16
    pa index build --encoder mocov3,dino --representation pooled,projected --split train,val
    """
    from pa.index.build import build as build_index
    from pa.index.gpu import gpu_number
    from pa.index.stored import DEFAULT_FACTORY

    gpu = gpu_number(device)  # None on the CPU
    built = []
    for store, representation in selector.resolve(workspace):
        index = build_index(
            store,
            representation,
            workspace.config.indexes,
            factory or DEFAULT_FACTORY,
            pieces=pieces,
            gpu=gpu,
            progress=workspace.progress,
        )
        built.append((index.path, index.info))
    show(built, as_json)
