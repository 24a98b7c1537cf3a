"""Encoding on the fly gives the scores of cached features, and keeps nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import save_file

from pa.commands.probe.segmentation_inputs import SegmentationInputs, dataset_splits
from pa.data.schema import Images
from pa.errors import AmbiguousError, UsageError
from pa.extract.live import LiveStore
from pa.extract.run import extract
from pa.extract.stores import ExtractOptions
from pa.extract.torchvision_ops import ensure
from pa.probe.segmentation.labels import LabelMaps
from pa.probe.segmentation.recipes import PAPER
from pa.probe.segmentation.run import SegmentationOptions, run_segmentation
from pa.workspace import Workspace
from tests.support.commands import Run
from tests.support.mean_colour import MeanColour
from tests.support.segmentation_stores import VIEW

KEPT = ExtractOptions(representations=("patch",))
SHORT = replace(PAPER, iterations=40, warmup=2, batch=4, lr=0.05)


def test_scores_are_those_of_cached_features(
    load: Callable[[str], Images], maps: LabelMaps, tmp_path: Path
) -> None:
    views = {"train": replace(VIEW, views=3), "val": VIEW}
    scores = {}
    for online in (False, True):
        pair = [
            LiveStore(MeanColour(), load(split), view, KEPT)
            if online
            else extract([MeanColour()], load(split), view, tmp_path / "f", KEPT).reports[0].store
            for split, view in views.items()
        ]
        (actual,) = run_segmentation(
            *pair, [maps], tmp_path / "r", SegmentationOptions(recipe=SHORT, online=online)
        ).results
        assert (actual.result.selection.features is not None) is online
        scores[online] = actual
    np.testing.assert_array_equal(scores[True].losses, scores[False].losses)
    assert scores[True].score.miou == scores[False].score.miou
    assert scores[True].result_path != scores[False].result_path


def test_dataset_splits_are_found_as_for_stores(tree: Path, tmp_path: Path) -> None:
    """Flags, else [probe] of pa.toml, else train and val, else the only one."""
    file, asked = tmp_path / "pa.toml", SegmentationInputs(dataset="lip")
    text = f'[datasets.lip]\nroot = "{tree}"\n'
    file.write_text(text)
    assert dataset_splits(Workspace(tmp_path), asked) == ("train", "val")
    both = replace(asked, train_split="val", test_split="train")
    assert dataset_splits(Workspace(tmp_path), both) == ("val", "train")
    with pytest.raises(UsageError, match="name both, or neither"):
        replace(asked, test_split="val").check()
    file.write_text('[probe]\ntrain_split = "val"\ntest_split = "val"\n' + text)
    assert dataset_splits(Workspace(tmp_path), asked) == ("val", "val")
    file.write_text(text)
    for folder in ("img", "ann"):
        (tree / folder / "val").rename(tree / folder / "more")
    with pytest.raises(AmbiguousError, match="dataset lip has the splits more, train"):
        dataset_splits(Workspace(tmp_path), asked)
    for folder in ("img", "ann"):
        (tree / folder / "more").rename(tree / f"{folder}-away")
    assert dataset_splits(Workspace(tmp_path), asked) == ("train", "train")


def test_online_command_runs(pa: Run, tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tree.parent)
    ensure()
    import timm

    network = timm.create_model("vit_tiny_patch16_224", embed_dim=64, depth=6, num_heads=1)
    save_file(network.state_dict(), "tiny.safetensors")
    Path("pa.toml").write_text(
        f"""
encoder = "deit"
device = "cpu"
[datasets.lip]
root = "{tree}"
[encoders.deit]
checkpoint = "tiny.safetensors"
num_heads = 1
"""
    )
    words = ("probe", "segmentation", "--online", "--iterations", 3, "--batch", 2, "--limit", 3)
    done = pa(*words, "--views", 2, "--json")
    assert done.code == 0, done.err
    (head,) = done.json["heads"]
    assert head["selection"]["features"] == "encoded on the fly"
    assert (head["counts"]["train_windows"], head["counts"]["test_images"]) == (6, 3)
    assert not Path("features").exists()
    refused = pa(*words, "--protocol", "released")  # blocks 3, 5, 7, 11 of a network that has six
    assert refused.code == 2
    assert "blocks 0 to 5" in refused.err
