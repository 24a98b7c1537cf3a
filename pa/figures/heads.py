"""Predictions of trained segmentation heads for single images, from results and stored windows."""

from __future__ import annotations

from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from pa.data import images as im
from pa.data.datasets.segmentation.labels import IGNORED
from pa.data.datasets.segmentation.masks import Map
from pa.data.store.image_files import check_content
from pa.data.store.reader import Store
from pa.errors import AmbiguousError, MismatchError, MissingError, PaError
from pa.evaluate.result_files import ResultFile
from pa.figures.names import PAIRS, title_of
from pa.figures.segmentation import Example, Line
from pa.probe.linear.head import LinearHead
from pa.probe.segmentation.labels import LabelMaps, WindowRows, held_out
from pa.probe.segmentation.recipes import named_recipe
from pa.probe.segmentation.score import score_heads
from pa.probe.segmentation.train import HeadSpec, TrainedHead
from pa.progress import Progress


@dataclass(frozen=True, eq=False)
class ScoredHead:
    """A trained head, the store it was scored on, and its labels."""

    encoder: str
    file: ResultFile
    store: Store
    maps: LabelMaps

    def __post_init__(self) -> None:
        trained = self.file.result.selection.labels.sha256
        if trained != self.maps.to_json().get("sha256"):
            raise MismatchError(
                f"the head of {title_of(self.encoder)} was trained on another list of classes of "
                f"{self.maps.name} than the one in {self.maps.root}. Train it again, or set the "
                f"root of the labels it was trained on."
            )

    def paths(self) -> dict[str, str]:
        """Return the scored images: name without suffix → path in the store.

        If one split was divided, these are the images held out from training.
        """
        paths = set(self.store.rows["path"].unique().to_list())
        selection = self.file.result.selection
        if (fraction := selection.test_fraction) is not None:
            paths = held_out(sorted(paths), fraction, selection.seed)
        bad = {image.path for image in self.store.bad}  # could not be decoded: not scored
        return {Path(path).stem: path for path in sorted(paths - bad)}

    def predict(self, paths: Sequence[str], device: str, progress: Progress) -> dict[str, Map]:
        """Return the class map (H, W), uint8, of images with labels, by name without suffix."""
        head = LinearHead.load(self.file.path.with_suffix(".safetensors"))
        recipe = replace(
            named_recipe(str(self.file.result.protocol.name), self.encoder),
            representation=head.representation,
            upsample_first=self.file.result.protocol.parameters["upsample_first"],
        )
        # The code that scored the head: the map drawn is the map that was counted.
        weight, bias = torch.from_numpy(head.weight), torch.from_numpy(head.bias)
        scored = score_heads(
            WindowRows.of(self.store, set(paths)),
            [self.maps],
            [HeadSpec(0, recipe.lr)],
            [TrainedHead(weight, bias, losses=torch.empty(0))],
            recipe,
            figures=len(paths),
            device=device,
            progress=progress,
        )
        return {Path(image.image["path"]).stem: image.predicted[0] for image in scored.shown}


def truth(head: ScoredHead, path: str) -> Map:
    """Read the labels of an image, (H, W) uint8, 255 = ignored."""
    rows = head.store.rows
    (image,) = rows.filter(rows["path"] == path).head(1).to_dicts()
    return head.maps.read(image)


def labelled_images(heads: Sequence[ScoredHead], names: Sequence[str], n: int) -> list[str]:
    """Return the names, else n names spread evenly over the images that every head was scored on
    and every label set has labels of. Raise `MissingError` without any such image.
    """
    common = set.intersection(*(set(head.paths()) for head in heads))
    if unknown := [name for name in names if name not in common]:
        raise MissingError(
            f"image {unknown[0]} is not among the {len(common)} images that all of these heads "
            f"were scored on, such as {', '.join(sorted(common)[:3])}."
        )
    if names:
        return list(names)
    one_per_set = {head.maps.name: head for head in heads}.values()

    def has_labels(name: str) -> bool:
        return all((truth(head, head.paths()[name]) != IGNORED).any() for head in one_per_set)

    ordered = sorted(common)
    spread = np.linspace(0, len(ordered) - 1, n).round().astype(int).tolist() if ordered else []
    # Evenly spread images first, then their neighbours, to replace images without labels.
    distance = {i: min(abs(i - start) for start in spread) for i in range(len(ordered))}
    chosen: list[str] = []
    for index in sorted(distance, key=lambda i: (distance[i], i)):
        if len(chosen) < n and has_labels(ordered[index]):
            chosen.append(ordered[index])
    if not chosen:
        raise MissingError(
            "no image was scored by all of these heads and has labels of every set. Select heads "
            "of one test split with --encoder and --protocol."
        )
    return sorted(chosen)


def read_examples(
    heads: Sequence[Sequence[ScoredHead]],
    names: Sequence[str],
    root: Path,
    device: str,
    progress: Progress,
) -> list[Example]:
    """Read images with their labels and predictions; `heads` are the encoders of each label set.

    Raise `MissingError` for an image that is not below `root`, `MismatchError` for one that is not
    the one that was encoded.
    """
    predicted = [
        [head.predict([head.paths()[name] for name in names], device, progress) for head in row]
        for row in heads
    ]
    store, paths = heads[0][0].store, heads[0][0].paths()
    examples = []
    for name in names:
        file = root / paths[name]
        try:
            data = file.read_bytes()
        except FileNotFoundError:
            raise MissingError(
                f"the image {file} does not exist. If the images moved, give their folder with "
                f"--root."
            ) from None
        check_content(store, int((store.rows["path"] == paths[name]).arg_max() or 0), data, file)
        lines = [  # one per label set
            Line(truth(row[0], row[0].paths()[name]), [maps[name] for maps in by_encoder])
            for row, by_encoder in zip(heads, predicted, strict=True)
        ]
        examples.append(Example(im.decode(data, file), lines))
    return examples


def drawable_pair(
    existing: Set[str], prepare: Callable[[tuple[str, str]], None], folder: Path
) -> tuple[str, str]:
    """Return the pair of objects and parts that can be drawn.

    `existing` are the label sets with heads in the folder of the results; `prepare` raises
    `PaError` for a pair that cannot be drawn. Raise `AmbiguousError` if both pairs can be drawn,
    `MissingError` if no pair has heads, else the error of the first pair.
    """
    drawable, refused = [], []
    for pair in PAIRS:
        if not set(pair) <= existing:
            continue
        try:
            prepare(pair)
            drawable.append(pair)
        except PaError as error:
            refused.append(error)
    if len(drawable) > 1:
        choices = " or ".join(",".join(pair) for pair in drawable)
        raise AmbiguousError(f"there are heads of two pairs. Choose one: --labels {choices}.")
    if refused and not drawable:
        raise refused[0]
    if not drawable:
        others = f" There are heads of {', '.join(sorted(existing))}." if existing else ""
        raise MissingError(
            f"there are no heads of objects and parts in {folder}.{others} Train them on one store:"
            f"\n  pa probe segmentation --encoder NAME --dataset pascal-part --labels "
            f"pascal-object --labels pascal-part\nor draw one set: --labels NAME."
        )
    return drawable[0]
