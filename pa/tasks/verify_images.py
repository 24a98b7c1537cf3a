"""`pa verify --images`: compare every image file with what the stores were made from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from pa.config import Config
from pa.data.store.image_files import ChangedImage, ImageFiles, hash_of
from pa.data.store.reader import Store


@dataclass(frozen=True)
class CheckedImages:
    """The images of a store under a root, and those that are not what the store was made from."""

    store: Store
    root: Path
    changed: list[ChangedImage]

    def to_json(self) -> dict[str, Any]:
        return {
            "store": self.store.title,
            "root": str(self.root),
            "images": self.store.spec.rows["n_images"],
            "changed": [image.to_json() for image in self.changed],
        }


def check_images(config: Config, stores: Iterable[Store]) -> Iterator[CheckedImages]:
    """Hash every image file of every store; a file that several stores share is read once.

    The root is that of the extraction, or, if it is gone, that of the dataset in the settings.
    """
    hash_once = cache(hash_of)
    for store in stores:
        root = Path(str(store.source["root"]))
        entry = config.settings.datasets.get(store.spec.dataset)
        if entry is not None and not root.is_dir():
            root = config.path(entry.root)
        yield CheckedImages(
            store, root, ImageFiles(store, root).changed(full=True, hasher=hash_once)
        )
