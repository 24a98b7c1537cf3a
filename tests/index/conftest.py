"""Fixtures of the tests of indexes: stores of given vectors."""

from tests.support.vectors import make_store, pa, store, vectors

__all__ = ["make_store", "pa", "store", "vectors"]
