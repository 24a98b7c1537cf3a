"""`pa index build` of several stores, `pa index info`, and what `pa search` refuses."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl
import pytest

from pa.data.schema import Images
from pa.data.views import VIEWS
from tests.support.images import noise_image
from tests.support.vectors import Run, pa, write_store

__all__ = ["pa"]

N = 98


def images_of(root: Path, split: str) -> Images:
    table = pl.DataFrame(
        {
            "image": range(N),
            "path": [f"{split}/{i:03d}.jpg" for i in range(N)],
            "label": ["x"] * N,
            "label_id": [0] * N,
            "file_bytes": [1] * N,
        }
    )
    return Images("toy", split, root, table)


def noise(seed: int, width: int) -> npt.NDArray[np.float32]:
    return np.random.default_rng(seed).normal(size=(N, width)).astype(np.float32)


@pytest.fixture
def workspace(in_empty_folder: Path) -> Path:
    """Stores of two encoders and two splits, each with two vector representations."""
    for index, (encoder, split) in enumerate(
        [("mocov3", "train"), ("mocov3", "val"), ("dino", "train"), ("dino", "val")]
    ):
        vectors = {"pooled": noise(index, 12), "projected": noise(10 + index, 6)}
        images = images_of(in_empty_folder, split)
        write_store(in_empty_folder / "features", images, VIEWS["image"], vectors, encoder)
    return in_empty_folder


EIGHT = [
    (f"toy/{split}/image/{encoder}", representation, width)
    for split in ("train", "val")
    for encoder in ("mocov3", "dino")
    for representation, width in (("pooled", 12), ("projected", 6))
]


def test_combinations_are_all_indexed(pa: Run, workspace: Path) -> None:
    code, out, err = pa(
        *("index", "build", "--encoder", "mocov3,dino", "--split", "train,val"),
        *("--representation", "pooled,projected", "--json"),
    )
    assert code == 0, err
    built = json.loads(out)["indexes"]
    actual = [(b["store"].rpartition("/")[0], b["representation"], b["dimension"]) for b in built]
    assert actual == EIGHT
    assert {b["n"] for b in built} == {N}
    assert all((Path(b["path"]) / "index.faiss").is_file() for b in built)
    listed = json.loads(pa("index", "info", "--json")[1])["indexes"]
    assert sorted(b["path"] for b in listed) == sorted(b["path"] for b in built)
    # Each answers from its own store.
    for split in ("train", "val"):
        words = ("--encoder", "mocov3,dino", "--representation", "pooled", "--json")
        code, out, err = pa("search", "--query-id", 3, "-k", 1, "--split", split, *words)
        assert (code, err) == (0, "")
        results = json.loads(out)["results"]
        assert [r["encoder"] for r in results] == ["mocov3", "dino"]
        assert all(n["path"].startswith(split) for r in results for n in r["neighbours"])


def test_encoders_of_the_settings(pa: Run, workspace: Path) -> None:
    (workspace / "pa.toml").write_text(
        'encoder = "dino, mocov3"\n[datasets.toy]\nroot = "."\nsplit = "val"\n'
    )
    built = json.loads(pa("index", "build", "--json")[1])["indexes"]
    assert [b["store"].split("/")[3] for b in built] == ["dino", "mocov3"]
    code, out, _ = pa("search", "--query-id", 3, "-k", 2, "--json")
    assert code == 0
    assert [r["encoder"] for r in json.loads(out)["results"]] == ["dino", "mocov3"]


def test_named_store_needs_no_encoder(pa: Run, workspace: Path) -> None:
    (workspace / "pa.toml").write_text('encoder = "dino, mocov3"\n')
    listed = json.loads(pa("status", "--json")[1])["stores"]
    store = next(s for s in listed if s["store"].startswith("toy/val/image/mocov3"))
    _, built, _ = pa("index", "build", "--store", store["fingerprint"], "--json")
    indexes = json.loads(built)["indexes"]
    assert [entry["fingerprint"] for entry in indexes] == [store["fingerprint"]]
    code, _, _ = pa("search", "--query-id", 1, "-k", 2, "--store", store["fingerprint"])
    assert code == 0


def test_several_configured_encoders_are_refused_for_one(pa: Run, workspace: Path) -> None:
    (workspace / "pa.toml").write_text('encoder = "dino, mocov3"\n')
    code, _, err = pa("probe", "linear", "--split", "val")
    assert code == 2
    assert "takes one encoder" in err
    assert "--encoder dino" in err


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("--encoder", "dino,mae", "--split", "val"), 3),
        (("--encoder", "dino", "--split", "val", "--representation", "pooled,bottleneck"), 2),
    ],
)
def test_index_build_builds_nothing_if_one_store_is_missing(
    pa: Run, workspace: Path, words: tuple[str, ...], expected: int
) -> None:
    code, _, _ = pa("index", "build", *words)
    assert code == expected
    assert not (workspace / "indexes").exists()


def test_index_build_builds_a_repeated_index_once(pa: Run, workspace: Path) -> None:
    words = ("--encoder", "dino,dino", "--split", "val", "--representation", "pooled,pooled")
    code, out, _ = pa("index", "build", *words, "--json")
    assert code == 0
    assert len(json.loads(out)["indexes"]) == 1


def test_info_shows_recall_and_training(pa: Run, workspace: Path) -> None:
    words = ("--encoder", "dino", "--split", "val", "--index", "IVF4,Flat@nprobe=4")
    code, out, err = pa("index", "build", *words)
    assert code == 0
    assert "IVF4,Flat@nprobe=4 (recall@24 1.000 on 98 queries)" in out
    assert "trained on 98 rows (FAISS advises 156)" in out
    assert err.splitlines()[0] == (
        f"training IVF4,Flat@nprobe=4 on 98 rows of {out.split(' ')[0]}, fewer than the 156 that "
        f"FAISS advises"
    )
    assert "WARNING" not in err
    assert pa("index", "info")[1] == out


def test_too_many_lists_is_a_usage_error(pa: Run, workspace: Path) -> None:
    words = ("--encoder", "dino", "--split", "val", "--index", "IVF99,Flat")
    code, out, err = pa("index", "build", *words)
    assert (code, out) == (2, "")
    assert err.startswith("error: IVF99,Flat divides the rows into 99 lists")
    assert "IVF2 has the 39 rows per list" in err


# -- numbers and boxes that cannot be -----------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--query-id", 10**20), "query id 100000000000000000000 is outside this store"),
        (("--query-id", -(10**20)), "query id -100000000000000000000 is outside this store"),
        (("--query-id", 1, "-k", 10**20), "Ask for k ≤ 97."),
        (("--query-id", 1, "-k", 2**63), "Ask for k ≤ 97."),
        (("--query-id", 1, "-k", 10**20, "--include-self"), "Ask for k ≤ 98."),
        (("--query-id", "1e3"), "'1e3' is not a valid integer"),
        (("--query-id", 1, "--device", "cuda:7"), "device cuda:7: FAISS"),
        (("--query-id", 1, "--device", "tpu"), "unknown device 'tpu' of an index"),
    ],
)
def test_numbers_out_of_range(
    pa: Run, workspace: Path, words: tuple[object, ...], message: str
) -> None:
    code, out, err = pa("search", "--encoder", "dino", "--split", "val", *words)
    assert (code, out) == (2, "")
    assert message in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("box", "message"),
    [
        ("10.6,5,11.4,20", "--box 10.6,5,11.4,20 holds no pixel: it is cut at whole pixels, 11,5,11,20."),
        ("1.5,5,2.5,20", "holds no pixel: it is cut at whole pixels, 2,5,2,20."),
        ("5,0.1,20,0.4", "holds no pixel: it is cut at whole pixels, 5,0,20,0."),
        ("20,5,10,20", "is outside the image, which has 80×60 pixels"),
        ("5,5,5,20", "is outside the image"),
        ("-1,5,10,20", "is outside the image"),
        ("0,0,81,20", "with 0 ≤ x0 < x1 ≤ 80 and 0 ≤ y0 < y1 ≤ 60."),
        ("nan,0,10,20", "is outside the image"),
        ("0,0,inf,20", "is outside the image"),
        ("0,0,1e999,20", "is outside the image"),
    ],
)  # fmt: skip
def test_boxes_without_a_pixel(pa: Run, workspace: Path, box: str, message: str) -> None:
    noise_image(1).save("mine.png")
    words = ("--encoder", "dino", "--split", "val", "--image", "mine.png", f"--box={box}")
    code, out, err = pa("search", *words)
    assert (code, out) == (2, "")
    assert message in err
