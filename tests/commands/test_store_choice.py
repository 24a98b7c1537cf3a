"""Commands that select a store by names: only a subset of another store is ignored.

Two conflicting stores, from changed labels, images, boxes or another order of rows, are given to every
command that chooses.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
from click.testing import CliRunner, Result

from pa.cli import cli
from pa.data import datasets
from pa.data.schema import BOX_SCHEMA, Boxes, Images
from pa.data.store.find import StoreSelector, choose
from pa.data.store.reader import Store
from pa.data.views.base import View
from pa.data.views.parts import PROTOCOLS
from pa.data.views.windows import WindowsView
from pa.errors import AmbiguousError, MissingError, PaError
from pa.extract.run import extract
from pa.extract.stores import ExtractOptions
from pa.study.state import extracted
from pa.study.steps import Step
from pa.workspace import Workspace
from tests.support.images import noise_image
from tests.support.mean_colour import MeanColour

Change = Callable[[Images], Images]
PARTS = PROTOCOLS["boxes"]
WINDOWS = WindowsView(crop=32, stride=32, test_long=64, test_short=32)
OPTIONS = ExtractOptions(("pooled", "patch"), alongside=True)

COMMANDS = {
    "search": "search --query-id 0",
    "index": "index build",
    "retrieval": "evaluate retrieval",
    "neighbours": "evaluate neighbours",
    "figure": "figure neighbours --query 0",
    "figure-encoder": "figure neighbours --query 0 --encoder mean-colour",
    "projected": "figure projected --query 0 --encoder mean-colour",
    "linear": "probe linear",
    "linear-splits": "probe linear --train-split train --test-split train",
    "knn": "probe knn --train-split train --test-split train",
    "attentive": "probe attentive",
    "plan": "plan index build",
}
WINDOW_COMMANDS = {
    "segmentation": "probe segmentation",
    "segmentation-splits": "probe segmentation --train-split train --test-split train",
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for number in range(7):
        noise_image(number).save(folder / f"{number}.png")
    return folder


def boxes_of(images: Images) -> pl.DataFrame:
    numbers = range(len(images.table))
    rows = [
        (images.table["path"][image], 10.0 * n, 5.0, 10.0 * n + 20, 30.0, *"ab"[n] * 2, None, None)
        for image in numbers
        for n in (0, 1)
    ]
    return pl.DataFrame(rows, schema=BOX_SCHEMA, orient="row")


def photos(root: Path, first: int = 0, last: int = 6) -> Images:
    """Some photographs with two boxes each, as split `train`."""
    images = datasets.load("photos", "folder", root)
    table = images.table.slice(first, last - first).drop("image").with_row_index("image")
    chosen = replace(images, split="train", table=table.with_columns(label=pl.lit("x"), label_id=0))
    return replace(chosen, read_annotations=lambda: Boxes(boxes_of(chosen)))


def _with_boxes(images: Images, **changed: pl.Expr) -> Images:
    table = images.annotations().table.with_columns(**changed)  # type: ignore[union-attr]
    return replace(images, read_annotations=lambda: Boxes(table))


def labels(images: Images) -> Images:
    images = replace(images, table=images.table.with_columns(label=pl.lit("y")))
    return _with_boxes(images, label=pl.col("label").reverse())


def boxes(images: Images) -> Images:
    return _with_boxes(images, x1=pl.col("x1") + 1)


def order(images: Images) -> Images:
    table = images.table.reverse().drop("image").with_row_index("image")
    return replace(images, table=table)


def encode(workspace: Path, images: Images, view: View, **options: object) -> Store:
    changed = replace(OPTIONS, **options)  # type: ignore[arg-type]
    outcome = extract([MeanColour()], images, view, workspace / "features", changed)
    return outcome.reports[0].store


def call(workspace: Path, words: str) -> Result:
    return CliRunner().invoke(cli, ["-w", str(workspace), *words.split()])


def two_stores(workspace: Path, root: Path, view: View, change: str) -> list[Store]:
    """The store of six photographs, and one of as many that were changed."""
    images = photos(root)
    changes: dict[str, Change] = {"labels": labels, "boxes": boxes, "order": order}
    other = photos(root, 1, 7) if change == "images" else changes[change](images)
    return [encode(workspace, images, view), encode(workspace, other, view)]


@pytest.fixture(scope="module", params=["labels", "images", "boxes", "order"])
def changed(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, root: Path
) -> tuple[Path, list[Store]]:
    workspace = tmp_path_factory.mktemp("workspace")
    return workspace, two_stores(workspace, root, PARTS, request.param)


@pytest.fixture(scope="module", params=["labels", "images", "order"])
def changed_windows(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, root: Path
) -> tuple[Path, list[Store]]:
    workspace = tmp_path_factory.mktemp("workspace")
    return workspace, two_stores(workspace, root, WINDOWS, request.param)


def assert_choices(result: Result, stores: list[Store]) -> None:
    assert isinstance(result.exception, AmbiguousError), result.output
    message = str(result.exception)
    assert "2 stores fit" in message
    for store in stores:
        assert store.spec.short[:8] in message
    assert f"differs from {min(s.spec.short for s in stores)[:8]} in" in message


@pytest.mark.parametrize("words", COMMANDS.values(), ids=COMMANDS)
def test_stores_of_a_changed_dataset_are_choices(
    changed: tuple[Path, list[Store]], words: str
) -> None:
    assert_choices(call(changed[0], words), changed[1])


@pytest.mark.parametrize("words", WINDOW_COMMANDS.values(), ids=WINDOW_COMMANDS)
def test_windows_of_a_changed_dataset_are_choices(
    changed_windows: tuple[Path, list[Store]], words: str
) -> None:
    assert_choices(call(changed_windows[0], words), changed_windows[1])


def test_choices_state_differences(tmp_path: Path, root: Path) -> None:
    for change, message in (
        ("labels", "labels"),
        ("images", "images"),
        ("boxes", "boxes"),
        ("order", "order of rows"),
    ):
        two_stores(tmp_path / change, root, PARTS, change)
        assert f" in {message}" in str(call(tmp_path / change, "search --query-id 0").exception)


def test_limited_store_is_subset_of_full_store(tmp_path: Path, root: Path) -> None:
    encode(tmp_path, photos(root), PARTS, limit=2)
    encode(tmp_path, photos(root), PARTS, limit=4)
    whole = encode(tmp_path, photos(root), PARTS)
    assert choose(tmp_path / "features", StoreSelector()).path == whole.path


def test_limited_store_with_changed_labels_is_ambiguous(tmp_path: Path, root: Path) -> None:
    stores = [
        encode(tmp_path, labels(photos(root)), PARTS, limit=2),
        encode(tmp_path, photos(root), PARTS),
    ]
    assert_choices(call(tmp_path, "search --query-id 0"), stores)


def split(images: Images, name: str, rest: int) -> Images:
    table = images.table.filter(pl.col("image") % 2 == rest).drop("image").with_row_index("image")
    return replace(images, split=name, table=table)


def test_splits_are_subsets_of_all(tmp_path: Path, root: Path) -> None:
    images = photos(root)
    encode(tmp_path, split(images, "train", 0), PARTS)
    whole = encode(tmp_path, replace(images, split="all"), PARTS)
    encode(tmp_path, split(images, "test", 1), PARTS)
    assert choose(tmp_path / "features", StoreSelector()).path == whole.path
    actual = call(tmp_path, "search --query-id 0 -k 3")
    assert actual.exit_code == 0
    assert whole.title in actual.output


@pytest.mark.parametrize("change", [labels, boxes], ids=["labels", "boxes"])
def test_changed_split_is_ambiguous(tmp_path: Path, root: Path, change: Change) -> None:
    images = photos(root)
    part = encode(tmp_path, split(change(images), "train", 0), PARTS)
    whole = encode(tmp_path, replace(images, split="all"), PARTS)
    error = call(tmp_path, "search --query-id 0").exception
    assert isinstance(error, AmbiguousError)
    assert all(store.spec.short[:8] in str(error) for store in (part, whole))


def test_split_of_other_image_files_is_ambiguous(tmp_path: Path, root: Path) -> None:
    images = photos(root)
    encode(tmp_path, split(images, "train", 0), PARTS)
    other = tmp_path / "photos"
    other.mkdir()
    for number, file in enumerate(sorted(root.iterdir())):
        data = file.read_bytes()
        (other / file.name).write_bytes(data[:-1] + bytes([data[-1] ^ (number == 2)]))
    encode(tmp_path, replace(photos(other), split="all"), PARTS)
    assert isinstance(call(tmp_path, "search --query-id 0").exception, AmbiguousError)


def test_more_crops_are_preferred_for_same_images_only(tmp_path: Path, root: Path) -> None:
    words = "probe segmentation --train-split train --test-split train"
    for name, images in (("same", photos(root)), ("changed", labels(photos(root)))):
        encode(tmp_path / name, photos(root), WINDOWS)
        encode(tmp_path / name, images, replace(WINDOWS, views=1))
        error = call(tmp_path / name, words).exception
        assert isinstance(error, AmbiguousError) == (name == "changed")


def test_missing_split_is_copied_by_suggested_command(tmp_path: Path, root: Path) -> None:
    whole = encode(tmp_path, replace(photos(root), split="all"), PARTS)
    words = "probe linear --dataset photos --encoder mean-colour --train-split train"
    error = call(tmp_path, f"{words} --test-split test").exception
    assert isinstance(error, MissingError)
    assert "no store for --dataset photos --split train" in str(error)
    assert f"{whole.title} holds are copied" in str(error)


def test_copies_are_not_promised_of_a_store_that_may_lack_rows(tmp_path: Path, root: Path) -> None:
    part = encode(tmp_path, replace(photos(root), split="val"), PARTS)
    words = "probe linear --dataset photos --encoder mean-colour --train-split train"
    error = call(tmp_path, f"{words} --test-split test").exception
    assert f"{part.title} holds may be copied" in str(error)


def test_study_does_not_select_among_changed_stores(
    changed: tuple[Path, list[Store]],
) -> None:
    words = "extract --dataset photos --split train --view parts --encoder mean-colour"
    step = Step("extract photos", tuple(words.split()))
    with pytest.raises(AmbiguousError) as caught:
        extracted(Workspace(changed[0]), step)
    assert all(str(store.path) in str(caught.value) for store in changed[1])


@pytest.fixture
def splits(tmp_path: Path, root: Path) -> tuple[Path, Store, Store]:
    """A workspace with the stores of a whole dataset and of a split, which is a part of it."""
    whole = encode(tmp_path, replace(photos(root), split="all"), PARTS)
    part = encode(tmp_path, photos(root, 1, 4), PARTS)
    return tmp_path, whole, part


@pytest.mark.parametrize("file", ["spec.json", "manifest.json"])
@pytest.mark.parametrize("is_there", [True, False], ids=["damaged", "removed"])
@pytest.mark.parametrize("words", ["search", "retrieval", "figure", "figure-encoder", "linear"])
def test_split_does_not_replace_damaged_store_of_all(
    splits: tuple[Path, Store, Store], words: str, file: str, is_there: bool
) -> None:
    workspace, whole, part = splits
    chosen = choose(workspace / "features", StoreSelector())
    assert chosen.path == whole.path
    (whole.path / file).write_text("{}") if is_there else (whole.path / file).unlink()
    result = call(workspace, COMMANDS[words])
    assert isinstance(result.exception, PaError), result.output
    assert call(workspace, "index build --split train").exit_code == 0
    assert call(workspace, f"index build --store {part.spec.short}").exit_code == 0


@pytest.mark.parametrize("file", ["rows.parquet", "manifest.json"])
def test_choices_name_the_damage_that_makes_them(
    splits: tuple[Path, Store, Store], file: str
) -> None:
    workspace, whole, part = splits
    data = bytearray((whole.path / file).read_bytes())
    data[len(data) // 2] ^= 1
    (whole.path / file).write_bytes(data)
    error = call(workspace, "search --query-id 0").exception
    assert isinstance(error, AmbiguousError)
    assert str(whole.path / file) in str(error)
    assert str(part.path) not in str(error)


def test_unfinished_subset_is_not_a_choice(
    splits: tuple[Path, Store, Store],
) -> None:
    workspace, whole, part = splits
    (part.path / "manifest.json").unlink()
    assert choose(workspace / "features", StoreSelector()).path == whole.path
