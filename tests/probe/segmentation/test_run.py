"""The whole way on a dataset whose features know the labels, and what goes wrong on it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from PIL import Image

from pa.data.store.reader import Store
from pa.data.views.windows import WindowsView
from pa.errors import AnnotationError, MismatchError, MissingError, StorageError, UsageError
from pa.probe.linear.head import LinearHead
from pa.probe.segmentation.labels import LabelMaps, WindowRows, count_labels, held_out
from pa.probe.segmentation.recipes import PAPER, RELEASED
from pa.probe.segmentation.run import SegmentationOptions, run_segmentation
from pa.progress import Silent

MakeStore = Callable[..., Store]
VIEW = WindowsView(crop=32, stride=21)
LEARNS = replace(PAPER, iterations=150, warmup=5, batch=6, lr=0.05)


def test_known_parts_are_found_on_held_out_images(
    make_store: MakeStore, maps: LabelMaps, tmp_path: Path
) -> None:
    """Near what the tokens' grid allows, and far from chance."""
    train, test = make_store("train", views=3), make_store("val")
    (actual,) = run_segmentation(
        train, test, [maps], tmp_path / "results", SegmentationOptions(recipe=LEARNS, ceiling=True)
    ).results
    assert actual.ceiling is not None
    assert actual.score.miou.value > actual.ceiling.miou.value - 0.05
    assert actual.score.aacc.value > 0.9
    assert actual.score.miou.value > 2 * actual.score.miou.chance_level
    assert actual.losses[-20:].mean() < 0.3 * actual.losses[:5].mean()


def test_released_heads_learn_too(make_store: MakeStore, maps: LabelMaps, tmp_path: Path) -> None:
    recipe = replace(RELEASED, iterations=150, warmup=5, batch=6, lr=0.05)
    train, test = make_store("train", views=1), make_store("val")
    (actual,) = run_segmentation(
        train, test, [maps], tmp_path, SegmentationOptions(recipe=recipe, ceiling=True)
    ).results
    assert actual.ceiling is not None
    assert actual.score.miou.value > actual.ceiling.miou.value - 0.05
    assert actual.score.aacc.value > 0.9
    assert actual.head.weight.shape == (19, 48)
    assert actual.result.protocol.changed["windows"] == "one plain crop per image"


def test_run_writes_result_files(make_store: MakeStore, maps: LabelMaps, tmp_path: Path) -> None:
    store = make_store("train")
    recipe = replace(LEARNS, iterations=4)
    more = LabelMaps("again", maps.classes, maps.root)
    run = run_segmentation(
        store,
        store,
        [maps, more],
        tmp_path,
        SegmentationOptions(
            recipe=recipe,
            variants=tuple(replace(recipe, lr=lr) for lr in (0.05, 0.01)),
            test_fraction=0,
            figures=2,
        ),
    )
    actual = run.results
    assert [(item.maps.name, item.recipe.lr) for item in actual] == [
        ("lip", 0.05),
        ("lip", 0.01),
        ("again", 0.05),
        ("again", 0.01),
    ]
    assert len({item.result_path for item in actual}) == 4
    first = actual[0]
    record = json.loads(first.result_path.read_text())
    assert record["scores"]["mIoU"]["value"] == first.score.miou.value
    assert record["selection"]["rule"].startswith("trained and scored on the same images")
    assert record["protocol"]["changed"]["iterations"] == 4
    assert record["selection"]["labels"]["name"] == "lip"
    head = LinearHead.load(first.head_path)
    assert head.weight.shape == (19, 24)
    assert head.fingerprint == store.fingerprint
    table = pl.read_parquet(first.table_path)
    assert table["class"].to_list() == list(maps.classes)
    assert table["labelled"].sum() == record["scores"]["mIoU"]["n"]
    assert len(run.shown) == 2
    assert run.heads_per_set == 2
    assert [len(shown.predicted) for shown in run.shown] == [4, 4]
    assert not list((tmp_path / "probe-segmentation").glob("running-*"))


def test_run_is_reproducible(make_store: MakeStore, maps: LabelMaps, tmp_path: Path) -> None:
    store, recipe = make_store("train"), replace(LEARNS, iterations=3)
    paths, scores = set(), set()
    for _ in range(2):
        (actual,) = run_segmentation(
            store, store, [maps], tmp_path, SegmentationOptions(recipe=recipe)
        ).results
        paths.add(actual.result_path)
        scores.add(actual.score.miou.value)
    assert len(paths) == len(scores) == 1


