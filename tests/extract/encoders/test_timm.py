"""timm networks: token layouts, transforms, strict files, and a missing hub."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from pa.errors import CheckpointError, MissingError, UnknownNameError, UsageError
from pa.extract.encoders import Encoder, load_encoder, load_report
from pa.extract.encoders.checkpoint import state_sha256
from pa.extract.encoders.timm_models import create, transform_of
from pa.extract.encoders.timm_trunk import TimmTrunk, channel_axis

Save = Callable[..., Path]


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.randn(2, 3, 160, 160, generator=torch.Generator().manual_seed(0))


def random_model(name: str) -> Any:
    """A timm network with its classifier and weights that are all drawn."""
    import timm

    generator = torch.Generator().manual_seed(0)
    model = timm.create_model(name)
    for parameter in model.parameters():
        parameter.data = 0.1 * torch.randn(parameter.shape, generator=generator)
    return model.eval()


def load(name: str, save: Save, **arguments: Any) -> tuple[Encoder, Any]:
    model = random_model(name)
    return load_encoder(f"timm/{name}", save(model.state_dict()), **arguments), model


@pytest.mark.parametrize(
    ("name", "has_cls"),
    [("test_vit", True), ("test_vit2", False), ("test_vit3", False), ("test_vit4", False)],
)
def test_prefix_tokens_are_never_patches(
    name: str, has_cls: bool, save: Save, images: Tensor
) -> None:
    encoder, model = load(name, save)
    assert model.num_prefix_tokens == 1  # the class token of test_vit, a register of the others
    assert ("cls" in encoder.representations) == has_cls
    features = encoder.encode(images)
    with torch.no_grad():
        tokens = model.fc_norm(model.forward_features(images))
    patches = tokens[:, 1:]
    assert torch.allclose(features["patch"], patches, atol=1e-5)
    assert features["patch"].shape[1:] == encoder.representations["patch"]
    with torch.no_grad():
        direct = model.forward_head(model.forward_features(images), pre_logits=True)
    by_mean = name in ("test_vit2", "test_vit4")  # the others pool by a class token or attention
    expected = direct if by_mean else patches.mean(1)
    assert torch.allclose(features["pooled"], expected, atol=1e-5)
    if has_cls:
        assert torch.allclose(features["cls"], tokens[:, 0], atol=1e-5)
    else:
        with pytest.raises(UsageError, match=r"no representation 'cls'\. Available: pooled, patch"):
            encoder.require(["cls"])


def small(kind: str) -> Any:
    """A tiny network of a kind that timm has in large only, for images of 32 pixels."""
    from timm.models.deit import VisionTransformerDistilled
    from timm.models.swin_transformer import SwinTransformer
    from timm.models.vision_transformer import VisionTransformer

    vit = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 1, "num_heads": 2}
    if kind == "registers":
        model: Any = VisionTransformer(**vit, num_classes=0, reg_tokens=4)
    elif kind == "patches only":
        model = VisionTransformer(**vit, num_classes=0, class_token=False, global_pool="avg")
    elif kind == "distilled":
        model = VisionTransformerDistilled(**vit, num_classes=0)
    else:
        model = SwinTransformer(
            img_size=32, window_size=4, embed_dim=16, depths=(1, 1), num_heads=(1, 2), num_classes=0
        )
    model.pretrained_cfg = {"input_size": (3, 32, 32)}
    return model.eval()


@pytest.mark.parametrize(
    ("kind", "has_cls", "n_prefix", "n_patches"),
    [
        ("registers", True, 5, 16),
        ("distilled", True, 2, 16),
        ("patches only", False, 0, 16),
        ("swin", False, 0, 16),
    ],
)
def test_token_layouts(kind: str, has_cls: bool, n_prefix: int, n_patches: int) -> None:
    trunk = TimmTrunk(f"timm/{kind}", small(kind), ())
    assert (trunk.has_cls, trunk.n_prefix, trunk.n_patches) == (has_cls, n_prefix, n_patches)
    image = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        tokens = trunk(image)
        output = trunk.model.forward_features(image)
    if kind == "swin":
        assert torch.equal(tokens.patch, output.flatten(1, 2))  # (B, h, w, C), rows first
        return
    if trunk.token_norm is not None:
        output = trunk.token_norm(output)
    assert torch.equal(tokens.patch, output[:, n_prefix:])
    assert (tokens.cls is not None) == has_cls
    if tokens.cls is not None:
        assert torch.equal(tokens.cls, output[:, 0])


def test_undecidable_outputs_are_refused() -> None:
    model = small("registers")
    model.num_prefix_tokens = 2
    with pytest.raises(UsageError, match=r"21 tokens, 2 of them .* undecidable"):
        TimmTrunk("timm/odd", model, ())
    model.forward_features = lambda pixels: (pixels, pixels)
    with pytest.raises(UsageError, match="neither tokens nor a feature map"):
        TimmTrunk("timm/odd", model, ())


def test_blocks_without_prefix_tokens_have_no_class_token() -> None:
    trunk = TimmTrunk("timm/patches only", small("patches only"), (0,))
    with torch.no_grad():
        tokens = trunk(torch.zeros(1, 3, 32, 32), with_layers=True)
    assert tokens.layers is not None
    assert tokens.layers.shape[:3] == (1, 1, 16)
    assert tokens.layers_cls is None


@pytest.mark.parametrize("name", ["test_efficientnet", "test_resnet"])
def test_cells_of_a_feature_map_are_patches(name: str, save: Save, images: Tensor) -> None:
    encoder, model = load(name, save)
    with torch.no_grad():
        cells = model.forward_features(images)  # (B, C, h, w)
    features = encoder.encode(images)
    scale = cells.abs().max()
    assert torch.allclose(features["patch"], cells.flatten(2).mT, atol=1e-5 * scale)
    assert torch.allclose(features["pooled"], cells.mean((2, 3)), atol=1e-5 * scale)
    weights = [p for p in encoder.module.parameters() if p.ndim == 4 and p.shape[1] > 1]
    assert weights[0].is_contiguous(memory_format=torch.channels_last)
    with pytest.raises(UsageError, match="omit `layers`"):
        load(name, save, layers=[0])


def test_channels_last_output_is_not_mistaken() -> None:
    model = SimpleNamespace(num_features=96)
    assert channel_axis("timm/m", model, torch.Size((1, 96, 7, 7))) == 1
    assert channel_axis("timm/m", model, torch.Size((1, 7, 7, 96))) == 3
    hidden = SimpleNamespace(num_features=4096, feature_info=[{"num_chs": 512}])
    assert channel_axis("timm/m", hidden, torch.Size((1, 512, 7, 7))) == 1
    stated = SimpleNamespace(num_features=7, output_fmt="NHWC")
    assert channel_axis("timm/m", stated, torch.Size((1, 7, 7, 7))) == 3
    for shape in ((1, 96, 7, 96), (1, 5, 7, 7)):
        with pytest.raises(UsageError, match="the axis of the channels is undecidable"):
            channel_axis("timm/m", model, torch.Size(shape))


def test_transform_comes_from_the_configuration(save: Save) -> None:
    encoder, model = load("test_resnet", save)
    config = model.pretrained_cfg
    transform = encoder.transform
    assert (transform.size, transform.resize) == (160, int(160 / config["crop_pct"]))
    assert transform.interpolation == config["interpolation"] == "bilinear"
    assert transform.mean == config["mean"]
    assert transform.std == config["std"]


def test_inputs_that_are_not_square_rgb_are_refused() -> None:
    config = {"input_size": (3, 224, 192), "interpolation": "bicubic"}
    with pytest.raises(UsageError, match="takes images of 3x224x192; `pa` encodes square RGB"):
        transform_of("timm/m", SimpleNamespace(pretrained_cfg=config))
    config = {"input_size": (3, 224, 224), "interpolation": "lanczos"}
    with pytest.raises(UsageError, match="'lanczos' resizing; known: bilinear, bicubic"):
        transform_of("timm/m", SimpleNamespace(pretrained_cfg=config))


def test_layers_are_raw_blocks(save: Save, images: Tensor) -> None:
    encoder, model = load("test_vit", save, layers=[0, 2])
    outputs: dict[int, Tensor] = {}
    for index in (0, 2):
        model.blocks[index].register_forward_hook(
            lambda _module, _inputs, output, index=index: outputs.update({index: output})
        )
    with torch.no_grad():
        model.forward_features(images)
    layers = encoder.encode(images, {"layers"})["layers"]
    expected = torch.stack([outputs[0], outputs[2]], dim=1)[:, :, 1:]
    assert torch.allclose(layers, expected, atol=1e-5)
    assert encoder.spec.options["layers"] == [0, 2]
    with pytest.raises(UsageError, match="blocks 0 to 5; found layers 6"):
        load("test_vit", save, layers=[6])


@pytest.mark.parametrize("name", ["deit", "dino", "mae", "ibot"])
def test_official_and_timm_layout_give_the_same(name: str, save: Save, images: Tensor) -> None:
    model = random_model("test_vit")
    state = model.state_dict()
    backbone = {key: tensor for key, tensor in state.items() if not key.startswith("head.")}
    key_layouts = {
        "deit": {"model": state},
        "dino": backbone,
        "mae": {"model": backbone | {"decoder_embed.weight": torch.ones(8, 64)}},
        "ibot": {"state_dict": backbone},
    }
    heads = model.blocks[0].attn.num_heads
    official = load_encoder(name, save(key_layouts[name], "official.pth"), num_heads=heads)
    timm = load_encoder("timm/test_vit", save(state, "timm.pth"))
    ours, reference = official.encode(images), timm.encode(images)
    for representation in ("cls", "patch", "pooled"):
        assert torch.equal(ours[representation], reference[representation])


def test_files_are_loaded_strictly(save: Save) -> None:
    state = random_model("test_vit").state_dict()
    report = load_report("timm/test_vit", save(state))
    assert report.ok
    assert dict(report.ignored) == {"head.weight": "the classifier", "head.bias": "the classifier"}
    assert report.norms["cls"] > 0
    state["blocks.0.spam"] = state.pop("blocks.0.norm1.weight")
    with pytest.raises(CheckpointError) as caught:
        load_encoder("timm/test_vit", save(state))
    assert "1 missing (blocks.0.norm1.weight); 1 unexpected (blocks.0.spam)" in str(caught.value)
    with pytest.raises(CheckpointError, match="no tensors: expected a state_dict"):
        load_encoder("timm/test_vit", save({"epoch": 3}))


@pytest.mark.parametrize("container", ["state_dict", "model", "state_dict_ema"])
def test_training_containers_and_module_prefixes(container: str, save: Save) -> None:
    state = {f"module.{k}": v for k, v in random_model("test_vit").state_dict().items()}
    report = load_report("timm/test_vit", save({container: state, "epoch": 2}))
    assert report.ok
    assert report.container == f"`{container}`"
    assert ("module.norm.bias", "norm.bias") in report.renamed


def test_fixed_sizes_are_refused_in_words(save: Save) -> None:
    encoder, _ = load("test_vit", save)
    with pytest.raises(UsageError, match="takes 160x160 images only; found 128x128"):
        encoder.encode(torch.zeros(1, 3, 128, 128))
    convolutional, _ = load("test_resnet", save)
    assert convolutional.encode(torch.zeros(1, 3, 128, 96))["patch"].shape == (1, 12, 96)


def test_unknown_models_and_tags() -> None:
    with pytest.raises(
        UnknownNameError, match=r"unknown timm model 'test_vti'. Did you mean test_vit"
    ):
        load_encoder("timm/test_vti")
    with pytest.raises(
        UnknownNameError, match=r"model 'test_vit.r16'. Did you mean test_vit.r160_in1k"
    ):
        load_encoder("timm/test_vit.r16")


def test_family_arguments_are_refused(save: Save) -> None:
    for arguments in ({"num_heads": 3}, {"branch": "teacher"}, {"accept": True}, {"seed": 1}):
        with pytest.raises(UsageError, match="takes no num_heads, branch, accept or options"):
            load_encoder("timm/test_vit", **arguments)


def test_missing_network_access_is_reported_with_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def unreachable(*_arguments: Any) -> Any:
        raise socket.gaierror("no name server")

    from huggingface_hub import constants

    monkeypatch.setattr(socket, "getaddrinfo", unreachable)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    for variable in ("HTTPS_PROXY", "https_proxy"):
        monkeypatch.delenv(variable, raising=False)
    with pytest.raises(MissingError) as caught:
        create("test_vit", pretrained=True)
    assert caught.value.exit_code == 3
    assert "timm/test_vit: the weights cannot be downloaded" in str(caught.value)
    assert "cannot be reached. Pass --checkpoint FILE" in str(caught.value)
    assert "model.safetensors of https://huggingface.co/timm/test_vit.r160_in1k" in str(
        caught.value
    )


def test_cached_hub_file_is_used(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, images: Tensor
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    revision = "0" * 40
    repository = tmp_path / "models--timm--test_vit.r160_in1k"
    snapshot = repository / "snapshots" / revision
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(revision)
    model = random_model("test_vit")
    save_file(model.state_dict(), snapshot / "model.safetensors")
    encoder = load_encoder("timm/test_vit")
    direct = load_encoder("timm/test_vit", snapshot / "model.safetensors")
    assert torch.equal(encoder.encode(images)["cls"], direct.encode(images)["cls"])
    headless = {k: v for k, v in model.state_dict().items() if not k.startswith("head.")}
    assert encoder.spec.weights_sha256 == state_sha256(headless)
    assert load_report("timm/test_vit").container == "the timm hub"


def test_weights_hash_covers_every_part() -> None:
    base = {"a": torch.zeros(2), "b": torch.ones(2)}
    hashes = {
        state_sha256(state)
        for state in (
            base,
            {"b": base["b"], "a": base["a"]},
            {"a": base["b"], "b": base["a"]},
            {"a": torch.zeros(1, 2), "b": base["b"]},
            {"a": torch.zeros(2, dtype=torch.int32), "b": base["b"]},
        )
    }
    assert len(hashes) == 4  # the order of the keys alone does not count
