"""Every encoder against the outputs of its authors' own code, within 1e-5."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from pa.extract.encoders import load_encoder
from pa.extract.encoders.checkpoint import file_sha256
from pa.extract.encoders.positions import sincos_order
from tests.support.checkpoints import FIXTURES

pytestmark = pytest.mark.shared

TOLERANCE = 1e-5
Arrays = dict[str, npt.NDArray[np.float32]]

everyone = pytest.mark.parametrize("name", FIXTURES)
prototypes = pytest.mark.parametrize("name", ["dino", "ibot"])


class Case:
    """One fixture: the loaded encoder, its inputs and what the official code computed."""

    def __init__(self, name: str, shared: Path) -> None:
        self.folder = shared / "fixtures" / "encoders" / FIXTURES[name]
        self.checkpoint = self.folder / "checkpoint.pth"
        self.expected: Arrays = dict(np.load(self.folder / "expected.npz"))
        self.meta: dict[str, Any] = json.loads((self.folder / "meta.json").read_text())
        self.encoder = load_encoder(name, self.checkpoint, num_heads=3, layers=[0, 1, 2])

    def inputs(self, size: str = "") -> Tensor:
        path = self.folder / "inputs.npy"
        if size:
            path = self.folder.parent / f"inputs_{size}.npy"
        return torch.from_numpy(np.load(path))


@pytest.fixture(scope="module")
def cases() -> dict[str, Case]:
    return {}


@pytest.fixture
def case(name: str, cases: dict[str, Case], shared_dir: Path) -> Case:
    if name not in cases:
        cases[name] = Case(name, shared_dir)
    return cases[name]


def difference(actual: Tensor, expected: npt.NDArray[np.float32]) -> float:
    assert tuple(actual.shape) == expected.shape
    assert actual.dtype == torch.float32
    return float(np.abs(actual.numpy() - expected).max())


@everyone
def test_tokens_class_and_mean(case: Case) -> None:
    features = case.encoder.encode(case.inputs(), {"cls", "patch", "pooled"})
    assert difference(features["cls"], case.expected["cls"]) < TOLERANCE
    assert difference(features["patch"], case.expected["tokens"][:, 1:]) < TOLERANCE
    assert difference(features["pooled"], case.expected["patch_mean"]) < TOLERANCE
    assert features.projected is None
    assert features.layers is None


@everyone
def test_selected_class_token_does_not_keep_all_tokens(case: Case) -> None:
    cls = case.encoder.encode(case.inputs(), {"cls"})["cls"]
    assert cls.untyped_storage().nbytes() == cls.numel() * 4


@everyone
def test_raw_outputs_of_blocks(case: Case) -> None:
    layers = case.encoder.encode(case.inputs(), {"layers"})["layers"]
    official = case.expected["block_tokens"][:, :, 1:].swapaxes(0, 1)
    assert difference(layers, official) < TOLERANCE
    assert case.encoder.representations["layers"] == layers.shape[1:]


@everyone
def test_vectors_of_blocks(case: Case) -> None:
    features = case.encoder.encode(case.inputs(), {"layers_cls", "layers_pooled"})
    official = case.expected["block_tokens"].swapaxes(0, 1)  # (B, K, 1+L, D)
    assert difference(features["layers_cls"], official[:, :, 0]) < TOLERANCE
    assert difference(features["layers_pooled"], official[:, :, 1:].mean(2)) < TOLERANCE
    for name in ("layers_cls", "layers_pooled"):
        assert case.encoder.representations[name] == features[name].shape[1:]


@pytest.mark.parametrize(
    ("name", "size"), [*((name, "hi") for name in FIXTURES), ("dino", "rect"), ("ibot", "rect")]
)
def test_sizes_other_than_the_native_one(case: Case, size: str) -> None:
    features = case.encoder.encode(case.inputs(size), {"cls", "patch", "pooled"})
    assert difference(features["cls"], case.expected[f"{size}_cls"]) < TOLERANCE
    assert difference(features["patch"], case.expected[f"{size}_tokens"][:, 1:]) < TOLERANCE
    assert difference(features["pooled"], case.expected[f"{size}_patch_mean"]) < TOLERANCE


@everyone
def test_native_size_is_independent_of_other_sizes(case: Case) -> None:
    before = case.encoder.encode(case.inputs(), {"patch"})["patch"]
    case.encoder.encode(case.inputs("hi"), {"cls"})
    assert torch.equal(before, case.encoder.encode(case.inputs(), {"patch"})["patch"])


@everyone
def test_spec_and_transform(case: Case) -> None:
    spec, config = case.encoder.spec, case.meta["config"]
    assert spec.name == case.encoder.name
    assert spec.weights_sha256 == file_sha256(case.checkpoint)
    assert spec.architecture["width"] == config["dim"]
    assert spec.architecture["depth"] == config["depth"]
    assert spec.architecture["mlp_width"] == config["dim"] * config["mlp_ratio"]
    assert case.encoder.compute == "fp32"
    assert case.encoder.transform.size == config["img"]
    assert json.loads(json.dumps(spec.to_json())) == spec.to_json()


@pytest.mark.parametrize("name", ["mocov3"])
def test_moco_projector_stages(case: Case) -> None:
    projector = case.encoder.module.get_submodule("projector")
    stage = torch.from_numpy(case.expected["cls"])
    with torch.no_grad():
        for index, layer in enumerate(projector.children()):
            stage = layer(stage)
            name = {2: "proj_hidden1", 5: "proj_hidden2", 6: "proj_prebn", 7: "proj"}.get(index)
            if name:
                assert difference(stage, case.expected[name]) < TOLERANCE
    features = case.encoder.encode(case.inputs(), {"projected", "pooled"})
    assert difference(features["projected"], case.expected["proj"]) < TOLERANCE
    of_mean, bottleneck = case.encoder.project(features["pooled"])
    assert difference(of_mean, case.expected["proj_of_patch_mean"]) < TOLERANCE
    assert bottleneck is None


@prototypes
def test_prototype_projector_stages(case: Case) -> None:
    mlp = case.encoder.module.get_submodule("projector.mlp")
    cls = torch.from_numpy(case.expected["cls"])
    with torch.no_grad():
        if "head_hidden1" in case.expected:
            hidden = mlp.get_submodule("1")(mlp.get_submodule("0")(cls))
            assert difference(hidden, case.expected["head_hidden1"]) < TOLERANCE
        assert difference(mlp(cls), case.expected["head_bottleneck"]) < TOLERANCE
    bottleneck = case.encoder.encode(case.inputs(), {"bottleneck"})["bottleneck"]
    assert difference(bottleneck, case.expected["head_bottleneck_l2"]) < TOLERANCE


@prototypes
def test_projected_has_the_geometry_of_the_logits(case: Case) -> None:
    features = case.encoder.encode(case.inputs(), {"projected", "pooled"})
    of_mean, _ = case.encoder.project(features["pooled"])
    ours = torch.cat([features["projected"], of_mean])
    logits = torch.from_numpy(
        np.concatenate([case.expected["head_out"], case.expected["head_out_of_patch_mean"]])
    )
    assert ours.shape[1] < logits.shape[1]
    assert torch.allclose(ours @ ours.T, logits @ logits.T, rtol=0, atol=TOLERANCE)
    assert torch.allclose(cosines(ours), cosines(logits), rtol=0, atol=TOLERANCE)


def cosines(vectors: Tensor) -> Tensor:
    unit = F.normalize(vectors, dim=1)
    return unit @ unit.T


@pytest.mark.parametrize(
    ("name", "branch"), [("mocov3", "momentum"), ("dino", "student"), ("ibot", "student")]
)
def test_other_branch_is_another_network(case: Case, branch: str) -> None:
    encoder = load_encoder(case.encoder.name, case.checkpoint, num_heads=3, branch=branch)
    assert encoder.spec.options["branch"] == branch
    assert encoder.spec != case.encoder.spec
    cls = encoder.encode(case.inputs(), {"cls"})["cls"]
    assert difference(cls, case.expected["cls"]) > 1


@everyone
@pytest.mark.parametrize(("compute", "lowest"), [("bf16", 0.9995), ("fp16", 0.99999)])
def test_half_precision_is_close_and_returned_as_float32(
    case: Case, compute: str, lowest: float
) -> None:
    encoder = load_encoder(case.encoder.name, case.checkpoint, num_heads=3, compute=compute)
    features = encoder.encode(case.inputs())
    assert encoder.compute == compute
    for representation in encoder.representations:
        assert features[representation].dtype == torch.float32
    expected = torch.from_numpy(case.expected["cls"])
    assert F.cosine_similarity(features["cls"], expected).min() > lowest


@pytest.mark.parametrize(
    ("name", "order"), [("mocov3", "row"), ("cae", "row"), ("mae", "column"), ("dino", None)]
)
def test_fixed_positions_are_recognised(case: Case, order: str | None) -> None:
    key = "sincos_pos_embed_native" if order else "hi_pos_embed"
    assert sincos_order(torch.from_numpy(case.expected[key])) == order


@pytest.mark.parametrize("name", ["dino", "mocov3", "mae"])
def test_resized_positions_equal_the_official_table(case: Case) -> None:
    trunk: Any = case.encoder.module.get_submodule("trunk")
    variant = trunk.positions.at(trunk.model, (5, 5))
    assert difference(variant.pos_embed.detach(), case.expected["hi_pos_embed"]) < 1e-6


@pytest.mark.parametrize("name", ["beit"])
def test_resized_relative_table_equals_the_official_one(case: Case) -> None:
    trunk: Any = case.encoder.module.get_submodule("trunk")
    bias = trunk.positions.at(trunk.model, (5, 5)).rel_pos_bias
    table = bias.relative_position_bias_table.detach()
    assert difference(table, case.expected["hi_rel_pos_table"]) < 1e-6
