"""`pa verify`: read stores, indexes and results back; remove damaged files with --repair."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from pa.commands import console, options
from pa.errors import EXIT_PARTLY_DONE, NewerFormatError, UsageError, VerificationError

if TYPE_CHECKING:
    from pa.data.store.find import StoreSelector
    from pa.maintenance.repair import Removed
    from pa.maintenance.verify import ImageCheck, StoreCheck, Verification
    from pa.workspace import Workspace

IMAGES_SHOWN = 10  # changed images in the terminal; --json lists all


@click.command()
@options.stores
@click.option("--quick", is_flag=True, help="Check structure and counts only, not checksums.")
@click.option(
    "--repair", is_flag=True, help="Remove damaged files so that their commands can recreate them."
)
@click.option(
    "--images",
    is_flag=True,
    help="Hash every image file and compare it with the one that was encoded.",
)
@options.as_json
@options.workspace
def verify(
    workspace: Workspace,
    selector: StoreSelector,
    quick: bool,
    repair: bool,
    images: bool,
    as_json: bool,
) -> None:
    """Check stores, indexes and results: structure, counts, checksums and NaN.

    Exit code 5: something is damaged. --repair removes damaged files, and the indexes, results and
    figures that were computed from damaged features; run their commands again to recreate them.
    Exit code 6: files were removed, or, without --repair, a store is incomplete. A store without
    spec.json is never changed. Files that a newer version wrote are listed and never changed:
    exit code 4.

    --images compares the image files with those that were encoded: exit code 5 if a file changed or
    cannot be read. --repair does not change their stores; `pa extract --replace` encodes the
    changed images again.
    """
    from pa.maintenance import repair as repairing
    from pa.maintenance.verify import verify

    if quick and repair:
        raise UsageError("--repair checks everything before it removes files: leave out --quick.")
    verification = verify(workspace, selector, full=not quick, images=images)
    removed = repairing.repair(workspace, verification) if repair else None
    if as_json:
        removals = None if removed is None else [entry.to_json() for entry in removed]
        options.emit({**verification.to_json(), "removed": removals})
    else:
        console.out(verification_text(verification, hint=not repair))
        if verification.images:
            console.out("\n".join(_image_lines(verification.images)))
        if removed is not None:
            console.out(removed_text(removed))
    changed = any(check.changed for check in verification.images)
    if changed or (not repair and verification.is_damaged):
        sys.exit(VerificationError.exit_code)
    if verification.newer:
        sys.exit(NewerFormatError.exit_code)
    if removed or any(not check.is_complete for check in verification.stores):
        sys.exit(EXIT_PARTLY_DONE)


def verification_text(verification: Verification, *, hint: bool) -> str:
    """Return the issues of every store, index and result; with `hint`, how to repair them."""
    indexes, results = verification.indexes, verification.results
    if not verification.stores and not indexes and not results:
        return "nothing to verify."
    lines = [line for check in verification.stores for line in _store_lines(check)]
    lines += [f"index {c.path}: {c.issue.what if c.issue else 'good'}" for c in indexes]
    if results:
        bad = [check.issue for check in results if check.issue is not None]
        newer = sum(issue.newer for issue in bad)
        counts = f"results: {len(results) - len(bad)} good, {len(bad) - newer} damaged"
        lines.append(counts + (f", {newer} newer" if newer else ""))
        lines += [f"  {issue.file}: {issue.what}" for issue in bad]
    if verification.newer:
        lines += ["\nwritten by a newer version of pa, and left unchanged:"]
        lines += [f"  {path}" for path in verification.newer]
    if hint and verification.is_repairable:
        lines.append("\nremove the damaged files with: pa verify --repair")
    return "\n".join(lines)


def _store_lines(check: StoreCheck) -> list[str]:
    from pa.data.store.reader import SPEC_AGAIN

    store, damage = check.store, check.damage
    count = "1 problem" if len(damage) == 1 else f"{len(damage)} problems"
    state = count if damage else "newer" if check.newer else "good"
    if store is None:
        lines = [f"{check.path}: {state}"]
    else:
        missing = Counter(issue.what for issue in check.issues)["missing"]
        complete = "complete" if store.is_complete else f"{missing} shards to do"
        lines = [f"{store.title}: {state} ({complete}, {store.n_rows} rows)"]
    lines += [f"  {issue}" for issue in (*damage, *check.newer)]
    if check.lacks_spec:
        lines.append(f"  {SPEC_AGAIN}\n  As far as the folders show it: {check.command}")
    elif check.issues and not damage and not check.newer:
        lines.append(f"  create the missing files with: {check.command}")
    return lines


def _image_lines(checks: Sequence[ImageCheck]) -> list[str]:
    lines = []
    for check in checks:
        n, changed = check.store.spec.rows["n_images"], check.changed
        state = f"{len(changed)} of {n} changed or not readable" if changed else f"all {n} good"
        lines.append(f"images of {check.store.title} under {check.root}: {state}")
        lines += [f"  {image}" for image in changed[:IMAGES_SHOWN]]
        if len(changed) > IMAGES_SHOWN:
            lines.append(f"  … and {len(changed) - IMAGES_SHOWN} more; all with --json")
        if changed:
            lines.append(f"  encode the changed images with: {check.store.command} --replace")
    return lines


def removed_text(removed: Sequence[Removed]) -> str:
    """Return the removed files, and the commands that recreate them."""
    if not removed:
        return "nothing was removed: no file is damaged."
    lines = [f"removed {entry.path}: {entry.why}" for entry in removed]
    lines.append("\nrecreate them with the commands that wrote them, such as:")
    lines += [f"  {command}" for command in dict.fromkeys(entry.command for entry in removed)]
    return "\n".join(lines)
