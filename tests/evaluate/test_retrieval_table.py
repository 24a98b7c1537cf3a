from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from scipy import stats

from pa.errors import MismatchError, UnknownNameError, UsageError
from pa.evaluate.result_files import read_result
from pa.evaluate.retrieval import evaluate_all_pairs
from pa.evaluate.retrieval_table import RETRIEVAL_PROTOCOLS, better_encoded, score_stores
from pa.evaluate.rows import block_representations, read_vectors, rows_to_score
from pa.progress import Silent
from tests.support.parts import MakeParts, birds, features_of

PAPER = RETRIEVAL_PROTOCOLS["paper"]


def score(stores, representations=(), protocol=PAPER, target="label", results=Path("results")):  # type: ignore[no-untyped-def]
    return score_stores(
        stores,
        representations,
        results=results,
        protocol=protocol,
        target=target,
        progress=Silent(),
    )


def test_result_table_holds_scores_of_queries(make_parts: MakeParts) -> None:
    store = make_parts()
    scored, _ = score([store])
    assert [entry.representation for entry in scored] == ["cls", "pooled", "projected"]
    for entry in scored:
        expected = evaluate_all_pairs(
            store.read(entry.representation), store.rows["label"].to_numpy()
        )
        queries = pl.read_parquet(entry.path.with_suffix(".parquet"))
        np.testing.assert_allclose(queries["ap"].to_numpy(), expected.ap)
        assert queries["row"].to_list() == store.rows["row"].to_list()
        assert queries["label"].to_list() == store.rows["label"].to_list()
        fields = read_result(entry.path).result.to_json()
        by_part = queries.group_by("label").agg(pl.col("ap").mean(), pl.col("chance").mean())
        assert fields["scores"]["ap"]["value"] == pytest.approx(queries["ap"].mean())
        for level in ("chance", "prior"):
            assert fields["scores"]["ap"][level] == pytest.approx(queries[level].mean())
        wide, fixed = (fields["scores"]["ap"][f"interval{of}"] for of in ("", "_fixed_gallery"))
        assert wide[1] - wide[0] > fixed[1] - fixed[0]
        by_image = queries.group_by("image").agg(pl.col("influence").sum())["influence"].to_numpy()
        half = stats.t.ppf(0.975, len(by_image) - 1) * np.sqrt(
            np.square(by_image).sum() * len(by_image) / (len(by_image) - 1)
        )
        ends = [fields["scores"]["ap"]["value"] + sign * half for sign in (-1, 1)]
        assert wide == pytest.approx(ends)
        assert fields["scores"]["ap_over_parts"]["value"] == pytest.approx(by_part["ap"].mean())
        for label, ap, chance in by_part.iter_rows():
            assert fields["scores"][f"ap/{label}"]["value"] == pytest.approx(ap)
            assert fields["scores"][f"ap/{label}"]["chance"] == pytest.approx(chance)
        assert fields["stores"]["gallery"]["fingerprint"] == store.fingerprint
        assert fields["counts"]["queries"] == store.n_rows


def test_protocols_differ_in_including_the_query(make_parts: MakeParts) -> None:
    store = make_parts()
    (without,), _ = score([store], ["cls"])
    (with_self,), _ = score([store], ["cls"], RETRIEVAL_PROTOCOLS["released"])
    assert (with_self.pairs.ap >= without.pairs.ap).all()
    assert with_self.path != without.path
    assert without.pairs.candidates == store.n_rows - 1
    assert with_self.pairs.candidates == store.n_rows
    assert read_result(with_self.path).result.to_json()["protocol"]["changed"] == {}


def test_differences_are_paired(make_parts: MakeParts) -> None:
    first, second = make_parts("dino"), make_parts("mocov3")
    scored, paired = score([first, second], ["cls", "projected"])
    assert [entry.name for entry in paired] == [
        "dino: projected − cls",
        "mocov3: projected − cls",
        "cls: mocov3 − dino",
        "projected: mocov3 − dino",
    ]
    by_name = {(e.encoder, e.representation): e for e in scored}
    for entry in paired:
        values = entry.first.pairs.ap - entry.second.pairs.ap
        assert entry.scores["ap"].value == pytest.approx(values.mean())
        assert entry.scores["ap"].low <= entry.scores["ap"].value <= entry.scores["ap"].high
        assert read_result(entry.path).result.to_json()["scores"]["ap"]["value"] == pytest.approx(
            values.mean()
        )
    assert paired[2].first is by_name["mocov3", "cls"]


def test_better_of_cls_and_pooled_is_marked(make_parts: MakeParts) -> None:
    store = make_parts()
    scored, _ = score([store])
    best = max(scored[:2], key=lambda entry: entry.overall.value)
    assert better_encoded(scored) == [best]
    assert better_encoded(scored[1:]) == []


