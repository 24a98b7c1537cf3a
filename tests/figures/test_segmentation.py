"""`pa figure segmentation`: what heads predicted when they were scored is what is drawn."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pa.data import datasets
from pa.data.datasets.segmentation import labels
from pa.data.datasets.segmentation.labels import IGNORED
from pa.data.store.reader import Store
from pa.errors import AmbiguousError, AnnotationError, ImageError, MissingError, UsageError
from pa.evaluate.result_files import ResultFile
from pa.figures.colours import OKABE_ITO, OPACITY
from pa.figures.heads import ScoredHead, drawable_pair, labelled_images, truth
from pa.figures.names import PAIRS
from pa.figures.paper import MARGIN
from pa.figures.segmentation import Example, Labels, Line, draw, draw_masks
from pa.figures.style import Target
from pa.probe.segmentation.labels import LabelMaps
from pa.progress import Silent
from pa.report.collection import collect_results
from pa.workspace import Workspace
from tests.figures.conftest import metadata_of, pixels_of
from tests.support.commands import Run
from tests.support.segmentation_stores import load, make_store, maps, tree
from tests.support.segmentation_trees import index_tree

__all__ = ["load", "make_store", "maps", "tree"]

MakeStore = Callable[..., Store]


@pytest.fixture
def workspace(tmp_path: Path, tree: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    text = (
        f'dataset = "lip"\nencoder = "knowing"\ndevice = "cpu"\n[datasets.lip]\nroot = "{tree}"\n'
    )
    (tmp_path / "pa.toml").write_text(text)
    monkeypatch.chdir(tmp_path)
    return Workspace(tmp_path)


def trained(pa: Run, *words: object) -> ResultFile:
    """Train a head of features that know the labels, with a rate at which it learns them."""
    fixed = ("--iterations", 60, "--lr", 0.5, "--device", "cpu")
    done = pa("probe", "segmentation", *fixed, *words)
    assert done.code == 0, done.err
    (actual,) = collect_results(Path.cwd(), Path("results"), Path("features")).results
    return actual


def test_predictions_are_those_that_were_scored(
    pa: Run, make_store: MakeStore, workspace: Workspace, maps: LabelMaps
) -> None:
    make_store("train", views=0)
    store = make_store("val")
    actual = trained(pa)
    sha256 = actual.result.selection.labels.sha256
    named = LabelMaps("lip", maps.classes, maps.root, provenance={"sha256": sha256})
    head = ScoredHead("knowing", actual, store, named)
    paths = head.paths()
    assert sorted(paths) == [str(number) for number in range(6)]
    predicted = head.predict(list(paths.values()), "cpu", Silent())
    right = total = 0
    for name, path in paths.items():
        labels = truth(head, path)
        counted = labels != IGNORED
        right += int((predicted[name] == labels)[counted].sum())
        total += int(counted.sum())
    # The accuracy over all pixels that the run reported, from another road to the same maps.
    assert right / total == pytest.approx(actual.result.scores["aAcc"].value, abs=1e-9)


def test_figure_records_its_sources(pa: Run, make_store: MakeStore, workspace: Workspace) -> None:
    make_store("train", views=0)
    make_store("val")
    trained(pa)
    done = pa("figure", "segmentation", "--labels", "lip", "--examples", 2, "--out", "f")
    assert done.code == 0, done.err
    assert "Linear segmentation of lip on frozen features of knowing" in done.out
    fields = json.loads(Path("f.json").read_text())
    assert "--image 0,5" in fields["command"]
    output = metadata_of("f.png")
    assert json.loads(output["Source"])["results"] == [fields["results"][0]["digest"]]
    chosen = pa("figure", "segmentation", "--labels", "lip", "--image", "3", "--json").json
    assert "Images: 3." in chosen["caption"]


def test_held_out_images_alone_are_drawn(
    pa: Run, make_store: MakeStore, workspace: Workspace
) -> None:
    store = make_store("train")
    actual = trained(pa, "--train-split", "train", "--test-split", "train", "--test-fraction", 0.34)
    done = pa("figure", "segmentation", "--labels", "lip", "--json").json
    names = done["command"].rpartition(" ")[2].split(",")
    assert len(names) == actual.result.counts.test_images == 2
    assert set(names) < {Path(path).stem for path in store.rows["path"].unique()}
    (other, *_) = sorted({str(number) for number in range(6)} - set(names))
    refused = pa("figure", "segmentation", "--labels", "lip", "--image", other)
    assert refused.code == 3
    assert "is not among the 2 images" in refused.err


def test_errors(pa: Run, make_store: MakeStore, workspace: Workspace, tree: Path) -> None:
    nothing = pa("figure", "segmentation", "--labels", "lip")
    assert nothing.code == 3
    assert "pa probe segmentation --dataset lip" in nothing.err
    assert "pa probe segmentation --encoder NAME" in pa("figure", "segmentation").err
    assert pa("figure", "segmentation", "--labels", "lip,lip").code == 2
    make_store("train", views=0)
    make_store("val")
    actual = trained(pa)
    assert "There are heads of lip" in pa("figure", "segmentation").err
    (tree / "img" / "val" / "0.png").unlink()
    gone = pa("figure", "segmentation", "--labels", "lip", "--image", "0")
    assert gone.code == 3
    assert "give their folder with --root" in gone.err
    actual.path.with_suffix(".safetensors").unlink()
    assert pa("figure", "segmentation", "--labels", "lip").code == 3


def test_class_has_one_colour_in_every_picture(tmp_path: Path) -> None:
    """A class map of one class is one hue over the whole picture, that of the legend."""
    image = Image.new("RGB", (60, 40), "white")
    maps = np.zeros((40, 60), np.uint8), np.full((40, 60), 3, np.uint8)
    example = Example(image, [Line(maps[0], [maps[1]])])
    path = tmp_path / "f.png"
    draw([example], [Labels("objects", ["cat", "b", "c", "dog"])], ["DeiT"], Target([path]))
    pixels = pixels_of(path)
    column = (6.5 - 2 * MARGIN - 2 * 0.04) / 3  # image, labels and one encoder
    line = pixels[round((MARGIN + 0.18 + column * 40 / 60 / 4) * 300)]  # above the numbers
    actual = [line[round((MARGIN + n * (column + 0.04) + column / 2) * 300)] for n in range(3)]
    assert actual[0].min() > 250  # the image
    for colour, expected in zip(actual[1:], OKABE_ITO, strict=False):
        mixed = np.array(expected) * OPACITY + 255 * (1 - OPACITY)
        assert np.abs(colour - mixed).max() <= 3


def test_images_without_labels_are_passed_over(
    pa: Run, make_store: MakeStore, workspace: Workspace, tree: Path, maps: LabelMaps
) -> None:
    make_store("train", views=0)
    store = make_store("val")
    actual = trained(pa)
    sha256 = actual.result.selection.labels.sha256
    named = LabelMaps("lip", maps.classes, maps.root, provenance={"sha256": sha256})
    head = ScoredHead("knowing", actual, store, named)
    Image.fromarray(np.zeros((48, 64), np.uint8)).save(tree / "ann" / "val" / "0.png")
    assert labelled_images([head], [], 2) == ["1", "5"]


def test_drawable_pair_skips_pairs_that_cannot_be_drawn() -> None:
    drawable: set[str] = set()

    def prepare(pair: tuple[str, str]) -> None:
        if pair[0] not in drawable:
            raise MissingError(f"the windows of {pair[0]} are gone")

    existing = {name for pair in PAIRS for name in pair}
    with pytest.raises(MissingError, match="the windows of ade20k-object are gone"):
        drawable_pair(existing, prepare, Path())
    drawable.add("pascal-object")
    assert drawable_pair(existing, prepare, Path()) == PAIRS[1]
    drawable.add("ade20k-object")
    with pytest.raises(AmbiguousError, match="--labels ade20k-object,ade20k-part or pascal-object"):
        drawable_pair(existing, prepare, Path())


def test_run_figure_records_its_result(
    pa: Run, make_store: MakeStore, workspace: Workspace
) -> None:
    make_store("train", views=0)
    make_store("val")
    words = ("--iterations", 2, "--device", "cpu", "--figures", 2, "--json")
    (head,) = pa("probe", "segmentation", *words).json["heads"]
    assert Path(head["figure"]).parent == workspace.config.figures / "probe-segmentation"
    metadata = metadata_of(head["figure"])
    assert "2 iterations" in metadata["Title"]
    assert metadata["Source"] == f"result {Path(head['file']).name}"


# -- masks of a dataset ----------------------------------------------------------------------------


@pytest.fixture
def masks(tmp_path: Path) -> Path:
    values = np.zeros((40, 60), np.uint8)
    values[:20, :30], values[:20, 30:] = 3, 19
    maps = dict.fromkeys("abcde", values) | {"empty": np.zeros((40, 60))}
    return index_tree(tmp_path / "lip", "val", maps)


@pytest.mark.parametrize("suffix", ["png", "jpg", "pdf"])
def test_sheet_shows_images_spread_over_split(masks: Path, tmp_path: Path, suffix: str) -> None:
    images = datasets.load("lip", "lip", masks)
    path = tmp_path / f"o.{suffix}"
    drawn = draw_masks(path, images, labels.load("lip"), 3)
    assert drawn == ["img/val/a.jpg", "img/val/c.jpg", "img/val/empty.jpg"]
    if suffix != "pdf":
        with Image.open(path) as sheet:
            assert sheet.width == 1950
    again = path.read_bytes()
    draw_masks(path, images, labels.load("lip"), 3)
    assert suffix == "pdf" or path.read_bytes() == again


@pytest.mark.parametrize("n", [1, 5, 12])
def test_sheets_of_many_images_are_not_tall(tmp_path: Path, n: int) -> None:
    maps = {f"{i:02d}": np.full((42, 54), 1 + i % 19, np.uint8) for i in range(n)}
    images = datasets.load("lip", "lip", index_tree(tmp_path / "lip", "val", maps))
    path = tmp_path / "sheet.png"
    assert len(draw_masks(path, images, labels.load("lip"), n)) == n
    with Image.open(path) as sheet:
        assert sheet.height < 1.8 * sheet.width
        assert sheet.width < 4 * sheet.height or n == 1


def test_bad_files(masks: Path, tmp_path: Path) -> None:
    images = datasets.load("lip", "lip", masks)
    with pytest.raises(
        UsageError, match=r"o.gif: expected a file ending in .png, .jpg, .pdf; found .gif"
    ):
        draw_masks(tmp_path / "o.gif", images, labels.load("lip"))
    Image.fromarray(np.full((40, 60), 77, np.uint8)).save(masks / "ann/val/a.png")
    with pytest.raises(AnnotationError, match="unknown class ids 77"):
        draw_masks(tmp_path / "o.png", images, labels.load("lip"))
    (masks / "img/val/a.jpg").unlink()
    with pytest.raises(ImageError, match="cannot read the file"):
        draw_masks(tmp_path / "o.png", images, labels.load("lip"))
    assert not (tmp_path / "o.png").exists()
