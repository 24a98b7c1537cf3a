from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pa.data.store.reader import Store
from pa.data.views.parts import PROTOCOLS
from pa.errors import FingerprintError, UnknownNameError, UsageError
from pa.probe.holdout import hold_out
from pa.probe.recipes import permitted_differences
from pa.probe.selection import SplitOptions, split_rows
from tests.support.arrays import MakeStore, blobs


@pytest.fixture
def store(make_store: MakeStore) -> Store:
    """12 images with 4 rows each, 3 classes, one class per image."""
    features, _ = blobs(48)
    images = np.repeat(np.arange(12), 4).tolist()
    return make_store({"cls": features}, [f"c{image % 3}" for image in images], images)


# -- two stores ------------------------------------------------------------------------------------


def test_stores_share_class_index_by_name(make_store: MakeStore) -> None:
    features, labels = blobs(12)
    train = make_store({"cls": features}, labels)
    test = make_store({"cls": features[:2]}, ["c2", "c0"], split="val")
    split = split_rows(train, test, SplitOptions())
    assert split.rule == "two stores"
    assert split.classes == ("c2", "c1", "c0")  # the order of label_id, not of the alphabet
    assert split.train.targets.tolist()[:3] == [2, 1, 0]
    assert split.test.targets.tolist() == [0, 2]
    assert split.counts()["shared_images"] == 0


def test_conditions_apply_to_each_side(make_store: MakeStore) -> None:
    features, labels = blobs(12)
    train = make_store({"cls": features}, labels)
    test = make_store({"cls": features}, labels, split="val")
    options = SplitOptions(where="image < 9", train_where="x0 = 0", test_where="x0 = 112")
    split = split_rows(train, test, options)
    assert split.train.rows.tolist() == [0, 2, 4, 6, 8]
    assert split.test.rows.tolist() == [1, 3, 5, 7]


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        ({"encoder": {"name": "other", "weights_sha256": "ab" * 32}}, "encoder.name"),
        ({"encoder": {"name": "timm/ramp", "weights_sha256": "cd" * 32}}, "weights_sha256"),
        ({"view": {"name": "image"}}, "view.name"),
        ({"transform": {"size": 384}}, "transform.size"),
        ({"precision": {"compute": "fp32", "storage": "fp16"}}, "precision.storage"),
    ],
)
def test_stores_made_differently(
    make_store: MakeStore, changed: dict[str, Any], field: str
) -> None:
    features, labels = blobs(6)
    train = make_store({"cls": features}, labels)
    test = make_store({"cls": features}, labels, split="val", **changed)
    with pytest.raises(FingerprintError, match="were encoded differently") as caught:
        split_rows(train, test, SplitOptions())
    assert field in str(caught.value)
    assert "split" not in str(caught.value).split("\n", 1)[1].split("Extract")[0]
    assert caught.value.exit_code == 4


def test_wider_vector_is_a_mismatch(make_store: MakeStore) -> None:
    train = make_store({"cls": blobs(6)[0]}, blobs(6)[1])
    test = make_store({"cls": blobs(6, width=7)[0]}, blobs(6)[1], split="val")
    with pytest.raises(FingerprintError, match=r"representations\.cls"):
        split_rows(train, test, SplitOptions())


def test_limit_and_further_representations_may_differ(make_store: MakeStore) -> None:
    features, labels = blobs(6)
    train = make_store({"cls": features, "pooled": features}, labels)
    test = make_store({"cls": features}, labels, split="val", limit=6)
    assert len(split_rows(train, test, SplitOptions()).test.rows) == 6


def test_stores_with_common_rows_are_refused(make_store: MakeStore) -> None:
    features, labels = blobs(12)
    train = make_store({"cls": features}, labels)
    part = make_store({"cls": features[:6]}, labels[:6], limit=6)
    with pytest.raises(UsageError, match="6 of 6 test rows are training rows too"):
        split_rows(train, part, SplitOptions())


