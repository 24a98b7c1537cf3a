"""`pa probe segmentation`: which stores, label maps and recipe, then `pa.probe.segmentation`."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pa.commands.choose import dataset_kind, device, store_query
from pa.config import Config
from pa.data import labels, stores
from pa.data.store import Store
from pa.errors import AmbiguousError, MissingError, UnknownNameError, UsageError
from pa.progress import Progress

if TYPE_CHECKING:
    from pa.probe.segmentation.labels import LabelMaps
    from pa.probe.segmentation.recipes import SegmentationRecipe
    from pa.probe.segmentation.record import SegmentationResult

VIEW = "windows"
USUAL_SPLITS = ("train", "val")


@dataclass(frozen=True)
class SegmentationRequest:
    """What `pa probe segmentation` was asked; None = take it from the settings.

    `labels` names datasets whose masks fit the store's images, NAME or NAME=ROOT; by default the
    store's own. `masks` and `names` give a folder of index PNGs and a file of class names in their
    place. `changes` are fields of the recipe. `online` encodes on the fly, `views` crops of each
    training image, of the first `limit` images of both splits.
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
    protocol: str = "paper"
    iterations: int | None = None
    lrs: tuple[float, ...] = ()
    init_seeds: tuple[int, ...] = ()
    changes: tuple[tuple[str, Any], ...] = ()
    test_fraction: float = 0.2
    ceiling: bool = False
    figures: int = 0
    online: bool = False
    views: int = 1
    limit: int | None = None
    device: str | None = None


def probe_segmentation(
    config: Config, request: SegmentationRequest, progress: Progress
) -> list[SegmentationResult]:
    """Train and score segmentation heads on cached windows; see `pa.probe.segmentation.run`."""
    from pa.probe.segmentation.run import SegmentationOptions, run_segmentation

    train, test = (live_stores if request.online else choose_stores)(config, request)
    options = SegmentationOptions(
        lrs=request.lrs,
        init_seeds=request.init_seeds,
        test_fraction=request.test_fraction,
        ceiling=request.ceiling,
        figures=request.figures,
        figure_folder=config.figures,
        image_root=request.root or _source(train),
        online=request.online,
    )
    return run_segmentation(
        train,
        test,
        label_maps(config, request, train),
        results=config.results,
        recipe=make_recipe(request, train.encoder),
        options=options,
        device=device(request.device or config.settings.device),
        progress=progress,
    )


def live_stores(config: Config, request: SegmentationRequest) -> tuple[Store, Store]:
    """Stores of both splits that encode on the fly: nothing is kept on disk.

    The encoder is the one of the flags and settings; for a protocol that reads `layers`, with the
    four blocks of the released code.
    """
    from pa.commands.choose import choose_views, load_images
    from pa.commands.encoders import EncoderChoice, default_encoders, load_encoder
    from pa.extract.live import LiveStore
    from pa.extract.slots import Options
    from pa.probe.segmentation.recipes import RELEASED_LAYERS

    if request.train_store or request.test_store:
        raise UsageError("--online encodes anew: it does not go with --train-store, --test-store.")
    (name,) = (request.encoder,) if request.encoder else default_encoders(config)
    representation = make_recipe(request, name).representation
    layers = RELEASED_LAYERS if representation == "layers" else ()
    encoder = load_encoder(config, name, EncoderChoice(layers=layers, device=request.device))
    options = Options(
        representations=(representation,), storage=config.settings.storage, limit=request.limit
    )
    splits = (request.train_split or USUAL_SPLITS[0], request.test_split or USUAL_SPLITS[1])
    made = []
    for split, views in zip(splits, (request.views, 0), strict=True):
        images = load_images(config, request.dataset, request.root, split)
        (view,) = choose_views(config, images, (VIEW,), None, (("views", views),))
        made.append(LiveStore(encoder, images, view, options))
    return made[0], made[1]


