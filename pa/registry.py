"""A registry of names, with the nearest names in its errors and entries from plugins.

Other packages add entries by an entry point of the registry's group in their metadata, as pytest's
plugins do. They are imported on first use and never replace an entry of pa.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Generic, TypeVar

from pa.errors import PaError, UnknownNameError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

T = TypeVar("T")


class Registry(Generic[T]):
    """A mapping from name to entry: built-in entries in order, then those of plugins.

    `group` is the entry-point group of plugins; their entries must be instances of `of`.

    >>> shapes = Registry("shape", {"square": 4})
    >>> shapes["square"]
    4
    """

    def __init__(
        self,
        kind: str,
        entries: dict[str, T],
        hint: str = "",
        *,
        group: str = "",
        of: type[T] | None = None,
    ) -> None:
        self.kind = kind
        self.hint = hint
        self.group = group
        self._of = of
        self._entries = dict(entries)
        self._plugins: dict[str, EntryPoint] | None = None

    def __getitem__(self, name: str) -> T:
        if name in self._entries:
            return self._entries[name]
        if name in (plugins := self._plugin_entries()):
            return self._load(name, plugins[name])
        raise UnknownNameError(self.kind, name, list(self), self.hint) from None

    def __contains__(self, name: object) -> bool:
        return name in self._entries or name in self._plugin_entries()

    def __iter__(self) -> Iterator[str]:
        yield from self._entries
        yield from (name for name in self._plugin_entries() if name not in self._entries)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def _plugin_entries(self) -> dict[str, EntryPoint]:
        """Return the entry points of installed packages by name; they are searched once."""
        if self._plugins is None:
            points: dict[str, EntryPoint] = {}
            if self.group:
                from importlib.metadata import entry_points

                for point in entry_points(group=self.group):
                    if point.name in self._entries or point.name in points:
                        owner = "pa itself" if point.name in self._entries else "another package"
                        raise PaError(
                            f"the installed package {_package(point)} adds a {self.kind} named "
                            f"{point.name!r}, a name that {owner} uses. Uninstall it, or ask its "
                            f"authors for another name: a name in a result must be unambiguous."
                        )
                    points[point.name] = point
            self._plugins = points
        return self._plugins

    def _load(self, name: str, point: EntryPoint) -> T:
        try:
            entry: T = point.load()
        except Exception as error:  # the import of a plugin may raise anything
            raise PaError(
                f"the {self.kind} {name!r} of the installed package {_package(point)} cannot be "
                f"loaded from {point.value}: {type(error).__name__}: {error}"
            ) from error
        if self._of is not None and not isinstance(entry, self._of):
            raise PaError(
                f"the {self.kind} {name!r} of the installed package {_package(point)} is a "
                f"{type(entry).__name__} at {point.value}; expected a {self._of.__module__}."
                f"{self._of.__qualname__}."
            )
        self._entries[name] = entry
        return entry


def _package(point: EntryPoint) -> str:
    return f"{point.dist.name} {point.dist.version}" if point.dist else repr(point.value)
