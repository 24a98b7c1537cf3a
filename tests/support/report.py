"""A workspace of result files, written as the commands write them, whose numbers are known."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from pa.data.store.spec import Spec
from pa.data.views.parts import PROTOCOLS
from pa.data.views.windows import WindowsView
from pa.evaluate.bootstrap import bootstrap_means
from pa.evaluate.classification import Accuracy, Chance, Scores
from pa.evaluate.intervals import Interval
from pa.evaluate.result_files import write_result
from pa.evaluate.result_parts import (
    Gallery,
    LabelsReference,
    RecordedProtocol,
    RetrievalCounts,
    SegmentationCounts,
    SegmentationSelection,
    SplitCounts,
    SplitSelection,
    StoreReference,
    TargetSelection,
    TrainTest,
)
from pa.evaluate.results import (
    AttentiveProbeResult,
    LinearProbeResult,
    Result,
    RetrievalResult,
    SegmentationProbeResult,
)
from pa.evaluate.segmentation import Measure
from pa.report.collection import ResultCollection, collect_results
from pa.report.report import Report, build

# The paper's model, as a store of it says.
VIT_B = {"network": "VisionTransformer", "width": 768, "depth": 12, "heads": 12, "patch": 16}
VIT_TI = {**VIT_B, "width": 192, "heads": 3}
DEIT_B_SHA256 = "b5f2ef4d" + "0" * 56
OPTIONS = {
    "dino": {"branch": "teacher"},
    "ibot": {"branch": "teacher"},
    "mocov3": {"branch": "base"},
    "mae": {"token_order": "natural"},
}
RELEASED_TRAIN = "released-train"


def encoder_json(name: str, **changed: Any) -> dict[str, Any]:
    """The encoder of a spec: the paper's, but for what is changed."""
    result = {
        "name": name,
        "weights_sha256": DEIT_B_SHA256 if name == "deit" else "cd" * 32,
        "architecture": VIT_B,
        "options": OPTIONS.get(name, {}),
    }
    return {**result, **changed}