def make_recipe(request: SegmentationRequest, encoder: str) -> SegmentationRecipe:
    """The recipe of the protocol, shortened and changed as asked.

    Fewer iterations shorten the warm-up in proportion, unless it is given too.
    """
    from dataclasses import fields

    from pa.probe.segmentation.recipes import named_recipe

    recipe = named_recipe(request.protocol, encoder)
    if request.iterations is not None:
        if request.iterations < 1:
            raise UsageError(f"--iterations {request.iterations}: expected 1 or more.")
        recipe = recipe.shortened(request.iterations)
    known = {field.name: getattr(recipe, field.name) for field in fields(recipe)}
    known.pop("protocol")
    for name, value in request.changes:
        if name not in known:
            raise UnknownNameError("field of the recipe", name, known)
        kind = type(known[name])
        whole_as_float = kind is float and type(value) is int
        if type(value) is not kind and not whole_as_float:
            raise UsageError(f"recipe {name}={value!r}: expected a {kind.__name__}.")
    return replace(recipe, **dict(request.changes))


# -- which stores ------------------------------------------------------------------------------


def choose_stores(config: Config, request: SegmentationRequest) -> tuple[Store, Store]:
    """The store to train on and the one of sliding windows to score.

    Of one split, training crops go before sliding windows, and more crops before fewer. Without
    splits: train and val where both are there, else the only one. Raises `MissingError` with the
    command that makes a store, `AmbiguousError` with the choices.
    """
    splits = (request.train_split, request.test_split)
    if (splits[0] is None) != (splits[1] is None):
        raise UsageError(
            "only one of --train-split and --test-split was given: name both, or neither."
        )
    if splits[0] is None:
        splits = _default_splits(config, request)
    train = _choose(config, request, splits[0], request.train_store, is_test=False)
    test = _choose(config, request, splits[1], request.test_store, is_test=True)
    return train, test


def _default_splits(config: Config, request: SegmentationRequest) -> tuple[str | None, str | None]:
    probe = config.settings.probe
    if probe.train_split and probe.test_split:
        return probe.train_split, probe.test_split
    if request.train_store and request.test_store:
        return None, None
    there = sorted({store.spec.split for store in _fitting(config, request, None, None)})
    if set(USUAL_SPLITS) <= set(there):
        return USUAL_SPLITS
    if len(there) > 1:
        raise AmbiguousError(
            f"stores of the splits {', '.join(there)} fit: choose with --train-split and "
            f"--test-split."
        )
    return (there[0], there[0]) if there else (None, None)


def _fitting(
    config: Config, request: SegmentationRequest, split: str | None, fingerprint: str | None
) -> list[Store]:
    return list(stores.find(config.features, _query(config, request, split, fingerprint)))


def _query(
    config: Config, request: SegmentationRequest, split: str | None, fingerprint: str | None
) -> stores.StoreQuery:
    if fingerprint is not None:
        return stores.StoreQuery(fingerprint=fingerprint)
    query = store_query(
        config, dataset=request.dataset, split=split, view=VIEW, encoder=request.encoder
    )
    # The setting `split` is for commands that work on one split.
    return replace(query, split=split)


def _choose(
    config: Config,
    request: SegmentationRequest,
    split: str | None,
    fingerprint: str | None,
    *,
    is_test: bool,
) -> Store:
    found = _fitting(config, request, split, fingerprint)
    if fingerprint is None:
        found = [store for store in found if not is_test or not store.spec.view["views"]]
        most = max((store.spec.view["views"] for store in found), default=0)
        found = [store for store in found if store.spec.view["views"] == most]
        found = [store for store in found if store.is_complete] or found
    flag = "--test-store" if is_test else "--train-store"
    if not found:
        query = _query(config, request, split, fingerprint)
        words = [f"--{name} {value}" for name, value in vars(query).items() if value is not None]
        what = "sliding windows (--views 0)" if is_test else "training windows (--views 1, 10 …)"
        raise MissingError(
            f"there is no store of {what} for {' '.join(words)} in {config.features}. Make it "
            f"with:\n  pa extract {' '.join(words)} --views {0 if is_test else 1}"
        )
    if len(found) > 1:
        lines = "\n".join(f"  {flag} {s.spec.short[:12]}    # {_told(s)}" for s in found)
        raise AmbiguousError(f"{len(found)} stores fit. Choose one by its fingerprint:\n{lines}")
    return Store.open(found[0].path)


