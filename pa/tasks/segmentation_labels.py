"""Which label maps a segmentation probe reads: of datasets, or any folder of index PNGs."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pa.config import Config
from pa.data.datasets.segmentation import labels
from pa.errors import MissingError, UsageError
from pa.tasks.choose import dataset_kind
from pa.tasks.segmentation_inputs import InputsRequest

if TYPE_CHECKING:
    from pa.probe.segmentation.labels import LabelMaps


def label_maps(
    config: Config, request: InputsRequest, dataset: str, source: Path
) -> list[LabelMaps]:
    """The label sets asked for of images of `dataset` that lie in `source`.

    Raises `UsageError` for a dataset without masks, `MissingError` where a root is not there.
    """
    images = (request.root or source).expanduser().absolute()
    if request.masks is not None and request.names is not None:
        return [_folder_maps(request.masks, request.names, images)]
    wanted = request.labels or (dataset,)
    return [_dataset_maps(config, request, dataset, source, images, name) for name in wanted]


def _dataset_maps(
    config: Config,
    request: InputsRequest,
    dataset: str,
    source: Path,
    images: Path,
    wanted: str,
) -> LabelMaps:
    from pa.data.datasets.segmentation import tree
    from pa.probe.segmentation.labels import LabelMaps

    name, _, given = wanted.partition("=")
    kind = dataset_kind(config, name)
    if kind not in labels.LABEL_SETS:
        raise UsageError(
            f"dataset {name} has no label maps. Known: {', '.join(labels.LABEL_SETS)}; or give a "
            f"folder of index PNGs: --masks DIR --names FILE."
        )
    entry = config.settings.datasets.get(name)
    if given:
        root = Path(given)
    elif name == dataset:
        root = request.root or (config.path(entry.root) if entry else source)
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
    return LabelMaps(name, tuple(found.names), root, images=images, provenance=found.provenance())


def _folder_maps(folder: Path, names: Path, images: Path) -> LabelMaps:
    from pa.probe.segmentation.labels import LabelMaps

    if not folder.is_dir():
        raise MissingError(f"--masks {folder} is not a folder.")
    classes = read_names(names)
    provenance: dict[str, Any] = {
        "sha256": hashlib.sha256("\n".join(classes).encode()).hexdigest(),
        "masks": _digest_of(folder),
    }
    return LabelMaps(
        names.stem,
        classes,
        folder.expanduser().absolute(),
        by_image=True,
        images=images,
        provenance=provenance,
    )


def read_names(file: Path) -> tuple[str, ...]:
    """Class names, one a line: line k names class k of the masks.

    Raises `UsageError` for an empty line, which would give every class below it another number,
    and for a name that is there twice.
    """
    try:
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        raise MissingError(f"--names {file} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError as error:
        raise UsageError(f"--names {file} is not a UTF-8 text: {error.reason}.") from None
    lines = [line.strip() for line in text.rstrip().splitlines()]
    seen: dict[str, int] = {}
    for number, line in enumerate(lines, 1):
        if not line:
            raise UsageError(
                f"--names {file}: line {number} is empty. Line k names the class that is k in the "
                f"masks: write a name there."
            )
        if line in seen:
            raise UsageError(
                f"--names {file}: lines {seen[line]} and {number} both say {line!r}. Expected a "
                f"name of its own for each class."
            )
        seen[line] = number
    return tuple(lines)


def _digest_of(folder: Path) -> str:
    """Digest of all label maps of a folder, names and bytes: other labels are another result."""
    digest = hashlib.sha256()
    for file in sorted(folder.rglob("*.png")):
        digest.update(f"{file.relative_to(folder).as_posix()}\0{file.stat().st_size}\0".encode())
        digest.update(file.read_bytes())
    return digest.hexdigest()
