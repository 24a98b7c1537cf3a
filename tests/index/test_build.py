"""Building: exact and approximate, whole or not at all, refusals, damage, several at once."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import faiss
import numpy as np
import numpy.typing as npt
import pytest

from pa.data.store.reader import Store
from pa.errors import MissingError, UnknownNameError, UsageError, VerificationError
from pa.index import library
from pa.index.build import build, open_index, open_or_build
from pa.index.recall import recall_queries
from pa.index.search import search
from pa.index.stored import Recall

Floats = npt.NDArray[np.float32]


def test_index_holds_unit_vectors(store: Store, tmp_path: Path, vectors: Floats) -> None:
    index = build(store, "pooled", tmp_path, "Flat")
    held = faiss.read_index(str(index.path / "index.faiss")).reconstruct_n(0, 490)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    assert np.abs(held - unit).max() < 1e-6


@pytest.mark.parametrize("factory", ["IVF16,PQ4x4@nprobe=2", "PQ4x4"])
def test_recall_is_what_it_says(
    make_store: Callable[..., Store], tmp_path: Path, factory: str
) -> None:
    """Recount recall@24 of a bad index with an exhaustive search of our own."""
    vectors = np.random.default_rng(1).normal(size=(980, 16)).astype(np.float16).astype(np.float32)
    store = make_store(vectors, name="noise")
    index = build(store, "pooled", tmp_path, factory)
    recall = index.info.recall_at_24
    assert isinstance(recall, Recall)
    assert (recall.k, recall.queries) == (24, 256)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    hits = 0
    queries = recall_queries(index)
    for query, result in zip(queries, search(index, queries.tolist(), 24), strict=True):
        cosines = unit @ unit[query]
        cosines[query] = -2
        exact = set(np.argsort(-cosines)[:24].tolist())
        hits += len(exact & {n.row for n in result.neighbours})
    assert recall.value == pytest.approx(hits / (24 * 256), abs=2e-3)
    assert 0.1 < recall.value < 0.95
    assert index.info.quality.startswith("recall@24 0.")


def test_training_is_seeded(store: Store, tmp_path: Path) -> None:
    files = [
        build(store, "pooled", tmp_path / name, "IVF8,Flat").path / "index.faiss"
        for name in ("a", "b")
    ]
    assert files[0].read_bytes() == files[1].read_bytes()


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        ("Flatt", r"FAISS refuses the index factory 'Flatt': .* Examples: SQfp16"),
        ("PQ5", "FAISS refuses the index factory 'PQ5'"),
        ("IVF8,Flat@nprobes=3", "FAISS refuses the index factory"),
    ],
)
def test_bad_factories(store: Store, tmp_path: Path, factory: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        build(store, "pooled", tmp_path, factory)
    assert not list(tmp_path.rglob("index.*"))


def test_unindexable_representations_are_refused(store: Store, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"patch of .* has the shape 2×2 per row.* Choose pooled"):
        build(store, "patch", tmp_path)
    with pytest.raises(UnknownNameError, match="unknown representation 'clss'"):
        build(store, "clss", tmp_path)


def test_store_without_usable_rows_is_refused(
    make_store: Callable[..., Store], tmp_path: Path
) -> None:
    store = make_store(np.zeros((49, 4), np.float32), name="zero")
    with pytest.raises(UsageError, match=r"has no row to index: 0 .* 49 have a zero pooled vector"):
        build(store, "pooled", tmp_path)


@pytest.mark.parametrize("what", ["flip", "cut", "gone", "json", "foreign"])
def test_damage_is_seen_and_the_index_built_again(store: Store, tmp_path: Path, what: str) -> None:
    index = build(store, "pooled", tmp_path)
    file, info = index.path / "index.faiss", index.path / "index.json"
    data = bytearray(file.read_bytes())
    if what == "flip":
        data[len(data) // 2] ^= 1
        file.write_bytes(data)
    elif what == "cut":
        file.write_bytes(data[:-10])
    elif what == "gone":
        file.unlink()
    elif what == "json":
        info.write_text(info.read_text()[:40])
    else:
        info.write_text(json.dumps({**json.loads(info.read_text()), "fingerprint": "0" * 64}))
    with pytest.raises(VerificationError, match="it is built again on first use"):
        open_index(store, "pooled", tmp_path)
    again = open_or_build(store, "pooled", tmp_path)
    assert again.built
    assert len(search(again.index, [3], 24)[0].neighbours) == 24
    assert not open_or_build(store, "pooled", tmp_path).built


def test_failed_build_leaves_no_files(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("pa.index.build._write", stop)
    with pytest.raises(KeyboardInterrupt):
        build(store, "pooled", tmp_path)
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and "index" in path.name]
    assert not list(tmp_path.rglob("*.partial"))


BUILD = """
import sys
from pa.data.store.reader import Store
from pa.index.build import build
for _ in range(5):
    build(Store.open(sys.argv[1]), "pooled", sys.argv[2])
