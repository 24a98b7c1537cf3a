"""Verify the stores, indexes, results and image files of a workspace."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pa.data.store import find
from pa.data.store.find import StoreSelector, check_workspace
from pa.data.store.image_files import ChangedImage, ImageFiles, hash_of
from pa.data.store.reader import MANIFEST, Store
from pa.data.store.spec import FINGERPRINT_SHOWN
from pa.data.store.verify import Issue, Part, unreadable_spec
from pa.data.store.verify import verify as verify_store
from pa.errors import FingerprintError, MissingError, NewerFormatError, PaError
from pa.maintenance.status import open_stores
from pa.workspace import Workspace

if TYPE_CHECKING:
    from pa.index.stored import IndexInfo

MALFORMED = (LookupError, TypeError, ValueError, AttributeError)  # JSON with unexpected values


@dataclass(frozen=True)
class StoreCheck:
    """A store and its issues. `store` is None if its spec cannot be read.

    `was_complete` is whether the manifest existed: without it, a missing shard is not damage.
    """

    path: Path
    store: Store | None
    issues: list[Issue]
    was_complete: bool

    @property
    def is_complete(self) -> bool:
        return self.store is not None and self.store.is_complete

    @property
    def damage(self) -> list[Issue]:
        known = [issue for issue in self.issues if not issue.newer]
        return [issue for issue in known if self.was_complete or issue.what != "missing"]

    @property
    def newer(self) -> list[Issue]:
        """Files of a newer version of pa, which this one neither reads nor removes."""
        return [issue for issue in self.issues if issue.newer]

    @property
    def lacks_spec(self) -> bool:
        """Whether spec.json is missing; `command` writes it and keeps the good shards."""
        return any(issue.part == "spec" and issue.what == "missing" for issue in self.issues)

    @property
    def command(self) -> str:
        """The command that creates missing and removed files."""
        if self.store is not None:
            return self.store.command
        encoder, view, split, dataset = (folder.name for folder in list(self.path.parents)[:4])
        return (
            f"pa extract --encoder {encoder.replace('--', '/')} --dataset {dataset} "
            f"--split {split} --view {view}"
        )

    def to_json(self) -> dict[str, Any]:
        return {
            "store": str(self.path) if self.store is None else self.store.title,
            "path": str(self.path),
            "complete": self.is_complete,
            "problems": [str(issue) for issue in self.issues],
            "newer": bool(self.newer),
            "command": self.command,
        }


@dataclass(frozen=True)
class CheckResult:
    """An index directory or a result file, and its issue; None if it is good."""

    path: Path
    issue: Issue | None = None

    @classmethod
    def of(cls, path: Path, part: Part, error: Exception) -> CheckResult:
        if not isinstance(error, PaError | OSError):
            name = "index.json" if part == "index" else "it"
            what = f"{name} is damaged: {type(error).__name__}: {error}"
            return cls(path, Issue(path, what, part))
        return cls(path, Issue(path, str(error), part, isinstance(error, NewerFormatError)))

    @property
    def newer(self) -> bool:
        """Whether a newer version of pa wrote it."""
        return self.issue is not None and self.issue.newer

    @property
    def damage(self) -> str | None:
        """Describe removable damage; None if the file is sound or of a newer format."""
        return None if self.issue is None or self.newer else self.issue.what

    def to_json(self) -> dict[str, str | None]:
        return {"problem": None if self.issue is None else self.issue.what}


@dataclass(frozen=True)
class ImageCheck:
    """The images of a store under a root, and those that changed since the extraction."""

    store: Store
    root: Path
    changed: list[ChangedImage]

    def to_json(self) -> dict[str, Any]:
        return {
            "store": self.store.title,
            "root": str(self.root),
            "images": self.store.spec.rows["n_images"],
            "changed": [image.to_json() for image in self.changed],
        }


@dataclass(frozen=True)
class Verification:
    """The checks of a workspace."""

    stores: list[StoreCheck]
    indexes: list[CheckResult]
    results: list[CheckResult]
    images: list[ImageCheck]

    @property
    def others(self) -> list[CheckResult]:
        return [*self.indexes, *self.results]

    @property
    def is_damaged(self) -> bool:
        """Whether a store, an index or a result is damaged."""
        return self.is_repairable or any(check.damage for check in self.stores)

    @property
    def is_repairable(self) -> bool:
        """Whether `repair` would remove something; not if only specs are missing."""
        return any(check.damage and not check.lacks_spec for check in self.stores) or any(
            check.damage for check in self.others
        )

    @property
    def newer(self) -> list[Path]:
        """The stores, indexes and results of a newer version of pa."""
        checks: list[StoreCheck | CheckResult] = [*self.stores, *self.others]
        return [check.path for check in checks if check.newer]

    def to_json(self) -> dict[str, Any]:
        return {
            "stores": [check.to_json() for check in self.stores],
            "indexes": [{"index": str(c.path), **c.to_json()} for c in self.indexes],
            "results": [{"result": str(c.path), **c.to_json()} for c in self.results],
            "images": [check.to_json() for check in self.images],
            "newer": [str(path) for path in self.newer],
        }


def verify(
    workspace: Workspace,
    selector: StoreSelector | None = None,
    *,
    full: bool = True,
    images: bool = False,
) -> Verification:
    """Verify every store that fits, and all indexes and results.

    Parameters
    ----------
    workspace
        The workspace to verify.
    selector
        The stores to verify; by default all of them, also those whose spec is damaged.
    full
        Whether checksums and finiteness are checked, in addition to structure and counts.
    images
        Whether every image file of the undamaged stores is hashed and compared.

    Raises
    ------
    MissingError
        If the workspace does not exist, or no store fits a selector that names something.
    """
    check_workspace(workspace.path)
    stores = list(verify_stores(workspace, selector, full=full))
    good = [check.store for check in stores if check.store is not None and not check.damage]
    return Verification(
        stores,
        list(verify_indexes(workspace, full=full)),
        list(verify_results(workspace, full=full)),
        list(verify_images(workspace, good)) if images else [],
    )


def verify_stores(
    workspace: Workspace, selector: StoreSelector | None = None, *, full: bool = True
) -> Iterator[StoreCheck]:
    """Verify every store that fits; see `pa.data.store.verify`."""
    for path, store, error in open_stores(workspace, selector, required=True):
        if store is None:
            assert error is not None
            issues = [unreadable_spec(path, error)]
        else:
            issues = list(verify_store(store, full=full))
        yield StoreCheck(path, store, issues, was_complete=(path / MANIFEST).exists())


def verify_indexes(workspace: Workspace, *, full: bool = True) -> Iterator[CheckResult]:
    """Verify sizes, and that index.json belongs to its directory; with `full`, all content."""
    from pa.index.stored import check_files, read_info

    root = workspace.config.indexes
    for directory in sorted(root.glob("*/*/*")):
        if not directory.is_dir() or directory.name.endswith(".partial"):
            continue
        try:
            info = read_info(directory)
            if info.key.directory(root) != directory:
                raise FingerprintError(
                    f"{directory} is another index: index.json has {info.fingerprint[:16]}, "
                    f"{info.representation}, {info.factory}. Delete it; it is built again on "
                    f"first use."
                )
            check_files(directory, info, verify=full)
            if full:
                _check_against_store(workspace, directory, info)
            yield CheckResult(directory)
        except (FingerprintError, MissingError, *MALFORMED) as error:
            yield CheckResult.of(directory, "index", error)


def _check_against_store(workspace: Workspace, directory: Path, info: IndexInfo) -> None:
    """Raise `FingerprintError` unless index.json fits its index and its store.

    Skip a deleted store, which is not damage, and everything if FAISS is not installed.
    """
    from pa.index.library import load_faiss
    from pa.index.stored import check_store, open_files

    try:
        load_faiss()  # an optional dependency
    except MissingError:
        return
    selector = StoreSelector(fingerprint=info.fingerprint[:FINGERPRINT_SHOWN])
    for _, store, _ in open_stores(workspace, selector):
        if store is None:
            continue
        if store.is_complete:
            check_store(info, store, directory)
        index = open_files(directory, info, store)
        n_ids = info.n if index.ids is None else len(index.ids)
        n_rows = info.n + info.n_bad + info.n_zero  # indexed, undecodable, and zero vectors
        expected = (info.fingerprint, info.store, info.n, info.n, info.dimension, n_rows)
        n_vectors, width = index.faiss_index.ntotal, index.faiss_index.d
        actual = (store.fingerprint, store.title, n_vectors, n_ids, width, store.n_rows)
        if expected != actual:
            raise FingerprintError(
                f"{directory / 'index.json'} has (fingerprint, store, vectors, ids, width, rows) "
                f"{expected}, found {actual}. Delete {directory}; it is built again on first use."
            )


def verify_results(workspace: Workspace, *, full: bool = True) -> Iterator[CheckResult]:
    """Verify the checksum of every result, and the sizes of its tables and heads.

    With `full`, their checksums too. A result whose store was deleted is good; one whose store has
    other features now is damaged.
    """
    from pa.evaluate.result_files import check_stores, read_result

    checksums = find.checksums(workspace.config.features)  # by fingerprint
    for path in sorted(workspace.config.results.glob("*/*.json")):
        try:
            file = read_result(path)
            check_stores(file, checksums)
            what = file.difference(full=full)
            yield CheckResult(path, None if what is None else Issue(path, what, "result"))
        except (PaError, OSError, *MALFORMED) as error:
            yield CheckResult.of(path, "result", error)


def verify_images(workspace: Workspace, stores: list[Store]) -> Iterator[ImageCheck]:
    """Hash every image file of every store; a file that several stores share is read once.

    The root is that of the extraction or, if it no longer exists, that of the settings.
    """
    hash_once = cache(hash_of)  # by path: stores share image files
    for store in stores:
        root = Path(str(store.source["root"]))
        entry = workspace.settings.datasets.get(store.spec.dataset)
        if entry is not None and not root.is_dir():
            root = workspace.config.path(entry.root)
        changed = ImageFiles(store, root).changed(full=True, hasher=hash_once)
        yield ImageCheck(store, root, changed)
