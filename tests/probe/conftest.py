"""Fixtures of the tests of the probes."""

from tests.support.arrays import make_store, put_store

__all__ = ["make_store", "put_store"]
