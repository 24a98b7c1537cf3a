"""Real images and labels of ADE20K and Pascal-Part, a real ViT: both protocols overfit a handful."""

from __future__ import annotations

from pathlib import Path

import pytest

from pa.commands.probe.segmentation_inputs import SegmentationInputs, choose_stores, label_maps
from pa.data.datasets.segmentation.build import build
from pa.data.datasets.segmentation.releases import plan_build
from pa.extract.stores import ExtractOptions
from pa.probe.segmentation.recipes import RecipeOptions
from pa.probe.segmentation.run import SegmentationOptions, run_segmentation
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
    """The score is within 0.05 of that of the labels at token resolution."""
    built = tmp_path / dataset
    build(plan_build(dataset, shared_dir / "data" / release), built)
    workspace = Workspace(tmp_path)
    options = EncoderOptions(checkpoint=shared_dir / WEIGHTS, layers=(3, 5, 7, 11), device="cpu")
    regions = RegionSelector(dataset=dataset, root=built, view_options=SMALLER)
    workspace.extract(
        [workspace.encoder("deit", options)],
        *workspace.regions(regions),
        ExtractOptions(representations=("patch", "layers"), limit=3, workers=1),
    )
    inputs = SegmentationInputs(dataset=dataset, root=built)
    for protocol in ("paper", "released"):
        changes = (("lr", 0.02), ("warmup", 5))
        recipe = RecipeOptions(protocol, 120, batch=6, changes=changes).recipe("deit")
        train, test = choose_stores(workspace, inputs, "deit", recipe.representation)
        run = run_segmentation(
            train,
            test,
            label_maps(workspace, inputs, dataset, built),
            tmp_path / "results",
            SegmentationOptions(recipe=recipe, test_fraction=0, ceiling=True),
        )
        (actual,) = run.results
        assert actual.ceiling is not None
        assert actual.score.miou.value > actual.ceiling.miou.value - 0.05, protocol
        assert actual.losses[-10:].mean() < 0.1 * actual.losses[0]
        assert actual.result.counts.classes_trained > 10
