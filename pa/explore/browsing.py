"""The images of a gallery's rows: listing, searching, and the regions of each."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl

from pa.data.datasets.imagenet import readable_label
from pa.data.schema import BOX
from pa.data.store.reader import Store
from pa.errors import OutOfRangeError


@dataclass(frozen=True)
class ImageEntry:
    """An image and its rows, which are consecutive."""

    image: int
    path: str
    label: str | None  # the class in view `parts`
    first_row: int
    n_rows: int


@dataclass(frozen=True)
class ImagePage:
    """Images from `offset` on, of the `total` number of matches."""

    total: int
    offset: int
    images: list[ImageEntry]


@dataclass(frozen=True)
class Region:
    """A row of an image: its box on the canvas, and its label."""

    row: int
    box: tuple[float, float, float, float]
    label: str | None


class Browser:
    """Search the images of a store by the table of its rows."""

    def __init__(self, store: Store) -> None:
        self._store = store

    @cached_property
    def _images(self) -> pl.DataFrame:
        """One line per image: the fields of `ImageEntry`, and the text to search."""
        rows = self._store.rows
        is_parts = "part" in rows.columns
        images = rows.group_by("image", maintain_order=True).agg(
            path=pl.col("path").first(),
            class_id=pl.col("class" if is_parts and "class" in rows.columns else "label").first(),
            first_row=pl.col("row").first(),
            n_rows=pl.len().cast(pl.Int64),
            parts=pl.col("part").unique().str.join(" ") if is_parts else pl.lit(""),
        )
        searched = ["path", "class_id", "label", "parts"]
        return images.with_columns(
            label=pl.col("class_id").map_elements(readable_label, pl.String)
        ).select(
            *ImageEntry.__dataclass_fields__,
            text=pl.concat_str(searched, separator="\n", ignore_nulls=True).str.to_lowercase(),
        )

    def find(self, text: str, offset: int, limit: int) -> ImagePage:
        """Return the images whose path, label or parts contain every word, ignoring case.

        A number is also a row id: the image of that row then comes first.
        """
        images = self._images
        words = text.lower().split()
        if words:
            matches = pl.all_horizontal(
                pl.col("text").str.contains(word, literal=True) for word in words
            )
            positions = images.with_row_index("position").filter(matches)["position"].to_numpy()
            number = re.fullmatch(r"#?([0-9]{1,15})", words[0])
            if len(words) == 1 and number and int(number[1]) < self._store.n_rows:
                first = self._position(int(number[1]))
                positions = np.concatenate([[first], positions[positions != first]])
            images = images[positions.astype(np.int64)]
        part = images.slice(offset, limit).drop("text")
        listed = [ImageEntry(**fields) for fields in part.iter_rows(named=True)]
        return ImagePage(len(images), offset, listed)

    def _position(self, row: int) -> int:
        """Return the position of a row's image in `_images`."""
        return int(self._images["first_row"].search_sorted(row, side="right")) - 1

    def image_of_row(self, row: int) -> ImageEntry:
        """Return the image of a row. Raise `OutOfRangeError` for an unknown row."""
        if not 0 <= row < self._store.n_rows:
            raise OutOfRangeError(
                f"row id {row} is outside this store: it has rows 0 to {self._store.n_rows - 1} "
                f"({self._store.title})."
            )
        return self._entry(self._position(row))

    def image(self, number: int) -> ImageEntry:
        """Return an image. Raise `OutOfRangeError` if it is unknown or has no region."""
        numbers = self._images["image"]
        position = int(numbers.search_sorted(number, side="left"))
        if position == len(numbers) or numbers[position] != number:
            raise OutOfRangeError(f"there is no image {number} in {self._store.title}.")
        return self._entry(position)

    def _entry(self, position: int) -> ImageEntry:
        return ImageEntry(**self._images.drop("text").row(position, named=True))

    def regions(self, image: ImageEntry) -> list[Region]:
        """Return the regions of an image, sorted by row."""
        table = self._store.rows.slice(image.first_row, image.n_rows)
        return [
            Region(row, (x0, y0, x1, y1), label and readable_label(label))
            for row, x0, y0, x1, y1, label in table.select("row", *BOX, "label").iter_rows()
        ]

    def images_of(self, rows: list[int]) -> list[tuple[int, str | None]]:
        """Return number and label of the image of each row."""
        positions = np.searchsorted(self._images["first_row"].to_numpy(), rows, side="right") - 1
        table: Any = self._images[positions]
        return list(zip(table["image"].to_list(), table["label"].to_list(), strict=True))

    def reason_bad(self, image: int) -> str | None:
        """Return why an image could not be decoded, or None."""
        if not self._store.is_complete:
            return None
        return next((bad.reason for bad in self._store.bad if bad.image == image), None)

    def random_row(self, generator: np.random.Generator) -> int:
        """Return a row of a readable image, each with equal probability."""
        valid = self._store.valid
        if not valid.any():
            raise OutOfRangeError(f"no image of {self._store.title} could be decoded.")
        while True:
            row = int(generator.integers(len(valid)))
            if valid[row]:
                return row
