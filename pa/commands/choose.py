"""What flags and settings together mean: which device, which images, which stores."""

from __future__ import annotations

from pathlib import Path

from pa.config import Config
from pa.data import datasets
from pa.data.datasets import Images
from pa.data.stores import StoreQuery
from pa.errors import AmbiguousError, UsageError


def store_query(config: Config, **given: str | None) -> StoreQuery:
    """A query of the flags, filled up from the settings; a fingerprint needs no filling."""
    if given.get("fingerprint") is not None:
        return StoreQuery(**given)
    defaults = {name: getattr(config.settings, name) for name in ("dataset", "split", "view")}
    chosen = {name: given.get(name) or default for name, default in defaults.items()}
    return StoreQuery(**chosen, encoder=given.get("encoder") or config.settings.encoder)


def device(name: str) -> str:
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise UsageError(f"device {name}: torch {torch.__version__} sees no CUDA device here.")
    return name


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


def default_views(config: Config, images: Images) -> tuple[str, ...]:
    if config.settings.view:
        return (config.settings.view,)
    entry = config.settings.datasets.get(images.dataset)
    kind = entry.kind if entry and entry.kind else images.dataset
    return (datasets.DATASETS[kind].default_view,)
