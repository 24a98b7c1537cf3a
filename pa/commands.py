"""What the commands do, as functions: the command line parses and prints, these work.

Each takes the workspace's `Config` and plain values, and returns data.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pa.config import Config
from pa.data import datasets, stores
from pa.data.datasets import Images
from pa.data.images import Box
from pa.data.store import Store
from pa.data.stores import StoreQuery
from pa.data.verify import Problem, verify
from pa.errors import AmbiguousError, FingerprintError, MissingError, UsageError
from pa.progress import Progress

if TYPE_CHECKING:
    from pa.extract.encoders.base import Encoder
    from pa.extract.run import RunResult
    from pa.index.search import Query, SearchResult
    from pa.index.stored import Index
    from pa.probe.linear import LinearResult


# -- extract ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class ExtractRequest:
    """What `pa extract` was asked; None or empty = take it from the settings."""

    encoders: tuple[str, ...] = ()
    dataset: str | None = None
    root: Path | None = None
    split: str | None = None
    views: tuple[str, ...] = ()
    checkpoint: Path | None = None
    num_heads: int | None = None
    branch: str | None = None
    representations: tuple[str, ...] = ()
    limit: int | None = None
    device: str | None = None
    dtype: str | None = None
    storage: str | None = None
    batch_size: int | None = None
    workers: int | None = None
    shard_rows: int | None = None
    replace: bool = False
    alongside: bool = False


def extract(config: Config, request: ExtractRequest, progress: Progress) -> list[RunResult]:
    """Encode a split with one or more encoders, one view after the other."""
    from pa.data.regions import VIEWS
    from pa.extract.run import Options
    from pa.extract.run import extract as run

    names = request.encoders or _default_encoder(config)
    if request.checkpoint and len(names) > 1:
        raise UsageError(
            f"--checkpoint names one file, but {len(names)} encoders were asked for. Set each "
            f'encoder\'s file in {config.file}: [encoders.NAME] checkpoint = "…".'
        )
    images = load_images(config, request.dataset, request.root, request.split)
    views = [VIEWS[name] for name in request.views or _default_views(config, images)]
    settings = config.settings
    options = Options(
        representations=request.representations or None,
        storage=request.storage or settings.storage,
        limit=request.limit,
        batch_size=request.batch_size or settings.batch_size,
        workers=request.workers or settings.workers,
        replace=request.replace,
        alongside=request.alongside,
        **({"shard_rows": request.shard_rows} if request.shard_rows else {}),
    )
    encoders = [load_encoder(config, name, request) for name in names]
    return [run(encoders, images, view, config.features, options, progress) for view in views]


def load_images(
    config: Config, dataset: str | None, root: Path | None, split: str | None
) -> Images:
    """The images of a split, from flags and settings."""
    name = dataset or _default_dataset(config)
    entry = config.settings.datasets.get(name)
    kind = entry.kind if entry and entry.kind else name
    if root is None and entry is not None:
        root = config.path(entry.root)
    if kind not in datasets.DATASETS or root is None:
        known = {*datasets.DATASETS, *config.settings.datasets}
        if kind not in known:
            datasets.DATASETS[kind]  # raises with the nearest names
        raise UsageError(
            f"where does dataset {name} lie? Give --root DIR, or set it in {config.file}:\n"
            f'  [datasets.{name}]\n  root = "/path/to/{name}"'
        )
    return datasets.load(name, kind, root, split or config.settings.split)


def load_encoder(config: Config, name: str, request: ExtractRequest) -> Encoder:
    """An encoder, with the checkpoint that the flag or the settings name."""
    from pa.extract.encoders import load_encoder as load

    entry = config.settings.encoders.get(name)
    checkpoint = request.checkpoint
    if checkpoint is None and entry is not None and entry.checkpoint is not None:
        checkpoint = config.path(entry.checkpoint)
    return load(
        name,
        checkpoint,
        num_heads=request.num_heads or (entry.num_heads if entry else None),
        branch=request.branch or (entry.branch if entry else None),
        device=_device(request.device or config.settings.device),
        compute=request.dtype or config.settings.dtype,
    )


def _device(name: str) -> str:
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise UsageError(f"device {name}: torch {torch.__version__} sees no CUDA device here.")
    return name


def _default_encoder(config: Config) -> tuple[str, ...]:
    if config.settings.encoder:
        return tuple(config.settings.encoder.split(","))
    configured = tuple(config.settings.encoders)
    if len(configured) == 1:
        return configured
    raise AmbiguousError(
        "which encoder? Give --encoder NAME"
        + (f" (configured: {', '.join(configured)})" if configured else "")
        + ", or set encoder in pa.toml. `pa encoders list` shows what there is."
    )


def _default_dataset(config: Config) -> str:
    if config.settings.dataset:
        return config.settings.dataset
    configured = list(config.settings.datasets)
    if len(configured) == 1:
        return configured[0]
    raise AmbiguousError(
        "which dataset? Give --dataset NAME"
        + (f" (configured: {', '.join(configured)})" if configured else " and --root DIR")
        + f", or set dataset in {config.file}."
    )


def _default_views(config: Config, images: Images) -> tuple[str, ...]:
    if config.settings.view:
        return (config.settings.view,)
    entry = config.settings.datasets.get(images.dataset)
    kind = entry.kind if entry and entry.kind else images.dataset
    return (datasets.DATASETS[kind].default_view,)


# -- stores -----------------------------------------------------------------------------------


def store_query(config: Config, **given: str | None) -> StoreQuery:
    """A query of the flags, filled up from the settings; a fingerprint needs no filling."""
    if given.get("fingerprint") is not None:
        return StoreQuery(**given)
    defaults = {name: getattr(config.settings, name) for name in ("dataset", "split", "view")}
    chosen = {name: given.get(name) or default for name, default in defaults.items()}
    return StoreQuery(**chosen, encoder=given.get("encoder") or config.settings.encoder)


def check(
    config: Config, query: StoreQuery, *, full: bool
) -> Iterator[tuple[Store, list[Problem]]]:
    """Verify every store that fits; see `pa.data.verify`."""
    for store in stores.find(config.features, query):
        yield store, list(verify(store, full=full))


@dataclass(frozen=True)
class StoreStatus:
    """How far a store is, from its files alone."""

    store: Store
    shards_done: int
    shards_in_work: int
    bytes: int

    @property
    def shards(self) -> int:
        return len(self.store.plan)

    @property
    def rows_done(self) -> int:
        missing = {shard.index for shard in self.store.missing()}
        return sum(shard.n_rows for shard in self.store.plan if shard.index not in missing)

    def to_json(self) -> dict[str, Any]:
        store = self.store
        return {
            "store": store.title,
            "path": str(store.path),
            "fingerprint": store.fingerprint,
            "rows": store.n_rows,
            "rows_done": self.rows_done,
            "shards": self.shards,
            "shards_done": self.shards_done,
            "shards_in_work": self.shards_in_work,
            "complete": store.is_complete,
            "bad_images": len(store.bad) if store.is_complete else None,
            "bytes": self.bytes,
            "representations": store.spec.representations,
        }


def status(config: Config, query: StoreQuery | None = None) -> list[StoreStatus]:
    """The state of every store of the workspace."""
    return [_status(store) for store in stores.find(config.features, query)]


def _status(store: Store) -> StoreStatus:
    files = [path for path in store.path.rglob("*") if path.is_file()]
    return StoreStatus(
        store=store,
        shards_done=len(store.plan) - len(store.missing()),
        shards_in_work=sum(path.name.endswith(".partial") for path in files),
        bytes=sum(path.stat().st_size for path in files),
    )


# -- search -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class SearchRequest:
    """What `pa search` was asked. Either `query_id`, or `image` with a `box` in its own pixels."""

    query_id: int | None = None
    image: Path | None = None
    box: Box | None = None
    k: int = 24
    encoders: tuple[str, ...] = ()
    representations: tuple[str, ...] = ()
    dataset: str | None = None
    split: str | None = None
    view: str | None = None
    store: str | None = None
    include_self: bool = False
    exclude_same_image: bool = False
    factory: str | None = None
    device: str | None = None


def search(
    config: Config, request: SearchRequest, progress: Progress
) -> list[tuple[Store, SearchResult]]:
    """Answer one query from the index of every encoder and representation asked for.

    Indexes that are missing are built first. Raises `UsageError` where stores of several encoders
    do not hold the same regions, so that one id means different things.
    """
    from pa.index.search import search as run

    if (request.query_id is None) == (request.image is None):
        raise UsageError("what is the query? Give --query-id N, or --image FILE (with --box).")
    chosen = _stores_to_search(config, request)
    answers = []
    for store in chosen:
        for representation in request.representations or (config.settings.representation,):
            index = open_index(config, store, representation, request.factory, progress)
            query = _query(config, request, store, representation)
            found = run(
                index,
                [query],
                request.k,
                include_self=request.include_self,
                exclude_same_image=request.exclude_same_image,
            )
            answers.append((store, found[0]))
    return answers


def _stores_to_search(config: Config, request: SearchRequest) -> list[Store]:
    chosen = [
        stores.choose(
            config.features,
            store_query(
                config,
                dataset=request.dataset,
                split=request.split,
                view=request.view,
                encoder=encoder,
                fingerprint=request.store,
            ),
        )
        for encoder in request.encoders or (None,)
    ]
    for other in chosen[1:]:
        if other.spec.rows["sha256"] != chosen[0].spec.rows["sha256"]:
            raise UsageError(
                f"{chosen[0].title} and {other.title} do not hold the same regions, so one query "
                f"id means two things. Extract both from the same split, view and --limit."
            )
    return chosen


def _query(
    config: Config, request: SearchRequest, store: Store, representation: str
) -> Query | int:
    if request.query_id is not None:
        return request.query_id
    return _query_from_image(config, request, store, representation)


def _query_from_image(
    config: Config, request: SearchRequest, store: Store, representation: str
) -> Query:
    """Encode a box of the user's own image with the encoder that made the store."""
    from pa.data import images as im
    from pa.extract.run import encode_region
    from pa.index.search import Query

    if request.image is None:  # the caller has checked; this tells the type checker
        raise UsageError("--image is missing.")
    try:
        picture = im.decode(request.image.read_bytes(), request.image)
    except FileNotFoundError:
        raise MissingError(f"the query image {request.image} is not there.") from None
    box = request.box or (0.0, 0.0, float(picture.width), float(picture.height))
    _check_box(box, picture.size)
    encoder = load_encoder(
        config, store.encoder, ExtractRequest(device=request.device, dtype=_compute(store))
    )
    check_same_encoder(config, store, encoder)
    vector = encode_region(encoder, picture, box, representation)
    return Query(vector=vector, path=str(request.image), box=box, canvas=picture)