def test_same_store_twice_is_refused(store: Store) -> None:
    with pytest.raises(UsageError, match="are the same store, toy/train/grid/timm/ramp") as caught:
        split_rows(store, store, SplitOptions())
    assert "leave --test-split out" in str(caught.value)
    assert caught.value.exit_code == 2


def test_unseen_test_label(make_store: MakeStore) -> None:
    features, labels = blobs(6)
    train = make_store({"cls": features}, labels)
    test = make_store({"cls": features}, ["c0", "new", "c1", "odd", "new", None], split="val")
    with pytest.raises(UsageError, match="a label that no training row has: 'new', 'odd'"):
        split_rows(train, test, SplitOptions())


# -- filters ---------------------------------------------------------------------------------------


def test_filters(store: Store) -> None:
    options = SplitOptions(train_where="x1 <= 112", test_where="x0 >= 112")
    split = split_rows(store, None, options)
    assert split.rule == "filters"
    assert split.train.rows.tolist() == list(range(0, 48, 2))
    assert split.test.rows.tolist() == list(range(1, 48, 2))
    assert split.counts() == {
        "classes": 3,
        "train_rows": 24,
        "train_images": 12,
        "train_left_out_bad": 0,
        "train_left_out_unlabelled": 0,
        "test_rows": 24,
        "test_images": 12,
        "test_left_out_bad": 0,
        "test_left_out_unlabelled": 0,
        "shared_images": 12,
    }
    assert split_rows(store, store, options).to_json() == split.to_json()


def test_overlapping_filters(store: Store) -> None:
    options = SplitOptions(train_where="row < 30", test_where="row >= 20")
    with pytest.raises(UsageError, match="10 of 28 test rows are training rows too") as caught:
        split_rows(store, None, options)
    assert "conditions exclude each other" in str(caught.value)


@pytest.mark.parametrize(("values", "other"), [("train", "test"), ("test", "train")])
def test_single_condition_is_refused(store: Store, values: str, other: str) -> None:
    options = SplitOptions(**{f"{values}_where": "row < 3"})  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=f"--{values}-where on one store needs --{other}-where"):
        split_rows(store, None, options)


@pytest.mark.parametrize(
    ("where", "reason"),
    [
        ("x1 <=", "unable to parse"),
        ("width < 3", 'unable to find column "width"'),
        ("x1 + 1", "must be of type `Boolean`"),
        ("x1 < 'a'", "cannot compare string with numeric"),
    ],
)
def test_condition_that_cannot_be_read(store: Store, where: str, reason: str) -> None:
    with pytest.raises(UsageError, match="cannot select rows by") as caught:
        split_rows(store, None, SplitOptions(where=where))
    assert reason in str(caught.value)
    assert "the columns row, image, path, x0, y0, x1, y1, label, label_id" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2


def test_condition_that_selects_nothing(store: Store) -> None:
    with pytest.raises(UsageError, match=r"no row of toy/.* fulfils 'x1 < 0' \(48 rows\)"):
        split_rows(store, None, SplitOptions(where="x1 < 0"))


# -- held out --------------------------------------------------------------------------------------


def test_held_out_keeps_images_whole_and_classes_on_both_sides(store: Store) -> None:
    split = split_rows(store, None, SplitOptions(test_fraction=0.25))
    assert split.rule == "held out"
    assert not set(split.train.images) & set(split.test.images)
    assert len(split.train.rows) + len(split.test.rows) == 48
    assert np.bincount(split.test.targets).tolist() == [4, 4, 4]
    assert np.bincount(split.train.targets).tolist() == [12, 12, 12]


def test_held_out_follows_the_seed(store: Store) -> None:
    chosen = [
        tuple(split_rows(store, None, SplitOptions(seed=seed)).test.rows) for seed in (0, 0, 1, 2)
    ]
    assert chosen[0] == chosen[1]
    assert len(set(chosen)) == 3


def test_effective_choices_alone_are_recorded(store: Store) -> None:
    held_out = split_rows(store, None, SplitOptions(seed=3)).to_json()
    assert (held_out["seed"], held_out["test_fraction"]) == (3, 0.2)
    options = SplitOptions(train_where="row < 24", test_where="row >= 24", seed=3)
    assert split_rows(store, None, options).to_json()["seed"] is None


