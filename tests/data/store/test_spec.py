"""The fingerprint changes with everything that changes features, and with nothing else."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import polars as pl
import pytest

from pa.data.store.spec import Spec, canonical_json, describe, digest_rows

SPEC = Spec(
    dataset="imagenet",
    split="val",
    view={"name": "grid", "window": 56},
    encoder={"name": "deit", "weights_sha256": "ab" * 32, "architecture": {}, "options": {}},
    transform={"size": 224},
    precision={"compute": "fp32", "storage": "fp16"},
    representations={"cls": [768]},
    rows={"n": 49, "n_images": 1, "sha256": "cd" * 32},
)

CHANGES: list[tuple[str, Any]] = [
    ("dataset", "folder"),
    ("split", "train"),
    ("view", {"name": "grid", "window": 64}),
    ("encoder", {**SPEC.encoder, "weights_sha256": "00" * 32}),
    ("transform", {"size": 384}),
    ("precision", {"compute": "bf16", "storage": "fp16"}),
    ("representations", {"cls": [768], "pooled": [768]}),
    ("rows", {**SPEC.rows, "sha256": "00" * 32}),
    ("limit", 5),
]


@pytest.mark.parametrize(("field", "value"), CHANGES, ids=[name for name, _ in CHANGES])
def test_fingerprint_changes_with_every_field(field: str, value: Any) -> None:
    assert replace(SPEC, **{field: value}).fingerprint != SPEC.fingerprint


def test_fingerprint_is_the_same_on_every_machine() -> None:
    # Computed once and frozen here: a change would orphan every store in the world.
    assert SPEC.short == "b680c899c825fa36"
    reordered = Spec(**dict(reversed(list(SPEC.to_json().items()))))
    assert reordered.fingerprint == SPEC.fingerprint


def test_recipe_ignores_which_rows_there_are() -> None:
    other = replace(SPEC, split="train", rows={"n": 1, "n_images": 1, "sha256": "0"}, limit=3)
    assert other.recipe == SPEC.recipe
    assert replace(SPEC, transform={"size": 1}).recipe != SPEC.recipe


def test_differences_name_only_what_differs() -> None:
    other = replace(SPEC, encoder={**SPEC.encoder, "weights_sha256": "00" * 32}, limit=5)
    differences = SPEC.differences(other)
    assert [name for name, _, _ in differences] == ["encoder.weights_sha256", "limit"]
    text = describe(differences)
    assert "none  →  5" in text
    assert "abababababababababab…abababababababababab  →  0000" in text


def test_canonical_json_is_stable() -> None:
    assert canonical_json({"b": [1, 2.5], "a": None}) == '{"a":null,"b":[1,2.5]}'


def test_row_digest_sees_values_types_and_names() -> None:
    table = pl.DataFrame({"a": [1, 2], "b": ["x", None]})
    same = digest_rows(table)
    assert digest_rows(table.clone()) == same
    assert digest_rows(table.with_columns(a=pl.Series([1, 3]))) != same
    assert digest_rows(table.cast({"a": pl.Int32})) != same
    assert digest_rows(table.rename({"a": "c"})) != same
    # Frozen, as the fingerprint is: it must not change with the version of polars.
    assert same.startswith("6d85958955a28b33")
    # A missing value is not an empty text, nor a zero.
    assert digest_rows(table.with_columns(a=pl.Series([1, None]))) != digest_rows(
        table.with_columns(a=pl.Series([1, 0]))
    )
    assert digest_rows(table.with_columns(b=pl.Series(["x", ""]))) != same
