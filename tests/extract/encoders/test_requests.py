"""What the caller asks for: names, branches, heads, image sizes and protocol switches."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from pa.errors import UnknownNameError, UsageError
from pa.extract.encoders import ENCODERS
from pa.extract.encoders.vit import choose_heads
from tests.support.checkpoints import WIDTH, load_encoder, official, vit

Save = Callable[..., Path]


def test_unknown_names() -> None:
    with pytest.raises(
        UnknownNameError, match=r"unknown encoder 'dinno'. Did you mean dino.*timm/<"
    ):
        load_encoder("dinno")


def test_unknown_branches_options_and_formats(save: Save) -> None:
    path = save(official("mae"))
    for words, arguments in (
        ("mae has no branch 'teacher'. Its file holds one network", {"branch": "teacher"}),
        ("mae has no option 'order'. Known: token_order, seed", {"order": "shuffled"}),
        ("unknown token_order 'x'. Known: natural, shuffled", {"token_order": "x"}),
        ("seed must be an integer in 0..2^32-1; found -1", {"token_order": "shuffled", "seed": -1}),
        ("unknown compute format 'fp8'. Known: fp32, bf16, fp16", {"compute": "fp8"}),
        ("mae has blocks 0 to 1; found layers 3, 5", {"layers": [3, 5]}),
        ("layers must ascend without repeats; found 1, 0", {"layers": [1, 0]}),
        ("num_heads=5 does not divide the width 64", {"num_heads": 5}),
        ("cannot use device 'spam'", {"device": "spam"}),
    ):
        with pytest.raises(UsageError) as caught:
            load_encoder("mae", path, **arguments)
        assert words in str(caught.value)
    with pytest.raises(UsageError, match=r"dino has no branch 'base'. Known: teacher, student"):
        load_encoder("dino", path, branch="base")
    with pytest.raises(UsageError, match=r"dino has no option 'seed'\. It has none"):
        load_encoder("dino", path, seed=1)
    with pytest.raises(UsageError, match="layer_norm_eps must be a number between 0 and 1"):
        load_encoder("cae", save(official("cae")), layer_norm_eps=0)


@pytest.mark.parametrize("name", [name for name in ENCODERS if name != "beit"])
def test_heads_of_sizes_that_are_not_official_are_asked_for(name: str, save: Save) -> None:
    path = save(official(name))
    with pytest.raises(UsageError, match=r"width 64 × depth 2 is not an official size .*--num-hea"):
        load_encoder(name, path, num_heads=None)
    assert load_encoder(name, path, num_heads=2).spec.architecture["heads"] == 2


def test_heads_of_beit_are_in_its_file(save: Save) -> None:
    assert load_encoder("beit", save(official("beit")), num_heads=None)


@pytest.mark.parametrize(
    ("name", "width", "depth", "heads"),
    [
        ("cae", 384, 12, 12),  # CAE/models/modeling_cae.py: cae_small_patch16_224_8k_vocab
        ("mocov3", 384, 12, 12),  # moco-v3/vits.py: vit_small
        ("dino", 384, 12, 6),  # dino/vision_transformer.py: vit_small
        ("dino", 192, 12, 3),
        ("deit", 384, 12, 6),
        ("ibot", 384, 12, 6),
        ("mae", 1280, 32, 16),  # mae/models_mae.py: mae_vit_huge_patch14
    ],
)
def test_heads_of_official_sizes(name: str, width: int, depth: int, heads: int) -> None:
    assert choose_heads(name, width, depth, None) == heads


@pytest.mark.parametrize("name", ["mocov3", "cae"])
def test_small_network_with_narrow_heads_is_loaded(name: str, save: Save) -> None:
    """Without `arch`, the table alone says that ViT-S of MoCo v3 and CAE has twelve heads."""
    prefix = {"mocov3": "module.base_encoder.", "cae": "encoder."}[name]
    tensors = vit(prefix, width=384, depth=12, split_bias=name == "cae")
    container = {"mocov3": "state_dict", "cae": "model"}[name]
    tensors |= {"pretext_neck.norm.weight": torch.ones(384)} if name == "cae" else {}
    encoder = load_encoder(name, save({container: tensors}), num_heads=None)
    assert encoder.spec.architecture["heads"] == 12


def test_images_of_impossible_sizes(save: Save) -> None:
    encoder = load_encoder("mae", save(official("mae")))
    with pytest.raises(UsageError, match="patches of 8x8 pixels; 36x32 is not a multiple"):
        encoder.encode(torch.zeros(1, 3, 36, 32))
    with pytest.raises(UsageError, match="no rule for positions on a grid of 5x4 patches"):
        encoder.encode(torch.zeros(1, 3, 40, 32))
    with pytest.raises(
        UsageError, match=r"expected normalised pixels .* found \(3, 32, 32\), float32"
    ):
        encoder.encode(torch.zeros(3, 32, 32))
    with pytest.raises(UsageError, match=r"found \(1, 32, 32, 3\), uint8"):
        encoder.encode(torch.zeros(1, 32, 32, 3, dtype=torch.uint8))
    beit = load_encoder("beit", save(official("beit")))
    with pytest.raises(UsageError, match="BEiT has no rule for positions on a grid of 5x4"):
        beit.encode(torch.zeros(1, 3, 40, 32))


def test_shuffled_mae_is_drawn_per_image_and_seed(save: Save, pixels: Tensor) -> None:
    path = save(official("mae"))
    natural = load_encoder("mae", path, layers=[0, 1]).encode(pixels)
    encoder = load_encoder("mae", path, layers=[0, 1], token_order="shuffled", seed=3)
    assert {"token_order": "shuffled", "seed": 3}.items() <= encoder.spec.options.items()
    shuffled = encoder.encode(pixels)
    assert not torch.allclose(shuffled["cls"], natural["cls"], atol=1e-3)
    alone = encoder.encode(pixels[1:])
    for name in ("cls", "patch", "layers"):  # whichever batch an image is in
        assert torch.allclose(alone[name], shuffled[name][1:], atol=1e-5)
    other = load_encoder("mae", path, token_order="shuffled", seed=4).encode(pixels)
    assert not torch.allclose(shuffled["cls"], other["cls"], atol=1e-3)


def test_shuffled_mae_gives_patches_each_others_positions(save: Save, pixels: Tensor) -> None:
    content = official("mae")
    content["model"]["pos_embed"][:, 1:] = content["model"]["pos_embed"][:, 1:2]
    path = save(content)  # all positions alike: the order cannot matter, and comes back natural
    natural = load_encoder("mae", path, layers=[0]).encode(pixels)
    shuffled = load_encoder("mae", path, layers=[0], token_order="shuffled").encode(pixels)
    for name in ("cls", "patch", "pooled", "layers"):
        assert torch.allclose(natural[name], shuffled[name], atol=1e-5)


def test_cae_with_the_papers_eps(save: Save, pixels: Tensor) -> None:
    path = save(official("cae"))
    encoder = load_encoder("cae", path, layer_norm_eps=1e-5)
    assert encoder.spec.architecture["layer_norm_eps"] == 1e-5
    assert encoder.spec.options["layer_norm_eps"] == 1e-5
    reference, ours = load_encoder("cae", path).encode(pixels), encoder.encode(pixels)
    assert 0 < (reference["cls"] - ours["cls"]).abs().max() < 1e-2


@pytest.mark.parametrize(
    ("args", "option", "mean"),
    [
        (None, "auto", 0.5),
        (Namespace(imagenet_default_mean_and_std=True), "auto", 0.485),
        (Namespace(imagenet_default_mean_and_std=False), "auto", 0.5),
        (None, "imagenet", 0.485),
        (Namespace(imagenet_default_mean_and_std=True), "half", 0.5),
    ],
)
def test_beit_normalises_as_it_was_trained(
    args: Namespace | None, option: str, mean: float, save: Save
) -> None:
    encoder = load_encoder("beit", save(official("beit") | {"args": args}), mean_std=option)
    assert encoder.transform.mean[0] == mean
    assert encoder.spec.options["mean_std"] == ("half" if mean == 0.5 else "imagenet")


def test_beit_from_imagenet_1k_has_positions_instead_of_a_table(save: Save) -> None:
    tensors = vit(split_bias=True) | {"lm_head.weight": torch.ones(20, WIDTH)}
    tensors = {key: tensor for key, tensor in tensors.items() if "gamma" not in key}
    encoder = load_encoder("beit", save({"model": tensors}))
    assert encoder.spec.architecture["positions"] == "bicubic_to_size"
    assert encoder.transform.mean[0] == 0.485
    with pytest.raises(UsageError, match=r"unknown mean_std 'x'\. Known: auto, imagenet, half"):
        load_encoder("beit", save({"model": tensors}), mean_std="x")
