"""Finding stores in a workspace: by what they hold, with the choices where several fit."""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from pa.data.store.reader import MANIFEST, SPEC, Store
from pa.data.store.same_rows import contains, differences, without_parts
from pa.data.store.spec import PROJECTORS, WITHOUT_PROJECTOR
from pa.data.views import view_from_json
from pa.data.views.parts import PROTOCOLS, PartsView, protocol_of
from pa.errors import AmbiguousError, FingerprintError, MissingError, VerificationError

WHOLE = "all"  # the split that has the rows of every other one


@dataclass(frozen=True)
class StoreSelector:
    """What a store should hold; None = any. `fingerprint` may be a beginning of it."""

    dataset: str | None = None
    split: str | None = None
    view: str | None = None
    protocol: str | None = None
    encoder: str | None = None
    fingerprint: str | None = None

    def matches(self, store: Store) -> bool:
        return (
            self.dataset in (None, store.spec.dataset)
            and self.split in (None, store.spec.split)
            and self.view in (None, store.view)
            and self._of_protocol(store)
            and self.encoder in (None, store.encoder)
            and store.fingerprint.startswith(self.fingerprint or "")
        )

    def matches_folder(self, folder: Path) -> bool:
        """Whether a store in this directory may match, as far as the names of folders show."""
        dataset, split, view, encoder, short = folder.parts[-5:]
        return (
            self.dataset in (None, dataset)
            and self.split in (None, split)
            and self.view in (None, view)
            and (self.protocol is None or view == PartsView.name)
            and (self.encoder is None or self.encoder.replace("/", "--") == encoder)
            and short.startswith((self.fingerprint or "")[: len(short)])
        )

    def _of_protocol(self, store: Store) -> bool:
        return self.protocol in (None, protocol(store))

    def __str__(self) -> str:
        return " ".join(f"--{name} {value}" for name, value in self._given().items())

    def _given(self) -> dict[str, str]:
        given = {name: value for name, value in asdict(self).items() if value is not None}
        if "fingerprint" in given:
            given["store"] = given.pop("fingerprint")
        return given


def protocol(store: Store) -> str | None:
    """The protocol by which a store's parts were cut, or the nearest one; None for other views."""
    view = view_from_json(store.spec.view)
    return protocol_of(view)[0] if isinstance(view, PartsView) else None


def checksums(features: Path) -> dict[str, str]:
    """The checksums of the complete stores of a workspace, by fingerprint.

    Those whose spec or manifest is damaged are skipped.
    """
    found: dict[str, str] = {}
    for store in find(features):
        with contextlib.suppress(VerificationError):
            if store.is_complete and store.checksum is not None:
                found[store.fingerprint] = store.checksum
    return found


def check_workspace(root: Path) -> None:
    """Raise `MissingError` where a workspace is not there."""
    if not root.is_dir():
        raise MissingError(
            f"there is no workspace at {root}. Name the folder that holds features/ and results/ "
            f"with --workspace DIR."
        )


def slot(features: Path, dataset: str, split: str, view: str, encoder: str) -> Path:
    """The directory that holds the stores of one (dataset, split, view, encoder)."""
    return features / dataset / split / view / encoder.replace("/", "--")


def find(features: Path, query: StoreSelector | None = None) -> Iterator[Store]:
    """All stores of a workspace, complete or not, that fit the query; sorted by path.

    Those whose spec is damaged are passed over: `damaged` names them.
    """
    query = query or StoreSelector()
    for spec in sorted(features.glob(f"*/*/*/*/*/{SPEC}")):
        try:
            store = Store.open(spec.parent, incomplete=True)
        except (FingerprintError, MissingError):
            continue
        if query.matches(store):
            yield store


def folders(features: Path) -> Iterator[Path]:
    """Every store directory, sorted by path; also where the spec is gone and other files remain."""
    for folder in sorted(features.glob("*/*/*/*/*/")):
        if (folder / SPEC).exists() or (folder / MANIFEST).exists() or _has_shards(folder):
            yield folder


def _has_shards(folder: Path) -> bool:
    return any(folder.glob("shard-*.h5"))


def damaged(features: Path) -> Iterator[Path]:
    """The folders of stores whose spec cannot be read, or is missing next to their files."""
    for folder in folders(features):
        try:
            Store.open(folder, incomplete=True)
        except (FingerprintError, MissingError):
            yield folder


def check_readable(features: Path, query: StoreSelector) -> None:
    """Raise the error of a store that fits the query by its folder, but whose spec is damaged or,
    next to its other files, missing.

    Without this check another store would silently be used in its place.
    """
    for folder in folders(features):
        if not query.matches_folder(folder):
            continue
        try:
            Store.open(folder, incomplete=True)
        except (FingerprintError, MissingError) as error:
            error.add_note("It may be the store to use. To use another one, name it with --store.")
            raise


def choose(
    features: Path,
    query: StoreSelector,
    command: Callable[[], str] | None = None,
    preferred: Callable[[Store], bool] | None = None,
    configured: Collection[str] = (),
) -> Store:
    """The one store that fits; where some that fit are `preferred`, one of those.

    Complete stores go before unfinished ones, except for unfinished ones of another split, whose
    rows the complete ones do not have. A store whose rows are a part of another's, by `--limit` or
    by its split and by nothing else, gives way to that one. Raises `MissingError` with the command
    that makes a store where none fits, `AmbiguousError` with the choices where several do, and
    `FingerprintError` or `MissingError` where the spec of one that may fit is damaged or gone.
    """
    if query.protocol is not None:
        PROTOCOLS[query.protocol]  # an unknown name raises with the nearest ones
    check_readable(features, query)
    found = list(find(features, query)) or _without_protocol(features, query)
    if preferred is not None:
        found = [store for store in found if preferred(store)] or found
    complete = [store for store in found if store.is_complete]
    fitting = without_parts(complete or found)
    fitting += _unfinished_splits(found, fitting) if complete else []
    if not fitting:
        raise MissingError(nothing_fits(features, query, command and command(), configured))
    if len(fitting) > 1:
        lines = "\n".join(
            f"  {_flags(store)}    # {_told_apart(store, fitting)}" for store in fitting
        )
        raise AmbiguousError(
            f"{len(fitting)} stores fit. Choose one by adding flags (dataset, split, view and "
            f"encoder may also be set in pa.toml):\n{lines}{_damage(fitting)}"
        )
    return Store.open(fitting[0].path)


