"""Two stores of view `parts`, one per protocol: --protocol selects one."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from pa.data import datasets
from pa.data.store.reader import Store
from pa.data.views.parts import PROTOCOLS
from tests.support.trees import write_cub
from tests.support.vectors import Run, write_store

PARTS = ("right eye", "right leg", "left wing", "tail", "beak")


@pytest.fixture
def stores(in_empty_folder: Path) -> dict[str, Store]:
    generator = np.random.default_rng(3)
    birds = [
        {part: tuple(generator.integers(30, 270, 2).astype(float).tolist()) for part in PARTS}
        for _ in range(12)
    ]
    root = write_cub(in_empty_folder / "cub", birds, train=(1, 2, 3), size=(400, 300))
    (in_empty_folder / "pa.toml").write_text(f'[datasets.cub]\nroot = "{root}"\n')
    images = datasets.load("cub", "cub", root, "all")
    result = {}
    for name in ("paper", "released"):
        view = PROTOCOLS[name]
        vectors = generator.normal(size=(len(view.rows(images)), 8)).astype(np.float32)
        result[name] = write_store(in_empty_folder / "features", images, view, {"pooled": vectors})
    return result


def test_protocols_select_different_stores(stores: dict[str, Store]) -> None:
    """Otherwise the tests below could not distinguish the stores."""
    assert stores["paper"].path.parent == stores["released"].path.parent
    boxes = [store.rows.select("x0", "y0", "x1", "y1").rows() for store in stores.values()]
    assert boxes[0] != boxes[1]


@pytest.mark.parametrize("name", ["paper", "released"])
def test_search_and_build_take_the_store_of_the_protocol(
    pa: Run, stores: dict[str, Store], name: str
) -> None:
    code, out, err = pa("index", "build", "--protocol", name, "--json")
    assert code == 0, err
    assert [b["store"] for b in json.loads(out)["indexes"]] == [stores[name].title]
    code, out, err = pa("search", "--query-id", 2, "-k", 5, "--protocol", name, "--json")
    assert (code, err) == (0, "")
    result = json.loads(out)["results"][0]
    assert (result["store"], result["protocol"]) == (stores[name].title, name)
    code, out, _ = pa("search", "--query-id", 2, "-k", 5, "--protocol", name, "--figure", "f.png")
    assert (code, f"{stores[name].title}, protocol {name}" in out) == (0, True)
    vectors = stores[name].read("pooled").astype(np.float64)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    cosines = unit @ unit[2]
    cosines[2] = -2
    assert [n["row"] for n in result["neighbours"]] == np.argsort(-cosines)[:5].tolist()
    assert result["query"]["box"] == list(stores[name].rows.row(2)[3:7])


def test_missing_protocol_lists_choices(pa: Run, stores: dict[str, Store]) -> None:
    code, out, err = pa("search", "--query-id", 2)
    assert (code, out) == (2, "")
    assert "2 stores fit" in err
    for name in ("paper", "released"):
        assert f"--view parts --protocol {name} --encoder given --store " in err
    code, _, err = pa("index", "build")
    assert code == 2
    assert "2 stores fit" in err


def test_both_protocols_are_indexed(pa: Run, stores: dict[str, Store]) -> None:
    built = json.loads(pa("index", "build", "--protocol", "paper,released", "--json")[1])
    assert [b["store"] for b in built["indexes"]] == [store.title for store in stores.values()]


def test_protocol_defaults_to_dataset_setting(pa: Run, stores: dict[str, Store]) -> None:
    with Path("pa.toml").open("a") as file:
        file.write('protocol = "released"\n')
    words = ("search", "--query-id", 2, "-k", 3, "--dataset", "cub", "--json")
    assert json.loads(pa(*words)[1])["results"][0]["store"] == stores["released"].title
    again = json.loads(pa(*words, "--protocol", "paper")[1])
    assert again["results"][0]["store"] == stores["paper"].title


def test_protocol_without_store_is_reported(pa: Run, stores: dict[str, Store]) -> None:
    code, _, err = pa("search", "--query-id", 2, "--protocol", "released-train")
    assert code == 3
    assert "no store for --protocol released-train" in err
    assert "--protocol paper" in err  # the existing store
