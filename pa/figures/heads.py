"""What trained segmentation heads say of some images: from results, heads and cached windows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pa.data.datasets.segmentation.labels import IGNORED
from pa.data.datasets.segmentation.masks import Map
from pa.data.store.reader import Store
from pa.errors import MismatchError, MissingError
from pa.evaluate.results import ResultFile
from pa.figures.names import title_of
from pa.probe.linear.head import LinearHead
from pa.probe.segmentation.labels import LabelMaps, WindowRows, held_out
from pa.probe.segmentation.recipes import named_recipe
from pa.probe.segmentation.score import score_heads
from pa.probe.segmentation.train import HeadSpec, TrainedHead
from pa.progress import Progress


@dataclass(frozen=True, eq=False)
class ScoredHead:
    """A trained head, the store it was scored on, and its labels; `encoder` made the features."""

    encoder: str
    found: ResultFile
    store: Store
    maps: LabelMaps

    def __post_init__(self) -> None:
        then, now = self.found.result.selection.labels.sha256, self.maps.to_json().get("sha256")
        if then != now:
            raise MismatchError(
                f"the head of {title_of(self.encoder)} was trained on another list of classes of "
                f"{self.maps.name} than the one in {self.maps.root}. Train it again, or set the "
                f"root of the labels it was trained on."
            )

    def paths(self) -> dict[str, str]:
        """The images that were scored, and may be drawn: name without suffix → path in the store.

        Where one split was divided these are the images held out from training.
        """
        paths = set(self.store.rows["path"].unique().to_list())
        selection = self.found.result.selection
        if (fraction := selection.test_fraction) is not None:
            paths = held_out(sorted(paths), fraction, selection.seed)
        bad = {bad.path for bad in self.store.bad}
        return {Path(path).stem: path for path in sorted(paths - bad)}

    def predict(self, paths: Sequence[str], device: str, progress: Progress) -> dict[str, Map]:
        """The class map (H, W), uint8, of images, by name without suffix; all must have labels."""
        head = LinearHead.load(self.found.path.with_suffix(".safetensors"))
        recipe = replace(
            named_recipe(str(self.found.result.protocol.name), self.encoder),
            representation=head.representation,
            upsample_first=self.found.result.protocol.parameters["upsample_first"],
        )
        scored = score_heads(
            WindowRows.of(self.store, set(paths)),
            [self.maps],
            [HeadSpec(0, recipe.lr)],
            [
                TrainedHead(
                    torch.from_numpy(head.weight), torch.from_numpy(head.bias), torch.empty(0)
                )
            ],
            recipe,
            figures=len(paths),
            device=device,
            progress=progress,
        )
        return {Path(one.image["path"]).stem: one.predicted[0] for one in scored.shown}


def truth(head: ScoredHead, path: str) -> Map:
    """The labels of an image, (H, W) uint8, 255 = ignored."""
    return head.maps.read(_image(head.store, path))


def _image(store: Store, path: str) -> dict[str, Any]:
    (row,) = store.rows.filter(store.rows["path"] == path).head(1).to_dicts()
    return row


def labelled_images(heads: Sequence[ScoredHead], names: Sequence[str], n: int) -> list[str]:
    """Names of n images, spread evenly, that every head was scored on and every set has labels of.

    With `names` those, however many. Raises `MissingError` where there are none.
    """
    common = set.intersection(*(set(head.paths()) for head in heads))
    if unknown := [name for name in names if name not in common]:
        raise MissingError(
            f"image {unknown[0]} is not among the {len(common)} images that all of these heads "
            f"were scored on, such as {', '.join(sorted(common)[:3])}."
        )
    if names:
        return list(names)
    of_set = {head.maps.name: head for head in heads}.values()

    def has_labels(name: str) -> bool:
        return all((truth(head, head.paths()[name]) != IGNORED).any() for head in of_set)

    ordered = sorted(common)
    spread = np.linspace(0, len(ordered) - 1, n).round().astype(int).tolist() if ordered else []
    # Evenly spread ones first, then their neighbours in the place of those without labels.
    distance = {i: min(abs(i - place) for place in spread) for i in range(len(ordered))}
    chosen: list[str] = []
    for place in sorted(distance, key=lambda i: (distance[i], i)):
        if len(chosen) < n and has_labels(ordered[place]):
            chosen.append(ordered[place])
    if not chosen:
        raise MissingError(
            "no image was scored by all of these heads and has labels of every set. Choose heads "
            "of one test split with --encoder and --protocol."
        )
    return sorted(chosen)
