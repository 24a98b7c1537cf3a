"""One small registry: names to things, and an error with the nearest names.

Other packages add to a registry by an entry point of its group in their metadata, as pytest's
plugins do; what they add is imported when it is asked for, and never takes the place of pa's own.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Generic, TypeVar

from pa.errors import PaError, UnknownNameError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

T = TypeVar("T")


class Registry(Generic[T]):
    """A mapping from name to entry: pa's own in the order of registration, then those of plugins.

    `group` is the entry-point group that other packages may fill; what they give must be an
    instance of `of`.

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
        if name in (plugins := self._found()):
            return self._load(name, plugins[name])
        raise UnknownNameError(self.kind, name, list(self), self.hint) from None

    def __contains__(self, name: object) -> bool:
        return name in self._entries or name in self._found()

    def __iter__(self) -> Iterator[str]:
        yield from self._entries
        yield from (name for name in self._found() if name not in self._entries)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def _found(self) -> dict[str, EntryPoint]:
        """The entry points of installed packages, by name; looked up once."""
        if self._plugins is None:
            found: dict[str, EntryPoint] = {}
            if self.group:
                from importlib.metadata import entry_points

                for point in entry_points(group=self.group):
                    if point.name in self._entries or point.name in found:
                        taken = "pa itself" if point.name in self._entries else "another package"
                        raise PaError(
                            f"the installed package {_package(point)} adds a {self.kind} named "
                            f"{point.name!r}, a name that {taken} has. Uninstall it, or ask its "
                            f"authors for another name: results must say which one made them."
                        )
                    found[point.name] = point
            self._plugins = found
        return self._plugins

    def _load(self, name: str, point: EntryPoint) -> T:
        try:
            entry: T = point.load()
        except Exception as error:  # a plugin's import may raise anything
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