def _check_box(box: Box, size: tuple[int, int]) -> None:
    x0, y0, x1, y1 = box
    if not (x1 - x0 >= 1 and y1 - y0 >= 1):
        raise UsageError(
            f"--box {x0:g},{y0:g},{x1:g},{y1:g} is empty: it is x0,y0,x1,y1 in pixels with x0 < x1 "
            f"and y0 < y1."
        )
    if x0 < 0 or y0 < 0 or x1 > size[0] or y1 > size[1]:
        raise UsageError(
            f"--box {x0:g},{y0:g},{x1:g},{y1:g} leaves the image, which has {size[0]}×{size[1]} "
            f"pixels (upright, after its EXIF rotation)."
        )


def _compute(store: Store) -> str:
    return store.spec.precision["compute"]


def check_same_encoder(config: Config, store: Store, encoder: Encoder) -> None:
    """Raise `FingerprintError` unless the encoder is the one that made the store."""
    if encoder.spec.weights_sha256 != store.spec.encoder["weights_sha256"]:
        raise FingerprintError(
            f"{store.title} was made with weights {store.spec.encoder['weights_sha256'][:16]}…, "
            f"but encoder {encoder.name} is set to weights {encoder.spec.weights_sha256[:16]}…. "
            f'Set [encoders."{encoder.name}"] checkpoint in {config.file} to the file that made '
            f"the store."
        )


