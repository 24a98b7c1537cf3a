"""A real network on real photographs: the whole way from file to the right answer."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from pa.data.images import centre_crop, decode, resize_short_side, stack
from pa.extract.encoders import Encoder, load_encoder
from pa.extract.encoders.checkpoint import file_sha256

pytestmark = pytest.mark.shared

N_IMAGES = 24


@pytest.fixture(scope="module")
def weights(shared_dir: Path) -> Path:
    return shared_dir / "weights" / "deit_tiny_patch16_224_fp16.safetensors"


@pytest.fixture(scope="module")
def photographs(shared_dir: Path) -> list[tuple[int, Path]]:
    """Every 41st class of the sample with its photograph; classes count by sorted name."""
    folders = sorted((shared_dir / "data" / "imagenet_sample_1000" / "val").iterdir())
    chosen = list(enumerate(folders))[::41][:N_IMAGES]
    return [(index, next(folder.iterdir())) for index, folder in chosen]


def pixels(encoder: Encoder, paths: list[Path]) -> torch.Tensor:
    transform, images = encoder.transform, []
    for path in paths:
        image = decode(path.read_bytes(), path)
        image = resize_short_side(image, transform.resize, transform.interpolation)
        images.append(centre_crop(image, transform.size))
    return encoder.normalise(torch.from_numpy(stack(images)))


def test_deit_tiny_recognises_photographs(
    weights: Path, photographs: list[tuple[int, Path]]
) -> None:
    encoder = load_encoder("deit", weights)
    assert encoder.spec.weights_sha256 == file_sha256(weights)
    shape = {"width": 192, "depth": 12, "heads": 3, "patch": 16, "grid": 14, "mlp_width": 768}
    assert shape.items() <= encoder.spec.architecture.items()
    cls = encoder.encode(pixels(encoder, [path for _, path in photographs]), {"cls"})["cls"]
    head = load_file(weights)
    logits = cls @ head["head.weight"].float().T + head["head.bias"].float()
    labels = torch.tensor([label for label, _ in photographs])
    hits = int((logits.argmax(dim=1) == labels).sum())
    assert hits >= 0.6 * N_IMAGES  # DeiT-Ti has 72 % top-1


def test_deit_and_timm_agree_on_the_same_file(
    weights: Path, photographs: list[tuple[int, Path]]
) -> None:
    encoder = load_encoder("deit", weights)
    timm = load_encoder("timm/deit_tiny_patch16_224", weights)
    images = pixels(encoder, [path for _, path in photographs[:2]])
    ours, reference = encoder.encode(images), timm.encode(images)
    for representation in ("cls", "patch", "pooled"):
        assert torch.equal(ours[representation], reference[representation])
