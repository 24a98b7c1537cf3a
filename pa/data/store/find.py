"""Find stores in a workspace by what they hold, and list the choices if several fit."""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from pa.data.store.reader import MANIFEST, SPEC, Store
from pa.data.store.same_rows import contains, differences, without_subsets
from pa.data.store.spec import PROJECTORS, WITHOUT_PROJECTOR
from pa.data.views import view_from_json
from pa.data.views.parts import PROTOCOLS, PartsView, protocol_of
from pa.errors import (
    AmbiguousError,
    FingerprintError,
    MissingError,
    PaError,
    VerificationError,
)

WHOLE = "all"  # the split that has the rows of every other one
SHOWN = 12  # stores that a message lists
UNREADABLE = (VerificationError, FingerprintError, MissingError)  # what `Store.open` raises


@dataclass(frozen=True)
class StoreSelector:
    """What a store should hold; None matches all. `fingerprint` may be its first digits."""

    dataset: str | None = None
    split: str | None = None
    view: str | None = None
    protocol: str | None = None
    encoder: str | None = None
    fingerprint: str | None = None  # or its first digits

    def matches(self, store: Store) -> bool:
        actual = (store.spec.dataset, store.spec.split, store.view, store.encoder)
        return (
            self._fits(*actual)
            and (self.protocol is None or self.protocol == protocol(store))
            and store.fingerprint.startswith(self.fingerprint or "")
        )

    def matches_folder(self, folder: Path) -> bool:
        """Return whether the store in a directory may match, by the names of the folders."""
        dataset, split, view, encoder, short = folder.parts[-5:]
        return (
            self._fits(dataset, split, view, encoder)
            and (self.protocol is None or view == PartsView.name)
            and short.startswith((self.fingerprint or "")[: len(short)])
        )

    def _fits(self, *actual: str) -> bool:
        """Compare dataset, split, view and encoder, also as the names of folders."""
        wanted = (self.dataset, self.split, self.view, self.encoder)
        pairs = zip(wanted, actual, strict=True)
        return all(w is None or a in (w, w.replace("/", "--")) for w, a in pairs)

    def __str__(self) -> str:
        flags = {name: value for name, value in asdict(self).items() if value is not None}
        if "fingerprint" in flags:
            flags["store"] = flags.pop("fingerprint")
        return " ".join(f"--{name} {value}" for name, value in flags.items())


def protocol(store: Store) -> str | None:
    """Return the protocol that cut a store's parts, or the nearest one; None for other views."""
    view = view_from_json(store.spec.view)
    return protocol_of(view)[0] if isinstance(view, PartsView) else None


def checksums(features: Path) -> dict[str, str]:
    """Return the checksums of the complete and undamaged stores of a workspace, by fingerprint."""
    by_fingerprint: dict[str, str] = {}
    for store in find(features):
        with contextlib.suppress(VerificationError):
            if store.is_complete and store.checksum is not None:
                by_fingerprint[store.fingerprint] = store.checksum
    return by_fingerprint


def check_workspace(root: Path) -> None:
    """Raise `MissingError` if the folder of a workspace does not exist."""
    if not root.is_dir():
        raise MissingError(
            f"workspace {root} does not exist. Name the folder that holds features/ and results/ "
            f"with --workspace DIR."
        )


def store_directory(features: Path, dataset: str, split: str, view: str, encoder: str) -> Path:
    """Return the directory that holds the stores of one (dataset, split, view, encoder)."""
    return features / dataset / split / view / encoder.replace("/", "--")


def find(features: Path, query: StoreSelector | None = None) -> Iterator[Store]:
    """Yield all stores of a workspace that fit the query, complete or not, sorted by path.

    Stores whose spec is damaged are skipped; `damaged` lists them.
    """
    for _, store in opened(features, query):
        if isinstance(store, Store):
            yield store


def damaged(features: Path, query: StoreSelector | None = None) -> Iterator[tuple[Path, PaError]]:
    """Yield the stores that fit by their folder, but whose spec is unreadable or missing."""
    for folder, error in opened(features, query):
        if isinstance(error, PaError):
            yield folder, error


def opened(
    features: Path, query: StoreSelector | None = None
) -> Iterator[tuple[Path, Store | PaError]]:
    """Yield the folder of every store that fits, with the store or the error of opening it."""
    query = query or StoreSelector()
    for folder in folders(features):
        try:
            store = Store.open(folder, incomplete=True)
        except UNREADABLE as error:
            # A folder that no longer exists was deleted meanwhile.
            if query.matches_folder(folder) and folder.exists():
                yield folder, error
        else:
            if query.matches(store):
                yield folder, store


def folders(features: Path) -> Iterator[Path]:
    """Yield every store directory, sorted by path; also if only the spec is missing."""
    for folder in sorted(features.glob("*/*/*/*/*/")):
        known = (folder / SPEC).exists() or (folder / MANIFEST).exists()
        if known or any(folder.glob("shard-*.h5")):
            yield folder


def check_readable(features: Path, query: StoreSelector) -> None:
    """Raise the error of a damaged store that may fit: another one would silently be used."""
    for _, error in damaged(features, query):
        error.add_note("It may be the store to use. To use another one, name it with --store.")
        raise error


