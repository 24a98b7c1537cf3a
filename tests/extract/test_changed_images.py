"""Image files that change after a store was made: refused, encoded again, or accepted as equal."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pa.data import datasets
from pa.data import images as im
from pa.data.crops import Crops
from pa.data.store import image_files
from pa.data.store.image_files import ImageFiles
from pa.data.store.reader import IMAGES, RUNS, SPEC, Store
from pa.data.store.verify import verify
from pa.data.views import VIEWS
from pa.errors import FingerprintError
from pa.extract.run import extract
from pa.extract.share import Share
from pa.extract.stores import ExtractOptions, Report
from tests.support.images import noise_image
from tests.support.mean_colour import MeanColour

Change = Callable[[Path], Path | None]
N_IMAGES, PER_SHARD = 8, 2


def write(path: Path, seed: int) -> None:
    """An uncompressed image: all have the same number of bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise_image(seed).save(path, "BMP")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for number in range(N_IMAGES):
        write(tmp_path / f"photos/a/{number}.bmp", number)
    return tmp_path / "photos"


@pytest.fixture
def features(tmp_path: Path) -> Path:
    return tmp_path / "features"


def run(root: Path, features: Path, encoder: MeanColour | None = None, **changes: Any) -> Report:
    options = ExtractOptions(shard_rows=PER_SHARD, batch_size=3, **changes)
    images = datasets.load("photos", "folder", root)
    return extract([encoder or MeanColour()], images, VIEWS["image"], features, options).reports[0]


def assert_fresh(store: Store, root: Path, tmp_path: Path, *others: str) -> None:
    """A store is equal, byte for byte, to one that is made now, its logs and `others` apart."""
    fresh = run(root, tmp_path / "fresh").store
    for path in fresh.path.glob("*"):
        if path.name not in (RUNS, IMAGES, *others):
            assert (store.path / path.name).read_bytes() == path.read_bytes(), path.name
    assert not list(verify(Store.open(store.path)))


def other_bytes(root: Path) -> None:
    write(root / "a/3.bmp", 99)


def other_root(root: Path) -> Path:
    other = root.with_name("other")
    for number in range(N_IMAGES):
        write(other / f"a/{number}.bmp", 50 + number)
    return other


def other_bytes_and_the_old_time(root: Path) -> None:
    path = root / "a/3.bmp"
    before = path.stat()
    write(path, 99)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def swapped(root: Path) -> None:
    (root / "a/0.bmp").rename(root / "kept")
    (root / "a/5.bmp").rename(root / "a/0.bmp")
    (root / "kept").rename(root / "a/5.bmp")


def retargeted(root: Path) -> None:
    write(root.with_name("elsewhere") / "x.bmp", 99)
    (root / "a/3.bmp").unlink()
    (root / "a/3.bmp").symlink_to(root.with_name("elsewhere") / "x.bmp")


def renamed_over(root: Path) -> None:
    before = (root / "a/3.bmp").stat()
    write(root / "new", 99)
    os.utime(root / "new", ns=(before.st_atime_ns, before.st_mtime_ns))
    (root / "new").rename(root / "a/3.bmp")


def broken(root: Path) -> None:
    path = root / "a/3.bmp"
    path.write_bytes(b"?" * path.stat().st_size)


def touched(root: Path) -> None:
    os.utime(root / "a/3.bmp")


def written_again(root: Path) -> None:
    path = root / "a/3.bmp"
    data = path.read_bytes()
    path.unlink()
    path.write_bytes(data)


def moved(root: Path) -> Path:
    return root.rename(root.with_name("moved"))


def copied(root: Path) -> Path:
    return shutil.copytree(root, root.with_name("copied"))


def larger(root: Path) -> None:
    with (root / "a/3.bmp").open("ab") as file:
        file.write(b"\0")


def removed(root: Path) -> None:
    (root / "a/3.bmp").unlink()


def added(root: Path) -> None:
    write(root / "a/30.bmp", 99)


CHANGED: dict[Change, set[str]] = {
    other_bytes: {"a/3.bmp"},
    other_bytes_and_the_old_time: {"a/3.bmp"},
    other_root: {f"a/{n}.bmp" for n in range(N_IMAGES)},
    swapped: {"a/0.bmp", "a/5.bmp"},
    retargeted: {"a/3.bmp"},
    renamed_over: {"a/3.bmp"},
    broken: {"a/3.bmp"},
}


