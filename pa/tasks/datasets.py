"""`pa datasets`: what is there of a dataset, and what its regions look like."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pa.config import Config
from pa.errors import UsageError
from pa.progress import Progress, Silent
from pa.tasks.choose import choose_views, dataset_kind, dataset_root, default_views, load_images

if TYPE_CHECKING:
    from pa.data.datasets.check import SplitCheck
    from pa.data.schema import Images
    from pa.data.views.base import FixedView
    from pa.data.views.part_rows import PartCounts


@dataclass(frozen=True)
class DatasetCheck:
    """What `pa datasets check` found: one entry per split, and the layout that was expected."""

    dataset: str
    kind: str
    root: Path
    splits: list[SplitCheck]

    @property
    def is_whole(self) -> bool:
        return all(split.is_whole for split in self.splits)

    def to_json(self) -> dict[str, Any]:
        splits = [split.to_json() for split in self.splits]
        return {"dataset": self.dataset, "kind": self.kind, "root": str(self.root)} | {
            "splits": splits
        }


def check_dataset(
    config: Config,
    name: str,
    root: Path | None,
    split: str | None,
    boxes: Path | None,
    quick: bool,
    progress: Progress,
) -> DatasetCheck:
    """Count every split of a dataset and read the headers of its images.

    Raises `MissingError` with the expected layout where the dataset is not there.
    """
    from pa.data.datasets import DATASETS
    from pa.data.datasets.check import check_split

    kind = dataset_kind(config, name)
    entry = DATASETS[kind]
    place = dataset_root(config, name, root)
    splits: list[str | None] = [split]
    if split is None and place.is_dir():
        # Where there is none, loading it says what was expected.
        splits = [*entry.splits(place)] or [None]
    found = [load_images(config, name, place, each, boxes) for each in splits]
    checked = [check_split(images, entry, not quick, progress) for images in found]
    return DatasetCheck(name, kind, found[0].root, checked)


@dataclass(frozen=True)
class ShowRequest:
    """What `pa datasets show` was asked; None or empty = take it from the settings."""

    dataset: str
    root: Path | None = None
    split: str | None = None
    boxes: Path | None = None
    view: str | None = None
    protocol: str | None = None
    view_options: tuple[tuple[str, Any], ...] = ()
    parts: tuple[str, ...] = ()
    examples: int = 12
    out: Path | None = None


@dataclass(frozen=True)
class Shown:
    """What became of the annotated parts under a protocol, and the sheet that was drawn.

    `odd_sizes` are images with a patch that are not of the size that the annotations say: their
    boxes lie wrong.
    """

    title: str
    view: dict[str, Any]
    counts: PartCounts
    sheet: Path | None
    odd_sizes: list[tuple[str, str]]

    def to_json(self) -> dict[str, Any]:
        sheet = None if self.sheet is None else str(self.sheet)
        return {
            "title": self.title,
            "view": self.view,
            "counts": self.counts.to_json(),
            "sheet": sheet,
            "odd_sizes": self.odd_sizes,
        }


@dataclass(frozen=True)
class ShownRegions:
    """The regions of a view whose boxes are the same for every image, and the sheet of them."""

    title: str
    view: dict[str, Any]
    images: int
    rows: int
    sheet: Path | None

    def to_json(self) -> dict[str, Any]:
        return {**vars(self), "sheet": None if self.sheet is None else str(self.sheet)}


def show_dataset(
    config: Config, request: ShowRequest, progress: Progress | None = None
) -> Shown | ShownRegions:
    """Count the parts of a split under a protocol, and draw a contact sheet of them; or the regions
    of views `image` and `grid`. Without a view named, that of the dataset.

    Where the annotations give the sizes of the images, the headers of those with a patch are read
    and compared.
    """
    from pa.data.datasets.check import check_sizes
    from pa.data.views.base import FixedView
    from pa.data.views.parts import PartsView, protocol_of
    from pa.figures import part_sheet as sheet

    images = load_images(config, request.dataset, request.root, request.split, request.boxes)
    named = (request.view,) if request.view else default_views(config, images)
    (view,) = choose_views(config, images, named, request.protocol, request.view_options)
    if isinstance(view, FixedView):
        return _show_regions(images, view, request)
    if not isinstance(view, PartsView):
        raise UsageError(
            f"pa datasets show draws image, grid and parts; view {view.name} has no sheet."
        )
    selection = view.select(images)
    name, changed = protocol_of(view)
    fields = "".join(f", {key}={value}" for key, value in changed.items())
    title = f"{images.dataset} · {images.split} · view parts · protocol {name}{fields}"
    drawn = None
    if request.out is not None:
        options = sheet.SheetOptions(request.parts, request.examples, view.resize)
        drawn = sheet.draw(request.out, images, selection, title, options)
    paths = selection.rows["path"].unique(maintain_order=True).to_list()
    odd = check_sizes(images, paths, progress or Silent())
    return Shown(title, view.to_json(), selection.counts, drawn, odd)


def _show_regions(images: Images, view: FixedView, request: ShowRequest) -> ShownRegions:
    from pa.figures import region_sheet

    if request.parts:
        raise UsageError(f"--part chooses among parts; view {view.name} has none.")
    title = f"{images.dataset} · {images.split} · view {view.name}"
    drawn = None
    if request.out is not None:
        drawn = region_sheet.draw(request.out, images, view, title, request.examples)
    n = len(images.table)
    return ShownRegions(title, view.to_json(), n, n * len(view.boxes()), drawn)
