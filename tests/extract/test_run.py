"""The extraction run, with an encoder whose features follow from the pixels by arithmetic."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from pa.data import datasets
from pa.data.schema import Images
from pa.data.store.reader import Store
from pa.data.store.spec import Spec
from pa.data.store.verify import verify
from pa.data.views import VIEWS
from pa.errors import FingerprintError, UsageError
from pa.extract.image_query import ImageQuery
from pa.extract.run import extract
from pa.extract.stores import ExtractOptions, choose_shard_rows
from tests.support.mean_colour import Exploding, MeanColour
from tests.support.stores import same_files

Tree = Callable[..., Path]
SMALL = ExtractOptions(shard_rows=100, batch_size=32)


def photos(root: Path) -> Images:
    return datasets.load("photos", "folder", root)


def expected_pooled(root: Path, size: int = 32) -> npt.NDArray[np.float64]:
    """Mean colour of every window, computed with Pillow alone."""
    collected = []
    for path in sorted(root.rglob("*.png")):
        canvas = VIEWS["grid"].canvas(Image.open(path).convert("RGB"), MeanColour(size).transform)
        for y in range(0, 169, 28):
            for x in range(0, 169, 28):
                window = canvas.crop((x, y, x + 56, y + 56)).resize((size, size), Image.BICUBIC)
                collected.append(np.asarray(window, float).mean((0, 1)) / 255)
    return np.array(collected)


def test_features_are_those_of_the_pixels(image_tree: Tree, tmp_path: Path) -> None:
    root = image_tree()
    result = extract([MeanColour()], photos(root), VIEWS["grid"], tmp_path / "f", SMALL)
    store = Store.open(result.reports[0].store.path)
    assert store.n_rows == 12 * 49
    assert np.abs(store.read("pooled") - expected_pooled(root)).max() < 1e-3  # half precision
    assert store.rows["label"].unique(maintain_order=True).to_list() == [
        "class0",
        "class1",
        "class2",
    ]
    assert not list(verify(store))
    assert result.reports[0].rows_encoded == 588
    assert store.runs()[0]["rows"] == 588


def test_complete_store_is_not_encoded_again(image_tree: Tree, tmp_path: Path) -> None:
    root = image_tree()
    extract([MeanColour()], photos(root), VIEWS["grid"], tmp_path / "f", SMALL)
    again = MeanColour()
    result = extract([again], photos(root), VIEWS["grid"], tmp_path / "f", SMALL)
    assert result.reports[0].rows_encoded == 0
    assert again.batches == []


def test_encoders_share_one_decode(
    image_tree: Tree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pa.data import images as im

    decoded: list[str] = []
    original = im.decode
    monkeypatch.setattr(im, "decode", lambda d, p: decoded.append(str(p)) or original(d, p))
    encoders = [MeanColour(), MeanColour(64, name="other"), MeanColour(name="third")]
    result = extract(encoders, photos(image_tree()), VIEWS["grid"], tmp_path / "f", SMALL)
    assert len(decoded) == len(set(decoded)) == 12
    stores = [report.store.read("pooled") for report in result.reports]
    assert np.array_equal(stores[0], stores[2])
    assert np.abs(stores[0] - stores[1]).max() < 0.05


def test_interrupted_run_resumes_bit_for_bit(image_tree: Tree, tmp_path: Path) -> None:
    root = image_tree()
    whole = extract([MeanColour()], photos(root), VIEWS["grid"], tmp_path / "whole", SMALL)
    for stop_after in (2, 5, 9):
        encoder = MeanColour()
        original = encoder.encode

        def interrupted(*args, _encode=original, _e=encoder, _n=stop_after, **named):  # type: ignore[no-untyped-def]
            if len(_e.batches) == _n:
                raise KeyboardInterrupt
            return _encode(*args, **named)

        encoder.encode = interrupted  # type: ignore[method-assign]
        with pytest.raises(KeyboardInterrupt):
            extract([encoder], photos(root), VIEWS["grid"], tmp_path / "f", SMALL)
        assert not list((tmp_path / "f").rglob("*.partial"))
    resumed = extract([MeanColour()], photos(root), VIEWS["grid"], tmp_path / "f", SMALL)
    assert 0 < resumed.reports[0].rows_encoded < 588
    assert same_files(whole.reports[0].store.path, resumed.reports[0].store.path)


def test_concurrent_runs_share_work(image_tree: Tree, tmp_path: Path) -> None:
    root = image_tree()
    whole = extract([MeanColour()], photos(root), VIEWS["grid"], tmp_path / "whole", SMALL)
    results = []

    def work() -> None:
        run = extract([MeanColour()], photos(root), VIEWS["grid"], tmp_path / "f", SMALL)
        results.append(run.reports[0])

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(report.rows_encoded for report in results) == 588
    assert same_files(whole.reports[0].store.path, results[0].store.path)


def test_larger_limit_reuses_shards(image_tree: Tree, tmp_path: Path) -> None:
    root = image_tree()
    for limit, encoded, adopted in ((5, 245, 0), (None, 588 - 2 * 98, 2)):
        options = ExtractOptions(shard_rows=100, batch_size=32, limit=limit)
        result = extract([MeanColour()], photos(root), VIEWS["grid"], tmp_path / "f", options)
        assert result.reports[0].rows_encoded == encoded
        assert result.reports[0].shards_adopted == adopted
    assert not list(verify(result.reports[0].store))


def test_bad_images_are_recorded_and_the_rest_is_done(image_tree: Tree, tmp_path: Path) -> None:
    root = image_tree()
    good = expected_pooled(root)
    (root / "class1" / "1.png").write_bytes(b"")
    (root / "class2" / "0.png").write_bytes((root / "class2" / "0.png").read_bytes()[:200])
    result = extract([MeanColour()], photos(root), VIEWS["grid"], tmp_path / "f", SMALL)
    assert [bad.path for bad in result.bad] == ["class1/1.png", "class2/0.png"]
    assert result.bad[0].reason == "the file is empty (0 bytes)"
    store = result.reports[0].store
    assert np.count_nonzero(~store.valid) == 2 * 49
    features = store.read("pooled")
    assert np.abs(features[store.valid] - good[store.valid]).max() < 1e-3
    assert not features[~store.valid].any()
    assert not list(verify(store))


def test_bad_image_leaves_neighbours_unchanged(image_tree: Tree, tmp_path: Path) -> None:
    """Batches count bad rows too, so the rows around them meet in the same batch as ever."""
    root = image_tree(1, 3)
    sound = extract([MeanColour()], photos(root), VIEWS["grid"], tmp_path / "a", SMALL)
    (root / "class0" / "1.png").write_bytes(b"torn")
    torn = extract([MeanColour()], photos(root), VIEWS["grid"], tmp_path / "b", SMALL)
    keep = torn.reports[0].store.valid
    first, two = (run.reports[0].store.read("pooled") for run in (sound, torn))
    assert np.array_equal(first[keep], two[keep])


def test_vanished_file_is_a_bad_image(image_tree: Tree, tmp_path: Path) -> None:
    root = image_tree(1, 3)
    images = photos(root)
    (root / "class0" / "2.png").unlink()
    result = extract([MeanColour()], images, VIEWS["image"], tmp_path / "f", SMALL)
    assert result.bad[0].reason == "cannot read the file: No such file or directory"


def test_conflicting_store_is_refused(image_tree: Tree, tmp_path: Path) -> None:
    images = photos(image_tree())
    extract([MeanColour()], images, VIEWS["grid"], tmp_path / "f", SMALL)
    other = MeanColour(weights="f" * 64)
    with pytest.raises(FingerprintError) as caught:
        extract([other], images, VIEWS["grid"], tmp_path / "f", SMALL)
    text = str(caught.value)
    assert "encoder.weights_sha256" in text
    assert "transform" not in text
    assert "--replace" in text
    assert "--alongside" in text


def test_alongside_keeps_both(image_tree: Tree, tmp_path: Path) -> None:
    images = photos(image_tree())
    extract([MeanColour()], images, VIEWS["grid"], tmp_path / "f", SMALL)
    options = ExtractOptions(shard_rows=100, alongside=True)
    extract([MeanColour(weights="f" * 64)], images, VIEWS["grid"], tmp_path / "f", options)
    assert len(list((tmp_path / "f").rglob("manifest.json"))) == 2


def test_replace_reuses_what_is_equal_and_removes_the_old(image_tree: Tree, tmp_path: Path) -> None:
    root = image_tree()
    first = extract([MeanColour()], photos(root), VIEWS["grid"], tmp_path / "f", SMALL)
    Image.new("RGB", (70, 70), "red").save(root / "class2" / "9.png")  # sorts last
    with pytest.raises(FingerprintError, match=r"rows\.n "):
        extract([MeanColour()], photos(root), VIEWS["grid"], tmp_path / "f", SMALL)
    options = ExtractOptions(shard_rows=100, batch_size=32, replace=True)
    second = extract([MeanColour()], photos(root), VIEWS["grid"], tmp_path / "f", options)
    assert second.reports[0].shards_adopted == 6
    assert second.reports[0].rows_encoded == 49
    assert not first.reports[0].store.path.exists()
    assert not list(verify(second.reports[0].store))


def test_unknown_representation_is_refused_before_work(image_tree: Tree, tmp_path: Path) -> None:
    encoder, options = MeanColour(), ExtractOptions(representations=("cls",))
    with pytest.raises(
        UsageError, match=r"mean-colour has no representation 'cls'\. Available: pooled, patch"
    ):
        extract([encoder], photos(image_tree()), VIEWS["grid"], tmp_path / "f", options)
    assert encoder.batches == []
    assert not (tmp_path / "f").exists()


def test_features_that_are_not_finite_stop_the_run(image_tree: Tree, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds NaN or infinity"):
        extract([Exploding()], photos(image_tree()), VIEWS["grid"], tmp_path / "f", SMALL)
    assert not list((tmp_path / "f").rglob("*.partial"))


def test_limiting_stage_is_named(image_tree: Tree, tmp_path: Path) -> None:
    result = extract([MeanColour()], photos(image_tree()), VIEWS["grid"], tmp_path / "f", SMALL)
    assert result.stages.limit in ("read", "decode", "cut", "encode", "write")
    assert set(result.to_json()["seconds"]) == {
        "read",
        "decode",
        "cut",
        "encode",
        "write",
        "waited",
        "wall",
    }


def test_box_of_image_file_is_encoded() -> None:
    image = Image.new("RGB", (50, 50), "black")
    image.paste((255, 0, 0), (10, 10, 30, 30))
    query = ImageQuery("red square", image, (10, 10, 30, 30))
    vector = query.encode(MeanColour(), "pooled")
    assert vector.tolist() == [1.0, 0.0, 0.0]


@pytest.mark.parametrize(
    ("representations", "storage", "rows"),
    [
        ({"cls": [768], "pooled": [768]}, "fp16", 1024),
        ({"patch": [196, 768]}, "fp16", 512),  # 301 kB a row: 850 rows in 256 MB
        ({"layers": [4, 1024, 768]}, "fp16", 32),  # 6.3 MB a row: 40 rows
        ({"layers": [4, 1024, 768]}, "fp32", 16),
    ],
)
def test_shards_stay_under_256_megabytes(
    representations: dict[str, list[int]], storage: str, rows: int
) -> None:
    precision = {"compute": "fp32", "storage": storage}
    spec = Spec("d", "s", {}, {}, {}, precision, representations, {})
    assert choose_shard_rows(spec) == rows


def test_pipes_and_lines_are_bad_images(image_tree: Tree, tmp_path: Path) -> None:
    root = image_tree(1, 2)
    os.mkfifo(root / "class0" / "pipe.png")
    Image.new("L", (30000, 1)).save(root / "class0" / "wide.png")
    (root / "class0" / "loop.png").symlink_to("loop.png")
    result = extract([MeanColour()], photos(root), VIEWS["image"], tmp_path / "f", SMALL)
    reasons = {bad.path.rsplit("/")[-1]: bad.reason for bad in result.bad}
    assert reasons["pipe.png"] == "not a regular file"
    assert "too narrow" in reasons["wide.png"]
    assert reasons["loop.png"].startswith("cannot read the file")
    assert result.reports[0].store.n_rows == 5
