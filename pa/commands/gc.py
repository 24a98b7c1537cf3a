"""`pa gc`: list unused files; delete them with --delete."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from pa.commands import console, options

if TYPE_CHECKING:
    from pa.maintenance.gc import Garbage
    from pa.workspace import Workspace

SHOWN = 50  # lines in the terminal; --json lists all


@click.command()
@click.option("--delete", is_flag=True, help="Delete the listed files.")
@click.option(
    "--unfinished",
    callback=options.listed,
    metavar="FINGERPRINT",
    help="Include these incomplete stores: first digits of fingerprints, with commas.",
)
@click.option(
    "--host",
    "hosts",
    callback=options.listed,
    help="Include partial files of these hosts, with commas. Use it only if no process runs there.",
)
@options.as_json
@options.workspace
def gc(
    workspace: Workspace,
    delete: bool,
    unfinished: tuple[str, ...],
    hosts: tuple[str, ...],
    as_json: bool,
) -> None:
    """List unused files, and delete them with --delete.

    Unused are partial files of dead processes, indexes of deleted stores, tables and heads of
    deleted results, locks of complete stores, and empty folders.
    """
    from pa.maintenance import gc

    garbage = gc.find_garbage(workspace, unfinished=unfinished, hosts=hosts)
    deleted = gc.delete(garbage) if delete else None
    if as_json:
        options.emit(
            {
                "garbage": [entry.to_json() for entry in garbage],
                "bytes": sum(entry.bytes for entry in garbage if entry.deletable),
                "deleted": [str(entry.path) for entry in deleted or ()],
            }
        )
    else:
        console.out(garbage_text(garbage, deleted))


def garbage_text(garbage: Sequence[Garbage], deleted: Sequence[Garbage] | None) -> str:
    """Return the garbage with sizes; `deleted` is None if it was only listed."""
    if not garbage:
        return "nothing to delete."
    rows = [[console.size(e.bytes), e.kind, str(e.path), e.why] for e in garbage]
    lines = [console.table(["size", "what", "path", "why"], rows[:SHOWN], "r")]
    if len(rows) > SHOWN:
        lines.append(f"… and {len(rows) - SHOWN} more; --json lists all")
    total = [entry for entry in garbage if entry.deletable] if deleted is None else deleted
    size = console.size(sum(entry.bytes for entry in total))
    verb = "\n--delete deletes" if deleted is None else "\ndeleted"
    lines.append(f"{verb} {len(total)} of {len(garbage)}, {size}.")
    return "\n".join(lines)
