"""One small registry: names to things, and an error with the nearest names."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, TypeVar

from pa.errors import UnknownNameError

T = TypeVar("T")


class Registry(Generic[T]):
    """A mapping from name to entry, kept in the order of registration.

    >>> shapes = Registry("shape", {"square": 4})
    >>> shapes["square"]
    4
    """

    def __init__(self, kind: str, entries: dict[str, T], hint: str = "") -> None:
        self.kind = kind
        self.hint = hint
        self._entries = dict(entries)

    def __getitem__(self, name: str) -> T:
        try:
            return self._entries[name]
        except KeyError:
            raise UnknownNameError(self.kind, name, self._entries, self.hint) from None

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)
