"""`patch` and `pooled` of timm networks against timm's own head, and layers that exist."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pa.errors import UsageError
from pa.extract.encoders.base import Encoder, EncoderSpec
from pa.extract.encoders.timm_trunk import TimmTrunk

SIZE = 64
Make = Callable[..., Any]


def _convnext() -> Any:
    from timm.models.convnext import ConvNeXt

    return ConvNeXt(depths=(1, 1, 1, 1), dims=(8, 8, 16, 24), num_classes=0)


def _hiera() -> Any:
    from timm.models.hiera import Hiera

    return Hiera(
        img_size=(SIZE, SIZE), embed_dim=16, num_heads=1, stages=(1, 1, 1, 1), num_classes=0
    )


def _caformer() -> Any:
    from timm.models.metaformer import (
        Attention,
        LayerNorm2dNoBias,
        LayerNormNoBias,
        MetaFormer,
        SepConv,
    )

    return MetaFormer(
        depths=(1, 1, 1, 1),
        dims=(8, 16, 32, 32),
        token_mixers=[SepConv, SepConv, Attention, Attention],
        norm_layers=[LayerNorm2dNoBias] * 2 + [LayerNormNoBias] * 2,
        num_classes=0,
    )


def _poolformer() -> Any:
    from timm.models.metaformer import MetaFormer

    return MetaFormer(depths=(1, 1), dims=(16, 32), num_classes=0)


def _davit() -> Any:
    from timm.models.davit import DaVit

    return DaVit(depths=(1, 1), embed_dims=(16, 32), num_heads=(1, 2), window_size=2, num_classes=0)


def _swin() -> Any:
    from timm.models.swin_transformer import SwinTransformer

    arguments = {"embed_dim": 16, "depths": (1, 1), "num_heads": (1, 2), "num_classes": 0}
    return SwinTransformer(img_size=SIZE, window_size=4, **arguments)


def _vit_of_means() -> Any:
    from timm.models.vision_transformer import VisionTransformer

    arguments = {"embed_dim": 32, "depth": 1, "num_heads": 2, "num_classes": 0}
    return VisionTransformer(img_size=SIZE, patch_size=8, global_pool="avg", **arguments)


def _named(name: str) -> Make:
    def make() -> Any:
        import timm

        return timm.create_model(name, pretrained=False, num_classes=0)

    return make


# Final norm after the mean; a plain mean; more layers between the mean and the classifier.
POOLING_BY_MEAN: dict[str, tuple[Make, bool]] = {
    "convnext": (_convnext, True),
    "hiera": (_hiera, True),
    "caformer": (_caformer, True),
    "poolformer": (_poolformer, True),
    "davit": (_davit, True),
    "vit with fc_norm": (_vit_of_means, True),
    "test_convnext": (_named("test_convnext"), True),
    "test_convnext2": (_named("test_convnext2"), True),
    "test_mambaout": (_named("test_mambaout"), True),
    "test_vit2": (_named("test_vit2"), True),
    "test_maxvit": (_named("test_maxvit"), False),
    "test_coatnet": (_named("test_coatnet"), False),
    "test_resnet": (_named("test_resnet"), False),
    "test_nfnet": (_named("test_nfnet"), False),
    "test_byobnet": (_named("test_byobnet"), False),
    "swin": (_swin, False),
    "mobilenetv3": (_named("mobilenetv3_small_050"), False),
}


def drawn(make: Make) -> Any:
    """A network whose every weight is drawn, norms too: an identity would hide a missing norm."""
    model = make()
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        if parameter.ndim == 1:
            parameter.data = 0.5 + torch.rand(parameter.shape, generator=generator)
    if not getattr(model, "pretrained_cfg", None):
        model.pretrained_cfg = {"input_size": (3, SIZE, SIZE)}
    return model.eval()


def image(size: int) -> Tensor:
    return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", POOLING_BY_MEAN)
def test_pooled_is_what_timm_passes_to_its_classifier(name: str) -> None:
    make, normed = POOLING_BY_MEAN[name]
    model = drawn(make)
    trunk = TimmTrunk(f"timm/{name}", model, ())
    pixels = image(trunk.size)
    with torch.no_grad():
        direct = model.forward_head(model.forward_features(pixels), pre_logits=True)
        tokens = trunk(pixels)
    assert tokens.pooled is not None
    assert torch.allclose(tokens.pooled, direct, rtol=1e-5, atol=1e-5 * float(direct.abs().max()))
    assert tokens.pooled.shape[1] == trunk.pooled_width
    assert (trunk.token_norm is not None) == normed


@pytest.mark.parametrize("name", [name for name, (_, normed) in POOLING_BY_MEAN.items() if normed])
def test_final_norm_is_applied_to_every_patch(name: str) -> None:
    model = drawn(POOLING_BY_MEAN[name][0])
    trunk = TimmTrunk(f"timm/{name}", model, ())
    norm: nn.Module = (
        model.fc_norm if "fc_norm" in dict(model.named_children()) else model.head.norm
    )
    pixels = image(trunk.size)
    with torch.no_grad():
        output = model.forward_features(pixels)
        expected = output if output.ndim == 3 else None
        if output.ndim == 4 and trunk.channel_axis == 3:
            expected = output.flatten(1, 2)
        if expected is not None:
            expected = norm(expected)[:, trunk.n_prefix :]
        else:
            expected = norm(output).flatten(2).mT
        patch = trunk(pixels).patch
    assert torch.allclose(patch, expected, atol=1e-5)


def test_representations_announce_the_width_of_pooled() -> None:
    from pa.data.images import Transform

    model = drawn(_named("mobilenetv3_small_050"))
    trunk = TimmTrunk("timm/mobilenetv3_small_050", model, ())
    encoder = Encoder(EncoderSpec("m", ""), Transform(), trunk)
    features = encoder.encode(image(trunk.size), {"pooled", "patch"})
    assert features["pooled"].shape[1:] == encoder.representations["pooled"] == (1024,)
    assert features["patch"].shape[1:] == encoder.representations["patch"]


@pytest.mark.parametrize("distilled", [False, True])
def test_pit_has_class_tokens_and_patches(distilled: bool) -> None:
    from timm.models.pit import PoolingVisionTransformer

    model = drawn(
        lambda: PoolingVisionTransformer(
            img_size=SIZE,
            patch_size=8,
            stride=4,
            stem_type="overlap",
            base_dims=(16, 16),
            depth=(1, 1),
            heads=(1, 2),
            mlp_ratio=2,
            num_classes=0,
            distilled=distilled,
        )
    )
    trunk = TimmTrunk("timm/pit", model, ())
    assert (trunk.has_cls, trunk.n_prefix) == (True, 1 + distilled)
    pixels = image(SIZE)
    maps: list[Tensor] = []
    model.transformers[-1].register_forward_hook(lambda m, args, out: maps.append(out[0]))
    with torch.no_grad():
        tokens = trunk(pixels)
        cls = model.forward_features(pixels)[:, 0]
    assert tokens.cls is not None
    assert torch.allclose(tokens.cls, cls, atol=1e-6)
    assert tokens.patch.shape == (2, maps[0][0, 0].numel(), trunk.width)
    assert torch.allclose(tokens.patch, model.norm(maps[0].flatten(2).mT), atol=1e-6)


def _mixer() -> Any:
    from timm.models.mlp_mixer import MlpMixer

    return MlpMixer(img_size=SIZE, patch_size=8, num_blocks=3, embed_dim=16, num_classes=0)


def _cait() -> Any:
    from timm.models.cait import Cait

    return Cait(img_size=SIZE, patch_size=8, embed_dim=16, depth=3, num_heads=2, num_classes=0)


def _xcit() -> Any:
    from timm.models.xcit import Xcit

    return Xcit(img_size=SIZE, patch_size=8, embed_dim=16, depth=3, num_heads=2, num_classes=0)


@pytest.mark.parametrize("make", [_mixer, _cait, _xcit, _vit_of_means])
def test_layers_are_the_raw_outputs_of_the_blocks(make: Make) -> None:
    model = drawn(make)
    layers = (0,) if make is _vit_of_means else (0, 2)
    trunk = TimmTrunk("timm/m", model, layers)
    outputs: list[Tensor] = []
    for index in layers:
        model.blocks[index].register_forward_hook(lambda m, args, out: outputs.append(out))
    with torch.no_grad():
        tokens = trunk(image(SIZE), with_layers=True)
    assert tokens.layers is not None
    expected = torch.stack([output[:, -trunk.n_patches :] for output in outputs], dim=1)
    assert torch.equal(tokens.layers, expected)


@pytest.mark.parametrize(("make", "layers"), [(_hiera, (0,)), (_hiera, (3,)), (_convnext, (0,))])
def test_layers_that_are_not_tokens_of_one_grid_are_refused(
    make: Make, layers: tuple[int, ...]
) -> None:
    with pytest.raises(UsageError, match=r"omit `layers`"):
        TimmTrunk("timm/m", drawn(make), layers)


def test_layers_beyond_the_last_block_are_refused() -> None:
    with pytest.raises(UsageError, match="blocks 0 to 2; found layers 3"):
        TimmTrunk("timm/m", drawn(_mixer), (3,))
