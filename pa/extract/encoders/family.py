"""Families of encoders: their cards, and how their files are loaded; each states its differences.

File → `select` a container and its key rules → sort keys → `build` trunk and projector from the
tensors' shapes → compare and fill strictly → report, and an encoder if everything fits.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from pa.data.images import Transform
from pa.errors import CheckpointError, PaError, UsageError
from pa.extract.encoders.base import Encoder, EncoderSpec, Projector
from pa.extract.encoders.checkpoint import (
    CheckpointFile,
    LoadReport,
    Rule,
    first_container,
    tensors_in,
)
from pa.extract.encoders.positions import AbsolutePositions, Resize
from pa.extract.encoders.recognise import (
    CONTAINERS,
    DISTILLED,
    RECOGNISED,
    distilled_branch,
    recognise,
)
from pa.extract.encoders.vit import VitTrunk, plain_vit, read_shape

Tensors = Mapping[str, Tensor]

# Keys of a ViT, as a group that follows a prefix.
ENCODER_KEYS = r"((?:cls_token|pos_embed|patch_embed|rel_pos_bias|blocks|norm)\b.*)"


@dataclass(frozen=True)
class CheckpointSource:
    """One file that the authors publish."""

    file: str
    url: str = ""  # empty without a direct address
    projector: bool = False  # whether the file contains the pretraining projector
    note: str = ""
    sha256_prefix: str = ""  # beginning of the hash that the authors state

    def matches(self, sha256: str) -> bool:
        """Return whether a file has the published hash; False if none is published."""
        return bool(self.sha256_prefix) and sha256.startswith(self.sha256_prefix)


@dataclass(frozen=True)
class EncoderCard:
    """Description of an encoder."""

    name: str
    title: str
    method: str  # supervised, contrastive, MIM (masked image modelling), or both
    paper: str
    sources: tuple[CheckpointSource, ...]
    transform: Transform
    positions: str  # how positions are resized for other image sizes
    projector: str
    licence: str
    notes: str
    branches: tuple[str, ...] = ()  # networks inside one file, the default first
    options: tuple[tuple[str, object], ...] = ()  # protocol switches with their defaults

    def where(self) -> str:
        """Return the files and their addresses in one line."""
        return " or ".join(
            f"{source.file} ({source.url or source.note})" for source in self.sources
        )


def read_cards() -> dict[str, EncoderCard]:
    """Read the cards of the official encoders, cards.toml."""
    tables = tomllib.loads(Path(__file__).with_name("cards.toml").read_text(encoding="utf-8"))
    cards = {}
    for name, table in tables.items():
        fields = {
            **table,
            "sources": tuple(CheckpointSource(**source) for source in table["sources"]),
            "transform": Transform(**table.get("transform", {})),
            "branches": tuple(table.get("branches", ())),
            "options": tuple(table.get("options", {}).items()),
        }
        cards[name] = EncoderCard(name, **fields)
    return cards


@dataclass(frozen=True)
class Request:
    """The arguments of `load_encoder` that shape the network."""

    num_heads: int | None = None  # None: that of the official size
    branch: str | None = None  # network inside the file
    layers: tuple[int, ...] = ()  # 0-based blocks whose raw outputs are stored
    options: Mapping[str, Any] = field(default_factory=dict)  # protocol switches of the card
    accept: bool = False  # load a file without evidence for the family


@dataclass(frozen=True)
class Selection:
    """The container of the requested branch, its tensors, and the rules for their keys."""

    container: str
    tensors: Tensors
    rules: Sequence[Rule]


Select = Callable[[CheckpointFile, str | None], Selection]
Settle = Callable[[CheckpointFile, Tensors, Request], tuple[Request, Transform]]


@dataclass(frozen=True)
class Family:
    """An encoder as its authors publish it.

    `select` raises `CheckpointError` for a file of another network.
    """

    card: EncoderCard
    select: Select
    build: Callable[[Tensors, Request], VitTrunk]  # from the tensors' shapes
    project: Callable[[Tensors], Projector] | None = None  # None: a method without projector
    settle: Settle | None = None  # None: the options imply no other transform

    def complete(self, request: Request) -> Request:
        """Fill in the default branch and options. Raises `UsageError` for unknown ones."""
        name, branches = self.card.name, self.card.branches
        if request.branch is not None and request.branch not in branches:
            known = f"Known: {', '.join(branches)}." if branches else "Its file holds one network."
            raise UsageError(f"{name} has no branch {request.branch!r}. {known}")
        defaults = dict(self.card.options)
        for option in request.options:
            if option not in defaults:
                known = f"Known: {', '.join(defaults)}." if defaults else "It has none."
                raise UsageError(f"{name} has no option {option!r}. {known}")
        branch = request.branch or (branches[0] if branches else None)
        return replace(request, branch=branch, options={**defaults, **request.options})

    def load(self, file: CheckpointFile, request: Request, report: LoadReport) -> Encoder:
        """Load a file for a completed request, and complete the report.

        Raises `CheckpointError` if the file does not fit.
        """
        name = self.card.name
        identity = recognise(file.content)
        # `recognise` does not know plug-in families: their `select` checks the file.
        evident = name not in RECOGNISED or identity.family == name
        report.checkpoint, report.sha256 = str(file.path), file.sha256
        report.known = "".join(s.file for s in self.card.sources if s.matches(file.sha256))
        report.accepted = request.accept and not evident
        title = f"It looks like {identity.title}."
        report.looks_like = title if report.accepted else identity.sentence(name)
        try:
            if not (evident or request.accept):
                raise CheckpointError(f"nothing in it shows that it is {self.card.title}")
            return self._load(file, request, report)
        except CheckpointError as error:
            if not report.architecture:  # the keys were not compared
                report.container, report.ignored, report.unexpected = "", [], []
                report.problem = f"{file.path} given as {name}: {error}. {report.looks_like}"
            raise CheckpointError(report.describe()) from None

    def _load(self, file: CheckpointFile, request: Request, report: LoadReport) -> Encoder:
        selection = self.select(file, request.branch)
        report.container = selection.container
        targets = report.sort(selection.tensors, selection.rules)
        tensors = targets.get("encoder", {})
        transform = self.card.transform
        if self.settle is not None:
            request, transform = self.settle(file, tensors, request)  # recorded in the spec
        trunk = self.build(tensors, request)
        report.fill(trunk.model, "encoder", tensors)
        architecture = {"network": type(trunk.model).__name__, **asdict(trunk.shape)}
        architecture["positions"] = trunk.positions.rule
        projector = None  # a file may contain the backbone alone
        if self.project is not None and "projector" in targets:
            projector = self.project(targets["projector"])
            report.fill(projector, "projector", targets["projector"])
            architecture["projected"] = projector.out_width
            architecture["bottleneck"] = projector.bottleneck_width
        report.architecture = architecture
        if not report.ok:
            raise CheckpointError(report.describe())
        # In float32, before the network is cast: other grids are interpolated from it.
        trunk.positions.remember(trunk.model)
        if projector is not None:
            projector.finish()
        # Only what changes the features, so that fingerprints of equal features are equal.
        options: dict[str, Any] = {"branch": request.branch} if request.branch else {}
        options |= {"layers": list(request.layers)} if request.layers else {}
        options |= {**request.options, **({"accept": True} if report.accepted else {})}
        spec = EncoderSpec(self.card.name, file.sha256, architecture, options)
        # At another native size, keep the published ratio of resize to crop.
        resize = trunk.size * transform.resize // transform.size
        transform = replace(transform, size=trunk.size, resize=resize)
        return Encoder(spec, transform, trunk, projector, self._absent(file, projector))

    def _absent(self, file: CheckpointFile, projector: Projector | None) -> dict[str, PaError]:
        """Return the error to raise for each representation that the file cannot provide."""
        if projector is not None and projector.bottleneck_width:
            return {}
        if projector is not None:
            reason = "has no bottleneck: its output is `projected`."
            return {"bottleneck": UsageError(f"the projector of {self.card.name} {reason}")}
        if self.project is None:
            error: PaError = UsageError(
                f"{self.card.name} has no projector ({self.card.projector}). "
                "Use cls, pooled or patch."
            )
        else:
            files = [source.file for source in self.card.sources if source.projector]
            error = CheckpointError(
                f"{file.path} contains the backbone of {self.card.name} without its projector, so "
                f"`projected` is not available. Files with the projector: {' or '.join(files)}."
            )
        return {"projected": error, "bottleneck": error}


def flat_or(file: CheckpointFile, *containers: str) -> tuple[str, dict[str, Tensor]]:
    """Return the tensors of the first of these containers, or the flat tensors of the file.

    Raises `CheckpointError` if the file has neither.
    """
    container, tensors = first_container(file.content, containers)
    if tensors:
        return (f"`{container}`" if container else "the file"), tensors
    named = " or ".join(f"`{container}`" for container in containers)
    entries = ", ".join(f"`{entry}`" for entry in file.content)
    raise CheckpointError(f"expected tensors under {named} or no container; found {entries}")


def one_network(rules: Sequence[Rule]) -> Select:
    """Return the `select` of the only network of a file, in any known container."""
    return lambda file, branch: Selection(*flat_or(file, *CONTAINERS, *DISTILLED), rules)


def plain_trunk(name: str, resize: Resize) -> Callable[[Tensors, Request], VitTrunk]:
    """Return the `build` of a family of plain ViTs whose position table `resize` interpolates."""

    def build(tensors: Tensors, request: Request) -> VitTrunk:
        shape = read_shape(name, tensors, request.num_heads)
        return VitTrunk(name, plain_vit(shape), shape, AbsolutePositions(resize), request.layers)

    return build


def select_distilled(file: CheckpointFile, branch: str | None) -> Selection:
    """Select teacher or student of a DINO or iBOT file.

    A full file contains `teacher` (keys backbone.*, head.*) and `student` (the same under module.).
    Other files contain one of them, in any container, with or without head and prefix.
    """
    rules = (
        Rule(r"head\.last_layer2\..*", reason="the prototypes of patches"),
        Rule(r"head\.(.*)", "projector"),
        Rule(r"(?:backbone\.)?masked_embed", reason="the mask token, training only"),
        Rule(r"(?:backbone\.)?" + ENCODER_KEYS, "encoder"),
    )
    held = distilled_branch(file.content)  # "both", "teacher" or "student"
    if held not in (branch, "both"):
        raise CheckpointError(f"it contains the {held} only: pass --branch {held}")
    # A training file has both networks, each in its own container.
    if tensors := tensors_in(file.content.get(str(branch))):
        return Selection(f"`{branch}`", tensors, rules)
    return one_network(rules)(file, branch)
