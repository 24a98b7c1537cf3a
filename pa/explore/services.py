"""What the routes work with: one of each for the life of a server."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from pa.explore.answers import Answers
from pa.explore.limiter import Limiters
from pa.explore.pictures import Pictures
from pa.explore.stores import Gallery, OpenStores
from pa.explore.uploads import Encoders
from pa.workspace import Workspace

T = TypeVar("T")


@dataclass(frozen=True)
class Services:
    workspace: Workspace
    galleries: OpenStores
    pictures: Pictures
    answers: Answers
    limiters: Limiters = field(default_factory=Limiters)

    @classmethod
    def of(
        cls, workspace: Workspace, device: str | None, checkpoints: Sequence[Path] = ()
    ) -> Services:
        """Those of a workspace; `device` and `checkpoints` encode uploaded images."""
        galleries, pictures = OpenStores(workspace.config), Pictures(workspace.config)
        encoders = Encoders(workspace, device, checkpoints)
        return cls(workspace, galleries, pictures, Answers(galleries, pictures, encoders))

    async def look_up(self, gallery: str, work: Callable[[Gallery], T]) -> T:
        """What the tables of a gallery say. Raises what `OpenStores.get` and `work` raise."""
        return await self.limiters.tables.run(lambda: work(self.galleries.get(gallery)))
