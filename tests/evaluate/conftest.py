"""Fixtures of the tests of scores: a workspace with stores of part patches."""

from tests.support.parts import make_parts, workspace

__all__ = ["make_parts", "workspace"]
