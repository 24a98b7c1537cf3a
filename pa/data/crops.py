"""Pictures of the rows of a store, for figures and pages."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from PIL import Image

from pa.data import images as im
from pa.data.images import Transform
from pa.data.schema import BOX, Box
from pa.data.store.image_files import check_content
from pa.data.store.reader import Store
from pa.data.views import view_from_json
from pa.data.views.windows import WindowsView, windows_in
from pa.errors import MissingError


class Crops:
    """Crop the regions of a store from the images it was made from.

    `root` is the current root folder of the images; by default that of the extraction. Raises
    `FingerprintError` for an image whose file changed since the extraction.
    """

    def __init__(self, store: Store, root: Path | None = None) -> None:
        self.store = store
        self.root = Path(root or store.source["root"])
        self.transform = Transform.from_json(store.spec.transform)
        self.view = view_from_json(store.spec.view)
        self._canvas = lru_cache(maxsize=64)(self._load_canvas)  # by the first row of an image

    def box(self, row: int) -> Box:
        """Return x0, y0, x1, y1 of a row on its canvas."""
        x0, y0, x1, y1 = self.store.rows.select(BOX).row(row)
        return x0, y0, x1, y1

    def canvas(self, row: int) -> Image.Image:
        """Return the image to which the box of a row refers."""
        images = self.store.rows["image"]
        canvas = self._canvas(int(images.search_sorted(images[row])))
        if isinstance(self.view, WindowsView):
            # Each training crop has its own canvas size.
            (window,) = windows_in(self.store.rows[row : row + 1])
            return self.view.resized(canvas, window.canvas)
        return canvas

    def region(self, row: int, size: int = 112) -> Image.Image:
        """Return the region of a row, resized to a square of `size` pixels for display.

        For view `windows` it is the input of the encoder: padded, and for training crops flipped
        and distorted.
        """
        canvas = self.canvas(row)
        if isinstance(self.view, WindowsView):
            cut = self.store.rows.select(self.view.cut_columns).row(row)
            encoded = Image.fromarray(self.view.cut(canvas, [cut], self.transform)[0])
            return encoded.resize((size, size), Image.Resampling.LANCZOS)
        if self.view.name == "image":
            return canvas.resize((size, size), Image.Resampling.LANCZOS)
        x0, y0, x1, y1 = (round(value) for value in self.box(row))  # as `crop_resize` rounds
        return canvas.crop((x0, y0, x1, y1)).resize((size, size), Image.Resampling.LANCZOS)

    def _load_canvas(self, row: int) -> Image.Image:
        file = self.root / str(self.store.rows["path"][row])
        try:
            data = file.read_bytes()
        except FileNotFoundError:
            raise MissingError(
                f"the image {file} does not exist. The store {self.store.title} was made from "
                f"images under {self.store.source['root']}; if they were moved, give their root "
                f"with --root DIR."
            ) from None
        check_content(self.store, row, data, file)
        return self.view.canvas(im.decode(data, file), self.transform)