def open_index(
    config: Config, store: Store, representation: str, factory: str | None, progress: Progress
) -> Index:
    """Open a store's index, building it where it is missing, with a line that says so."""
    from pa.index.build import open_or_build
    from pa.index.stored import DEFAULT_FACTORY

    opened = open_or_build(
        store,
        representation,
        config.indexes,
        factory or DEFAULT_FACTORY,
        verify=False,
    )
    if opened.built:
        progress.note(f"built the index of {store.title} · {representation} ({opened.reason})")
    return opened.index


@dataclass(frozen=True)
class IndexRequest:
    """What `pa index build` was asked."""

    encoder: str | None = None
    representation: str | None = None
    dataset: str | None = None
    split: str | None = None
    view: str | None = None
    store: str | None = None
    factory: str | None = None


def build_index(config: Config, request: IndexRequest, progress: Progress) -> dict[str, Any]:
    """Build the index of one store; what index.json says, and its path."""
    from pa.index.build import build
    from pa.index.stored import DEFAULT_FACTORY

    query = store_query(
        config,
        dataset=request.dataset,
        split=request.split,
        view=request.view,
        encoder=request.encoder,
        fingerprint=request.store,
    )
    store = stores.choose(config.features, query)
    representation = request.representation or config.settings.representation
    index = build(store, representation, config.indexes, request.factory or DEFAULT_FACTORY)
    return {**index.info.to_json(), "path": str(index.path)}


