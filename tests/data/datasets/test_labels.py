"""The label lists are frozen: their sizes, their order and their text."""

from __future__ import annotations

import hashlib

import pytest

from pa.data.datasets.segmentation import labels
from pa.errors import UnknownNameError

# SHA-256 of the class names, one a line. A change would silently renumber every mask in the world.
FROZEN = {
    ("ade20k", "default"): (150, "f9dbd8a75a0722c9"),
    ("ade20k-object", "default"): (59, "10270d168864d191"),
    ("ade20k-part", "default"): (209, "195dc44360cc216e"),
    ("ade20k-part", "level1"): (209, "98bd2d9ff41c9d29"),
    ("ade20k-part", "pairs50"): (209, "2948af8dc3e56600"),
    ("pascal-object", "default"): (16, "1694047a25573018"),
    ("pascal-part", "default"): (193, "1a7e076bc8fb635d"),
    ("lip", "default"): (19, "540698b0a9257999"),
}


@pytest.mark.parametrize(("name", "list_name"), list(FROZEN))
def test_lists_are_frozen(name: str, list_name: str) -> None:
    label_set = labels.load(name, list_name)
    n, digest = FROZEN[name, list_name]
    assert len(label_set) == label_set.paper_classes == n
    assert hashlib.sha256("\n".join(label_set.names).encode()).hexdigest()[:16] == digest
    assert [c.id for c in label_set.classes] == list(range(n))
    assert label_set.classes[0].value == 1
    assert len(set(label_set.names)) == n
    assert label_set.source
    assert label_set.rule


def test_every_list_is_listed_here() -> None:
    assert set(FROZEN) == {(name, one) for name, lists in labels.LISTS.items() for one in lists}


def test_the_doubt_about_the_209_is_part_of_the_list() -> None:
    for name in labels.LISTS["ade20k-part"]:
        provenance = labels.load("ade20k-part", name).provenance()
        assert "cannot be recovered" in provenance["certainty"]
        assert len(provenance["sha256"]) == 64
    assert labels.load("ade20k-part", "pairs50").label == "ade20k-part (pairs50)"
    assert labels.load("lip").label == "lip"


def test_pascal_parts_belong_to_the_16_classes() -> None:
    objects = {c.name for c in labels.load("pascal-object").classes}
    parts = labels.load("pascal-part").classes
    assert {c.object for c in parts} == objects
    by_object = {
        name: sum(c.object == name for c in parts) for name in ("person", "aeroplane", "tvmonitor")
    }
    assert by_object == {"person": 24, "aeroplane": 7, "tvmonitor": 1}


def test_pairs_are_of_48_of_the_59_objects() -> None:
    objects = {c.name for c in labels.load("ade20k-object").classes}
    owners = {c.object for c in labels.load("ade20k-part", "pairs50").classes}
    assert len(owners) == 48
    assert owners <= objects


def test_unknown_names() -> None:
    with pytest.raises(UnknownNameError, match=r"unknown label set 'lib'. Did you mean lip"):
        labels.load("lib")
    with pytest.raises(
        UnknownNameError, match=r"unknown list of ade20k-part 'level2'. Did you mean level1"
    ):
        labels.load("ade20k-part", "level2")