def test_classes_with_one_image_cannot_be_held_out(make_store: MakeStore) -> None:
    features, _ = blobs(4)
    store = make_store({"cls": features}, ["a", "a", "b", "c"])
    with pytest.raises(UsageError, match="classes that have only one image: 'c', 'b'") as caught:
        split_rows(store, None, SplitOptions())
    assert '--train-where "x1 <= 112" --test-where "x0 >= 112"' in str(caught.value)


def test_hold_out_with_several_classes_per_image() -> None:
    generator = np.random.default_rng(0)
    images = np.repeat(np.arange(200), 4)
    class_of = generator.choice(5, size=800, p=[0.5, 0.25, 0.15, 0.07, 0.03])
    test = hold_out(images, class_of, list("abcde"), 0.2, 1)
    pairs = np.unique(np.stack([class_of, images], 1), axis=0)
    for index in range(5):
        of_class = pairs[pairs[:, 0] == index, 1]
        assert np.isin(of_class, test).mean() == pytest.approx(0.2, abs=0.06)


def test_hold_out_where_images_tie_the_classes() -> None:
    images = np.array([0, 1, 1, 2, 0, 2])
    class_of = np.array([0, 0, 1, 1, 2, 2])
    with pytest.raises(UsageError, match="share their images with others"):
        hold_out(images, class_of, list("abc"), 0.5, 0)


def test_long_list_of_names_is_shortened() -> None:
    with pytest.raises(UsageError, match=r"'0', '1', '2', '3', '4', … \(7 in all\)"):
        hold_out(np.arange(7), np.arange(7), [str(i) for i in range(7)], 0.5, 0)


@pytest.mark.parametrize("fraction", [0.0, 1.0, -1.0])
def test_fraction_outside(fraction: float) -> None:
    with pytest.raises(UsageError, match="between 0 and 1"):
        SplitOptions(test_fraction=fraction)


# -- rows left out, labels, features ---------------------------------------------------------------


def test_bad_images_and_missing_labels_are_left_out_and_counted(make_store: MakeStore) -> None:
    features, _ = blobs(12)
    images = np.repeat(np.arange(6), 2).tolist()
    labels = ["a", "a", "b", "b", "a", None, "b", "b", None, None, "a", "b"]
    store = make_store({"cls": features}, labels, images, bad_images=(1, 4))
    options = SplitOptions(train_where="image < 3", test_where="image >= 3", where="row != 0")
    with pytest.raises(UsageError, match="all training rows have the label 'a'"):
        split_rows(store, None, options)
    options = SplitOptions(train_where="image < 4", test_where="image >= 4")
    split = split_rows(store, None, options)
    assert split.train.rows.tolist() == [0, 1, 4, 6, 7]
    assert (split.train.n_bad, split.train.n_unlabelled) == (2, 1)
    assert split.test.rows.tolist() == [10, 11]
    assert (split.test.n_bad, split.test.n_unlabelled) == (2, 0)


def test_store_without_labels_is_refused(make_store: MakeStore) -> None:
    store = make_store({"cls": blobs(4)[0]}, [None] * 4)
    with pytest.raises(UsageError, match=r"none of the 4 chosen rows .* sub-folder") as caught:
        split_rows(store, None, SplitOptions())
    assert "readable" not in str(caught.value)


def test_store_without_readable_labelled_image_is_refused(make_store: MakeStore) -> None:
    labels = ["a", "b", None, None]
    store = make_store({"cls": blobs(4)[0]}, labels, [0, 0, 1, 1], bad_images=(0,))
    with pytest.raises(UsageError, match=r"none of the 4 chosen rows .* readable image"):
        split_rows(store, None, SplitOptions())


