"""Encoders as flags and settings name them; `pa encoders list`, `check`, `fetch`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pa.commands.choose import device
from pa.config import Config, EncoderSettings
from pa.errors import AmbiguousError, UsageError
from pa.progress import Progress

if TYPE_CHECKING:
    from pa.extract.encoders import Encoder, EncoderCard, LoadReport
    from pa.extract.precision import Agreement


@dataclass(frozen=True)
class EncoderChoice:
    """How to load an encoder; None or empty = take it from the settings."""

    checkpoint: Path | None = None
    num_heads: int | None = None
    branch: str | None = None
    layers: tuple[int, ...] = ()
    options: tuple[tuple[str, Any], ...] = ()
    device: str | None = None
    dtype: str | None = None

    def check_names(self, config: Config, names: Sequence[str]) -> None:
        """Raise `UsageError` where one checkpoint file is given for several encoders."""
        if self.checkpoint and len(names) > 1:
            raise UsageError(
                f"--checkpoint names one file, but {len(names)} encoders were asked for. Set each "
                f'encoder\'s file in {config.file}: [encoders.NAME] checkpoint = "…".'
            )


def default_encoders(config: Config) -> tuple[str, ...]:
    if config.settings.encoder:
        return tuple(config.settings.encoder.split(","))
    configured = tuple(config.settings.encoders)
    if len(configured) == 1:
        return configured
    raise AmbiguousError(
        "which encoder? Give --encoder NAME"
        + (f" (configured: {', '.join(configured)})" if configured else "")
        + ", or set encoder in pa.toml. `pa encoders list` shows what there is."
    )


def find_checkpoint(config: Config, name: str, given: Path | None) -> Path | None:
    """The checkpoint of an encoder: the one given, else of pa.toml, else one that was fetched."""
    from pa.extract.encoders import ENCODERS

    if given is not None:
        return given
    entry = config.settings.encoders.get(name)
    if entry is not None and entry.checkpoint is not None:
        return config.path(entry.checkpoint)
    for source in ENCODERS[name].card.sources if name in ENCODERS else ():
        fetched = config.checkpoints / name / source.file
        if fetched.is_file():
            return fetched
    return None


def load_encoder(config: Config, name: str, choice: EncoderChoice) -> Encoder:
    """Load an encoder with the checkpoint and options that flags or settings name."""
    from pa.extract.encoders import load_encoder as load

    return load(
        name,
        find_checkpoint(config, name, choice.checkpoint),
        layers=choice.layers,
        device=device(choice.device or config.settings.device),
        compute=choice.dtype or config.settings.dtype,
        **_network(config, name, choice),
    )


def _network(config: Config, name: str, choice: EncoderChoice) -> dict[str, Any]:
    entry = config.settings.encoders.get(name, EncoderSettings())
    return {
        "num_heads": choice.num_heads or entry.num_heads,
        "branch": choice.branch or entry.branch,
        **entry.options,
        **dict(choice.options),
    }


# -- pa encoders ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Listed:
    """One encoder of the registry, and the checkpoint that this workspace has for it."""

    card: EncoderCard
    checkpoint: Path | None

    def to_json(self) -> dict[str, Any]:
        card = asdict(self.card)
        return {**card, "checkpoint": str(self.checkpoint) if self.checkpoint else None}


def list_encoders(config: Config) -> list[Listed]:
    """Every encoder of the registry; `checkpoint` only where the file is there."""
    from pa.extract.encoders import ENCODERS

    listed = []
    for name in ENCODERS:
        found = find_checkpoint(config, name, None)
        there = found if found is not None and found.is_file() else None
        listed.append(Listed(ENCODERS[name].card, there))
    return listed


def check_encoder(config: Config, name: str, choice: EncoderChoice) -> LoadReport:
    """Load a checkpoint strictly and report key by key; see `LoadReport`."""
    from pa.extract.encoders import load_report

    checkpoint = find_checkpoint(config, name, choice.checkpoint)
    return load_report(name, checkpoint, layers=choice.layers, **_network(config, name, choice))


def compare_precisions(
    config: Config, name: str, choice: EncoderChoice, images: Path, limit: int
) -> list[Agreement]:
    """How well bf16 and fp16 agree with fp32 on real images; see `pa.extract.precision`."""
    from pa.data import datasets
    from pa.extract.precision import compare

    table = datasets.load("images", "folder", images).table.head(limit)
    paths = [images / path for path in table["path"]]
    loaded = {
        dtype: load_encoder(config, name, replace(choice, dtype=dtype))
        for dtype in ("fp32", "bf16", "fp16")
    }
    return compare(loaded, paths)


def fetch_encoder(config: Config, name: str, file: str | None, progress: Progress) -> Path:
    """Download an encoder's official checkpoint into the workspace; see `pa.extract.fetch`."""
    from pa.extract.encoders import ENCODERS
    from pa.extract.fetch import choose_source, fetch

    card = ENCODERS[name].card
    return fetch(choose_source(card, file), config.checkpoints / name, progress)
