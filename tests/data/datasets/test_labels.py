"""The label lists are frozen: their sizes, their order and their text."""

from __future__ import annotations

import hashlib

import pytest

from pa.data.datasets.segmentation import labels
from pa.errors import UnknownNameError

# SHA-256 of the class names, one a line. A change would silently renumber every mask in the world.
FROZEN = {
    "ade20k": (150, "f9dbd8a75a0722c9"),
    "ade20k-object": (59, "10270d168864d191"),
    "ade20k-part": (209, "195dc44360cc216e"),
    "pascal-object": (16, "1694047a25573018"),
    "pascal-part": (193, "1a7e076bc8fb635d"),
    "lip": (19, "540698b0a9257999"),
}


@pytest.mark.parametrize("name", FROZEN)
def test_load_returns_the_frozen_list(name: str) -> None:
    label_set = labels.load(name)
    n, digest = FROZEN[name]
    assert len(label_set) == label_set.paper_classes == n
    assert hashlib.sha256("\n".join(label_set.names).encode()).hexdigest()[:16] == digest
    assert [c.id for c in label_set.classes] == list(range(n))
    assert label_set.classes[0].value == 1
    assert len(set(label_set.names)) == n
    assert label_set.source
    assert label_set.rule


def test_label_sets_are_unchanged() -> None:
    assert set(FROZEN) == set(labels.LABEL_SETS)


def test_provenance_states_the_doubt_about_the_209_parts() -> None:
    provenance = labels.load("ade20k-part").provenance()
    assert "cannot be recovered" in provenance["certainty"]
    assert len(provenance["sha256"]) == 64


def test_pascal_parts_belong_to_the_16_classes() -> None:
    objects = {c.name for c in labels.load("pascal-object").classes}
    parts = labels.load("pascal-part").classes
    assert {c.object for c in parts} == objects
    by_object = {
        name: sum(c.object == name for c in parts) for name in ("person", "aeroplane", "tvmonitor")
    }
    assert by_object == {"person": 24, "aeroplane": 7, "tvmonitor": 1}


def test_load_suggests_a_name() -> None:
    with pytest.raises(UnknownNameError, match=r"unknown label set 'lib'. Did you mean lip"):
        labels.load("lib")
