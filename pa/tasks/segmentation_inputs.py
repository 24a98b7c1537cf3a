"""Which stores a segmentation probe reads: of two splits, cached or encoding on the fly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pa.config import Config
from pa.data.store import find as stores
from pa.data.store.reader import Store
from pa.data.store.same_rows import have_same_images, without_subsets
from pa.data.store.source import FeatureSource
from pa.errors import AmbiguousError, MissingError, UsageError
from pa.tasks.choose import dataset_kind, extract_command, store_query

VIEW = "windows"
USUAL_SPLITS = ("train", "val")
Splits = tuple[str | None, str | None]


@dataclass(frozen=True)
class InputsRequest:
    """Which features and labels a segmentation probe reads; None = take it from the settings.

    `labels` names datasets whose masks fit the images, NAME or NAME=ROOT; by default the images'
    own. `masks` and `names` give a folder of index PNGs and a file of class names in their place.
    `online` encodes on the fly, `views` crops of each training image (None: one), of the first
    `limit` images of both splits, with the weights of `checkpoint`.
    """

    dataset: str | None = None
    encoder: str | None = None
    train_split: str | None = None
    test_split: str | None = None
    train_store: str | None = None
    test_store: str | None = None
    root: Path | None = None
    labels: tuple[str, ...] = ()
    masks: Path | None = None
    names: Path | None = None
    online: bool = False
    views: int | None = None
    limit: int | None = None
    checkpoint: Path | None = None
    device: str | None = None


# -- which splits ------------------------------------------------------------------------------


def named_splits(config: Config, request: InputsRequest) -> Splits:
    """The splits that flags or settings name; (None, None) where neither does."""
    if (request.train_split is None) != (request.test_split is None):
        raise UsageError(
            "only one of --train-split and --test-split was given: name both, or neither."
        )
    if request.train_split is not None:
        return request.train_split, request.test_split
    probe = config.settings.probe
    if probe.train_split and probe.test_split:
        return probe.train_split, probe.test_split
    return None, None


def usual_splits(there: Sequence[str], what: str) -> Splits:
    """Train and val where both are there, else the only one. Raises `AmbiguousError`."""
    if set(USUAL_SPLITS) <= set(there):
        return USUAL_SPLITS
    if len(there) > 1:
        raise AmbiguousError(
            f"{what} the splits {', '.join(there)}: choose with --train-split and --test-split."
        )
    return (there[0], there[0]) if there else (None, None)


# -- encoding on the fly -----------------------------------------------------------------------


def live_stores(
    config: Config, request: InputsRequest, representation: str
) -> tuple[FeatureSource, FeatureSource]:
    """Stores of both splits that encode on the fly: nothing is kept on disk.

    Encoder, splits, batches and precision are those of flags and settings, as for stores that were
    extracted; for `layers` the encoder gives the four blocks of the released code.
    """
    from pa.extract.live import LiveStore
    from pa.extract.stores import ExtractOptions
    from pa.probe.segmentation.recipes import RELEASED_LAYERS
    from pa.tasks.choose import choose_views, load_images
    from pa.tasks.encoders import EncoderChoice, default_encoders, load_encoder

    splits = live_splits(config, request)
    (name,) = (request.encoder,) if request.encoder else default_encoders(config)
    layers = RELEASED_LAYERS if representation == "layers" else ()
    choice = EncoderChoice(checkpoint=request.checkpoint, layers=layers, device=request.device)
    encoder = load_encoder(config, name, choice)
    options = ExtractOptions(
        representations=(representation,),
        storage=config.settings.storage,
        limit=request.limit,
        batch_size=config.settings.batch_size,
        workers=config.settings.workers,
    )
    made = []
    for split, views in zip(splits, (request.views or 1, 0), strict=True):
        images = load_images(config, request.dataset, request.root, split)
        (view,) = choose_views(config, images, (VIEW,), None, (("views", views),))
        made.append(LiveStore(encoder, images, view, options))
    return made[0], made[1]


def live_splits(config: Config, request: InputsRequest) -> Splits:
    """The splits that are named, else the usual ones of those that the dataset has."""
    from pa.data.datasets import DATASETS
    from pa.tasks.choose import dataset_root, default_dataset

    splits = named_splits(config, request)
    if splits != (None, None):
        return splits
    name = request.dataset or default_dataset(config)
    root = dataset_root(config, name, request.root).expanduser()
    there = DATASETS[dataset_kind(config, name)].splits(root) if root.is_dir() else []
    return usual_splits(there, f"dataset {name} has")


# -- which stores ------------------------------------------------------------------------------


def choose_stores(
    config: Config, request: InputsRequest, representation: str | None = None
) -> tuple[Store, Store]:
    """The store to train on and the one of sliding windows to score.

    Of one split and the same images, training crops go before sliding windows, and more crops
    before fewer; stores that hold `representation` go before those that do not. Without splits:
    those of the settings, else train and val where both are there, else the only one. Raises
    `MissingError` with the command that makes a store, `AmbiguousError` with the choices.
    """
    splits = named_splits(config, request)
    if splits == (None, None) and not (request.train_store and request.test_store):
        there = sorted({store.spec.split for store in _fitting(config, request, None, None)})
        splits = usual_splits(there, "there are stores of")
    train = _choose(config, request, splits[0], request.train_store, representation, is_test=False)
    test = _choose(config, request, splits[1], request.test_store, representation, is_test=True)
    return train, test


def _fitting(
    config: Config, request: InputsRequest, split: str | None, fingerprint: str | None
) -> list[Store]:
    query = _query(config, request, split, fingerprint)
    stores.check_readable(config.features, query)
    return list(stores.find(config.features, query))


def _query(
    config: Config, request: InputsRequest, split: str | None, fingerprint: str | None
) -> stores.StoreSelector:
    if fingerprint is not None:
        # Beside a fingerprint only what was typed counts: settings are for what was not.
        return stores.StoreSelector(
            dataset=request.dataset,
            split=split if request.train_split is not None else None,
            encoder=request.encoder,
            fingerprint=fingerprint,
        )
    query = store_query(
        config, dataset=request.dataset, split=split, view=VIEW, encoder=request.encoder
    )
    # The split set for a dataset is for commands that work on one split.
    return replace(query, split=split)


def _choose(
    config: Config,
    request: InputsRequest,
    split: str | None,
    fingerprint: str | None,
    representation: str | None,
    *,
    is_test: bool,
) -> Store:
    found = _fitting(config, request, split, fingerprint)
    if fingerprint is None:
        found = [store for store in found if not is_test or not store.spec.view["views"]]
        holding = [store for store in found if representation in store.spec.representations]
        found = holding or found
        found = without_subsets([store for store in found if store.is_complete] or found)
        most = max((store.spec.view["views"] for store in found), default=0)
        crops = [store for store in found if store.spec.view["views"] == most]
        if all(have_same_images(crops[0], store) for store in found):
            found = crops
    flag = "--test-store" if is_test else "--train-store"
    if not found:
        query = _query(config, request, split, fingerprint)
        raise MissingError(_nothing(config, query, flag, is_test))
    if len(found) > 1:
        lines = "\n".join(f"  {flag} {s.spec.short[:12]}    # {_told(s, found)}" for s in found)
        raise AmbiguousError(f"{len(found)} stores fit. Choose one by its fingerprint:\n{lines}")
    return Store.open(found[0].path)


def _nothing(config: Config, query: stores.StoreSelector, flag: str, is_test: bool) -> str:
    """What to say where no store fits."""
    given = {name: value for name, value in vars(query).items() if value is not None}
    fingerprint = given.pop("fingerprint", None)
    words = " ".join(f"--{name} {value}" for name, value in given.items())
    if fingerprint is not None:
        of = f" of {words}" if words else ""
        return (
            f"{flag} {fingerprint}: no store{of} in {config.features} has a fingerprint that "
            f"begins so. `pa status` lists the stores."
        )
    what = "sliding windows (--views 0)" if is_test else "training windows (--views 1, 10 …)"
    return (
        f"no store of {what} for {words} in {config.features}. Make it with:\n"
        f"  {extract_command(config, query, '--views', '0' if is_test else '1')}\n"
        f"or add --online, which encodes as it trains and keeps nothing."
    )


def _told(store: Store, others: Sequence[Store]) -> str:
    kept = ", ".join(store.spec.representations)
    views, storage = store.spec.view["views"], store.spec.precision.get("storage")
    crops = f"{views} crops" if views else "sliding"
    words = [f"{store.title}: {store.n_rows} rows, {crops}, {kept}, {storage}"]
    return ", ".join([*words, *stores.describe_row_differences(store, others)])


def source_of(store: FeatureSource) -> Path:
    """Where the images lay when they were encoded."""
    return Path(str(store.source["root"]))
