from __future__ import annotations

from tests.support.photos import hold, run, store, workspace

__all__ = ["hold", "run", "store", "workspace"]
