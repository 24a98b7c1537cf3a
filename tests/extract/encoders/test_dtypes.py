"""Weights that are not floating-point numbers are refused, not rounded."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from pa.errors import CheckpointError
from pa.extract.encoders import load_encoder
from pa.extract.torchvision_ops import ensure


@pytest.mark.parametrize("dtype", [torch.int32, torch.complex64])
def test_whole_and_complex_numbers_are_refused(tmp_path: Path, dtype: torch.dtype) -> None:
    ensure()
    import timm

    state = timm.create_model("test_vit").state_dict()
    state["blocks.0.attn.qkv.weight"] = state["blocks.0.attn.qkv.weight"].to(dtype)
    file = tmp_path / "w.pth"
    torch.save(state, file)
    with pytest.raises(CheckpointError, match=f"expected torch.float32, found {dtype}"):
        load_encoder("timm/test_vit", file)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_floating_point_types_are_converted(tmp_path: Path, dtype: torch.dtype) -> None:
    ensure()
    import timm

    state = timm.create_model("test_vit").state_dict()
    save_file(
        {name: tensor.to(dtype) for name, tensor in state.items()}, tmp_path / "w.safetensors"
    )
    encoder = load_encoder("timm/test_vit", tmp_path / "w.safetensors")
    assert next(encoder.module.parameters()).dtype == torch.float32
