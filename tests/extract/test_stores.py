"""Rows that another store holds are copied, not encoded again."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import polars as pl
import pytest

from pa.data import datasets
from pa.data.schema import Images
from pa.data.store.reader import Store
from pa.data.store.verify import verify
from pa.data.views import VIEWS
from pa.extract.plan import plan_extract
from pa.extract.run import RunResult, extract
from pa.extract.stores import ExtractOptions, Report, find_rows
from pa.progress import Silent
from tests.support.mean_colour import MeanColour

Tree = Callable[..., Path]
SMALL = ExtractOptions(("pooled", "patch"), shard_rows=100, batch_size=32)
GRID = 49


def split(root: Path, name: str) -> Images:
    """Split `all` of a tree of photographs, or one half of it: every second image."""
    images = datasets.load("photos", "folder", root)
    number = pl.col("image")
    keep = {"all": number >= 0, "train": number % 2 == 0, "test": number % 2 == 1}[name]
    table = images.table.filter(keep).drop("image").with_row_index("image")
    return replace(images, split=name, table=table)


def run(
    root: Path,
    features: Path,
    name: str,
    options: ExtractOptions = SMALL,
    progress: Silent | None = None,
) -> tuple[MeanColour, RunResult]:
    encoder = MeanColour()
    outcome = extract([encoder], split(root, name), VIEWS["grid"], features, options, progress)
    return encoder, outcome


def report(result: RunResult) -> Report:
    return result.reports[0]


def stored(store: Store, name: str) -> np.ndarray:
    """An array as it is on disk, shard after shard."""
    parts = []
    for shard in store.plan:
        with h5py.File(store.shard_path(shard)) as file:
            parts.append(file[name][:])
    return np.concatenate(parts)


def same_rows(part: Store, whole: Store) -> None:
    """Every row of `part` is on disk as the same region of `whole` is."""
    columns = ["path", "x0", "y0", "x1", "y1"]
    existing = whole.rows.select(*columns, there="row")
    rows = part.rows.join(existing, on=columns, how="left", maintain_order="left")[
        "there"
    ].to_numpy()
    for name in part.spec.representations:
        assert np.array_equal(stored(part, name), stored(whole, name)[rows])
    assert np.array_equal(part.valid, whole.valid[rows])
    assert not list(verify(part))


@pytest.mark.parametrize("storage", ["fp16", "bf16", "fp32", "int8"])
def test_splits_after_all_of_them_are_copied(
    image_tree: Tree, tmp_path: Path, storage: str
) -> None:
    root, options = image_tree(), replace(SMALL, storage=storage)
    whole = Store.open(report(run(root, tmp_path / "f", "all", options)[1]).store.path)
    for name in ("train", "test"):
        encoder, outcome = run(root, tmp_path / "f", name, options)
        assert not encoder.batches
        actual = report(outcome)
        assert (actual.rows_encoded, actual.rows_copied) == (0, 6 * GRID)
        assert actual.copied_from == {whole.title: 6 * GRID}
        same_rows(Store.open(actual.store.path), whole)


def test_all_is_copied_from_train_and_test(image_tree: Tree, tmp_path: Path) -> None:
    root = image_tree()
    parts = [report(run(root, tmp_path / "f", name)[1]).store for name in ("train", "test")]
    encoder, outcome = run(root, tmp_path / "f", "all")
    assert not encoder.batches
    assert report(outcome).copied_from == {part.title: 6 * GRID for part in parts}
    for part in parts:
        same_rows(Store.open(part.path), Store.open(report(outcome).store.path))


def test_copied_rows_and_saved_time_are_recorded(image_tree: Tree, tmp_path: Path) -> None:
    root = image_tree()
    whole = report(run(root, tmp_path / "f", "all")[1]).store
    outcome = run(root, tmp_path / "f", "train")[1]
    (entry,) = outcome.to_json()["stores"]
    assert (entry["rows_copied"], entry["rows_encoded"]) == (294, 0)
    assert entry["bytes_copied"] == 294 * (3 + 4 * 3) * 2  # pooled and patch in half precision
    log = whole.runs()[0]
    assert entry["seconds_saved"] == pytest.approx(294 * log["seconds"]["wall"] / log["rows"])
    assert report(outcome).store.runs()[0]["copied_from"] == {whole.title: 294}


def test_shards_that_are_found_in_part_are_encoded(image_tree: Tree, tmp_path: Path) -> None:
    root = image_tree()
    run(root, tmp_path / "f", "train", replace(SMALL, limit=5))
    outcome = run(root, tmp_path / "f", "train")[1]
    assert report(outcome).shards_adopted == 2
    assert report(outcome).rows_encoded == 2 * GRID


def test_bad_images_are_carried_over(image_tree: Tree, tmp_path: Path) -> None:
    root = image_tree()
    (root / "class1" / "2.png").write_bytes(b"torn")
    whole = Store.open(report(run(root, tmp_path / "f", "all")[1]).store.path)
    encoder, outcome = run(root, tmp_path / "f", "train")
    assert not encoder.batches
    (bad,) = outcome.bad
    assert (bad.path, bad.reason) == ("class1/2.png", whole.bad[0].reason)
    assert (bad.image, bad.first_row, bad.last_row) == (3, 3 * GRID, 4 * GRID - 1)
    same_rows(Store.open(report(outcome).store.path), whole)


@pytest.mark.parametrize(
    "change",
    [
        pl.col("path") + "x",
        pl.col("file_bytes") + 1,
        pl.col("x0") + 1,
        pl.col("y1") + 1,
    ],
    ids=["path", "file_bytes", "x0", "y1"],
)
def test_changed_rows_are_not_found(image_tree: Tree, tmp_path: Path, change: pl.Expr) -> None:
    root = image_tree(1, 3)
    whole = Store.open(report(run(root, tmp_path / "f", "all")[1]).store.path)
    first = Store(tmp_path / "other", whole.spec, 100, whole.source)
    first.rows = whole.rows.with_columns(
        pl.when(pl.col("row") == 60).then(change).otherwise(pl.col(change.meta.output_name()))
    )
    actual = find_rows(first, [whole], VIEWS["grid"])
    lacking = np.repeat([False, True, False], GRID)  # all of the image that the row is of
    assert np.array_equal(actual.number < 0, lacking)
    assert np.array_equal(actual.row[~lacking], np.flatnonzero(~lacking))


def test_labels_and_splits_do_not_count(image_tree: Tree, tmp_path: Path) -> None:
    root = image_tree(1, 3)
    whole = Store.open(report(run(root, tmp_path / "f", "all")[1]).store.path)
    first = Store(tmp_path / "other", whole.spec, 100, whole.source)
    first.rows = whole.rows.reverse().with_columns(label=pl.lit("other"))
    assert np.array_equal(find_rows(first, [whole], VIEWS["grid"]).row, np.arange(3 * GRID)[::-1])


def test_rows_of_another_recipe_are_not_copied(image_tree: Tree, tmp_path: Path) -> None:
    root = image_tree()
    run(root, tmp_path / "f", "all")
    encoder = MeanColour(weights="f" * 64)
    extract([encoder], split(root, "train"), VIEWS["grid"], tmp_path / "f", SMALL)
    assert sum(encoder.batches) == 6 * GRID


def test_rows_of_other_image_files_are_not_copied(image_tree: Tree, tmp_path: Path) -> None:
    """Of another root those are copied whose files have the same content."""
    root, other = image_tree(), image_tree(name="other")
    run(root, tmp_path / "f", "all")
    file = other / "class0" / "0.png"
    file.write_bytes(file.read_bytes()[:-1] + b"?")  # of the same size
    actual = report(run(other, tmp_path / "f", "train")[1])
    assert (actual.rows_encoded, actual.rows_copied) == (2 * GRID, 4 * GRID)


def test_damaged_source_store_is_encoded_instead(image_tree: Tree, tmp_path: Path) -> None:
    root = image_tree()
    whole = report(run(root, tmp_path / "f", "all")[1]).store
    good = Store.open(report(run(root, tmp_path / "good", "train")[1]).store.path)
    file = whole.shard_path(whole.plan[0])
    with h5py.File(file, "r+") as shard:
        shard["patch"][0, 0, 0] *= 2
    notes: list[str] = []
    progress = Silent()
    progress.note = notes.append  # type: ignore[method-assign]
    outcome = run(root, tmp_path / "f", "train", progress=progress)[1]
    assert report(outcome).rows_encoded == 2 * GRID
    assert report(outcome).rows_copied == 4 * GRID
    assert any(str(file) in note for note in notes)
    assert np.array_equal(report(outcome).store.read("pooled"), good.read("pooled"))


def test_interrupted_copy_resumes(image_tree: Tree, tmp_path: Path) -> None:
    root = image_tree()
    whole = Store.open(report(run(root, tmp_path / "f", "all")[1]).store.path)

    def interrupt(n: int) -> None:
        raise KeyboardInterrupt

    progress = Silent()
    progress.advance = interrupt  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        run(root, tmp_path / "f", "train", progress=progress)
    assert not list((tmp_path / "f").rglob("*.partial"))
    encoder, outcome = run(root, tmp_path / "f", "train")
    assert not encoder.batches
    assert report(outcome).rows_copied == 4 * GRID
    same_rows(Store.open(report(outcome).store.path), whole)


def test_concurrent_runs_copy(image_tree: Tree, tmp_path: Path) -> None:
    root = image_tree()
    whole = Store.open(report(run(root, tmp_path / "f", "all")[1]).store.path)
    collected: list[Report] = []
    threads = [
        threading.Thread(
            target=lambda: collected.append(report(run(root, tmp_path / "f", "train")[1]))
        )
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(item.rows_copied + item.rows_encoded for item in collected) == 6 * GRID
    same_rows(Store.open(collected[0].store.path), whole)


def test_plan_extract_reports_copied_rows(image_tree: Tree, tmp_path: Path) -> None:
    root, view = image_tree(), VIEWS["grid"]
    options = ExtractOptions(representations=("pooled", "patch"), shard_rows=100)
    extract([MeanColour()], split(root, "train"), view, tmp_path, options)
    for name in ("all", "test"):
        images = split(root, name)
        (planned,) = plan_extract([MeanColour()], images, [view], tmp_path, options).stores
        (report,) = extract([MeanColour()], images, view, tmp_path, options).reports
        assert (planned.rows_to_do, planned.rows_copied, planned.rows_adopted) == (
            report.rows_encoded,
            report.rows_copied,
            report.rows_adopted,
        )
        assert (report.rows_copied > 0) == (name == "test")
        assert planned.seconds_saved == pytest.approx(report.seconds_saved or 0.0)
