"""`pa extract`: encode a split with one or more encoders, one view after the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pa.commands.choose import choose_views, default_views, load_images
from pa.commands.encoders import EncoderChoice, default_encoders, load_encoder
from pa.config import Config
from pa.progress import Progress

if TYPE_CHECKING:
    from pa.data.datasets import Images
    from pa.data.view import View
    from pa.extract.run import RunResult


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


def extract(config: Config, request: ExtractRequest, progress: Progress) -> list[RunResult]:
    """Encode a split with one or more encoders, one view after the other."""
    from pa.extract.run import extract as run
    from pa.extract.slots import Options

    names = request.encoders or default_encoders(config)
    request.encoder.check_names(config, names)
    images = load_images(config, request.dataset, request.root, request.split, request.boxes)
    names_of_views = request.views or default_views(config, images)
    changed = request.view_options
    if request.n_views is not None:
        changed = (*changed, ("views", request.n_views))
    views = choose_views(config, images, names_of_views, request.protocol, changed)
    _tell_parts(views, images.first(request.limit), progress)
    settings = config.settings
    options = Options(
        representations=request.representations or None,
        storage=request.storage or settings.storage,
        limit=request.limit,
        batch_size=request.batch_size or settings.batch_size,
        workers=request.workers or settings.workers,
        replace=request.replace,
        alongside=request.alongside,
        shard_rows=request.shard_rows or 0,
    )
    encoders = [load_encoder(config, name, request.encoder) for name in names]
    return [run(encoders, images, view, config.features, options, progress) for view in views]


def _tell_parts(views: Sequence[View], images: Images, progress: Progress) -> None:
    """Say how many parts a view keeps, and how many it leaves out and why."""
    from pa.data.parts import PartsView

    for view in views:
        if isinstance(view, PartsView):
            title = f"{images.dataset}/{images.split}/{view.name}"
            progress.note(f"{title}: {view.select(images).counts}")
