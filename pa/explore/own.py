"""A box of an image of one's own as the query: encoded by the network that made the store."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from PIL import Image

from pa.config import Config
from pa.data.images import Box
from pa.explore.galleries import Column

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

    def __init__(self, config: Config, device: str | None) -> None:
        self._config = config
        self._device = device
        self._kept: OrderedDict[str, Encoder] = OrderedDict()
        self._lock = threading.Lock()

    def query(self, column: Column, own: OwnImage) -> Query:
        """Encode the box as `pa search --image` does.

        Raises what `load_encoder`, `check_same_encoder` and `check_box` raise: no checkpoint,
        another network than the store's, no such box.
        """
        from pa.commands.search import check_box

        check_box(own.box, own.picture.size)
        # Only now: with it comes torch.
        from pa.extract.run import encode_region
        from pa.index.search import Query

        with self._lock:
            encoder = self._encoder(column)
            vector = encode_region(encoder, own.picture, own.box, column.representation)
        return Query(vector=vector, path=own.name, box=own.box, canvas=own.picture)

    def _encoder(self, column: Column) -> Encoder:
        from pa.commands.encoders import EncoderChoice, load_encoder
        from pa.commands.search import check_same_encoder

        store = column.store
        encoder = self._kept.pop(store.fingerprint, None)
        if encoder is None:
            choice = EncoderChoice(device=self._device, dtype=store.spec.precision["compute"])
            encoder = load_encoder(self._config, store.encoder, choice)
            check_same_encoder(self._config, store, encoder)
        self._kept[store.fingerprint] = encoder
        while len(self._kept) > MOST_ENCODERS:
            self._kept.popitem(last=False)
        return encoder
