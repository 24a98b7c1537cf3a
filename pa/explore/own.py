"""A box of an image of one's own as the query: encoded by the network that made the store."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from pa.data.schema import Box
from pa.explore.galleries import Column
from pa.workspace import Workspace, check_box

if TYPE_CHECKING:
    from pa.extract.encoders import Encoder
    from pa.index.search import Query

MOST_ENCODERS = 4  # in memory at once


@dataclass(frozen=True)
class OwnImage:
    """A decoded image, its name, and the box in its pixels."""

    name: str
    picture: Image.Image = field(repr=False)
    box: Box


class Encoders:
    """The encoders that made the stores, the last ones used in memory; one works at a time."""

    def __init__(
        self, workspace: Workspace, device: str | None, checkpoints: Sequence[Path] = ()
    ) -> None:
        self._workspace = workspace
        self._device = device
        self._checkpoints = checkpoints
        self._kept: OrderedDict[str, Encoder] = OrderedDict()
        self._lock = threading.Lock()

    def query(self, column: Column, own: OwnImage) -> Query:
        """Encode the box as `pa search --image` does.

        Raise as `Workspace.encoder_of` and `check_box`: for a missing checkpoint, a network other
        than the store's, or a box outside the image.
        """
        check_box(own.box, own.picture.size)
        # Only now: with it comes torch.
        from pa.extract.run import encode_region
        from pa.index.search import Query

        with self._lock:
            encoder = self._encoder(column)
            vector = encode_region(encoder, own.picture, own.box, column.representation)
        return Query(vector=vector, path=own.name, box=own.box, canvas=own.picture)

    def _encoder(self, column: Column) -> Encoder:
        store = column.store
        encoder = self._kept.pop(store.fingerprint, None)
        if encoder is None:
            encoder = self._workspace.encoder_of(
                store, "pa explore", checkpoints=self._checkpoints, device=self._device
            )
        self._kept[store.fingerprint] = encoder
        while len(self._kept) > MOST_ENCODERS:
            self._kept.popitem(last=False)
        return encoder
