"""pa: frozen vision encoders, encoded once; search, probes and part-aware scores from the cache.

    import pa
    encoder = pa.load_encoder("mocov3", "vit-b-300ep.pth.tar")
    features = encoder.encode(pixels)          # .cls (B, D), .pooled (B, D), .patch (B, L, D), …
    store = pa.Store.open("features/imagenet/val/grid/mocov3/0a93…")
    vectors = store.read("pooled", [0, 123])   # (2, D)

The names below are loaded when first used: `import pa` alone loads nothing heavy.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pa.data.store.reader import Store
    from pa.data.version import __version__
    from pa.extract.encoders import Encoder, Features, load_encoder, load_report

__all__ = ["Encoder", "Features", "Store", "__version__", "load_encoder", "load_report"]

_HOMES = {
    "Encoder": "pa.extract.encoders",
    "Features": "pa.extract.encoders",
    "Store": "pa.data.store.reader",
    "__version__": "pa.data.version",
    "load_encoder": "pa.extract.encoders",
    "load_report": "pa.extract.encoders",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'pa' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
