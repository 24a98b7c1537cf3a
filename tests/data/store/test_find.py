"""Choosing among the stores of a workspace."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from pa.data.schema import in_schema
from pa.data.store.find import StoreSelector, choose, find, protocol, store_directory
from pa.data.store.reader import Store
from pa.data.store.spec import Spec, digest_rows
from pa.data.store.writer import create
from pa.data.views import VIEWS
from pa.data.views.base import View
from pa.data.views.parts import PROTOCOLS
from pa.errors import AmbiguousError, MissingError, UnknownNameError

Make = Callable[..., Store]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Begin a store of one row; what is not begun by `pa extract` is not complete."""

    def begin(view: View, encoder: str = "deit", **spec: Any) -> Store:
        numbers = {"image": 0, "x0": 0, "y0": 0, "x1": 9, "y1": 9, "file_bytes": 1}
        texts = {"path": "a.jpg", "label": "tail", "label_id": 0}
        rows = in_schema(pl.DataFrame([numbers | texts]))
        fields: dict[str, Any] = {
            "dataset": "cub",
            "split": "all",
            "view": view.to_json(),
            "encoder": {"name": encoder},
            "transform": {},
            "precision": {"compute": "fp32", "storage": "fp16"},
            "representations": {"cls": [4]},
            "rows": {"n": 1, "n_images": 1, "sha256": digest_rows(rows)},
            **spec,
        }
        new_spec = Spec(**fields)
        folder = store_directory(tmp_path, new_spec.dataset, new_spec.split, view.name, encoder)
        return create(folder / new_spec.short, new_spec, rows, {"root": "/"}, 64)

    return begin


def titles(tmp_path: Path, **query: Any) -> set[str]:
    return {store.title for store in find(tmp_path, StoreSelector(**query))}


def test_protocol_selects_part_stores(make: Make, tmp_path: Path) -> None:
    by = {name: make(PROTOCOLS[name]) for name in ("paper", "released", "released-train")}
    grid = make(VIEWS["grid"])
    assert {name: protocol(store) for name, store in by.items()} == {name: name for name in by}
    assert protocol(grid) is None
    for name, store in by.items():
        assert titles(tmp_path, protocol=name) == {store.title}
    assert len(titles(tmp_path)) == 4


def test_changed_rule_belongs_to_closest_protocol(make: Make) -> None:
    assert protocol(make(replace(PROTOCOLS["released"], min_d=50.0))) == "released"


def test_views_without_protocol_are_accepted_silently(make: Make, tmp_path: Path) -> None:
    make(PROTOCOLS["paper"])
    make(VIEWS["grid"], dataset="imagenet")
    with pytest.raises(MissingError, match=r"the store .*imagenet.* is not complete"):
        choose(tmp_path, StoreSelector(dataset="imagenet", protocol="released"))
    with pytest.raises(MissingError, match="--protocol released"):
        choose(tmp_path, StoreSelector(dataset="cub", protocol="released"))


def test_unknown_protocol_is_named(make: Make, tmp_path: Path) -> None:
    make(VIEWS["grid"])
    with pytest.raises(UnknownNameError, match="Did you mean released"):
        choose(tmp_path, StoreSelector(protocol="relesed"))


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ({"encoder": "diet"}, "Did you mean --encoder deit?"),
        ({"dataset": "cubb", "split": "al"}, "Did you mean --dataset cub --split all?"),
    ],
)
def test_misspelled_name_suggests_existing_one(
    make: Make, tmp_path: Path, wanted: dict[str, str], message: str
) -> None:
    make(PROTOCOLS["paper"])
    with pytest.raises(MissingError) as raised:
        choose(tmp_path, StoreSelector(**wanted))
    assert message in str(raised.value)
    with pytest.raises(MissingError) as raised:
        choose(tmp_path, StoreSelector(encoder="mocov3"))
    assert "Did you mean" not in str(raised.value)


def test_choices_show_distinguishing_fields(make: Make, tmp_path: Path) -> None:
    make(PROTOCOLS["paper"])
    make(PROTOCOLS["released"])
    make(replace(PROTOCOLS["released"], min_d=50.0))
    with pytest.raises(AmbiguousError) as raised:
        choose(tmp_path, StoreSelector())
    lines = str(raised.value).splitlines()[1:]
    assert sum("--protocol released " in line for line in lines) == 2
    paper = next(line for line in lines if "--protocol paper " in line)
    assert paper.endswith("# 1 rows, not complete")
    assert any("view.min_d 50.0" in line for line in lines)
    assert not any("rows." in line for line in lines)
