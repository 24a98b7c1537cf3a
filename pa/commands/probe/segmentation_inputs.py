"""The stores and label maps of a segmentation probe, resolved from names.

Shared by `pa probe segmentation`, `pa plan probe segmentation` and `pa figure segmentation`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import click

from pa.commands import options
from pa.errors import AmbiguousError, MissingError, UsageError

if TYPE_CHECKING:
    from pa.data.store.find import StoreSelector
    from pa.data.store.reader import Store
    from pa.data.store.source import FeatureSource
    from pa.probe.segmentation.labels import LabelMaps
    from pa.workspace import EncoderOptions, Workspace

VIEW = "windows"
DEFAULT_SPLITS = ("train", "val")  # of every dataset with label maps
Splits = tuple[str | None, str | None]
Sources: TypeAlias = "tuple[FeatureSource, FeatureSource]"  # of training and test windows


@dataclass(frozen=True)
class SegmentationInputs:
    """Stores and labels of a segmentation probe; None or empty selects the default.

    `labels` are datasets whose masks fit the images, NAME or NAME=ROOT. `masks` and `names` are a
    folder of index PNGs and a file of class names, instead of `labels`.
    """

    dataset: str | None = None
    train_split: str | None = None
    test_split: str | None = None
    train_store: str | None = None
    test_store: str | None = None
    root: Path | None = None
    labels: tuple[str, ...] = ()
    masks: Path | None = None
    names: Path | None = None

    def check(self) -> None:
        """Raise `UsageError` for options that contradict each other or repeat a value."""
        if (self.masks is None) != (self.names is None):
            raise UsageError("--masks DIR and --names FILE go together: give both.")
        if self.masks is not None and self.labels:
            raise UsageError(
                "--masks and --names are labels themselves, --labels names a dataset's: give one "
                "or the other."
            )
        for entry in self.labels:
            name, equals, root = entry.partition("=")
            if not name or (equals and not root):
                raise UsageError(
                    f"--labels {entry!r}: expected NAME, or NAME=DIR with the folder that holds "
                    f"the masks of NAME."
                )
        refuse_repeated("--labels", [entry.partition("=")[0] for entry in self.labels])
        if (self.train_split is None) != (self.test_split is None):
            raise UsageError(
                "only one of --train-split and --test-split was given: name both, or neither."
            )


inputs_options = options.Group(
    "inputs",
    SegmentationInputs,
    click.Option(["--dataset"], help="Dataset of the stores."),
    click.Option(["--train-split"], help="Split to train on. Default: train."),
    click.Option(["--test-split"], help="Split to score. Default: val."),
    click.Option(["--train-store"], help="Fingerprint of the store to train on."),
    click.Option(["--test-store"], help="Fingerprint of the store of sliding windows to score."),
    click.Option(
        ["--root"], type=options.PATH, help="Current root folder of the images and masks."
    ),
    click.Option(
        ["--labels"],
        multiple=True,
        metavar="NAME[=DIR]",
        help="Label set of the images; repeat it to train several in one pass. Default: the "
        "dataset's.",
    ),
    click.Option(["--masks"], type=options.PATH, help="Folder of index PNGs of the images."),
    click.Option(
        ["--names"], type=options.PATH, help="File of the class names of --masks, one per line."
    ),
)


def refuse_repeated(option: str, values: Sequence[Any]) -> None:
    """Raise `UsageError` for a value that an option names more than once."""
    repeated = [value for value in dict.fromkeys(values) if values.count(value) > 1]
    if repeated:
        raise UsageError(
            f"{option} names {', '.join(map(str, repeated))} more than once: it would give the "
            f"same result again. Name each once."
        )


def encoder_names(
    workspace: Workspace, inputs: SegmentationInputs, encoders: Sequence[str]
) -> tuple[str | None, ...]:
    """Return the encoders given, else those of the settings, else (None,) for any store's.

    Raise `UsageError` for a repeated name, or for several with a fingerprint.
    """
    by_fingerprint = bool(inputs.train_store or inputs.test_store)
    configured = workspace.settings.encoder
    if not encoders and (by_fingerprint or configured is None):
        return (None,)
    names = workspace.encoder_names(encoders)
    refuse_repeated("--encoder", names)
    if len(names) > 1 and by_fingerprint:
        raise UsageError(
            f"--train-store and --test-store name stores of one encoder, but {len(names)} were "
            f"requested ({', '.join(names)}). Name one."
        )
    return names


def named_splits(workspace: Workspace, inputs: SegmentationInputs) -> Splits | None:
    """Return the splits given, else those of the settings."""
    probe = workspace.settings.probe
    if inputs.train_split is not None:
        return inputs.train_split, inputs.test_split
    return (probe.train_split, probe.test_split) if probe.train_split and probe.test_split else None


def _default_splits(existing: Sequence[str], subject: str) -> Splits:
    """Return train and val if both exist, else the only split. Raise `AmbiguousError`."""
    if set(DEFAULT_SPLITS) <= set(existing):
        return DEFAULT_SPLITS
    if len(existing) > 1:
        raise AmbiguousError(
            f"{subject} the splits {', '.join(existing)}: choose with --train-split and "
            f"--test-split."
        )
    return (existing[0], existing[0]) if existing else (None, None)


def dataset_splits(workspace: Workspace, inputs: SegmentationInputs) -> Splits:
    """Return the named splits, else the default ones of the dataset on disk."""
    from pa.data.datasets import DATASETS

    if splits := named_splits(workspace, inputs):
        return splits
    name = workspace.dataset(inputs.dataset)
    root = workspace.dataset_root(name, inputs.root).expanduser()
    existing = DATASETS[workspace.dataset_kind(name)].splits(root) if root.is_dir() else []
    return _default_splits(existing, f"dataset {name} has")


def live_stores(
    workspace: Workspace,
    inputs: SegmentationInputs,
    encoder: str | None,
    representation: str,
    encoder_options: EncoderOptions,
    n_views: int | None = None,
    limit: int | None = None,
) -> Sources:
    """Return sources of both splits that encode on the fly and store nothing.

    The training source has `n_views` crops per image (default: 1), the other sliding windows; both
    are of the first `limit` images.
    """
    from pa.extract.live import LiveStore
    from pa.extract.stores import ExtractOptions
    from pa.probe.segmentation.recipes import RELEASED_LAYERS

    (name,) = workspace.encoder_names((encoder,) if encoder else ())
    layers = RELEASED_LAYERS if representation == "layers" else ()
    network = workspace.encoder(name, replace(encoder_options, layers=layers))
    kept = ExtractOptions(representations=(representation,), limit=limit)
    kept = workspace.extract_options(kept)
    sources = []
    for split, views in zip(dataset_splits(workspace, inputs), (n_views or 1, 0), strict=True):
        images = workspace.images(inputs.dataset, split=split, root=inputs.root)
        (view,) = workspace.views(images, (VIEW,), options=(("views", views),))
        sources.append(LiveStore(network, images, view, kept))
    return sources[0], sources[1]


def choose_stores(
    workspace: Workspace,
    inputs: SegmentationInputs,
    encoder: str | None = None,
    representation: str | None = None,
) -> tuple[Store, Store]:
    """Return the store to train on and the one of sliding windows to score.

    Among stores of one split and the same images, training crops are chosen before sliding windows,
    more crops before fewer, and stores with `representation` before others. Without splits: those
    of the settings, else train and val, else the only one. Raise `MissingError` with the command
    that makes a store, `AmbiguousError` with the choices.
    """
    from pa.data.store.find import StoreSelector

    # The split of a dataset in the settings is for commands that work on one split.
    selector = workspace.complete(StoreSelector(inputs.dataset, None, VIEW, encoder=encoder))
    selector = replace(selector, split=None)
    splits = named_splits(workspace, inputs)
    if splits is None and not (inputs.train_store and inputs.test_store):
        existing = {store.spec.split for store in _fitting(workspace, selector)}
        splits = _default_splits(sorted(existing), "there are stores of")
    chosen = []
    for split, flag in zip(splits or (None, None), ("--train-store", "--test-store"), strict=True):
        of_split = replace(selector, split=split)
        fingerprint = inputs.test_store if flag == "--test-store" else inputs.train_store
        if fingerprint is not None:
            # With a fingerprint only options count, not the settings.
            of_split = StoreSelector(
                inputs.dataset,
                split if inputs.train_split is not None else None,
                encoder=encoder,
                fingerprint=fingerprint,
            )
        chosen.append(_choose(workspace, of_split, representation, flag))
    return chosen[0], chosen[1]


def _fitting(workspace: Workspace, selector: StoreSelector) -> list[Store]:
    from pa.data.store import find

    find.check_readable(workspace.config.features, selector)
    return list(find.find(workspace.config.features, selector))


def _choose(
    workspace: Workspace, selector: StoreSelector, representation: str | None, flag: str
) -> Store:
    """Return the store of one side; `flag` is the option that names its fingerprint."""
    from pa.data.store import find
    from pa.data.store.reader import Store
    from pa.data.store.same_rows import have_same_images, without_subsets

    features, is_test = workspace.config.features, flag == "--test-store"
    stores = _fitting(workspace, selector)
    if selector.fingerprint is None:
        stores = [store for store in stores if not is_test or not store.spec.view["views"]]
        holding = [store for store in stores if representation in store.spec.representations]
        stores = holding or stores  # without any, the probe names the missing representation
        stores = without_subsets([store for store in stores if store.is_complete] or stores)
        most = max((store.spec.view["views"] for store in stores), default=0)
        crops = [store for store in stores if store.spec.view["views"] == most]
        if all(have_same_images(crops[0], store) for store in stores):
            stores = crops
    words = str(replace(selector, fingerprint=None))
    if not stores and selector.fingerprint is not None:
        raise MissingError(
            f"{flag} {selector.fingerprint}: no store{f' of {words}' if words else ''} in "
            f"{features} has a fingerprint that begins with it. `pa status` lists the stores."
        )
    if not stores:
        kind = "sliding windows (--views 0)" if is_test else "training windows (--views 1, 10 …)"
        command = workspace.extract_command(selector, "--views", "0" if is_test else "1")
        raise MissingError(
            f"there is no store of {kind} for {words} in {features}. Make it with:\n  {command}\n"
            f"or add --online, which encodes during training and stores nothing."
        )
    if len(stores) > 1:
        lines = [f"{len(stores)} stores fit. Choose one by its fingerprint:"]
        for store in stores:
            views, storage = store.spec.view["views"], store.spec.precision.get("storage")
            text = [f"{store.title}: {store.n_rows} rows", f"{views} crops" if views else "sliding"]
            text += [*store.spec.representations, f"{storage}"]
            text += find.describe_row_differences(store, stores)
            lines.append(f"  {flag} {store.spec.short[:12]}    # {', '.join(text)}")
        raise AmbiguousError("\n".join(lines))
    return Store.open(stores[0].path)


def source_root(store: FeatureSource) -> Path:
    """Return the folder of the images when they were encoded."""
    return Path(str(store.source["root"]))


def label_maps(
    workspace: Workspace, inputs: SegmentationInputs, dataset: str, source: Path
) -> list[LabelMaps]:
    """Return the label sets requested for images of `dataset` in the folder `source`.

    Raise `UsageError` for a dataset without masks, `MissingError` for a root that does not exist.
    """
    from pa.data.datasets.segmentation import tree
    from pa.data.datasets.segmentation.labels import LABEL_SETS
    from pa.probe.segmentation.labels import LabelMaps, folder_maps

    config, images = workspace.config, (inputs.root or source).expanduser().absolute()
    if inputs.masks is not None and inputs.names is not None:
        return [folder_maps(inputs.masks, inputs.names, images)]
    maps = []
    for requested in inputs.labels or (dataset,):
        name, _, folder = requested.partition("=")
        kind, entry = workspace.dataset_kind(name), workspace.settings.datasets.get(name)
        if kind not in LABEL_SETS:
            raise UsageError(
                f"dataset {name} has no label maps. Known: {', '.join(LABEL_SETS)}; or give "
                f"a folder of index PNGs: --masks DIR --names FILE."
            )
        if folder:
            root = Path(folder)
        elif name == dataset:
            root = inputs.root or (config.path(entry.root) if entry else source)
        elif entry is not None:
            root = config.path(entry.root)
        else:
            raise UsageError(
                f"where are the masks of {name}? Give --labels {name}=DIR, or set it in "
                f'{config.file}:\n  [datasets.{name}]\n  root = "/path/to/{name}"'
            )
        root = root.expanduser().absolute()
        if not root.is_dir():
            raise MissingError(
                f"the masks of {name}: {root} is not a folder. Give it with --root DIR."
            )
        chosen = tree.label_set(kind, root)
        provenance = chosen.provenance()
        maps.append(
            LabelMaps(name, tuple(chosen.names), root, images=images, provenance=provenance)
        )
    return maps