def test_images_are_held_out_of_one_split(
    make_store: MakeStore, maps: LabelMaps, tmp_path: Path
) -> None:
    (actual,) = run_segmentation(
        make_store("train", views=2),
        make_store("train"),
        [maps],
        tmp_path,
        SegmentationOptions(recipe=replace(LEARNS, iterations=2), test_fraction=0.34),
    ).results
    assert actual.result.counts.train_images == 4
    assert actual.result.counts.test_images == 2
    assert actual.result.selection.rule == "2 of 6 images of split train held out"


def test_held_out_images_are_drawn_by_seed() -> None:
    names = [f"{i}.png" for i in range(10)]
    assert held_out(names, 0.3, 1) == held_out(names[::-1], 0.3, 1)
    assert len(held_out(names, 0.3, 1)) == 3
    assert len({frozenset(held_out(names, 0.3, seed)) for seed in range(5)}) > 1
    for fraction, few in ((0.0, names), (1.0, names), (0.5, names[:1])):
        with pytest.raises(UsageError, match="cannot hold out"):
            held_out(few, fraction, 0)


def test_bad_images_and_empty_ones_are_counted(
    make_store: MakeStore, maps: LabelMaps, tmp_path: Path, tree: Path
) -> None:
    mask = tree / "ann" / "train" / "2.png"
    Image.fromarray(np.zeros((48, 48), np.uint8)).save(mask)
    store = make_store("train", bad_images=[4])
    (actual,) = run_segmentation(
        store,
        store,
        [maps],
        tmp_path,
        SegmentationOptions(recipe=replace(LEARNS, iterations=2), test_fraction=0),
    ).results
    counts = actual.result.counts
    assert (counts.train_images, counts.train_images_bad) == (5, 1)
    assert (counts.train_images_unlabelled, counts.train_windows_unlabelled) == (1, 1)
    assert (counts.test_images, counts.test_images_unlabelled) == (4, 1)


def test_survey_counts_pixels_of_windows(
    make_store: MakeStore, maps: LabelMaps, tree: Path
) -> None:
    for path in sorted((tree / "ann" / "train").glob("*.png")):
        with Image.open(path) as image:
            size = image.size
        Image.fromarray(np.full(size[::-1], 4, np.uint8)).save(path)
    store = make_store("train", views=1)
    actual = count_labels(maps, WindowRows.of(store), Silent())
    assert actual.majority == 3
    assert actual.pixels[3] == actual.pixels.sum() == 6 * 32 * 32
    assert actual.trained == 1


def broken_mask(tree: Path, what: str) -> None:
    path = tree / "ann" / "train" / "3.png"
    if what == "another size":
        Image.fromarray(np.ones((7, 9), np.uint8)).save(path)
    elif what == "unknown class":
        Image.fromarray(np.full((41, 90), 77, np.uint8)).save(path)
    elif what == "torn":
        path.write_bytes(path.read_bytes()[:60])
    else:
        path.unlink()


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("another size", "9x7, its image 90x41"),
        ("unknown class", "unknown class ids 77"),
        ("torn", "3.png"),
        ("gone", "no such file"),
    ],
)
def test_masks_that_do_not_fit(
    make_store: MakeStore, maps: LabelMaps, tree: Path, tmp_path: Path, what: str, message: str
) -> None:
    store = make_store("train")
    broken_mask(tree, what)
    with pytest.raises(AnnotationError, match=message):
        run_segmentation(store, store, [maps], tmp_path, SegmentationOptions(recipe=LEARNS))


def test_images_replaced_since_the_extraction(
    make_store: MakeStore, maps: LabelMaps, tree: Path, tmp_path: Path
) -> None:
    store = make_store("train")
    path = tree / "img" / "train" / "0.png"
    path.write_bytes(path.read_bytes() + b"more")
    with pytest.raises(MismatchError, match="of different images"):
        run_segmentation(store, store, [maps], tmp_path, SegmentationOptions(recipe=LEARNS))