def _told(store: Store) -> str:
    kept = ", ".join(store.spec.representations)
    views = store.spec.view["views"]
    return f"{store.title}: {store.n_rows} rows, {f'{views} crops' if views else 'sliding'}, {kept}"


# -- which labels ------------------------------------------------------------------------------


def label_maps(config: Config, request: SegmentationRequest, store: Store) -> list[LabelMaps]:
    """The label sets asked for, each with the root of its masks.

    Raises `UsageError` for a dataset without masks, `MissingError` where a root is not there.
    """
    if (request.masks is None) != (request.names is None):
        raise UsageError("--masks DIR and --names FILE (a class a line) go together: give both.")
    if request.masks is not None and request.names is not None:
        return [_folder_maps(request.masks, request.names)]
    wanted = request.labels or (store.spec.dataset,)
    return [_dataset_maps(config, request, store, name) for name in wanted]


def _dataset_maps(
    config: Config, request: SegmentationRequest, store: Store, wanted: str
) -> LabelMaps:
    from pa.data.datasets import tree
    from pa.probe.segmentation.labels import LabelMaps

    name, _, given = wanted.partition("=")
    kind = dataset_kind(config, name)
    if kind not in labels.LISTS:
        raise UsageError(
            f"dataset {name} has no label maps. Known: {', '.join(labels.LISTS)}; or give a "
            f"folder of index PNGs: --masks DIR --names FILE."
        )
    entry = config.settings.datasets.get(name)
    if given:
        root = Path(given)
    elif name == store.spec.dataset:
        root = request.root or (config.path(entry.root) if entry else _source(store))
    elif entry is not None:
        root = config.path(entry.root)
    else:
        raise UsageError(
            f"where do the masks of {name} lie? Give --labels {name}=DIR, or set it in "
            f'{config.file}:\n  [datasets.{name}]\n  root = "/path/to/{name}"'
        )
    root = root.expanduser().absolute()
    if not root.is_dir():
        raise MissingError(f"the masks of {name}: {root} is not a folder. Give it with --root DIR.")
    found = tree.label_set(kind, root)
    return LabelMaps(name, tuple(found.names), root, provenance=found.provenance())


def _folder_maps(folder: Path, names: Path) -> LabelMaps:
    from pa.probe.segmentation.labels import LabelMaps

    if not folder.is_dir():
        raise MissingError(f"--masks {folder} is not a folder.")
    try:
        text = names.read_text(encoding="utf-8")
    except OSError as error:
        raise MissingError(f"--names {names} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError as error:
        raise UsageError(f"--names {names} is not a UTF-8 text: {error.reason}.") from None
    classes = _lines(text)
    provenance = {
        "sha256": hashlib.sha256("\n".join(classes).encode()).hexdigest(),
        "masks": _digest_of(folder),
    }
    return LabelMaps(names.stem, classes, folder.absolute(), by_image=True, provenance=provenance)


def _digest_of(folder: Path) -> str:
    """Digest of all label maps of a folder, names and bytes: other labels are another result."""
    digest = hashlib.sha256()
    for file in sorted(folder.rglob("*.png")):
        digest.update(f"{file.relative_to(folder).as_posix()}\0{file.stat().st_size}\0".encode())
        digest.update(file.read_bytes())
    return digest.hexdigest()


def _lines(text: str) -> tuple[str, ...]:
    lines: Sequence[str] = [line.strip() for line in text.splitlines()]
    return tuple(line for line in lines if line)


def _source(store: Store) -> Path:
    """Where the images lay when they were encoded."""
    return Path(str(store.source["root"]))
