"""The workspace: the one place where names of encoders, datasets and stores become objects.

    ws = Workspace("study")
    images = ws.images("cub", split="test")
    ws.extract(["dino"], images, ws.views(images))
    store = ws.store(StoreSelector(dataset="cub", encoder="dino"))
    hits = ws.search(ws.stores(StoreSelector(dataset="cub")), 123, k=24)

A value that a call does not give is taken from the settings: built-in defaults < pa.toml < PA_*
environment variables. Nothing heavy is imported before a method needs it.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pa import config as configuration
from pa.config import EncoderSettings, Settings
from pa.data import datasets
from pa.data.datasets.folder import WHOLE
from pa.data.schema import Boxes, Images
from pa.data.store import find
from pa.data.store.find import StoreSelector
from pa.errors import AmbiguousError, MissingError, UsageError
from pa.progress import Progress, Silent

if TYPE_CHECKING:
    from pa.data.store.reader import Store
    from pa.data.views import View
    from pa.extract.encoders import Encoder, LoadReport
    from pa.extract.image_query import ImageQuery
    from pa.extract.plan import ExtractPlan
    from pa.extract.run import RunResult
    from pa.extract.share import Share
    from pa.extract.stores import ExtractOptions
    from pa.index.search import SearchResult
    from pa.index.stored import Index
    from pa.probe.predict import Prediction

FIRST_SPLITS = ("all", "val", "test")  # for a first look: whole datasets, then small splits


@dataclass(frozen=True)
class EncoderOptions:
    """How to load an encoder; None or empty selects the value of the settings."""

    checkpoint: Path | None = None
    num_heads: int | None = None  # default: that of the official size
    branch: str | None = None  # network inside the file, such as teacher
    layers: tuple[int, ...] = ()  # blocks whose raw outputs are wanted
    accept: bool = False  # load a file without evidence for the encoder
    options: tuple[tuple[str, Any], ...] = ()  # protocol switches of the encoder's card
    device: str | None = None
    dtype: str | None = None  # precision of the forward pass


@dataclass(frozen=True)
class RegionSelector:
    """The images of a split and the views that cut them; None or empty selects the default."""

    dataset: str | None = None  # a name of pa.toml, or a kind with `root`
    root: Path | None = None
    split: str | None = None
    boxes: Path | None = None  # table of boxes for view parts
    views: tuple[str, ...] = ()
    protocol: str | None = None  # of view parts
    view_options: tuple[tuple[str, Any], ...] = ()  # single fields of the views


class Workspace:
    """A folder with `pa.toml`, `features/`, `indexes/`, `results/` and `figures/`.

    Parameters
    ----------
    path
        The folder. None selects PA_WORKSPACE, else the nearest folder at or above the current one
        that has a pa.toml, else the current folder.
    progress
        Receives the progress and the notes of long work.

    Raises
    ------
    UsageError
        If a setting is wrong; the message names it.
    """

    def __init__(self, path: Path | str | None = None, progress: Progress | None = None) -> None:
        self.config = configuration.load(None if path is None else Path(path))
        self.progress: Progress = Silent() if progress is None else progress

    @property
    def path(self) -> Path:
        return self.config.workspace

    @property
    def settings(self) -> Settings:
        return self.config.settings

    def device(self, name: str | None = None) -> str:
        """Return the torch device of a name; see `pa.evaluate.devices.torch_device`."""
        name = name or self.settings.device
        if name == "cpu":
            return name  # most commands need no torch to know this
        from pa.evaluate.devices import torch_device

        return torch_device(name)

    # -- images and views ----------------------------------------------------------------------

    def dataset(self, name: str | None = None) -> str:
        """Return a name, else the dataset of the settings, else the only one of pa.toml."""
        if name := name or self.settings.dataset or _only(self.settings.datasets):
            return name
        configured = list(self.settings.datasets)
        raise AmbiguousError(
            "which dataset? Give --dataset NAME"
            + (f" (configured: {', '.join(configured)})" if configured else " and --root DIR")
            + f", or set dataset in {self.config.file}."
        )

    def dataset_kind(self, name: str) -> str:
        """Return how a dataset is read: the kind set in pa.toml, else the dataset's own name."""
        entry = self.settings.datasets.get(name)
        return entry.kind if entry and entry.kind else name

    def dataset_root(self, name: str, root: Path | None = None) -> Path:
        """Return the root folder of a dataset.

        Raise `UnknownNameError` for an unknown dataset and `UsageError` without a root.
        """
        entry = self.settings.datasets.get(name)
        kind = self.dataset_kind(name)
        if root is None and entry is not None:
            root = self.config.path(entry.root)
        if kind not in datasets.DATASETS or root is None:
            if kind not in self.settings.datasets:
                datasets.DATASETS[kind]  # raises with the nearest names
            raise UsageError(
                f"where is dataset {name}? Give --root DIR, or set it in {self.config.file}:\n"
                f'  [datasets.{name}]\n  root = "/path/to/{name}"'
            )
        return root

    def images(
        self,
        dataset: str | None = None,
        *,
        split: str | None = None,
        root: Path | None = None,
        boxes: Path | None = None,
    ) -> Images:
        """Read the table of images of a split; see `pa.data.datasets.load`."""
        name = self.dataset(dataset)
        entry = self.settings.datasets.get(name)
        if boxes is None and entry is not None and entry.boxes is not None:
            boxes = self.config.path(entry.boxes)
        split = split or (entry.split if entry else None)
        return datasets.load(
            name, self.dataset_kind(name), self.dataset_root(name, root), split, boxes
        )

    def views(
        self,
        images: Images,
        names: Sequence[str] = (),
        *,
        protocol: str | None = None,
        options: Sequence[tuple[str, Any]] = (),
    ) -> list[View]:
        """Return the views of these names, with single fields changed by `options`.

        The protocol of view `parts` is the one given, else that of the dataset's settings, else
        `boxes` if the dataset gives boxes and `paper` if it gives keypoints. View `windows`
        follows the segmentation recipe of the dataset's kind.
        """
        from pa.data.views import VIEWS, configure
        from pa.data.views.parts import PROTOCOLS
        from pa.data.views.windows import windows_for

        kind = self.dataset_kind(images.dataset)
        default = self.settings.view or datasets.DATASETS[kind].default_view
        names = names or (default,)
        if protocol is not None and "parts" not in names:
            raise UsageError(f"--protocol is for view parts; view {', '.join(names)} has none.")
        entry = self.settings.datasets.get(images.dataset)
        views = []
        for name in names:
            view = VIEWS[name]
            if name == "parts":
                rules = entry.protocol if protocol is None and entry else protocol
                if rules is None:
                    rules = "boxes" if isinstance(images.annotations(), Boxes) else "paper"
                view = PROTOCOLS[rules]
            elif name == "windows":
                view = windows_for(kind)
            views.append(configure(view, options))
        return views

    def regions(self, selector: RegionSelector) -> tuple[Images, list[View]]:
        """Return the images of a split and the views that cut them."""
        images = self.images(
            selector.dataset, split=selector.split, root=selector.root, boxes=selector.boxes
        )
        views = self.views(
            images, selector.views, protocol=selector.protocol, options=selector.view_options
        )
        return images, views

    # -- encoders ------------------------------------------------------------------------------

    def encoder_names(self, names: Sequence[str] = ()) -> tuple[str, ...]:
        """Return the names, else the encoders of the settings, else the only one of pa.toml."""
        if names:
            return tuple(names)
        if self.settings.encoder:
            return tuple(name.strip() for name in self.settings.encoder.split(","))
        if only := _only(self.settings.encoders):
            return (only,)
        configured = ", ".join(self.settings.encoders)
        raise AmbiguousError(
            "which encoder? Give --encoder NAME"
            + (f" (configured: {configured})" if configured else "")
            + ", or set encoder in pa.toml. `pa encoders list` shows the known encoders."
        )

    def checkpoint(self, encoder: str, path: Path | None = None) -> Path | None:
        """Return a path, else the checkpoint of pa.toml, else the one that was fetched."""
        from pa.extract.encoders import ENCODERS

        if path is not None:
            return path
        entry = self.settings.encoders.get(encoder)
        if entry is not None and entry.checkpoint is not None:
            return self.config.path(entry.checkpoint)
        for source in ENCODERS[encoder].card.sources if encoder in ENCODERS else ():
            fetched = self.config.checkpoints / encoder / source.file
            if fetched.is_file():
                return fetched
        return None

    def encoder(self, name: str, options: EncoderOptions | None = None) -> Encoder:
        """Load an encoder with the checkpoint and the options of the call or of the settings."""
        from pa.extract.encoders import load_encoder

        options = options or EncoderOptions()
        return load_encoder(
            name,
            self.checkpoint(name, options.checkpoint),
            layers=options.layers,
            device=self.device(options.device),
            compute=options.dtype or self.settings.dtype,
            **self._network_options(name, options),
        )

    def encoders(
        self, names: Sequence[str] = (), options: EncoderOptions | None = None
    ) -> list[Encoder]:
        """Load several encoders. Raise `UsageError` for one checkpoint and several encoders."""
        names = self.encoder_names(names)
        if options is not None and options.checkpoint and len(names) > 1:
            raise UsageError(
                f"--checkpoint is one file, but {len(names)} encoders were requested. Set the file "
                f'of each encoder in {self.config.file}: [encoders.NAME] checkpoint = "…".'
            )
        return [self.encoder(name, options) for name in names]

    def load_report(self, name: str, options: EncoderOptions) -> LoadReport:
        """Load a checkpoint strictly and report key by key; see `LoadReport`."""
        from pa.extract.encoders import load_report

        checkpoint = self.checkpoint(name, options.checkpoint)
        network = self._network_options(name, options)
        return load_report(name, checkpoint, layers=options.layers, **network)

    def _network_options(self, name: str, options: EncoderOptions) -> dict[str, Any]:
        entry = self.settings.encoders.get(name, EncoderSettings())
        return {
            "num_heads": options.num_heads or entry.num_heads,
            "branch": options.branch or entry.branch,
            "accept": options.accept or entry.accept,
            **entry.options,
            **dict(options.options),
        }

    def encoder_of(
        self,
        store: Store,
        command: str,
        *,
        checkpoints: Sequence[Path] = (),
        device: str | None = None,
    ) -> Encoder:
        """Load the encoder that produced a store, with its recorded options and precision.

        `command` is the call that takes --checkpoint, for messages. Raise as `find_checkpoint` and
        `load_recorded` of `pa.extract.image_query`.
        """
        from pa.extract.image_query import find_checkpoint, load_recorded

        checkpoint = find_checkpoint(
            store,
            checkpoints,
            self.checkpoint(store.encoder),
            settings=self.config.file,
            command=command,
        )
        return load_recorded(store, checkpoint, self.device(device))

    # -- stores --------------------------------------------------------------------------------

    def complete(self, selector: StoreSelector) -> StoreSelector:
        """Fill the open fields of a selector from the settings; a fingerprint needs none.

        Raise `UsageError` if only the settings name encoders, and several of them.
        """
        if selector.fingerprint is not None:
            return selector
        encoder = selector.encoder or self.settings.encoder
        if not selector.encoder and encoder is not None and "," in encoder:
            first = encoder.split(",")[0].strip()
            raise UsageError(
                f"this command takes one encoder, and the settings name several ({encoder}). "
                f"Choose one with --encoder, such as --encoder {first}."
            )
        dataset = selector.dataset or self.settings.dataset
        entry = self.settings.datasets.get(dataset or self._only_stored_dataset() or "")
        return StoreSelector(
            dataset=dataset,
            split=selector.split or (entry.split if entry else None),
            view=selector.view or self.settings.view,
            protocol=selector.protocol or (entry.protocol if entry else None),
            encoder=encoder,
        )

    def store(
        self,
        selector: StoreSelector | None = None,
        preferred: Callable[[Store], bool] | None = None,
    ) -> Store:
        """Return the one store that fits a selector completed from the settings.

        Of several that fit, one that is `preferred` is used. Raise `MissingError` with the command
        that produces the store if none fits, `AmbiguousError` with the choices if several do.
        """
        find.check_workspace(self.path)
        selector = self.complete(selector or StoreSelector())
        configured = {*self.settings.datasets, *self.settings.encoders}
        return find.choose(
            self.config.features,
            selector,
            lambda: self.extract_command(selector),
            preferred,
            configured,
        )

    def stores(self, selector: StoreSelector, encoders: Sequence[str] = ()) -> list[Store]:
        """Return one store for each encoder: those given, else those of the settings, else any.

        A fingerprint names one store; the encoders of the settings do not count then.
        """
        names: Sequence[str | None] = encoders or (None,)
        if not encoders and selector.fingerprint is None and self.settings.encoder:
            names = self.encoder_names()
        return [self.store(replace(selector, encoder=name)) for name in names]

    def extract_command(self, selector: StoreSelector, *more: str) -> str:
        """Return a `pa extract` command for a selector, completed from the settings.

        A word in capitals is a placeholder: an encoder, a dataset, a folder, a split, a checkpoint.
        """
        settings = self.settings
        encoder = selector.encoder or settings.encoder or _only(settings.encoders) or "ENCODER"
        dataset = selector.dataset or settings.dataset or _only(settings.datasets) or "DATASET"
        entry = settings.datasets.get(dataset)
        words = ["--encoder", encoder, "--dataset", dataset]
        words += [] if entry else ["--root", "DIR"]
        kind = self.dataset_kind(dataset)
        splits = [WHOLE] if kind == "folder" else []
        if kind in datasets.DATASETS and kind != "folder":
            splits = list(datasets.DATASETS[kind].expected)
        if entry and kind in datasets.DATASETS and self.config.path(entry.root).is_dir():
            splits = datasets.DATASETS[kind].splits(self.config.path(entry.root))
        split = selector.split or (entry.split if entry else None)
        if split is not None or len(splits) != 1:
            first = (s for start in (*FIRST_SPLITS, "") for s in splits if s.startswith(start))
            words += ["--split", split or next(first, "SPLIT")]
        for name in ("view", "protocol"):
            if (value := getattr(selector, name)) is not None:
                words += [f"--{name}", value]
        loaded = settings.encoders.get(encoder)
        known = encoder.startswith("timm/") or (self.config.checkpoints / encoder).is_dir()
        if not known and not (loaded and loaded.checkpoint) and "," not in encoder:
            words += ["--checkpoint", "FILE"]
        return shlex.join(["pa", "extract", *words, *more])

    def _only_stored_dataset(self) -> str | None:
        folders = [path.name for path in self.config.features.glob("*/") if path.is_dir()]
        return folders[0] if len(folders) == 1 else None

    # -- work ----------------------------------------------------------------------------------

    def extract(
        self,
        encoders: Sequence[Encoder],
        images: Images,
        views: Sequence[View],
        options: ExtractOptions | None = None,
        *,
        share: Share | None = None,
    ) -> list[RunResult]:
        """Encode every region of each view with every encoder, and return one result per view.

        Stores that are complete are left as they are; an interrupted run resumes. With `share`
        this process is one task of several; see `pa.extract.share`. Raise `MissingError` if the
        parent folder of a new workspace does not exist.
        """
        from pa.data.views.parts import PartsView
        from pa.extract.run import extract
        from pa.extract.stores import ExtractOptions

        options = self.extract_options(options or ExtractOptions())
        if not self.path.is_dir():
            if not self.path.parent.is_dir():
                raise MissingError(
                    f"workspace {self.path} does not exist, and neither does its parent folder "
                    f"{self.path.parent}. Give another one with --workspace DIR, or create it."
                )
            self.progress.note(f"creating workspace {self.path}, without settings")
        if share is not None:
            self.progress.note(str(share))
        for view in views:
            if isinstance(view, PartsView):
                counts = view.select(images.first(options.limit)).counts
                self.progress.note(f"{images.dataset}/{images.split}/{view.name}: {counts}")
        return [
            extract(encoders, images, view, self.config.features, options, self.progress, share)
            for view in views
        ]

    def plan_extract(
        self,
        encoders: Sequence[Encoder],
        images: Images,
        views: Sequence[View],
        options: ExtractOptions | None = None,
    ) -> ExtractPlan:
        """Plan what `extract` would do with the same arguments; writes nothing."""
        from pa.extract.plan import plan_extract
        from pa.extract.stores import ExtractOptions

        options = self.extract_options(options or ExtractOptions())
        return plan_extract(encoders, images, views, self.config.features, options, self.progress)

    def extract_options(self, options: ExtractOptions) -> ExtractOptions:
        """Fill the open fields from the settings."""
        return replace(
            options,
            storage=options.storage or self.settings.storage,
            batch_size=options.batch_size or self.settings.batch_size,
            workers=options.workers or self.settings.workers,
        )

    def index(
        self,
        store: Store,
        representation: str | None = None,
        factory: str | None = None,
        device: str = "cpu",
    ) -> Index:
        """Open the index of a store, and build it with a note if it is missing.

        Parameters
        ----------
        representation
            A stored vector, such as "cls"; None selects that of the settings.
        factory
            A FAISS factory string; None selects SQfp16, which is exact.
        device
            "cpu", or a CUDA device to which the index is copied.
        """
        from pa.index.build import open_or_build
        from pa.index.gpu import gpu_number, to_gpu
        from pa.index.stored import DEFAULT_FACTORY

        representation = representation or self.settings.representation
        gpu = gpu_number(device)
        opened = open_or_build(
            store,
            representation,
            self.config.indexes,
            factory or DEFAULT_FACTORY,
            gpu=gpu,
            progress=self.progress,
        )
        if opened.built:
            self.progress.note(
                f"built the index of {store.title} · {representation}: {opened.reason}"
            )
        return opened.index if gpu is None else to_gpu(opened.index, gpu)

    def search(
        self,
        stores: Sequence[Store],
        query: int | ImageQuery,
        *,
        k: int = 24,
        representations: Sequence[str] = (),
        include_self: bool = False,
        exclude_same_image: bool = False,
        factory: str | None = None,
        device: str | None = None,
        checkpoints: Sequence[Path] = (),
    ) -> list[tuple[Store, SearchResult]]:
        """Return the k nearest regions of one query for each store and representation.

        Parameters
        ----------
        stores
            Stores of the same regions, so that a row id refers to one region.
        query
            A row id, or a box of an image, which the encoder of each store encodes.
        representations
            Stored vectors, such as "cls" and "pooled"; empty selects that of the settings.
        device
            Device that encodes an image, and that searches if FAISS can use it.
        checkpoints
            Weights of the stores if the recorded files were moved; checked by SHA-256.

        Raises
        ------
        UsageError
            If the stores hold different regions or no vectors.
        """
        from pa.extract.image_query import check_checkpoints
        from pa.index.gpu import gpus
        from pa.index.search import Query, check_stores, search

        representations = representations or (self.settings.representation,)
        check_stores(stores, representations)
        check_checkpoints(checkpoints, stores)
        index_device = device or "cpu"
        if not isinstance(query, int) and not gpus():
            index_device = "cpu"  # the device is the encoder's, on a GPU that FAISS cannot use
        answers = []
        for store in stores:
            for representation in representations:
                index = self.index(store, representation, factory, index_device)
                asked: Query | int
                if isinstance(query, int):
                    asked = query
                else:
                    words = ["pa", "search", "--image", query.name, "--store", store.spec.short]
                    encoder = self.encoder_of(
                        store, shlex.join(words), checkpoints=checkpoints, device=device
                    )
                    asked = Query(
                        vector=query.encode(encoder, representation),
                        path=query.name,
                        box=query.box,
                        canvas=query.picture,
                    )
                (result,) = search(
                    index,
                    [asked],
                    k,
                    include_self=include_self,
                    exclude_same_image=exclude_same_image,
                )
                answers.append((store, result))
        return answers

    def predict(
        self,
        head: Path,
        query: ImageQuery,
        *,
        device: str | None = None,
        checkpoints: Sequence[Path] = (),
    ) -> Prediction:
        """Classify a box of an image with trained heads.

        The box is encoded by the encoder of the heads' training store. `head` is a file of heads,
        or the result they belong to; `checkpoints` are as in `search`.

        Raises
        ------
        MissingError
            If the heads, their store or its checkpoint does not exist.
        CheckpointError
            If the file does not hold heads, or a checkpoint did not produce the store.
        UsageError
            If a result has no heads.
        """
        from pa.extract.image_query import check_checkpoints
        from pa.probe.predict import check_training_store, load_heads, predict

        heads = load_heads(head)
        fingerprint = heads[0].fingerprint
        try:
            store = find.choose(self.config.features, StoreSelector(fingerprint=fingerprint))
        except MissingError:
            raise MissingError(
                f"the store {fingerprint[:16]} that the heads were trained on is not in "
                f"{self.config.features}. It records the encoder, weights and precision of their "
                f"features. Use the workspace that has it (--workspace DIR), or extract it again."
            ) from None
        check_training_store(heads, store)
        check_checkpoints(checkpoints, [store])
        words = ["pa", "probe", "predict", "--image", query.name, "--head", str(head)]
        encoder = self.encoder_of(store, shlex.join(words), checkpoints=checkpoints, device=device)
        names = heads[0].representation.split("+")
        features = [query.encode(encoder, name) for name in names]
        return predict(heads, features, query.box, store)


def _only(configured: Mapping[str, object]) -> str | None:
    return next(iter(configured)) if len(configured) == 1 else None