def test_target_column_can_be_changed(make_store: MakeStore) -> None:
    images = np.repeat([10, 9], 4).tolist()
    store = make_store({"cls": blobs(8)[0]}, [None] * 8, images, extra={"part": ["eye"] * 8})
    options = SplitOptions(target="image", train_where="x0 = 0", test_where="x0 = 112")
    split = split_rows(store, None, options)
    assert split.classes == ("9", "10")  # in the order of numbers
    assert split.test.targets.tolist() == [1, 1, 0, 0]
    with pytest.raises(UsageError, match="all training rows have the part 'eye'"):
        split_rows(store, None, SplitOptions(target="part"))


def test_unknown_target(store: Store) -> None:
    with pytest.raises(
        UnknownNameError, match=r"unknown target column 'lable'. Did you mean label"
    ):
        split_rows(store, None, SplitOptions(target="lable"))


def test_read_gives_the_chosen_rows(make_store: MakeStore) -> None:
    features, labels = blobs(40)
    store = make_store({"cls": features}, labels)
    split = split_rows(store, None, SplitOptions(where="row > 5", test_fraction=0.3))
    assert sorted([*split.train.rows, *split.test.rows]) == list(range(6, 40))
    for side in (split.train, split.test):
        rows = side.read("cls")
        np.testing.assert_array_equal(rows.features, features[side.rows])
        assert rows.features.dtype == np.float32
        assert [split.classes[t] for t in rows.targets] == [labels[r] for r in rows.rows]


def test_half_precision_is_kept(make_store: MakeStore) -> None:
    features, labels = blobs(6)
    precision = {"compute": "fp32", "storage": "fp16"}
    store = make_store({"cls": features}, labels, precision=precision)
    rows = split_rows(store, None, SplitOptions(test_fraction=0.5)).train.read("cls")
    assert rows.features.dtype == np.float16


def test_representations_side_by_side(make_store: MakeStore) -> None:
    features, labels = blobs(12)
    store = make_store({"cls": features, "pooled": 2 * features[:, :3]}, labels)
    side = split_rows(store, None, SplitOptions(test_fraction=0.5)).train
    both = side.read("cls+pooled").features
    np.testing.assert_array_equal(both[:, :5], features[side.rows])
    np.testing.assert_array_equal(both[:, 5:], 2 * features[side.rows, :3])
    with pytest.raises(
        UnknownNameError, match=r"unknown representation 'poold'\. Did you mean pool"
    ):
        side.read("cls+poold")


def test_side_can_be_subset(store: Store) -> None:
    side = split_rows(store, None, SplitOptions()).train
    part = side.part(side.targets == 1)
    assert (part.targets == 1).all()
    assert set(part.rows) == set(side.rows[side.targets == 1])


# -- stores of two protocols -----------------------------------------------------------------------


def parts(name: str) -> dict[str, Any]:
    return PROTOCOLS[name].to_json()


def test_permitted_difference_of_recipe_is_accepted_alone(make_store: MakeStore) -> None:
    features, labels = blobs(12)
    stores = {
        name: make_store({"cls": features}, labels, split=name, view=parts(name))
        for name in ("paper", "released", "released-train")
    }
    named = permitted_differences("released")
    assert named == (("view.resize", 256, 224),)
    options = SplitOptions()
    split = split_rows(stores["released-train"], stores["released"], options, named)
    assert len(split.test.rows) == 12
    for train, test, permitted, field in [
        ("released-train", "released", (), "view.resize"),
        ("released", "released-train", named, "view.resize"),  # the other way round
        ("released-train", "paper", named, "view.side"),
        ("paper", "released", permitted_differences("paper"), "view.min_d"),
    ]:
        with pytest.raises(FingerprintError, match="were encoded differently") as caught:
            split_rows(stores[train], stores[test], options, permitted)
        assert field in str(caught.value)


def test_token_map_is_refused(make_store: MakeStore) -> None:
    features, labels = blobs(6)
    store = make_store({"cls": features, "patch": np.stack([features] * 2, 1)}, labels)
    train = split_rows(store, None, SplitOptions(test_fraction=0.5)).train
    with pytest.raises(UsageError, match=r"'patch' is 2×5. One vector: cls"):
        train.read("patch")
    with pytest.raises(UsageError, match="holds no pooled; it holds cls, patch"):
        train.read("pooled")