"""


def test_builders_at_once(store: Store, tmp_path: Path) -> None:
    command = [sys.executable, "-c", BUILD, str(store.path), str(tmp_path / "i")]
    builders = [subprocess.Popen(command) for _ in range(2)]
    assert [builder.wait(timeout=100) for builder in builders] == [0, 0]
    assert open_index(store, "pooled", tmp_path / "i", verify=True).n == 490
    assert not list(tmp_path.rglob("*.partial"))


def test_missing_faiss_names_both_extras(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(MissingError) as caught:
        library.load_faiss()
    assert "part-aware[cpu]" in str(caught.value)
    assert "part-aware[gpu]" in str(caught.value)


@pytest.mark.parametrize(
    "factory",
    ["IVF8,Flat@nprobe=5", "PCA8,IVF8,SQfp16@nprobe=5", "OPQ4,IVF8,PQ4x4@nprobe=5"],
)
def test_pieces_give_results_of_whole_index(
    make_store: Callable[..., Store], vectors: Floats, tmp_path: Path, factory: str
) -> None:
    """Also after its folder was moved, with rows left out, and with pieces of unequal length."""
    store = make_store(vectors, bad_images=(2, 7))
    whole = build(store, "pooled", tmp_path / "whole", factory)
    merged = build(store, "pooled", tmp_path / "merged", factory, pieces=3)
    assert sorted(p.name for p in merged.path.iterdir()) == [
        *("ids.npy", "index.faiss", "index.ivfdata", "index.json")
    ]
    assert merged.info.recall_at_24 == whole.info.recall_at_24
    (tmp_path / "merged").rename(tmp_path / "moved")
    opened = open_index(store, "pooled", tmp_path / "moved", factory, verify=True)
    queries = np.flatnonzero(store.valid).tolist()
    for item, other in zip(search(opened, queries, 24), search(whole, queries, 24), strict=True):
        assert item.neighbours == other.neighbours


def test_blocks_of_rows_become_pieces(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """490 rows in blocks of 60 at most: a piece ends with the block that crosses its border.

    The blocks end where the shards of 196 rows do.
    """
    blocks = Store.blocks
    monkeypatch.setattr(Store, "blocks", lambda self, name: blocks(self, name, 60))
    held: list[int] = []
    write = faiss.write_index
    monkeypatch.setattr(
        faiss, "write_index", lambda index, path: (held.append(index.ntotal), write(index, path))
    )
    merged = build(store, "pooled", tmp_path, "IVF8,Flat@nprobe=5", pieces=4)
    assert held == [180, 76, 120, 114, 490]
    monkeypatch.undo()
    whole = build(store, "pooled", tmp_path / "whole", "IVF8,Flat@nprobe=5")
    for query in (3, 250, 489):
        assert search(merged, [query], 24)[0].neighbours == search(whole, [query], 24)[0].neighbours


def test_pieces_require_inverted_file(store: Store, tmp_path: Path) -> None:
    for factory in ("SQfp16", "HNSW8", "PQ4x4"):
        with pytest.raises(UsageError, match=f"{factory} cannot be built in pieces: only inverted"):
            build(store, "pooled", tmp_path, factory, pieces=2)
    assert not list(tmp_path.rglob("index.*"))


def test_pieces_say_nothing_on_stdout(
    store: Store, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    build(store, "pooled", tmp_path / "a", "IVF8,Flat", pieces=2)
    (tmp_path / "a").rename(tmp_path / "b")
    open_index(store, "pooled", tmp_path / "b", "IVF8,Flat")
    assert capfd.readouterr().out == ""