def choose(
    features: Path,
    query: StoreSelector,
    command: Callable[[], str] | None = None,
    preferred: Callable[[Store], bool] | None = None,
    configured: Collection[str] = (),
) -> Store:
    """Return the store that fits; of several, one of the `preferred` ones.

    Complete stores are chosen before unfinished ones, except for unfinished ones of another split,
    whose rows the complete ones do not have. A store whose rows are a subset of another's, by
    `--limit` or by its split and by nothing else, is not chosen before that one.

    `command` returns the command that creates a store, for the message if none fits; `configured`
    are names of datasets and encoders that are known, though no store has them.

    Raises
    ------
    MissingError
        If no store fits, with the command that creates one.
    AmbiguousError
        If several fit, with the choices.
    VerificationError, FingerprintError, MissingError
        If the spec of a store that may fit is damaged, of another format or missing.
    """
    if query.protocol is not None:
        PROTOCOLS[query.protocol]  # raises for an unknown name, with the nearest ones
    check_readable(features, query)
    stores = list(find(features, query))
    if not stores:  # views without protocols ignore --protocol
        others = find(features, replace(query, protocol=None))
        stores = [store for store in others if protocol(store) is None]
    if preferred is not None:
        stores = [store for store in stores if preferred(store)] or stores
    # An unfinished store is a choice only for a split that no complete one has.
    complete = [store for store in stores if store.is_complete]
    fitting = without_subsets(complete or stores)  # one of several nested ones
    if complete:
        splits = {store.spec.split for store in fitting}
        fitting += [
            store
            for store in stores
            if not store.is_complete
            and store.spec.split not in splits
            and not any(contains(large, store) for large in fitting)
        ]
    if not fitting:
        raise MissingError(describe_missing(features, query, command and command(), configured))
    if len(fitting) > 1:
        lines = [f"  {_flags(store)}    # {_distinction(store, fitting)}" for store in fitting]
        for store in fitting:
            try:
                _ = store.rows, store.is_complete and store.manifest
            except VerificationError as error:
                lines.append(f"Damaged, so that it cannot be compared with the others: {error}")
        raise AmbiguousError(
            f"{len(fitting)} stores fit. Choose one by adding flags (dataset, split, view and "
            f"encoder may also be set in pa.toml):\n" + "\n".join(lines)
        )
    return Store.open(fitting[0].path)


def _distinction(store: Store, others: list[Store]) -> str:
    """Describe what distinguishes a store: rows, state, and spec fields within its directory."""
    # Stores of other folders or protocols already differ by their flags.
    near = [
        s for s in others if s.path.parent == store.path.parent and protocol(s) == protocol(store)
    ]
    names = dict.fromkeys(
        name
        for other in near
        for name, _, _ in store.spec.differences(other.spec)
        if not name.startswith(("rows.", "representations."))
    )
    fields = store.spec.fields()
    state = f"{store.n_rows} rows" + ("" if store.is_complete else ", not complete")
    words = [state, *(f"{name} {str(fields.get(name))[:16]}" for name in names)]
    return ", ".join([*words, *describe_row_differences(store, others)])


def describe_row_differences(store: Store, others: Sequence[Store]) -> list[str]:
    """Describe how the rows of a store differ from the first store of its recipe and split."""
    first = next(
        other
        for other in others
        if (other.spec.recipe, other.spec.split) == (store.spec.recipe, store.spec.split)
    )
    rows = differences(store, first) if first is not store else []
    return [f"differs from {first.spec.short[:8]} in {' and '.join(rows)}"] if rows else []


def _flags(store: Store) -> str:
    spec, rules = store.spec, protocol(store)
    return (
        f"--dataset {spec.dataset} --split {spec.split} --view {store.view} "
        + (f"--protocol {rules} " if rules else "")
        + f"--encoder {store.encoder} --store {spec.short[:8]}"
    )


def describe_missing(
    features: Path,
    query: StoreSelector,
    command: str | None = None,
    configured: Collection[str] = (),
) -> str:
    """Return the message if no store fits: the command that creates one, and the existing stores.

    A name that is neither known nor `configured` and resembles that of a store is a typing error:
    the nearest name is shown instead of a command.
    """
    wanted = f" for {query}" if str(query) else ""
    text = f"no store{wanted} in {features}."
    stores = list(find(features))
    if near := _nearest(query, stores, configured):
        text += f" Did you mean {near}?"
    elif command is not None and query.fingerprint is None:
        text += f" Make it with:\n  {command}"
        other_split = replace(query, split=None)  # whose rows the command would copy
        sources = [s for s in stores if s.is_complete and other_split.matches(s)]
        if sources and query.dataset is not None:
            whole = [s for s in sources if s.spec.split == WHOLE and s.spec.limit is None]
            names = " or ".join(store.title for store in (whole or sources)[:3])
            are = "are" if whole else "may be"
            text += f"\nRows that {names} holds {are} copied, not encoded again."
    if stores:
        text += "\nExisting stores:\n" + "\n".join(f"  {_flags(s)}" for s in stores[:SHOWN])
    if broken := [f"  {path}" for path, _ in damaged(features)]:
        text += "\n".join(["\nDamaged, see `pa verify`:", *broken[:SHOWN]])
    return text


def _nearest(query: StoreSelector, stores: Sequence[Store], configured: Collection[str]) -> str:
    """Return the misspelt flags of a query, each with the nearest known value."""
    from pa.data.datasets import DATASETS

    splits = {split for kind in DATASETS for split in DATASETS[kind].expected}
    encoders = [*PROJECTORS, *WITHOUT_PROJECTOR]
    official = {"dataset": list(DATASETS), "split": [*splits, WHOLE], "encoder": encoders}
    known = {*configured, *(name for names in official.values() for name in names)}
    flags = []
    for field in ("dataset", "split", "encoder"):
        wanted = getattr(query, field)
        values = {getattr(store.spec if field != "encoder" else store, field) for store in stores}
        if wanted is not None and wanted not in values | known and not wanted.startswith("timm/"):
            near = difflib.get_close_matches(wanted, values, n=1, cutoff=0.6)
            near = near or difflib.get_close_matches(wanted, official[field], n=1, cutoff=0.7)
            flags += [f"--{field} {value}" for value in near]
    return " ".join(flags)
