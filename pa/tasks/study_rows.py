"""Which steps of a scaled-down study its first images are too few for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pa.config import Config
from pa.errors import MissingError, UsageError
from pa.study.state import options
from pa.study.steps import Step
from pa.tasks.encoders import EncoderChoice
from pa.tasks.extract import ExtractRequest, choose_regions

if TYPE_CHECKING:
    import polars as pl

    from pa.data.schema import Images

# The flags of an extraction that decide on its regions; all encoders have the same.
REGIONS = ("dataset", "split", "view", "protocol", "views", "limit")


def extract_request(step: Step) -> ExtractRequest:
    """Return what the command line of an extraction asks for."""
    given = options(step)
    layers = tuple(int(layer) for layer in given.get("layers", "").split(",") if layer)
    limit, views = given.get("limit"), given.get("views")
    return ExtractRequest(
        encoders=(given["encoder"],),
        encoder=EncoderChoice(layers=layers),
        dataset=given["dataset"],
        split=given["split"],
        views=(given["view"],),
        protocol=given.get("protocol"),
        n_views=None if views is None else int(views),
        representations=tuple(filter(None, given.get("features", "").split(","))),
        limit=None if limit is None else int(limit),
        alongside="alongside" in given,
    )


def too_small(config: Config, steps: Sequence[Step]) -> dict[str, str]:
    """Return the names of the steps that would refuse the regions of their images, and why.

    Reads annotations, headers and label maps of the images within the limit; a step that reads
    from one of the named steps is not named itself. Raises what reading a dataset raises.
    """
    tables: dict[tuple[str | None, ...], tuple[Images, pl.DataFrame] | str] = {}
    found: dict[str, tuple[Images, pl.DataFrame]] = {}
    reasons: dict[str, str] = {}
    for step in steps:
        if step.is_extraction:
            given = options(step)
            key = tuple(given.get(name) for name in REGIONS)
            if key not in tables:
                tables[key] = _regions(config, extract_request(step))
            table = tables[key]
            if isinstance(table, str):
                reasons[step.name] = table
            else:
                found[step.name] = table
        elif all(name in found for name in step.after):
            try:
                _check(step, [found[name] for name in step.after])
            except UsageError as error:
                reasons[step.name] = str(error)
    return reasons


def _regions(config: Config, request: ExtractRequest) -> tuple[Images, pl.DataFrame] | str:
    """The images of an extraction and its regions; the reason where there is no region."""
    images, (view,) = choose_regions(config, request)
    images = images.first(request.limit)
    if view.name == "parts":
        images.annotations()  # unreadable annotations are an error, whatever the limit
    try:
        return images, view.rows(images)
    except MissingError as error:
        return str(error)


def _check(step: Step, inputs: Sequence[tuple[Images, pl.DataFrame]]) -> None:
    """Raise `UsageError` as the command of a step would for these regions, all readable."""
    group, kind = step.words[:2]
    images, table = inputs[0]
    title = f"{images.dataset}/{images.split}"
    if group == "evaluate":
        from pa.evaluate.neighbours import check_k, default_k
        from pa.evaluate.retrieval import check_labels
        from pa.evaluate.retrieval_table import RETRIEVAL_PROTOCOLS

        if kind == "neighbours":
            check_k(default_k(len(table)), len(table))
        else:
            protocol = RETRIEVAL_PROTOCOLS[options(step)["protocol"]]
            labels = table["label"].to_numpy()
            check_labels(labels, include_self=protocol.include_self, of=title)
    elif group == "probe" and kind == "segmentation":
        if not _shows_labels(images, table):
            raise UsageError(f"no window of {title} has a labelled pixel: nothing to train on.")
    elif group == "probe":
        from pa.probe.labels import check_seen, classes_of, with_readable

        train, test = (with_readable(rows, True) for _, rows in inputs)
        check_seen(test, classes_of(train, "label"), "label")


def _shows_labels(images: Images, table: pl.DataFrame) -> bool:
    """Whether a window shows a pixel that is not ignored."""
    from pa.data.datasets.segmentation import masks
    from pa.data.datasets.segmentation.labels import IGNORED
    from pa.data.views.windows import cut_mask, windows_in

    readable = table.drop_nulls(["mask", "width"])
    for (mask,), windows in readable.group_by("mask", maintain_order=True):
        classes = masks.read(images.root / str(mask), IGNORED - 1)
        if any((cut_mask(classes, window) != IGNORED).any() for window in windows_in(windows)):
            return True
    return False