def test_bad_images_and_rows_without_label_are_left_out_and_counted(make_parts: MakeParts) -> None:
    rows = birds()
    unlabelled = rows["row"].is_in([0, 5])
    rows = rows.with_columns(
        pl.when(unlabelled).then(None).otherwise(pl.col(name)).alias(name)
        for name in ("label", "label_id")
    )
    store = make_parts(
        rows=rows,
        features={"cls": features_of(birds(), 12, 1.0)},
        bad_images=(7,),
    )
    scored, _ = score([store])
    n_bad = int((rows["image"] == 7).sum())
    counts = scored[0].result.counts
    assert (counts.left_out_bad, counts.left_out_unlabelled) == (n_bad, 2)
    assert counts.queries == len(rows) - n_bad - 2
    kept = pl.read_parquet(scored[0].path.with_suffix(".parquet"))["row"]
    assert not set(kept) & {0, 5, *rows.filter(pl.col("image") == 7)["row"]}


def test_part_that_occurs_once_has_no_score(make_parts: MakeParts) -> None:
    rows = birds()
    once = pl.when(pl.col("row") == 3)
    rows = rows.with_columns(
        once.then(pl.lit("beak")).otherwise(pl.col("label")).alias("label"),
        once.then(pl.lit(9)).otherwise(pl.col("label_id")).alias("label_id"),
    )
    store = make_parts(rows=rows, features={"cls": features_of(birds(), 12, 1.0)})
    scored, _ = score([store])
    counts = scored[0].result.counts
    assert counts.left_out_without_relevant == 1
    assert counts.queries == len(rows) - 1
    assert "beak" not in scored[0].parts
    assert pl.read_parquet(scored[0].path.with_suffix(".parquet"))["ap"][3] is None


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"protocol": "released"}, "different rules"),
        ({"rows": birds().head(50)}, "do not hold the same regions"),
        ({"bad_images": (3,)}, "could not read the same images"),
    ],
)
def test_stores_of_other_rows_do_not_belong_in_one_table(
    make_parts: MakeParts, change: dict[str, object], reason: str
) -> None:
    rows = change.get("rows", birds())
    other = make_parts("mae", features={"cls": features_of(rows, 12, 1.0)}, **change)  # type: ignore[arg-type]
    with pytest.raises(MismatchError, match=reason):
        score([make_parts(), other], ["cls"])


def test_faulty_vectors_are_named_by_row(make_parts: MakeParts) -> None:
    values = features_of(birds(), 12, 1.0)
    values[31] = 0
    with pytest.raises(UsageError, match=r"zeros.* row 31\b"):
        score([make_parts(features={"cls": values})])


def test_missing_representation_stops_before_computing(
    make_parts: MakeParts, workspace: Path
) -> None:
    with pytest.raises(UnknownNameError, match="logits"):
        score([make_parts()], ["cls", "logits"])
    assert not (workspace / "results").exists()


def test_maps_of_tokens_are_refused(make_parts: MakeParts) -> None:
    n = len(birds())
    store = make_parts(
        features={"cls": np.ones((n, 3), np.float32), "patch": np.ones((n, 4, 3), np.float32)}
    )
    with pytest.raises(UsageError, match=r"'patch'.* 4×3. One vector: cls"):
        score([store], ["patch"])


def test_target_column_is_used(make_parts: MakeParts) -> None:
    store = make_parts()
    scored, _ = score([store], ["cls"], target="class")
    assert scored[0].result.counts.classes == 5
    with pytest.raises(UnknownNameError, match="species"):
        score([store], ["cls"], target="species")
    with pytest.raises(UsageError, match="no two rows"):
        score([store], ["cls"], target="row")


def test_classes_keep_the_order_of_the_dataset(make_parts: MakeParts) -> None:
    assert rows_to_score(make_parts()).names == ("right eye", "right leg", "left wing", "tail")


def test_single_blocks(make_parts: MakeParts) -> None:
    rows = birds()
    layers = np.stack([features_of(rows, 12, noise) for noise in (4.0, 2.0, 0.5)], axis=1)
    store = make_parts(
        features={"cls": layers[:, 2], "layers_cls": layers, "layers_pooled": layers[:, ::-1]},
        layers=(2, 5, 11),
    )
    names = block_representations(store, None)
    assert names == [f"layers_{kind}:{block}" for kind in ("cls", "pooled") for block in (2, 5, 11)]
    assert block_representations(store, [11, 2]) == [names[0], names[2], names[3], names[5]]
    np.testing.assert_array_equal(
        read_vectors(store, "layers_cls:5", np.array([4, 2])), layers[[4, 2], 1]
    )
    scored, paired = score([store], ["cls", *names])
    values = [entry.overall.value for entry in scored]
    assert values[0] == values[3] == values[4]  # the last block, the reversed first
    assert values[1] < values[2] < values[3]
    assert not paired
    for wrong in ("layers_cls:3", "layers_cls:x", "layers_cls", "cls:"):
        with pytest.raises(UsageError, match=r"keeps 2, 5, 11|layers_cls:BLOCK|unknown repr"):
            score([store], [wrong])
    with pytest.raises(UsageError, match="no block 7"):
        block_representations(store, [7])
    with pytest.raises(UsageError, match="--layers 2,5,8,11 --features"):
        block_representations(make_parts("mae"), None)
