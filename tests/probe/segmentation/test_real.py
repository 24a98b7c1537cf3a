"""Real images and labels of ADE20K and Pascal-Part, a real ViT: both protocols overfit a handful."""

from __future__ import annotations

from pathlib import Path

import pytest

from pa import config as settings
from pa.extract.stores import ExtractOptions
from pa.progress import Silent
from pa.tasks.probe_segmentation import SegmentationRequest, probe_segmentation
from pa.tasks.segmentation import BuildRequest, build_dataset
from pa.workspace import EncoderOptions, RegionSelector, Workspace

WEIGHTS = "weights/deit_tiny_patch16_224_fp16.safetensors"
SMALLER = (("crop", 256), ("stride", 171), ("test_short", 256))


@pytest.mark.shared
@pytest.mark.parametrize(
    ("dataset", "release"), [("ade20k-part", "ADE20K_2021_17_01"), ("pascal-part", "pascal_part")]
)
def test_heads_overfit_real_images(
    shared_dir: Path, tmp_path: Path, dataset: str, release: str
) -> None:
    """To within 0.05 of what labels score that are brought to the tokens' grid and back up."""
    config = settings.load(tmp_path)
    built = tmp_path / dataset
    build_dataset(config, BuildRequest(dataset, shared_dir / "data" / release, built), Silent())
    workspace = Workspace(tmp_path)
    options = EncoderOptions(checkpoint=shared_dir / WEIGHTS, layers=(3, 5, 7, 11), device="cpu")
    regions = RegionSelector(dataset=dataset, root=built, view_options=SMALLER)
    workspace.extract(
        [workspace.encoder("deit", options)],
        *workspace.regions(regions),
        ExtractOptions(representations=("patch", "layers"), limit=3, workers=1),
    )
    for protocol in ("paper", "released"):
        asked = SegmentationRequest(
            dataset=dataset,
            encoder="deit",
            root=built,
            protocol=protocol,
            iterations=120,
            lrs=(0.02,),
            changes=(("batch", 6), ("warmup", 5)),
            test_fraction=0,
            ceiling=True,
            device="cpu",
        )
        ((run, _),) = probe_segmentation(config, asked, Silent())
        (found,) = run.results
        assert found.ceiling is not None
        assert found.score.miou.value > found.ceiling.miou.value - 0.05, protocol
        assert found.losses[-10:].mean() < 0.1 * found.losses[0]
        assert found.result.counts.classes_trained > 10
