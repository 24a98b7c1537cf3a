"""The frozen encoders: seven families by name, and `timm/<model>`.

encoder = load_encoder("mocov3", "vit-b-300ep.pth.tar")
features = encoder.encode(pixels, want={"cls", "pooled", "projected"})
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from pa.errors import CheckpointError, MissingError, UsageError
from pa.extract.encoders import checkpoint as checkpoints
from pa.extract.encoders import timm_models
from pa.extract.encoders.base import DTYPES, Encoder, Features
from pa.extract.encoders.checkpoint import LoadReport
from pa.extract.encoders.families import FAMILIES
from pa.extract.encoders.family import Family, Request
from pa.registry import Registry

__all__ = ["ENCODERS", "Encoder", "Features", "LoadReport", "load_encoder", "load_report"]

ENCODERS: Registry[Family] = Registry(
    "encoder",
    {family.card.name: family for family in FAMILIES},
    hint=f"Or any timm network: {timm_models.PREFIX}<model>.",
    group="pa.encoders",
    of=Family,
)


def load_encoder(
    name: str,
    checkpoint: Path | str | None = None,
    *,
    num_heads: int | None = None,
    branch: str | None = None,
    layers: Sequence[int] | None = None,
    accept: bool = False,
    device: str | torch.device = "cpu",
    compute: str = "fp32",
    **options: Any,
) -> Encoder:
    """Load an encoder strictly: every tensor of the file is used, ignored by a rule, or an error.

    All arguments that change the features are recorded in `encoder.spec` and `encoder.compute`.

    Parameters
    ----------
    name
        A key of `ENCODERS`, or `timm/<model>`.
    checkpoint
        File of the weights; only `timm/<model>` can download weights without it.
    num_heads
        Number of attention heads; None selects that of the family's official size.
    branch
        Network inside the file (DINO, iBOT: teacher, student; MoCo v3: base, momentum).
    layers
        0-based blocks whose raw outputs are wanted.
    accept
        Load a file without evidence for the named encoder if every tensor fits.
    device, compute
        Device, and precision of the forward pass: fp32, bf16 or fp16.
    options
        Protocol switches of the encoder's card.

    Raises
    ------
    UnknownNameError, UsageError
        For an unknown name or option.
    MissingError
        If the file, or a network to download weights, is missing.
    CheckpointError
        If a tensor of the file does not fit; the message describes the file.
    """
    if compute not in DTYPES:
        raise UsageError(f"unknown compute format {compute!r}. Known: {', '.join(DTYPES)}.")
    request = Request(num_heads, branch, tuple(layers or ()), options, accept)
    encoder = _load(name, checkpoint, request, LoadReport(name, str(checkpoint)))
    if checkpoint is not None:
        encoder.checkpoint = Path(checkpoint).expanduser().resolve()
    return encoder.to(device, compute)


def load_report(
    name: str,
    checkpoint: Path | str | None = None,
    *,
    num_heads: int | None = None,
    branch: str | None = None,
    layers: Sequence[int] | None = None,
    accept: bool = False,
    **options: Any,
) -> LoadReport:
    """Load as `load_encoder` does, and report key by key instead of raising for a bad file.

    Raises `MissingError` and `UsageError` as `load_encoder` does.
    """
    request = Request(num_heads, branch, tuple(layers or ()), options, accept)
    report = LoadReport(name, str(checkpoint))
    try:
        encoder = _load(name, checkpoint, request, report)
    except CheckpointError as error:
        if report.ok:  # the file cannot be read at all
            report.problem = str(error)
        return report
    steps = torch.arange(encoder.transform.size, dtype=torch.float64) / encoder.transform.size
    # One frequency per channel: no photograph is needed, and every patch differs.
    waves = [torch.sin(k * steps)[:, None] * torch.cos((k + 2) * steps)[None] for k in (7, 11, 17)]
    features = encoder.encode(torch.stack(waves).float()[None])  # (1, 3, S, S)
    for representation in encoder.representations:
        report.norms[representation] = float(features[representation].norm(dim=-1).mean())
    return report


def _load(
    name: str, checkpoint: Path | str | None, request: Request, report: LoadReport
) -> Encoder:
    if name.startswith(timm_models.PREFIX):
        if request.num_heads or request.branch or request.accept or request.options:
            raise UsageError(f"{name} takes no num_heads, branch, accept or options.")
        file = None if checkpoint is None else checkpoints.read(checkpoint)
        return timm_models.load(name, file, request.layers, report)
    family = ENCODERS[name]
    request = family.complete(request)
    fetch = f"{family.card.title} is published as {family.card.where()}."
    if checkpoint is None:
        raise MissingError(
            f"{name} needs a checkpoint file. {fetch} Pass the file with --checkpoint FILE."
        )
    return family.load(checkpoints.read(checkpoint, fetch), request, report)
