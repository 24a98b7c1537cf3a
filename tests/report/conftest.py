"""A workspace of result files, written as the commands write them, whose numbers are known."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pytest

from pa.data.store.spec import Spec
from pa.data.views.parts import PROTOCOLS
from pa.data.views.windows import WindowsView
from pa.evaluate.bootstrap import bootstrap_means
from pa.evaluate.results import Result, write_result
from pa.report.found import Workspace, read_workspace
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
    made = {
        "name": name,
        "weights_sha256": DEIT_B_SHA256 if name == "deit" else "cd" * 32,
        "architecture": VIT_B,
        "options": OPTIONS.get(name, {}),
    }
    return {**made, **changed}


@dataclass
class Runs:
    """Writes results into a workspace. `own_spec=False` writes them as older versions did."""

    root: Path
    own_spec: bool = True
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
    ) -> dict[str, Any]:
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
        described = {
            "title": f"{dataset}/{split}",
            "fingerprint": spec.fingerprint,
            "checksum": "ab" * 16,
            "dataset": dataset,
            "split": split,
            "view": fields["name"],
            "encoder": encoder,
            "limit": limit,
        }
        kept = ("encoder", "view", "transform", "precision", "rows")
        own = {"spec": {name: getattr(spec, name) for name in kept}}
        return {**described, **own} if self.own_spec else described

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
        result = Result(
            task="retrieval",
            protocol={
                "protocol": protocol,
                "include_self": protocol == "released",
                "changed": changed or {},
            },
            stores={"gallery": self.store(encoder, dataset, split, **store)},
            representation=representation,
            selection={"target": "label"},
            counts={"rows": len(values), "images": images, "left_out_bad": 0},
            scores={"ap": {**mean.to_json(), "chance": 0.26}},
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
        result = Result(
            task=f"probe-{kind}",
            protocol={"protocol": protocol, "changed": changed or {}, "reported": "last epoch"},
            stores={
                "train": self.store(encoder, dataset, splits[0], view or cut, **store),
                "test": self.store(encoder, dataset, splits[1], view or cut_test, **store),
            },
            representation=representation or ("cls" if kind == "linear" else "cls+patch"),
            selection={"rule": "two stores", "target": "label"},
            counts={"train_images": train_images, "test_images": test_images or usual},
            scores={
                "accuracy": {
                    "value": accuracy,
                    "n": 1000,
                    "n_groups": test_images or usual,
                    "interval": [accuracy - half, accuracy + half],
                    "interval_method": "bootstrap over images",
                    "chance": {"majority": 0.3, "uniform": 0.25},
                }
            },
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

        def score(value: float) -> dict[str, Any]:
            interval = [value - half, value + half]
            return {"value": value, "n": 10**6, "n_groups": test_images, "interval": interval}

        result = Result(
            task="probe-segmentation",
            protocol={"protocol": protocol, "changed": {}},
            stores={
                "train": self.store(encoder, dataset, "train", view, **store),
                "test": self.store(encoder, dataset, "val", view, **store),
            },
            representation="patch",
            selection={"rule": "two splits", "labels": {"name": dataset, "certainty": "certain"}},
            counts={"train_images": 30_462, "test_images": test_images},
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

    def read(self) -> Workspace:
        return read_workspace(self.root, self.root / "results", self.root / "features")

    def report(self) -> Report:
        return build(self.read(), self.root / "figures")


@pytest.fixture
def runs(tmp_path: Path) -> Runs:
    """An empty workspace to write results into."""
    root = tmp_path / "work"
    root.mkdir()
    return Runs(root)
