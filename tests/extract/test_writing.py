"""The writer claims one shard ahead, and writes in parallel to the forward passes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection
from pathlib import Path

import pytest
from torch import Tensor

from pa.data import datasets
from pa.data.store.reader import Store
from pa.data.store.shards import ShardWriter
from pa.data.views import VIEWS
from pa.errors import StorageError
from pa.extract.encoders.base import Features
from pa.extract.run import extract
from pa.extract.stores import ExtractOptions
from tests.support.mean_colour import MeanColour

Tree = Callable[..., Path]
OPTIONS = ExtractOptions(shard_rows=4, batch_size=2, workers=1)


class Watching(MeanColour):
    """Counts the shards in work whenever it encodes, and takes its time."""

    def __init__(self, features: Path) -> None:
        super().__init__()
        self.features = features
        self.in_work: list[int] = []
        self.pause = threading.Event()

    def encode(self, pixels: Tensor, want: Collection[str] | None = None) -> Features:
        self.pause.wait(0.05)
        self.in_work.append(len(list(self.features.rglob("shard-*.partial"))))
        return super().encode(pixels, want)


def test_writer_claims_one_shard_ahead(image_tree: Tree, tmp_path: Path) -> None:
    images = datasets.load("photos", "folder", image_tree(3, 8))
    encoder = Watching(tmp_path / "f")
    result = extract([encoder], images, VIEWS["image"], encoder.features, OPTIONS)
    assert result.reports[0].store.is_complete
    assert max(encoder.in_work) == 2
    assert not list((tmp_path / "f").rglob("*.partial"))


@pytest.mark.parametrize("broken", ["append", "finish"])
def test_error_of_writer_thread_stops_run(
    image_tree: Tree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    """A full disk is a `StorageError`; finished shards stay, and nothing of the others."""
    images = datasets.load("photos", "folder", image_tree(3, 8))
    original = getattr(ShardWriter, broken)
    calls = []

    def full(*args: object, **named: object) -> object:
        calls.append(args)
        if len(calls) == 3:
            raise OSError(28, "No space left on device")
        return original(*args, **named)

    monkeypatch.setattr(ShardWriter, broken, full)
    with pytest.raises(StorageError, match="no space left while writing"):
        extract([MeanColour()], images, VIEWS["image"], tmp_path / "f", OPTIONS)
    assert not list((tmp_path / "f").rglob("*.partial"))
    spec = next((tmp_path / "f").rglob("spec.json"))
    left = Store.open(spec.parent, incomplete=True).missing()
    assert len(left) == (5 if broken == "append" else 4)
    monkeypatch.undo()
    result = extract([MeanColour()], images, VIEWS["image"], tmp_path / "f", OPTIONS)
    assert result.reports[0].rows_encoded == 4 * len(left)
    assert not [t for t in threading.enumerate() if t.name.startswith(("pa-write", "pa-decode"))]


def test_shard_without_readable_image_is_written(image_tree: Tree, tmp_path: Path) -> None:
    root = image_tree(1, 6)
    images = datasets.load("photos", "folder", root)
    for number in range(4):
        (root / "class0" / f"{number}.png").write_bytes(b"torn")
    encoder = MeanColour()
    result = extract([encoder], images, VIEWS["image"], tmp_path / "f", OPTIONS)
    assert len(result.bad) == 4
    assert encoder.batches == [2]
    assert not result.reports[0].store.read("pooled")[:4].any()
