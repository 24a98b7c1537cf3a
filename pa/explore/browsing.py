"""The images behind a gallery's rows: listed, searched, and what regions each has."""

from __future__ import annotations

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
    """One image: its number, its label (in view `parts` the class), its rows from `first_row`."""

    image: int
    path: str
    label: str | None
    first_row: int
    n_rows: int


@dataclass(frozen=True)
class ImagePage:
    """Images `offset` … of the `total` that were found, in their order."""

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
    """Looks images up in the table of a store's rows."""

    def __init__(self, store: Store) -> None:
        self._store = store

    @cached_property
    def _images(self) -> pl.DataFrame:
        """One line per image: the fields of `ImageEntry`, and the text that is searched."""
        rows = self._store.rows
        is_parts = "part" in rows.columns
        label = pl.col("class") if is_parts and "class" in rows.columns else pl.col("label")
        parts = pl.col("part").unique().str.join(" ") if is_parts else pl.lit("")
        return (
            rows.lazy()
            .group_by("image", maintain_order=True)
            .agg(
                pl.col("path").first(),
                label.first().alias("label"),
                pl.col("row").first().alias("first_row"),
                pl.len().cast(pl.Int64).alias("n_rows"),
                parts.alias("parts"),
            )
            .with_columns(name=pl.col("label").map_elements(readable_label, pl.String))
            .with_columns(
                pl.concat_str(["path", "label", "name", "parts"], separator="\n", ignore_nulls=True)
                .str.to_lowercase()
                .alias("text")
            )
            .with_columns(label="name")
            .drop("parts", "name")
            .collect()
        )

    def __len__(self) -> int:
        return len(self._images)

    def find(self, text: str, offset: int, limit: int) -> ImagePage:
        """The images whose path, label or parts hold every word of a text, whatever its case.

        A number is the id of a row too: the image of that row then comes first.
        """
        images = self._images
        words = text.lower().split()
        if words:
            holds = pl.all_horizontal(
                pl.col("text").str.contains(word, literal=True) for word in words
            )
            found = images.with_row_index("place").filter(holds)["place"].to_numpy()
            if len(words) == 1 and (named := self._place_of_row(words[0])) is not None:
                found = np.concatenate([[named], found[found != named]])
            images = images[found.astype(np.int64)]
        part = images.slice(offset, limit).drop("text")
        listed = [ImageEntry(**fields) for fields in part.iter_rows(named=True)]
        return ImagePage(len(images), offset, listed)

    def _place_of_row(self, word: str) -> int | None:
        number = word.removeprefix("#")
        if not (number.isascii() and number.isdecimal() and len(number) < 16):
            return None
        row = int(number)
        return self._place(row) if row < self._store.n_rows else None

    def _place(self, row: int) -> int:
        """The place of a row's image among the images."""
        first = self._images["first_row"]
        return int(first.search_sorted(row, side="right")) - 1

    def image_of_row(self, row: int) -> ImageEntry:
        """Raises `OutOfRangeError` for a row that is not there."""
        if not 0 <= row < self._store.n_rows:
            raise OutOfRangeError(
                f"row id {row} is outside this store: it has rows 0 to {self._store.n_rows - 1} "
                f"({self._store.title})."
            )
        return self._entry(self._place(row))

    def image(self, number: int) -> ImageEntry:
        """Raises `OutOfRangeError` for an image that is not there, or has no region."""
        numbers = self._images["image"]
        place = int(numbers.search_sorted(number, side="left"))
        if place == len(numbers) or numbers[place] != number:
            raise OutOfRangeError(f"there is no image {number} in {self._store.title}.")
        return self._entry(place)

    def _entry(self, place: int) -> ImageEntry:
        fields = self._images.row(place, named=True)
        return ImageEntry(**{name: fields[name] for name in ImageEntry.__dataclass_fields__})

    def regions(self, image: ImageEntry) -> list[Region]:
        """The regions of an image, by row."""
        table = self._store.rows.slice(image.first_row, image.n_rows)
        return [
            Region(row, (x0, y0, x1, y1), label and readable_label(label))
            for row, x0, y0, x1, y1, label in table.select("row", *BOX, "label").iter_rows()
        ]

    def images_of(self, rows: list[int]) -> list[tuple[int, str | None]]:
        """Number and label of the image of each row."""
        places = np.searchsorted(self._images["first_row"].to_numpy(), rows, side="right") - 1
        table: Any = self._images[places]
        return list(zip(table["image"].to_list(), table["label"].to_list(), strict=True))

    def reason_bad(self, image: int) -> str | None:
        """Why an image could not be decoded; None for one that could."""
        if not self._store.is_complete:
            return None
        return next((bad.reason for bad in self._store.bad if bad.image == image), None)

    def random_row(self, generator: np.random.Generator) -> int:
        """A row of a readable image, each with equal chance."""
        valid = self._store.valid
        if not valid.any():
            raise OutOfRangeError(f"no image of {self._store.title} could be decoded.")
        while True:
            row = int(generator.integers(len(valid)))
            if valid[row]:
                return row
