"""What flags and settings together mean: which device, which images, which stores."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pa.config import Config
from pa.data import datasets
from pa.data.schema import Images
from pa.data.store import find as stores
from pa.data.store.find import StoreSelector
from pa.errors import AmbiguousError, UsageError

FIRST_SPLITS = ("all", "val", "test")  # whole datasets first, then small splits

if TYPE_CHECKING:
    from pa.data.store.reader import Store
    from pa.data.views.base import View


def store_query(config: Config, **given: str | None) -> StoreSelector:
    """A query of the flags, filled up from the settings; a fingerprint needs no filling.

    Raises `UsageError` where only the settings name encoders, and several.
    """
    if given.get("fingerprint") is not None:
        return StoreSelector(**given)
    encoder = given.get("encoder") or config.settings.encoder
    if not given.get("encoder") and encoder is not None and "," in encoder:
        first = encoder.split(",")[0].strip()
        raise UsageError(
            f"this command takes one encoder, and the settings name several ({encoder}): say which "
            f"with --encoder, such as --encoder {first}."
        )
    dataset = given.get("dataset") or config.settings.dataset
    entry = config.settings.datasets.get(dataset or _only_stored(config) or "")
    return StoreSelector(
        dataset=dataset,
        split=given.get("split") or (entry.split if entry else None),
        view=given.get("view") or config.settings.view,
        protocol=given.get("protocol") or (entry.protocol if entry else None),
        encoder=encoder,
    )


def choose_store(
    config: Config, query: StoreSelector, preferred: Callable[[Store], bool] | None = None
) -> Store:
    """The one store that fits; see `pa.data.store.find.choose`.

    Where none fits, the error names a command that makes it in this workspace. Raises
    `MissingError` where there is no such workspace.
    """
    stores.check_workspace(config.workspace)
    configured = {*config.settings.datasets, *config.settings.encoders}
    return stores.choose(
        config.features, query, lambda: extract_command(config, query), preferred, configured
    )


def extract_command(config: Config, query: StoreSelector, *more: str) -> str:
    """A `pa extract` command for what a query asks, with what the settings leave open.

    A word in capitals is to be replaced: an encoder, a dataset, its folder, a split, a checkpoint.
    """
    from pa.data.datasets.folder import WHOLE

    settings = config.settings
    encoder = query.encoder or settings.encoder or _only(settings.encoders) or "ENCODER"
    dataset = query.dataset or settings.dataset or _only(settings.datasets) or "DATASET"
    entry = settings.datasets.get(dataset)
    words = ["--encoder", encoder, "--dataset", dataset]
    words += [] if entry else ["--root", "DIR"]
    kind = dataset_kind(config, dataset)
    splits = [WHOLE] if kind == "folder" else []
    if kind in datasets.DATASETS and kind != "folder":
        splits = list(datasets.DATASETS[kind].expected)
    if entry and kind in datasets.DATASETS and config.path(entry.root).is_dir():
        splits = datasets.DATASETS[kind].splits(config.path(entry.root))
    split = query.split or (entry.split if entry else None)
    if split is not None or len(splits) != 1:
        words += ["--split", split or _usual_split(splits) or "SPLIT"]
    for name in ("view", "protocol"):
        if (value := getattr(query, name)) is not None:
            words += [f"--{name}", value]
    loaded = settings.encoders.get(encoder)
    known = encoder.startswith("timm/") or (config.checkpoints / encoder).is_dir()
    if not known and not (loaded and loaded.checkpoint) and "," not in encoder:
        words += ["--checkpoint", "FILE"]
    return shlex.join(["pa", "extract", *words, *more])


def _usual_split(splits: Sequence[str]) -> str | None:
    """The split for a first look: all images, else those of validation or test."""
    for beginning in (*FIRST_SPLITS, ""):
        for split in splits:
            if split.startswith(beginning):
                return split
    return None


def _only(configured: Mapping[str, object]) -> str | None:
    return next(iter(configured)) if len(configured) == 1 else None


def _only_stored(config: Config) -> str | None:
    """The dataset of all stores of the workspace, where there is only one."""
    folders = [path.name for path in config.features.glob("*/") if path.is_dir()]
    return folders[0] if len(folders) == 1 else None


def asked_encoders(
    config: Config, given: tuple[str, ...], fingerprint: str | None = None
) -> tuple[str | None, ...]:
    """The encoders given, else those of the settings (several with commas), else any: None.

    A fingerprint alone names one store: the settings do not count then.
    """
    if given or fingerprint is not None or not config.settings.encoder:
        return given or (None,)
    return tuple(name.strip() for name in config.settings.encoder.split(","))


def device(name: str) -> str:
    if name == "cpu":
        return name  # most commands need no torch to know this
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if re.fullmatch(r"cpu|cuda(:\d+)?|mps", name) is None:
        raise UsageError(f"unknown device {name!r}. Known: auto, cpu, cuda, cuda:0 …, mps.")
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise UsageError(f"device {name}: torch {torch.__version__} sees no CUDA device here.")
    return name


def load_images(
    config: Config,
    dataset: str | None,
    root: Path | None,
    split: str | None,
    boxes: Path | None = None,
) -> Images:
    """The images of a split, from flags and settings."""
    name = dataset or default_dataset(config)
    place = dataset_root(config, name, root)
    entry = config.settings.datasets.get(name)
    if boxes is None and entry is not None and entry.boxes is not None:
        boxes = config.path(entry.boxes)
    kind = dataset_kind(config, name)
    split = split or (entry.split if entry else None)
    return datasets.load(name, kind, place, split, boxes)


def dataset_kind(config: Config, name: str) -> str:
    """The kind of a dataset: set in pa.toml, or else the one of its own name."""
    entry = config.settings.datasets.get(name)
    return entry.kind if entry and entry.kind else name


def dataset_root(config: Config, name: str, root: Path | None) -> Path:
    """Where a dataset lies, from flag and settings.

    Raises `UnknownNameError` where there is no such dataset, `UsageError` where neither says.
    """
    entry = config.settings.datasets.get(name)
    kind = dataset_kind(config, name)
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
    return root


def default_dataset(config: Config) -> str:
    """The dataset of the settings, or the only one that is configured. Raises `AmbiguousError`."""
    if config.settings.dataset:
        return config.settings.dataset
    configured = list(config.settings.datasets)
    if only := _only(config.settings.datasets):
        return only
    raise AmbiguousError(
        "which dataset? Give --dataset NAME"
        + (f" (configured: {', '.join(configured)})" if configured else " and --root DIR")
        + f", or set dataset in {config.file}."
    )


def default_views(config: Config, images: Images) -> tuple[str, ...]:
    if config.settings.view:
        return (config.settings.view,)
    return (datasets.DATASETS[dataset_kind(config, images.dataset)].default_view,)


def choose_views(
    config: Config,
    images: Images,
    names: Sequence[str],
    protocol: str | None,
    options: Sequence[tuple[str, Any]],
) -> list[View]:
    """The views of these names, by a protocol where they have one, with fields changed one by one.

    The protocol of view `parts` is the one given, else that of the dataset's settings, else
    `boxes` where the dataset gives boxes and `paper` where it gives keypoints. View `windows` is
    by the recipe of the dataset's kind.
    """
    from pa.data.schema import Boxes
    from pa.data.views import VIEWS, configure
    from pa.data.views.parts import PROTOCOLS
    from pa.data.views.windows import windows_for

    entry = config.settings.datasets.get(images.dataset)
    if protocol is not None and "parts" not in names:
        raise UsageError(f"--protocol is for view parts; view {', '.join(names)} has none.")
    views = []
    for name in names:
        view = VIEWS[name]
        if name == "parts":
            if protocol is None and entry is not None:
                protocol = entry.protocol
            if protocol is None:
                protocol = "boxes" if isinstance(images.annotations(), Boxes) else "paper"
            view = PROTOCOLS[protocol]
        elif name == "windows":
            view = windows_for(dataset_kind(config, images.dataset))
        views.append(configure(view, options))
    return views