@dataclass
class Runs:
    """Writes results into a workspace."""

    root: Path
    written: list[Path] = field(default_factory=list)

    def store(
        self,
        encoder: str = "deit",
        dataset: str = "cub",
        split: str = "all",
        view: str | dict[str, Any] = "paper",
        *,
        rows: str = "rows",
        limit: int | None = None,
        **changed: Any,
    ) -> StoreReference:
        """What a result says of a store. `view` is a protocol of view parts, or a view's fields."""
        fields = PROTOCOLS[view].to_json() if isinstance(view, str) else view
        spec = Spec(
            dataset=dataset,
            split=split,
            view=fields,
            encoder=encoder_json(encoder, **changed),
            transform={"size": 224},
            precision={"compute": "fp32", "storage": "fp16"},
            representations={"cls": [768]},
            rows={"n": 100, "n_images": 50, "sha256": f"{rows}-{dataset}-{split}"},
            limit=limit,
        )
        recorded = ("encoder", "view", "transform", "precision", "rows")
        return StoreReference(
            title=f"{dataset}/{split}",
            fingerprint=spec.fingerprint,
            checksum="ab" * 16,
            dataset=dataset,
            split=split,
            view=fields["name"],
            encoder=encoder,
            limit=limit,
            spec={name: getattr(spec, name) for name in recorded},
        )

    def retrieval(
        self,
        encoder: str = "deit",
        dataset: str = "cub",
        ap: Sequence[float] | npt.NDArray[np.float64] = (0.4, 0.5, 0.6, 0.7),
        representation: str = "cls",
        protocol: str = "paper",
        *,
        images: int = 11_788,
        per_query: bool = True,
        first_image: int = 0,
        changed: dict[str, Any] | None = None,
        **store: Any,
    ) -> Path:
        """A score of part retrieval: each query of an image of its own."""
        values = np.asarray(ap, dtype=np.float64)
        number = np.arange(len(values))
        mean = bootstrap_means(values, number, np.zeros_like(number), ("all",)).overall
        split = store.pop("split", {"cub": "all", "coco": "train2017"}.get(dataset, "all"))
        store.setdefault("view", protocol)
        result = RetrievalResult(
            protocol=RecordedProtocol(
                {
                    "protocol": protocol,
                    "include_self": protocol == "released",
                    "changed": changed or {},
                }
            ),
            stores=Gallery(self.store(encoder, dataset, split, **store)),
            representation=representation,
            selection=TargetSelection("label"),
            counts=RetrievalCounts(
                rows=len(values),
                images=images,
                classes=2,
                left_out_bad=0,
                left_out_unlabelled=0,
                queries=len(values),
                left_out_without_relevant=0,
            ),
            scores={"ap": replace(mean, chance=0.26)},
            seconds={"score": 0.1},
        )
        if per_query:  # before the result, which has the checksum of it
            labels = ["tail", "left wing"] * len(values)
            table = {"row": number, "image": number + first_image, "ap": values}
            table["label"] = labels[: len(values)]
            table["influence"] = (values - values.mean()) / len(values)
            path = result.path(self.root / "results")
            path.parent.mkdir(parents=True, exist_ok=True)
            pl.DataFrame(table).write_parquet(path.with_suffix(".parquet"))
        return self.write(result)

    def probe(
        self,
        encoder: str = "deit",
        dataset: str = "cub",
        accuracy: float = 0.9,
        half: float = 0.01,
        kind: str = "linear",
        protocol: str = "paper",
        *,
        representation: str | None = None,
        view: dict[str, Any] | None = None,
        test_images: int | None = None,
        changed: dict[str, Any] | None = None,
        **store: Any,
    ) -> Path:
        """A score of a probe, whose interval reaches `half` to both sides."""
        names = {"cub": ("train", "test"), "coco": ("train2017", "val2017")}
        splits = names.get(dataset, ("train", "val"))
        complete = {"cub": (5_994, 5_794), "coco": (40_000, 2_000), "imagenet": (1_281_167, 50_000)}
        train_images, usual = complete[dataset]
        cut = RELEASED_TRAIN if protocol == "released" else "paper"
        cut_test = "released" if protocol == "released" else "paper"
        interval = Interval(accuracy - half, accuracy + half, "bootstrap over images")
        score = Accuracy(accuracy, 1000, test_images or usual, interval, Chance(0.3, 0.25))
        kinds = {"linear": LinearProbeResult, "attentive": AttentiveProbeResult}
        result = kinds[kind](
            protocol=RecordedProtocol(
                {"protocol": protocol, "changed": changed or {}, "reported": "last epoch"}
            ),
            stores=TrainTest(
                self.store(encoder, dataset, splits[0], view or cut, **store),
                self.store(encoder, dataset, splits[1], view or cut_test, **store),
            ),
            representation=representation or ("cls" if kind == "linear" else "cls+patch"),
            selection=SplitSelection("two stores", "label"),
            counts=SplitCounts(
                classes=4,
                train_rows=5000,
                train_images=train_images,
                train_left_out_bad=0,
                train_left_out_unlabelled=0,
                test_rows=1000,
                test_images=test_images or usual,
                test_left_out_bad=0,
                test_left_out_unlabelled=0,
                shared_images=0,
            ),
            scores={"accuracy": Scores(**vars(score), std=None, each=(score,))},
            seconds={},
        )
        return self.write(result)

    def segmentation(
        self,
        encoder: str = "deit",
        dataset: str = "ade20k-part",
        miou: float = 0.3,
        half: float = 0.01,
        protocol: str = "paper",
        *,
        test_images: int = 2_000,
        **store: Any,
    ) -> Path:
        view = WindowsView().to_json()

        def score(value: float) -> Measure:
            interval = Interval(value - half, value + half, "bootstrap over images")
            return Measure(value, 10**6, test_images, interval, 0.05)

        result = SegmentationProbeResult(
            protocol=RecordedProtocol({"protocol": protocol, "changed": {}}),
            stores=TrainTest(
                self.store(encoder, dataset, "train", view, **store),
                self.store(encoder, dataset, "val", view, **store),
            ),
            representation="patch",
            selection=SegmentationSelection(
                rule="two splits", labels=LabelsReference(dataset, 19, certainty="certain")
            ),
            counts=SegmentationCounts(
                train_windows=60_000,
                train_windows_unlabelled=0,
                train_images=30_462,
                train_images_unlabelled=0,
                train_images_bad=0,
                test_windows=4 * test_images,
                test_images=test_images,
                test_images_unlabelled=0,
                test_images_bad=0,
                classes=19,
                classes_trained=19,
                classes_scored=19,
            ),
            scores={
                "mIoU": score(miou),
                "mAcc": score(miou + 0.1),
                "aAcc": score(miou + 0.4),
            },
            seconds={},
        )
        return self.write(result)

    def write(self, result: Result) -> Path:
        """Write a result; each is a minute newer than the one before."""
        path = write_result(self.root / "results", result)
        time = 1_700_000_000 + 60 * len(self.written)
        os.utime(path, (time, time))
        self.written.append(path)
        return path

    def read(self) -> ResultCollection:
        return collect_results(self.root, self.root / "results", self.root / "features")

    def report(self) -> Report:
        return build(self.read(), self.root / "figures")
