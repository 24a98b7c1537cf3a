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
@click.option("--quick", is_flag=True, help="Check structure and counts, but no checksums.")
@click.option(
    "--repair", is_flag=True, help="Remove damaged files so that their commands can recreate them."
)
@click.option("--images", is_flag=True, help="Also hash every image file and compare.")
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
    """Read stores, indexes and results back: structure, counts, checksums, NaN.

    Exit code 5 means that something is damaged. --repair removes damaged files, and the indexes,
    results and figures that were made from damaged features; the commands that made them make them
    again. Exit code 6 then means that something was removed; without --repair, that a store is not
    complete. A store whose spec.json is missing stays as it is. Files of a newer version of pa are
    listed and stay, also with --repair: exit code 4.

    --images compares the image files with those that the stores were made from: exit code 5 means
    that one changed or cannot be read. --repair leaves their stores as they are;
    `pa extract --replace` encodes the images that changed.
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
        lines += ["\nwritten by a newer version of pa, and left as it is:"]
        lines += [f"  {path}" for path in verification.newer]
    if hint and verification.is_repairable:
        lines.append("\nremove what is damaged, and only that, with: pa verify --repair")
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
        lines.append(f"  make what is missing with: {check.command}")
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
            lines.append(f"  encode what changed with: {check.store.command} --replace")
    return lines


def removed_text(removed: Sequence[Removed]) -> str:
    """Return what was removed, and the commands that make it again."""
    if not removed:
        return "nothing was removed: no file is damaged."
    lines = [f"removed {entry.path}: {entry.why}" for entry in removed]
    lines.append("\nmake it again with the commands that made it, such as:")
    lines += [f"  {command}" for command in dict.fromkeys(entry.command for entry in removed)]
    return "\n".join(lines)
