"""A store that encodes on the fly gives what a kept store gives."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pa.data import datasets
from pa.data.views import VIEWS
from pa.errors import ImageError, OutOfRangeError, UsageError
from pa.extract.live import LiveStore
from pa.extract.run import extract
from pa.extract.stores import ExtractOptions
from tests.support.mean_colour import MeanColour

Tree = Callable[..., Path]


@pytest.mark.parametrize("view", ["grid", "image"])
@pytest.mark.parametrize("storage", ["fp16", "bf16", "fp32", "int8"])
def test_live_store_reads_what_extraction_stores(
    image_tree: Tree, tmp_path: Path, view: str, storage: str
) -> None:
    images = datasets.load("photos", "folder", image_tree(), "all")
    options = ExtractOptions(representations=("pooled", "patch"), storage=storage, batch_size=7)
    kept = extract([MeanColour()], images, VIEWS[view], tmp_path / "f", options).reports[0].store
    live = LiveStore(MeanColour(), images, VIEWS[view], options)
    assert live.fingerprint == kept.fingerprint
    assert live.rows.equals(kept.rows)
    assert live.is_complete
    rows = np.array([11, 3, 11, 0, live.n_rows - 1])
    for name in ("pooled", "patch"):
        np.testing.assert_array_equal(live.read(name, rows), kept.read(name, rows))
        assert live.read(name, rows).dtype == kept.read(name, rows).dtype
        whole = np.concatenate([block for _, block in live.blocks(name, 50)])
        np.testing.assert_array_equal(whole, kept.read(name))
    assert live.read("pooled", []).shape == (0, 3)


def test_requested_images_alone_are_decoded(image_tree: Tree) -> None:
    root = image_tree()
    images = datasets.load("photos", "folder", root, "all")
    live = LiveStore(MeanColour(), images, VIEWS["image"])
    (root / live.rows["path"][5]).write_bytes(b"torn")
    assert live.read("pooled", [0, 4, 6]).shape == (3, 3)
    with pytest.raises(ImageError, match=r"`pa extract` can"):
        live.read("pooled", [4, 5])


def test_wrong_rows_and_representations_are_refused(image_tree: Tree) -> None:
    images = datasets.load("photos", "folder", image_tree(), "all")
    live = LiveStore(MeanColour(), images, VIEWS["image"], ExtractOptions(limit=5))
    assert live.n_rows == 5
    with pytest.raises(OutOfRangeError, match="row id 5"):
        live.read("pooled", [5])
    with pytest.raises(UsageError, match="cls"):
        live.read("cls", [0])