def _damage(found: Sequence[Store]) -> str:
    """The damage for which a store cannot be compared with others; empty where there is none."""
    text = ""
    for store in found:
        try:
            _ = store.rows, store.is_complete and store.manifest
        except VerificationError as error:
            text += f"\nDamaged, so that it cannot be compared with the others: {error}"
    return text


def _unfinished_splits(found: Sequence[Store], complete: Sequence[Store]) -> list[Store]:
    """The unfinished stores of splits, and with rows, that no complete store has."""
    splits = {store.spec.split for store in complete}
    return [
        store
        for store in found
        if not store.is_complete
        and store.spec.split not in splits
        and not any(contains(large, store) for large in complete)
    ]


def _without_protocol(features: Path, query: StoreSelector) -> list[Store]:
    """Stores that fit but for the protocol, of views that have none: there it says nothing."""
    others = find(features, replace(query, protocol=None))
    return [store for store in others if protocol(store) is None]


def _told_apart(store: Store, others: list[Store]) -> str:
    """What a store has that others do not: rows, state, and fields which differ in the slot."""
    state = f"{store.n_rows} rows" + ("" if store.is_complete else ", not complete")
    rivals = [
        other
        for other in others
        if other is not store
        and other.path.parent == store.path.parent
        and protocol(other) == protocol(store)  # else the protocol's name says it all
    ]
    names = dict.fromkeys(
        name
        for other in rivals
        for name, _, _ in store.spec.differences(other.spec)
        if not name.startswith(("rows.", "representations."))
    )
    fields = store.spec.fields()
    words = [state, *(f"{name} {str(fields.get(name))[:16]}" for name in names)]
    return ", ".join([*words, *told_rows_apart(store, others)])


def told_rows_apart(store: Store, others: Sequence[Store]) -> list[str]:
    """In what the rows of a store differ from those of the first store of its recipe and split."""
    alike = [
        other
        for other in others
        if (other.spec.recipe, other.spec.split) == (store.spec.recipe, store.spec.split)
    ]
    rows = differences(store, alike[0]) if alike[0] is not store else []
    return [f"differs from {alike[0].spec.short[:8]} in {' and '.join(rows)}"] if rows else []


def _flags(store: Store) -> str:
    spec, rules = store.spec, protocol(store)
    return (
        f"--dataset {spec.dataset} --split {spec.split} --view {store.view} "
        + (f"--protocol {rules} " if rules else "")
        + f"--encoder {store.encoder} --store {spec.short[:8]}"
    )


def nothing_fits(
    features: Path,
    query: StoreSelector,
    command: str | None = None,
    configured: Collection[str] = (),
) -> str:
    """The message where no store fits: the command that makes one, and what there is.

    A name that is neither known nor `configured` and resembles that of a store is misspelt: the
    nearest one is shown in place of a command.
    """
    wanted = f" for {query}" if str(query) else ""
    text = f"there is no store{wanted} in {features}."
    there = list(find(features))
    if near := _nearest(query, there, configured):
        text += f" Did you mean {near}?"
    elif command is not None and query.fingerprint is None:
        text += f" Make it with:\n  {command}"
        other_split = replace(query, split=None)
        donors = [s for s in there if s.is_complete and other_split.matches(s)]
        if donors and query.dataset is not None:
            whole = [s for s in donors if s.spec.split == WHOLE and s.spec.limit is None]
            names = " or ".join(store.title for store in (whole or donors)[:3])
            are = "are" if whole else "may be"
            text += f"\nRows that {names} holds {are} copied, not encoded again."
    if there:
        text += "\nThere are:\n" + "\n".join(f"  {_flags(store)}" for store in there[:12])
    if broken := list(damaged(features)):
        text += "\nDamaged, see `pa verify`:\n" + "\n".join(f"  {folder}" for folder in broken[:12])
    return text


def _nearest(query: StoreSelector, there: Sequence[Store], configured: Collection[str]) -> str:
    """The misspelt flags of a query, with the nearest value of a store, or else of all known."""
    from pa.data.datasets import DATASETS

    splits = {split for kind in DATASETS for split in DATASETS[kind].expected}
    encoders = [*PROJECTORS, *WITHOUT_PROJECTOR]
    official = {"dataset": list(DATASETS), "split": [*splits, WHOLE], "encoder": encoders}
    known = {*configured, *(one for names in official.values() for one in names)}
    flags = []
    for name in ("dataset", "split", "encoder"):
        wanted = getattr(query, name)
        values = {getattr(store.spec if name != "encoder" else store, name) for store in there}
        if wanted is not None and wanted not in values | known and not wanted.startswith("timm/"):
            near = difflib.get_close_matches(wanted, values, n=1, cutoff=0.6)
            near = near or difflib.get_close_matches(wanted, official[name], n=1, cutoff=0.7)
            flags += [f"--{name} {value}" for value in near]
    return " ".join(flags)