def list_indexes(config: Config) -> list[dict[str, Any]]:
    """What index.json says, and the path, for every index of the workspace."""
    return [
        {**json.loads(file.read_text(encoding="utf-8")), "path": str(file.parent)}
        for file in sorted(config.indexes.glob("*/*/*/index.json"))
    ]


def draw(
    answers: Sequence[tuple[Store, SearchResult]], figure: Path, root: Path | None = None
) -> Path:
    """Draw the query and its neighbours; see `pa.index.figure`."""
    from pa.data.crops import Crops
    from pa.index.figure import draw as run

    crops = {store.path: Crops(store, root) for store, _ in answers}
    return run([result for _, result in answers], [crops[s.path] for s, _ in answers], figure)


# -- probe ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ProbeRequest:
    """What `pa probe` was asked; None = take it from the settings."""

    dataset: str | None = None
    view: str | None = None
    encoder: str | None = None
    store: str | None = None
    split: str | None = None
    train_split: str | None = None
    test_split: str | None = None
    train_where: str | None = None
    test_where: str | None = None
    where: str | None = None
    target: str | None = None
    representation: str | None = None
    test_fraction: float = 0.2
    protocol: str = "paper"
    changes: tuple[tuple[str, Any], ...] = ()
    device: str | None = None


def probe_linear(config: Config, request: ProbeRequest, progress: Progress) -> LinearResult:
    """Train and score a linear head on stored features; see `pa.probe.linear`.

    Two splits where train and test splits are named, else one store, divided by conditions or by
    holding out images.
    """
    from pa.probe.linear import LINEAR_PROTOCOLS, run_linear
    from pa.probe.selection import SplitOptions

    request = _with_probe_settings(config, request)
    if (request.train_split is None) != (request.test_split is None):
        raise UsageError(
            "only one of --train-split and --test-split was given: name both, or neither."
        )
    train = _probe_store(config, request, request.train_split or request.split)
    test = _probe_store(config, request, request.test_split) if request.test_split else None
    recipe = replace(LINEAR_PROTOCOLS[request.protocol], **dict(request.changes))
    options = SplitOptions(
        target=request.target or config.settings.probe.target or "label",
        where=request.where,
        train_where=request.train_where,
        test_where=request.test_where,
        test_fraction=request.test_fraction,
        seed=recipe.seed,
    )
    return run_linear(
        train,
        test,
        results=config.results,
        representation=request.representation or _probe_representation(train),
        options=options,
        recipe=recipe,
        device=_device(request.device or config.settings.device),
        progress=progress,
    )


def _with_probe_settings(config: Config, request: ProbeRequest) -> ProbeRequest:
    """Fill up with [probe] of pa.toml, unless a flag already says how rows are divided."""
    dividing = ("train_split", "test_split", "train_where", "test_where")
    if any(getattr(request, name) is not None for name in dividing):
        return request
    return replace(request, **{name: getattr(config.settings.probe, name) for name in dividing})


def _probe_store(config: Config, request: ProbeRequest, split: str | None) -> Store:
    query = store_query(
        config,
        dataset=request.dataset,
        split=split,
        view=request.view,
        encoder=request.encoder,
        fingerprint=request.store,
    )
    return stores.choose(config.features, query)


def _probe_representation(store: Store) -> str:
    """The class token, as in the paper's linear probe; the pooled mean where there is none."""
    return "cls" if "cls" in store.spec.representations else "pooled"
