"""Whether the first images of each split are enough for a scaled-down study."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING

from pa.errors import MissingError, UsageError
from pa.study.steps import Step
from pa.workspace import RegionSelector, Workspace

if TYPE_CHECKING:
    import polars as pl

    from pa.data.schema import Images


def region_selector(step: Step) -> RegionSelector:
    """Return the regions that an extraction selects."""
    values = step.options
    n_views = values.get("views")
    return RegionSelector(
        dataset=values["dataset"],
        split=values["split"],
        views=(values["view"],),
        protocol=values.get("protocol"),
        view_options=() if n_views is None else (("views", int(n_views)),),
    )


def step_limit(step: Step) -> int | None:
    """Return the number of images that an extraction is limited to."""
    limit = step.options.get("limit")
    return None if limit is None else int(limit)


def too_small(workspace: Workspace, steps: Sequence[Step]) -> dict[str, str]:
    """Return the reason for each step that would refuse the regions within the limit, by name.

    Reads annotations, headers and label maps of the images within the limit. A step that reads
    from one of the named steps is not named itself. Raises what reading a dataset raises.
    """

    @cache  # the encoders of a study share their regions
    def regions(selector: RegionSelector, limit: int | None) -> tuple[Images, pl.DataFrame] | str:
        images, (view,) = workspace.regions(selector)
        images = images.first(limit)
        if view.name == "parts":
            images.annotations()  # unreadable annotations are an error, whatever the limit
        try:
            return images, view.rows(images)
        except MissingError as error:
            return str(error)

    # Steps follow what they read from, so that one pass suffices.
    inputs: dict[str, tuple[Images, pl.DataFrame]] = {}
    reasons: dict[str, str] = {}
    for step in steps:
        if step.is_extraction:
            selected = regions(region_selector(step), step_limit(step))
            if isinstance(selected, str):
                reasons[step.name] = selected
            else:
                inputs[step.name] = selected
        elif all(name in inputs for name in step.after):
            try:
                _check(step, [inputs[name] for name in step.after])
            except UsageError as error:
                reasons[step.name] = str(error)
    return reasons


def _check(step: Step, inputs: Sequence[tuple[Images, pl.DataFrame]]) -> None:
    """Raise `UsageError` as the command of a step would for these regions if all are readable."""
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
            protocol = RETRIEVAL_PROTOCOLS[step.options["protocol"]]
            labels = table["label"].to_numpy()
            check_labels(labels, include_self=protocol.include_self, of=title)
    elif group == "probe" and kind == "segmentation":
        if not _shows_labels(images, table):
            raise UsageError(f"no window of {title} has a labelled pixel: nothing to train on.")
    elif group == "probe":
        from pa.probe.selection import check_seen, classes_of, with_readable

        train, test = (with_readable(rows, True) for _, rows in inputs)
        check_seen(test, classes_of(train, "label"), "label")


def _shows_labels(images: Images, table: pl.DataFrame) -> bool:
    """Return whether a window shows a pixel that is not ignored."""
    from pa.data.datasets.segmentation import masks
    from pa.data.datasets.segmentation.labels import IGNORED
    from pa.data.views.windows import cut_mask, windows_in

    readable = table.drop_nulls(["mask", "width"])
    for (mask,), windows in readable.group_by("mask", maintain_order=True):
        classes = masks.read(images.root / str(mask), IGNORED - 1)  # (H, W)
        if any((cut_mask(classes, window) != IGNORED).any() for window in windows_in(windows)):
            return True
    return False
