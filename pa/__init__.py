"""pa: frozen vision encoders, encoded once; search, probes and part-aware scores from the cache."""

from __future__ import annotations

__version__ = "0.1.0"