@pytest.fixture(params=[False, True], ids=["recorded", "young"])
def young(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a record of the files' states, and with files too young to have one."""
    monkeypatch.setattr(image_files, "YOUNG_NS", (1 << 62) if request.param else 0)


@pytest.mark.usefixtures("young")
@pytest.mark.parametrize("change", CHANGED, ids=lambda change: change.__name__)
def test_changed_images_are_refused_then_replaced(
    change: Change, root: Path, features: Path, tmp_path: Path
) -> None:
    run(root, features)
    now = change(root) or root
    with pytest.raises(FingerprintError) as refused:
        run(now, features)
    for path in sorted(CHANGED[change])[:5]:
        assert path in str(refused.value)
    assert "--replace" in str(refused.value)
    with pytest.raises(FingerprintError):  # nothing was accepted by being looked at
        run(now, features, alongside=True)
    outcome = run(now, features, replace=True)
    affected = {int(path[2]) // PER_SHARD for path in CHANGED[change]}
    assert outcome.rows_encoded == PER_SHARD * len(affected)
    assert_fresh(outcome.store, now, tmp_path)
    assert run(now, features).rows_encoded == 0


@pytest.mark.usefixtures("young")
@pytest.mark.parametrize(
    "change", [touched, written_again, moved, copied], ids=lambda change: change.__name__
)
def test_equal_images_are_accepted(
    change: Change, root: Path, features: Path, tmp_path: Path
) -> None:
    run(root, features)
    now = change(root) or root
    encoder = MeanColour()
    outcome = run(now, features, encoder)
    assert (outcome.rows_encoded, encoder.batches) == (0, [])
    assert_fresh(outcome.store, now, tmp_path, SPEC)  # which names the root


@pytest.mark.parametrize("change", [larger, removed, added], ids=lambda change: change.__name__)
def test_changed_file_list_is_another_store(
    change: Change, root: Path, features: Path, tmp_path: Path
) -> None:
    run(root, features)
    change(root)
    with pytest.raises(FingerprintError, match=r"rows\.sha256"):
        run(root, features)
    outcome = run(root, features, replace=True)
    assert outcome.rows_encoded < N_IMAGES
    assert_fresh(outcome.store, root, tmp_path)


def test_unfinished_store_is_not_completed_from_other_images(
    root: Path, features: Path, tmp_path: Path
) -> None:
    store = run(root, features).store
    (store.path / "manifest.json").unlink()
    store.shard_path(store.plan[3]).unlink()
    other = other_root(root)
    with pytest.raises(FingerprintError, match="6 of 8 images"):
        run(other, features)
    assert not store.is_complete
    assert run(root, features).rows_encoded == PER_SHARD
    assert_fresh(store, root, tmp_path)


def test_shards_of_changed_images_are_not_taken_over(
    root: Path, features: Path, tmp_path: Path
) -> None:
    run(root, features, limit=6)
    other_bytes(root)
    outcome = run(root, features)
    assert (outcome.shards_adopted, outcome.rows_encoded) == (2, N_IMAGES - 2 * PER_SHARD)
    assert_fresh(outcome.store, root, tmp_path)


def test_processes_with_two_roots_do_not_complete_a_store(root: Path, features: Path) -> None:
    other = other_root(root)
    images = datasets.load("photos", "folder", other)
    options = ExtractOptions(shard_rows=PER_SHARD, batch_size=3)

    def elsewhere() -> None:
        last_first = Share(1, 2)  # a task of an array: it leaves what others have locked
        extract([MeanColour()], images, VIEWS["image"], features, options, share=last_first)

    class Meeting(MeanColour):
        """Lets the other process encode what is free, while the first shard is locked here."""

        def encode(self, *args: Any, **named: Any) -> Any:
            if not self.batches:
                thread = threading.Thread(target=elsewhere)
                thread.start()
                thread.join()
            return super().encode(*args, **named)

    with pytest.raises(FingerprintError, match="not those"):
        run(root, features, Meeting())
    (spec,) = features.rglob("spec.json")
    assert not Store.open(spec.parent, incomplete=True).is_complete


def test_files_in_changed_state_alone_are_read(
    root: Path, features: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image_files, "YOUNG_NS", 0)
    run(root, features)
    read: list[str] = []
    original = image_files.read
    monkeypatch.setattr(image_files, "read", lambda path: read.append(path.name) or original(path))
    run(root, features)
    assert read == []
    touched(root)
    run(root, features)
    assert read == ["2.bmp", "3.bmp"]  # the images of one shard
    run(root, features)
    assert len(read) == 2
    with (next(features.rglob(IMAGES))).open("r+") as log:  # a torn line costs a reading
        log.truncate(20)
    run(root, features)
    assert sorted(read[2:]) == [f"{n}.bmp" for n in range(N_IMAGES)]


def test_unreadable_image_that_became_readable_is_reported(root: Path, features: Path) -> None:
    (root / "a/3.bmp").unlink()
    (root / "a/3.bmp").symlink_to("gone")  # listed, and not readable
    store = run(root, features).store
    assert [bad.path for bad in store.bad] == ["a/3.bmp"]
    assert run(root, features).rows_encoded == 0
    assert ImageFiles(store, root).changed(full=True) == []


def test_missing_image_is_listed_if_every_file_is_checked(root: Path, features: Path) -> None:
    store = run(root, features).store
    files = ImageFiles(store, root)
    removed(root)
    assert files.changed() == []
    (actual,) = files.changed(full=True)
    assert (actual.path, actual.actual) == ("a/3.bmp", None)


def test_crops_refuse_an_image_that_changed(root: Path, features: Path) -> None:
    store = run(root, features).store
    before = Crops(store).region(3)
    other_bytes(root)
    crops = Crops(store)
    with pytest.raises(FingerprintError, match=r"3\.bmp is not the one"):
        crops.region(3)
    assert np.array_equal(np.asarray(crops.region(2)), np.asarray(Crops(store).region(2)))
    run(root, features, replace=True)
    after = Crops(Store.open(store.path)).region(3)
    assert not np.array_equal(np.asarray(before), np.asarray(after))


def test_hashes_of_images_are_part_of_a_shard(root: Path, features: Path) -> None:
    import xxhash

    store = run(root, features).store
    paths = sorted((root / "a").iterdir())
    expected = [xxhash.xxh3_128_digest(path.read_bytes()) for path in paths]
    assert [h.tobytes() for shard in store.plan for h in store.image_hashes(shard)] == expected
    assert image_files.hashes_of(store, np.array([5, 0, 5])) == [expected[n] for n in (5, 0, 5)]


def test_index_of_old_images_is_not_used(root: Path, features: Path, tmp_path: Path) -> None:
    from pa.index.build import build, open_or_build
    from pa.index.search import search

    store = run(root, features).store
    build(store, "pooled", tmp_path / "indexes")
    other_bytes(root)
    run(root, features, replace=True)
    fresh = run(root, tmp_path / "fresh").store
    actual, expected = (
        search(open_or_build(Store.open(item.path), "pooled", indexes).index, [0], 3)[0].neighbours
        for item, indexes in ((store, tmp_path / "indexes"), (fresh, tmp_path / "others"))
    )
    assert actual == expected


@pytest.mark.parametrize("complete", [True, False])
def test_image_within_raised_limit_is_reported(
    root: Path, features: Path, tmp_path: Path, request: pytest.FixtureRequest, complete: bool
) -> None:
    noise_image(99, (200, 100)).save(root / "a/3.bmp", "BMP")
    request.addfinalizer(lambda: im.set_max_pixels(im.MAX_PIXELS))
    im.set_max_pixels(19_999)
    store = run(root, features).store
    assert [bad.path for bad in store.bad] == ["a/3.bmp"]
    assert run(root, features).rows_encoded == 0
    if not complete:
        (store.path / "manifest.json").unlink()
    im.set_max_pixels(20_000)
    with pytest.raises(FingerprintError, match=r"a/3\.bmp\. --replace"):
        run(root, features)
    outcome = run(root, features, replace=True)
    assert (outcome.rows_encoded, outcome.store.bad) == (PER_SHARD, [])
    assert_fresh(outcome.store, root, tmp_path)
