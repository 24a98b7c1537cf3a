"""The pictures behind the rows of a store, for figures and pages."""

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
    """Cuts the regions of a store out of the images it was made from.

    An image whose file changed since is refused with a `FingerprintError`.

    `root` is where the dataset's images lie now; by default where they lay at extraction.
    """

    def __init__(self, store: Store, root: Path | None = None) -> None:
        self.store = store
        self.root = Path(root or store.source["root"])
        self.transform = Transform.from_json(store.spec.transform)
        self.view = view_from_json(store.spec.view)
        self._canvas = lru_cache(maxsize=64)(self._load_canvas)  # by the first row of an image

    def box(self, row: int) -> Box:
        """x0, y0, x1, y1 of a row on its canvas."""
        values = self.store.rows.row(row, named=True)
        return (values[BOX[0]], values[BOX[1]], values[BOX[2]], values[BOX[3]])

    def canvas(self, row: int) -> Image.Image:
        """The image on which the row's box lies."""
        images = self.store.rows["image"]
        canvas = self._canvas(int(images.search_sorted(images[row])))
        if isinstance(self.view, WindowsView):
            # Each training crop lies on a canvas of its own size.
            (window,) = windows_in(self.store.rows[row : row + 1])
            return self.view.resized(canvas, window.canvas)
        return canvas

    def region(self, row: int, size: int = 112) -> Image.Image:
        """The row's region, resized to a square of `size` pixels for display.

        Of view `windows` it is what the encoder saw: padded, and of training crops flipped and
        distorted.
        """
        canvas = self.canvas(row)
        if isinstance(self.view, WindowsView):
            cut = self.store.rows.select(self.view.cut_columns).row(row)
            seen = Image.fromarray(self.view.cut(canvas, [cut], self.transform)[0])
            return seen.resize((size, size), Image.Resampling.LANCZOS)
        if self.view.name == "image":
            return canvas.resize((size, size), Image.Resampling.LANCZOS)
        x0, y0, x1, y1 = (round(value) for value in self.box(row))
        return canvas.crop((x0, y0, x1, y1)).resize((size, size), Image.Resampling.LANCZOS)

    def _load_canvas(self, row: int) -> Image.Image:
        file = self.root / str(self.store.rows["path"][row])
        try:
            data = file.read_bytes()
        except FileNotFoundError:
            raise MissingError(
                f"the image {file} is not there. The store {self.store.title} was made from "
                f"images under {self.store.source['root']}; if they moved, set their place with "
                f"--root DIR."
            ) from None
        check_content(self.store, row, data, file)
        return self.view.canvas(im.decode(data, file), self.transform)
