"""Fixtures of a small dataset with label maps and of its stores."""

from tests.support.segmentation_stores import load, make_store, maps, tree

__all__ = ["load", "make_store", "maps", "tree"]