def test_training_without_labels_is_refused(
    make_store: MakeStore, maps: LabelMaps, tree: Path, tmp_path: Path
) -> None:
    store = make_store("train")
    for path in (tree / "ann" / "train").glob("*.png"):
        with Image.open(path) as image:
            size = image.size
        Image.fromarray(np.zeros(size[::-1], np.uint8)).save(path)
    with pytest.raises(UsageError, match="nothing to train on"):
        run_segmentation(store, store, [maps], tmp_path, SegmentationOptions(recipe=LEARNS))


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"transform": {"size": 224}}, "differ in transform"),
        ({"encoder": {"name": "knowing", "weights_sha256": "cd" * 32}}, "differ in encoder"),
        ({"view": {**VIEW.to_json(), "crop": 64}}, r"differ in crop \(32 and 64 pixels\)"),
    ],
)
def test_stores_of_two_encoders_or_resolutions(
    make_store: MakeStore, maps: LabelMaps, tmp_path: Path, spec: dict[str, Any], message: str
) -> None:
    train, test = make_store("train"), make_store("val", **spec)
    with pytest.raises(MismatchError, match=message):
        run_segmentation(train, test, [maps], tmp_path, SegmentationOptions(recipe=LEARNS))


def test_training_crops_cannot_be_scored(
    make_store: MakeStore, maps: LabelMaps, tmp_path: Path
) -> None:
    train, test = make_store("train"), make_store("val", views=2)
    with pytest.raises(UsageError, match="holds training crops"):
        run_segmentation(train, test, [maps], tmp_path, SegmentationOptions(recipe=LEARNS))


def test_figures_without_the_images(make_store: MakeStore, maps: LabelMaps, tmp_path: Path) -> None:
    store = make_store("train")
    with pytest.raises(MissingError, match="1 of 1 are not in"):
        run_segmentation(
            store,
            store,
            [maps],
            tmp_path,
            SegmentationOptions(recipe=LEARNS, figures=1, image_root=tmp_path / "elsewhere"),
        )


@pytest.mark.parametrize(
    ("recipe", "options", "message"),
    [
        ({}, {"variants": (LEARNS, LEARNS)}, "may be given once"),
        ({"representation": "cls"}, {}, "cls"),
    ],
)
def test_wrong_options_are_refused_before_labels_are_read(
    make_store: MakeStore,
    maps: LabelMaps,
    tree: Path,
    tmp_path: Path,
    recipe: dict[str, Any],
    options: dict[str, Any],
    message: str,
) -> None:
    store = make_store("train")
    broken_mask(tree, "torn")
    with pytest.raises(UsageError, match=message):
        run_segmentation(
            store,
            store,
            [maps],
            tmp_path,
            SegmentationOptions(recipe=replace(LEARNS, **recipe), **options),
        )


@pytest.mark.parametrize("what", ["results", "results/probe-segmentation"])
def test_folders_that_cannot_be_written_are_found_first(
    make_store: MakeStore, maps: LabelMaps, tree: Path, tmp_path: Path, what: str
) -> None:
    store = make_store("train")
    broken_mask(tree, "torn")
    target = tmp_path / what
    target.parent.mkdir(exist_ok=True)
    target.write_text("a file")
    with pytest.raises(StorageError, match=f"{what} is a file, not a folder"):
        run_segmentation(
            store, store, [maps], tmp_path / "results", SegmentationOptions(recipe=LEARNS)
        )


def test_read_only_folder_is_refused_first(
    make_store: MakeStore, maps: LabelMaps, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = make_store("train")
    # Tests may run as root, who may write anywhere.
    monkeypatch.setattr("os.access", lambda path, mode: False)
    with pytest.raises(StorageError, match="is not writable"):
        run_segmentation(
            store, store, [maps], tmp_path / "results", SegmentationOptions(recipe=LEARNS)
        )


def test_label_sets_of_one_name(make_store: MakeStore, maps: LabelMaps, tmp_path: Path) -> None:
    store = make_store("train")
    with pytest.raises(UsageError, match="need different names, not lip, lip"):
        run_segmentation(store, store, [maps, maps], tmp_path, SegmentationOptions(recipe=LEARNS))


def test_store_without_masks_is_refused(tmp_path: Path) -> None:
    maps = LabelMaps("masks", ("a", "b"), tmp_path)
    image = {"path": "x/1.jpg", "width": 2, "height": 2, "file_bytes": -1}
    with pytest.raises(MissingError, match="--masks DIR --names FILE"):
        maps.file(image)
    second = replace(maps, by_image=True)
    (tmp_path / "x").mkdir()
    Image.fromarray(np.array([[0, 1], [2, 1]], np.uint8)).save(tmp_path / "x" / "1.png")
    assert second.read(image).tolist() == [[255, 0], [1, 0]]
    with pytest.raises(UsageError, match="255 classes"):
        replace(maps, classes=("c",) * 255)
