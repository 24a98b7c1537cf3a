"""Results with made-up numbers, for tests of files and commands."""

from __future__ import annotations

from pa.evaluate.classification import Accuracy, Chance, Scores
from pa.evaluate.intervals import Interval
from pa.evaluate.result_parts import (
    RecordedProtocol,
    SplitCounts,
    SplitSelection,
    StoreReference,
    TrainTest,
)
from pa.evaluate.results import LinearProbeResult

STORE = StoreReference(
    title="cub/test/parts/timm/vit/0123",
    fingerprint="01" * 32,
    checksum="ab" * 16,
    dataset="cub",
    split="test",
    view="parts",
    encoder="timm/vit",
    limit=None,
    spec={"encoder": {}, "view": {}, "transform": {}, "precision": {}, "rows": {}},
)


def linear_result(store: StoreReference = STORE, accuracy: float = 1 / 3) -> LinearProbeResult:
    """Return a result of a linear probe on held-out rows of a store."""
    score = Accuracy(accuracy, 3, 3, Interval(1e-7, 0.5, "wilson over rows"), Chance(0.3, 0.25))
    return LinearProbeResult(
        protocol=RecordedProtocol({"protocol": "paper", "epochs": 90, "changed": {}}),
        stores=TrainTest(store, store),
        representation="pooled",
        selection=SplitSelection("held out", "label", test_fraction=0.2, seed=0),
        counts=SplitCounts(
            classes=4,
            train_rows=10,
            train_images=5,
            train_left_out_bad=0,
            train_left_out_unlabelled=0,
            test_rows=3,
            test_images=3,
            test_left_out_bad=0,
            test_left_out_unlabelled=0,
            shared_images=0,
        ),
        scores={"accuracy": Scores(**vars(score), std=None, each=(score,))},
        seconds={"train": 1.23456},
    )
