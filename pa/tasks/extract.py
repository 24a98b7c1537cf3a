"""`pa extract`: encode a split with one or more encoders, one view after the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pa.config import Config
from pa.errors import MissingError
from pa.progress import Progress
from pa.tasks.choose import choose_views, default_views, load_images
from pa.tasks.encoders import EncoderChoice, default_encoders, load_encoder

if TYPE_CHECKING:
    from pa.data.schema import Images
    from pa.data.views.base import View
    from pa.extract.encoders.base import Encoder
    from pa.extract.plan import ExtractPlan
    from pa.extract.run import RunResult
    from pa.extract.stores import ExtractOptions


@dataclass(frozen=True)
class ExtractRequest:
    """What `pa extract` was asked; None or empty = take it from the settings."""

    encoders: tuple[str, ...] = ()
    encoder: EncoderChoice = field(default_factory=EncoderChoice)
    dataset: str | None = None
    root: Path | None = None
    split: str | None = None
    boxes: Path | None = None
    views: tuple[str, ...] = ()
    protocol: str | None = None
    view_options: tuple[tuple[str, Any], ...] = ()
    n_views: int | None = None
    representations: tuple[str, ...] = ()
    limit: int | None = None
    storage: str | None = None
    batch_size: int | None = None
    workers: int | None = None
    shard_rows: int | None = None
    replace: bool = False
    alongside: bool = False
    task_id: int | None = None
    task_count: int | None = None


def extract(config: Config, request: ExtractRequest, progress: Progress) -> list[RunResult]:
    """Encode a split with one or more encoders, one view after the other.

    As one of several tasks (`task_id`, `task_count`, by default those of the Slurm array it runs
    in) it begins with its own share of the missing shards, and leaves to the other tasks what they
    have in hand at the end.
    """
    from pa.extract.run import extract as run
    from pa.extract.share import choose_share

    _check_folder(config, progress)
    share = choose_share(request.task_id, request.task_count)
    if share is not None:
        progress.note(str(share))
    encoders, images, views = prepare(config, request, progress)
    options = run_options(config, request)
    return [
        run(encoders, images, view, config.features, options, progress, share) for view in views
    ]


def plan(config: Config, request: ExtractRequest, progress: Progress) -> ExtractPlan:
    """Plan what `extract` would do with the same request."""
    from pa.extract.plan import plan_extract

    encoders, images, views = prepare(config, request, progress)
    options = run_options(config, request)
    return plan_extract(encoders, images, views, config.features, options, progress)


def _check_folder(config: Config, progress: Progress) -> None:
    """Say that a workspace is new. Raises `MissingError` where its parent folder is missing."""
    place = config.workspace
    if place.is_dir():
        return
    if not place.parent.is_dir():
        raise MissingError(
            f"there is no workspace at {place}, and no folder {place.parent} to create it in. "
            f"Name another with --workspace DIR, or create the folder."
        )
    progress.note(f"workspace {place} is not there: it is created, without settings")


def prepare(
    config: Config, request: ExtractRequest, progress: Progress
) -> tuple[list[Encoder], Images, list[View]]:
    """What a request means: the encoders, loaded, the images, and the views of them."""
    names = request.encoders or default_encoders(config)
    request.encoder.check_names(config, names)
    images, views = choose_regions(config, request)
    _tell_parts(views, images.first(request.limit), progress)
    return [load_encoder(config, name, request.encoder) for name in names], images, views


def choose_regions(config: Config, request: ExtractRequest) -> tuple[Images, list[View]]:
    """The images of a request, all of the split, and the views of them."""
    images = load_images(config, request.dataset, request.root, request.split, request.boxes)
    names_of_views = request.views or default_views(config, images)
    changed = request.view_options
    if request.n_views is not None:
        changed = (*changed, ("views", request.n_views))
    return images, choose_views(config, images, names_of_views, request.protocol, changed)


def run_options(config: Config, request: ExtractRequest) -> ExtractOptions:
    """How to extract, from flags and settings."""
    from pa.extract.stores import ExtractOptions

    settings = config.settings
    return ExtractOptions(
        representations=request.representations,
        storage=request.storage or settings.storage,
        limit=request.limit,
        batch_size=request.batch_size or settings.batch_size,
        workers=request.workers or settings.workers,
        replace=request.replace,
        alongside=request.alongside,
        shard_rows=request.shard_rows or 0,
    )


def _tell_parts(views: Sequence[View], images: Images, progress: Progress) -> None:
    """Say how many parts a view keeps, and how many it leaves out and why."""
    from pa.data.views.parts import PartsView

    for view in views:
        if isinstance(view, PartsView):
            title = f"{images.dataset}/{images.split}/{view.name}"
            progress.note(f"{title}: {view.select(images).counts}")
