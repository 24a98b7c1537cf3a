"""Encoder cards: what an encoder is and where its weights come from, as data.

`pa encoders list` and docs/encoders.md are made from these.
"""

from __future__ import annotations

from dataclasses import dataclass

from pa.data.images import Transform


@dataclass(frozen=True)
class CheckpointSource:
    """One file that the authors publish.

    `file` is its name, `url` where it lies (empty where it has no direct address), `projector`
    whether the pretraining projector is inside, `note` what else to know, `sha256_prefix` the
    beginning of its hash where the authors state it.
    """

    file: str
    url: str = ""
    projector: bool = False
    note: str = ""
    sha256_prefix: str = ""

    def matches(self, sha256: str) -> bool:
        """Tell whether a file is this one, by its hash; False where the hash is not known."""
        return bool(self.sha256_prefix) and sha256.startswith(self.sha256_prefix)


@dataclass(frozen=True)
class EncoderCard:
    """What there is to know about one encoder before loading it.

    `method` is the family of the pretraining: supervised, contrastive, MIM (masked image
    modelling), or both. `branches` are the networks inside one file, the default first. `options`
    are the protocol switches that `load_encoder` takes by name, each with its default. `positions`
    says what happens to them at other image sizes.
    """

    name: str
    title: str
    method: str
    paper: str
    sources: tuple[CheckpointSource, ...]
    transform: Transform
    positions: str
    projector: str
    licence: str
    notes: str
    branches: tuple[str, ...] = ()
    options: tuple[tuple[str, object], ...] = ()

    def where(self) -> str:
        """Say in one line which file to fetch from where."""
        return " or ".join(
            f"{source.file} ({source.url or source.note})" for source in self.sources
        )
